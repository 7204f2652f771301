//! The annotations and labels by which vendors' controllers learn that traffic must go through their balancer
//! (`--vendor-annotations`).
//!
//! Keys and spellings are those of the controllers themselves. They matter if the status lacks the mode: on clusters
//! before Kubernetes 1.30, and with controllers that do not write `ipMode`. If a controller publishes only a host name,
//! nothing is intercepted, with or without this list.

use lb_common::table::Mode;

use crate::model::{LABELS, Service, TrafficPolicy};

pub mod header;

/// An annotation or label, and how the vendor's controller reads it.
type Rule = (&'static str, Reading);

/// How a value is read. If a value decides nothing, the next rule is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// `VIP` or `Proxy`, as in the API.
    Mode,
    /// The same in any case.
    ModeInAnyCase,
    /// A value that Go's `strconv.ParseBool` reads as true: Proxy.
    True,
    /// One of these words: Proxy.
    Word(&'static [&'static str]),
    /// Any value that is not empty: Proxy. Either a host name, which forces clients through the balancer, or a
    /// certificate.
    Present,
    /// The list contains one of these words: Proxy.
    Item(&'static [&'static str]),
    /// The list contains an item such as `443:https` or `https:443` with one of these protocols: Proxy.
    Protocol(&'static [&'static str]),
    /// `*`, true, or a list that names every port of the Service: Proxy.
    PortNames,
    /// `*`, true, or a list that has the number of every port of the Service: Proxy. If only some ports are listed, the
    /// controller also reports VIP.
    Ports,
    /// `true`, or `onlyLocal` if the external traffic policy is Local: Proxy.
    PassThrough,
    /// True and not limited to some ports: Proxy.
    TrueForAllPorts { filter: &'static str },
}

/// The first rule that decides wins. Within a vendor the explicit rules come first.
const RULES: &[Rule] = &[
    // cloudscale.ch. Older clusters have the pool protocol and the forced host name.
    ("k8s.cloudscale.ch/loadbalancer-ip-mode", Reading::Mode),
    ("k8s.cloudscale.ch/loadbalancer-pool-protocol", Reading::Word(&["proxy", "proxyv2"])),
    ("k8s.cloudscale.ch/loadbalancer-force-hostname", Reading::Present),
    // OpenStack Octavia, also used by SysEleven MetaKube.
    ("loadbalancer.openstack.org/proxy-protocol", Reading::Word(&["true", "v1", "v2"])),
    ("loadbalancer.openstack.org/default-tls-container-ref", Reading::Present),
    // Hetzner Cloud.
    ("load-balancer.hetzner.cloud/uses-proxyprotocol", Reading::True),
    ("load-balancer.hetzner.cloud/hostname", Reading::Present),
    ("load-balancer.hetzner.cloud/protocol", Reading::Word(&["https"])),
    ("load-balancer.hetzner.cloud/protocol-ports", Reading::Protocol(&["https"])),
    // DigitalOcean.
    ("service.beta.kubernetes.io/do-loadbalancer-enable-proxy-protocol", Reading::True),
    ("service.beta.kubernetes.io/do-loadbalancer-hostname", Reading::Present),
    ("service.beta.kubernetes.io/do-loadbalancer-certificate-id", Reading::Present),
    // Scaleway.
    ("service.beta.kubernetes.io/scw-loadbalancer-ip-mode", Reading::Mode),
    ("service.beta.kubernetes.io/scw-loadbalancer-proxy-protocol-v1", Reading::Ports),
    ("service.beta.kubernetes.io/scw-loadbalancer-proxy-protocol-v2", Reading::Ports),
    ("service.beta.kubernetes.io/scw-loadbalancer-use-hostname", Reading::True),
    ("service.beta.kubernetes.io/scw-loadbalancer-certificate-ids", Reading::Present),
    // Linode.
    ("service.beta.kubernetes.io/linode-loadbalancer-default-proxy-protocol", Reading::Word(&["v1", "v2"])),
    ("service.beta.kubernetes.io/linode-loadbalancer-hostname-only-ingress", Reading::True),
    // Oracle OKE, both kinds of balancer. Its documentation writes `proxy`.
    ("oci.oraclecloud.com/ingress-ip-mode", Reading::ModeInAnyCase),
    ("service.beta.kubernetes.io/oci-load-balancer-connection-proxy-protocol-version", Reading::Word(&["1", "2"])),
    ("oci-network-load-balancer.oraclecloud.com/is-ppv2-enabled", Reading::True),
    ("service.beta.kubernetes.io/oci-load-balancer-ssl-ports", Reading::Present),
    // Outscale.
    ("service.beta.kubernetes.io/osc-load-balancer-ingress-ipmode", Reading::Mode),
    ("service.beta.kubernetes.io/osc-load-balancer-proxy-protocol", Reading::Ports),
    // STACKIT.
    ("lb.stackit.cloud/ip-mode-proxy", Reading::True),
    (
        "lb.stackit.cloud/tcp-proxy-protocol",
        Reading::TrueForAllPorts { filter: "lb.stackit.cloud/tcp-proxy-protocol-ports-filter" },
    ),
    // VMware NSX: labels, in lower case.
    (LABELS[0], Reading::ModeInAnyCase),
    (LABELS[1], Reading::ModeInAnyCase),
    // Huawei CCE and CCE Turbo. The controller itself writes `onlyLocal`. Its documentation does not explain the value;
    // the meaning is inferred from the name.
    ("kubernetes.io/elb.pass-through", Reading::PassThrough),
    // CloudStack.
    ("service.beta.kubernetes.io/cloudstack-load-balancer-proxy-protocol", Reading::Word(&["true"])),
    ("service.beta.kubernetes.io/cloudstack-load-balancer-hostname", Reading::Present),
    // Vultr. It terminates TLS if it is given a secret.
    ("service.beta.kubernetes.io/vultr-loadbalancer-proxy-protocol", Reading::True),
    ("service.beta.kubernetes.io/vultr-loadbalancer-hostname", Reading::Present),
    ("service.beta.kubernetes.io/vultr-loadbalancer-ssl", Reading::Present),
    // Alibaba Cloud, CLB and NLB.
    ("service.beta.kubernetes.io/alibaba-cloud-loadbalancer-proxy-protocol", Reading::Word(&["on"])),
    ("service.beta.kubernetes.io/alibaba-cloud-loadbalancer-hostname", Reading::Present),
    ("service.beta.kubernetes.io/alibaba-cloud-loadbalancer-protocol-port", Reading::Protocol(&["https", "tcpssl"])),
    // OVHcloud, before it used Octavia.
    ("service.beta.kubernetes.io/ovh-loadbalancer-proxy-protocol", Reading::Word(&["v1", "v2", "v2-ssl", "v2-ssl-cn"])),
    // Brightbox. It terminates TLS for the given domains.
    (
        "service.beta.kubernetes.io/brightbox-load-balancer-listener-proxy-protocol",
        Reading::Word(&["v1", "v2", "v2-ssl", "v2-ssl-cn"]),
    ),
    ("service.beta.kubernetes.io/brightbox-load-balancer-ssl-domains", Reading::Present),
    // Civo.
    ("kubernetes.civo.com/loadbalancer-enable-proxy-protocol", Reading::Word(&["send-proxy", "send-proxy-v2"])),
    // IBM Cloud: a list of features.
    ("service.kubernetes.io/ibm-load-balancer-cloud-provider-enable-features", Reading::Item(&["proxy-protocol"])),
    // Volcengine.
    ("service.beta.kubernetes.io/volcengine-loadbalancer-proxy-protocol", Reading::Word(&["standard"])),
    // VNG Cloud: a list of port names.
    ("vks.vngcloud.vn/enable-proxy-protocol", Reading::PortNames),
    // NAVER Cloud.
    ("service.beta.kubernetes.io/ncloud-load-balancer-proxy-protocol", Reading::Word(&["true"])),
];

