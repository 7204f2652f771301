//! Services: addresses, ports and policies, as in the API.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use lb_common::addr::{Family, Proto};

use super::{ObjectName, Prefix};

/// The labels that are kept: vendors' controllers read the mode from them.
pub const LABELS: [&str; 2] = ["nsx.vmware.com/ingress-ip-mode", "tanzu.vmware.com/ingress-ip-mode"];

/// A Service with its load-balancer status.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    pub name: ObjectName,
    /// Seconds since 1970. `None` (a hand-written object) counts as the youngest.
    pub created_secs: Option<i64>,
    pub service_type: ServiceType,
    /// Label `service.kubernetes.io/service-proxy-name` is present: another proxy serves it (FLT-01).
    pub served_elsewhere: bool,
    /// The annotations that policy reads ([`AnnotationKeys`](super::AnnotationKeys)).
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
    /// The labels in [`LABELS`]. Few Services have any.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Whether the Service has a selector. If so, the API server makes its Endpoints and mirrors none.
    pub has_selector: bool,
    /// `clusterIP: None`.
    pub headless: bool,
    /// At most one per family. Empty if the Service is headless or has no address yet.
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
    pub ingress: Vec<IngressEntry>,
    /// Some entries of the status have a host name and no IP; they are not in `ingress` (IPM-06).
    pub host_names: HostNames,
    pub external_policy: TrafficPolicy,
    pub internal_policy: TrafficPolicy,
    /// The time-out of `sessionAffinity: ClientIP`: 1 second to a day.
    pub affinity_secs: Option<NonZeroU32>,
    /// `spec.loadBalancerSourceRanges` of both families.
    pub source_ranges: Vec<SourceRange>,
    /// The TCP port of every node at which the balancer asks whether the node has endpoints.
    pub health_check_node_port: Option<u16>,
}

impl Service {
    /// Whether it has a cluster address of this family. In the other family it is not served (IPM-09).
    pub fn has_family(&self, family: Family) -> bool {
        self.cluster_ips.iter().any(|ip| ip.is_ipv4() == (family == Family::V4))
    }

    /// The value of one of [`LABELS`].
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| **known == *key).map(|(_, value)| &**value)
    }
}

/// Whether entries of the status have a host name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostNames {
    Absent,
    Present,
}

/// `spec.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceType {
    ClusterIP,
    NodePort,
    LoadBalancer,
    ExternalName,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Empty if the only port has no name.
    pub name: Arc<str>,
    pub proto: Proto,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// An entry of `status.loadBalancer.ingress` with an IP. Entries with only a host name are never resolved (IPM-06), so
/// they are not kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IngressEntry {
    /// Position in the list, for warnings.
    pub index: u32,
    pub ip: IpAddr,
    pub ip_mode: Option<IpMode>,
}

/// `ipMode` of an ingress entry. An unknown value is kept as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IpMode {
    VIP,
    Proxy,
    /// Any other string: not intercepted (IPM-08).
    Unknown(Box<str>),
}

/// An entry of `spec.loadBalancerSourceRanges`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceRange {
    /// Clients in this prefix are allowed.
    Prefix(Prefix),
    /// The text is not a prefix and allows no client: a list that holds only mistakes must not allow all clients. The
    /// family is guessed from the text.
    Unreadable(Family),
}

impl SourceRange {
    pub const fn family(&self) -> Family {
        match self {
            Self::Prefix(prefix) => prefix.family(),
            Self::Unreadable(family) => *family,
        }
    }

    pub const fn prefix(&self) -> Option<Prefix> {
        match self {
            Self::Prefix(prefix) => Some(*prefix),
            Self::Unreadable(_) => None,
        }
    }
}

/// `internalTrafficPolicy`, `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    Cluster,
    Local,
}
