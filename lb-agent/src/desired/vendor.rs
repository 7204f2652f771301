//! Annotations by which vendors say that their balancer must see the traffic (`--vendor-annotations`).

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::table::Mode;

/// Key, value, and what it means. The first that matches decides.
const ANNOTATIONS: &[(&str, &str, Mode)] = &[
    ("k8s.cloudscale.ch/loadbalancer-ip-mode", "Proxy", Mode::Proxy),
    ("k8s.cloudscale.ch/loadbalancer-ip-mode", "VIP", Mode::VIP),
    ("k8s.cloudscale.ch/loadbalancer-pool-protocol", "proxy", Mode::Proxy),
    ("k8s.cloudscale.ch/loadbalancer-pool-protocol", "proxyv2", Mode::Proxy),
    ("loadbalancer.openstack.org/proxy-protocol", "true", Mode::Proxy),
    ("kubernetes.io/elb.pass-through", "true", Mode::Proxy),
    ("load-balancer.hetzner.cloud/uses-proxyprotocol", "true", Mode::Proxy),
    // Lower case is the annotation's own spelling.
    ("oci.oraclecloud.com/ingress-ip-mode", "proxy", Mode::Proxy),
    ("oci.oraclecloud.com/ingress-ip-mode", "VIP", Mode::VIP),
];

/// The mode that a vendor's annotation asks for.
pub fn mode(annotations: &BTreeMap<Arc<str>, Arc<str>>) -> Option<Mode> {
    let mut known = ANNOTATIONS.iter();
    known.find(|(key, value, _)| annotations.get(*key).is_some_and(|found| **found == **value)).map(|entry| entry.2)
}
