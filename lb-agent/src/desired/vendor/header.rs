//! What vendors' annotations say about PROXY headers: the version that the balancer writes, and work of the balancer that a
//! header does not replace.

use lb_common::table::HeaderVersion;

use super::{Reading, items, value};
use crate::desired::header::{Header, Headers, Ports};
use crate::model::Service;

/// A value that states a version, for all ports or for those that it lists.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stated {
    /// These words.
    Words(&'static [(&'static str, HeaderVersion)]),
    /// True: this version.
    True(HeaderVersion),
    /// `*`, true, or a list of ports: this version.
    Ports(HeaderVersion),
}

use HeaderVersion::{V1, V2};

/// Only annotations of which the value or the documentation of the controller states the version. Variants with TLVs
/// (`v2-ssl`) are not among them: this node cannot write those.
pub(super) const RULES: &[(&str, Stated)] = &[
    ("k8s.cloudscale.ch/loadbalancer-pool-protocol", Stated::Words(&[("proxy", V1), ("proxyv2", V2)])),
    ("loadbalancer.openstack.org/proxy-protocol", Stated::Words(&[("true", V1), ("v1", V1), ("v2", V2)])),
    ("service.beta.kubernetes.io/scw-loadbalancer-proxy-protocol-v1", Stated::Ports(V1)),
    ("service.beta.kubernetes.io/scw-loadbalancer-proxy-protocol-v2", Stated::Ports(V2)),
    ("service.beta.kubernetes.io/linode-loadbalancer-default-proxy-protocol", Stated::Words(&[("v1", V1), ("v2", V2)])),
    (
        "service.beta.kubernetes.io/oci-load-balancer-connection-proxy-protocol-version",
        Stated::Words(&[("1", V1), ("2", V2)]),
    ),
    ("oci-network-load-balancer.oraclecloud.com/is-ppv2-enabled", Stated::True(V2)),
    ("service.beta.kubernetes.io/ovh-loadbalancer-proxy-protocol", Stated::Words(&[("v1", V1), ("v2", V2)])),
    (
        "service.beta.kubernetes.io/brightbox-load-balancer-listener-proxy-protocol",
        Stated::Words(&[("v1", V1), ("v2", V2)]),
    ),
    (
        "kubernetes.civo.com/loadbalancer-enable-proxy-protocol",
        Stated::Words(&[("send-proxy", V1), ("send-proxy-v2", V2)]),
    ),
];

/// Annotations by which a balancer terminates TLS: backends get clear text, which no header replaces.
const TLS: &[(&str, Reading)] = &[
    ("loadbalancer.openstack.org/default-tls-container-ref", Reading::Present),
    ("load-balancer.hetzner.cloud/protocol", Reading::Word(&["https"])),
    ("load-balancer.hetzner.cloud/protocol-ports", Reading::Protocol(&["https"])),
    ("service.beta.kubernetes.io/do-loadbalancer-certificate-id", Reading::Present),
    ("service.beta.kubernetes.io/scw-loadbalancer-certificate-ids", Reading::Present),
    ("service.beta.kubernetes.io/linode-loadbalancer-default-protocol", Reading::Word(&["https"])),
    ("service.beta.kubernetes.io/oci-load-balancer-ssl-ports", Reading::Present),
    ("service.beta.kubernetes.io/vultr-loadbalancer-ssl", Reading::Present),
    ("service.beta.kubernetes.io/alibaba-cloud-loadbalancer-protocol-port", Reading::Protocol(&["https", "tcpssl"])),
    ("service.beta.kubernetes.io/brightbox-load-balancer-ssl-domains", Reading::Present),
    ("service.beta.kubernetes.io/aws-load-balancer-ssl-cert", Reading::Present),
];

/// The annotations that say which header a balancer writes.
pub fn version_keys() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(key, _)| *key)
}

/// The annotations that say whether a balancer terminates TLS.
pub fn tls_keys() -> impl Iterator<Item = &'static str> {
    TLS.iter().map(|(key, _)| *key)
}

/// The headers that the vendor's balancer writes, if an annotation states any.
pub fn stated(service: &Service) -> Option<Headers> {
    let headers = RULES.iter().filter_map(|(key, stated)| {
        let (version, ports) = stated.of(value(key, service)?)?;
        Some(Header { version, ports, key })
    });
    Some(Headers(headers.collect())).filter(|headers| !headers.0.is_empty())
}

/// The annotation by which the balancer terminates TLS.
pub fn terminates_tls(service: &Service) -> Option<&'static str> {
    TLS.iter()
        .find(|(key, reading)| value(key, service).is_some_and(|value| reading.holds(value, service)))
        .map(|(key, _)| *key)
}

impl Stated {
    fn of(&self, value: &str) -> Option<(HeaderVersion, Ports)> {
        let is_true = super::is_true(value);
        match self {
            Self::Words(words) => {
                words.iter().find(|(word, _)| *word == value).map(|(_, version)| (*version, Ports::All))
            }
            Self::True(version) => is_true.then_some((*version, Ports::All)),
            // `1` is a port here.
            Self::Ports(version) if value == "*" || (value != "1" && is_true) => Some((*version, Ports::All)),
            Self::Ports(version) => {
                let ports: Option<Vec<u16>> = items(value).map(|item| item.parse().ok()).collect();
                ports.map(|ports| (*version, Ports::Only(ports)))
            }
        }
    }
}