/// The annotations that are read.
pub fn keys() -> impl Iterator<Item = &'static str> {
    RULES.iter().flat_map(|(key, reading)| {
        let filter = match reading {
            Reading::TrueForAllPorts { filter } => Some(*filter),
            _ => None,
        };
        [Some(*key).filter(|key| !LABELS.contains(key)), filter].into_iter().flatten()
    })
}

/// The mode that a vendor's controller was asked for, and the key that asked for it.
pub fn mode(service: &Service) -> Option<(Mode, &'static str)> {
    RULES.iter().find_map(|(key, reading)| Some((reading.mode(value(key, service)?, service)?, *key)))
}

/// The value of an annotation or label.
fn value<'a>(key: &str, service: &'a Service) -> Option<&'a str> {
    let annotation = || service.annotations.get(key).map(|value| &**value);
    if LABELS.contains(&key) { service.label(key) } else { annotation() }
}

impl Reading {
    fn mode(self, value: &str, service: &Service) -> Option<Mode> {
        match self {
            Self::Mode => named(value),
            Self::ModeInAnyCase => named_in_any_case(value),
            _ => self.holds(value, service).then_some(Mode::Proxy),
        }
    }

    /// Whether the value asks for something that only the balancer does.
    fn holds(self, value: &str, service: &Service) -> bool {
        match self {
            Self::Mode | Self::ModeInAnyCase => false,
            Self::True => is_true(value),
            Self::Word(words) => words.contains(&value),
            Self::Present => !value.is_empty(),
            Self::Item(words) => items(value).any(|item| words.contains(&item)),
            Self::Protocol(words) => items(value).filter_map(|item| item.split_once(':')).any(|(one, other)| {
                words.iter().any(|word| word.eq_ignore_ascii_case(one) || word.eq_ignore_ascii_case(other))
            }),
            Self::PortNames => names_all_ports_by_name(value, service),
            Self::Ports => names_all_ports(value, service),
            Self::PassThrough => {
                value == "true" || value == "onlyLocal" && service.external_policy == TrafficPolicy::Local
            }
            Self::TrueForAllPorts { filter } => is_true(value) && !service.annotations.contains_key(filter),
        }
    }
}

fn named(value: &str) -> Option<Mode> {
    match value {
        "VIP" => Some(Mode::VIP),
        "Proxy" => Some(Mode::Proxy),
        _ => None,
    }
}

fn named_in_any_case(value: &str) -> Option<Mode> {
    let is = |word| value.eq_ignore_ascii_case(word);
    if is("vip") {
        Some(Mode::VIP)
    } else if is("proxy") {
        Some(Mode::Proxy)
    } else {
        None
    }
}

/// The spellings that Go's `strconv.ParseBool` reads as true.
fn is_true(value: &str) -> bool {
    matches!(value, "1" | "t" | "T" | "TRUE" | "true" | "True")
}

/// The items of a list.
fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

fn names_all_ports_by_name(value: &str, service: &Service) -> bool {
    let listed = |name: &str| items(value).any(|item| item == name);
    let is_every = value == "*" || is_true(value);
    is_every || !service.ports.is_empty() && service.ports.iter().all(|port| listed(&port.name))
}

fn names_all_ports(value: &str, service: &Service) -> bool {
    // `1` is a port here.
    if value == "*" || (value != "1" && is_true(value)) {
        return true;
    }
    let listed = |port: u16| items(value).any(|item| item.parse() == Ok(port));
    !service.ports.is_empty() && service.ports.iter().all(|port| listed(port.port))
}

#[cfg(test)]
mod tests;
