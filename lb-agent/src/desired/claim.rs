//! A claim: an address that a Service wants to serve, with its mode.

use std::net::IpAddr;

use lb_common::table::{HeaderVersion, Mode, Origin, Rule};

use super::table::KubeProxy;
use crate::model::ServicePort;

/// One address of a Service. All ports of the Service are served there (IPM-13: `ports[]` of the entry is ignored).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub ip: IpAddr,
    pub origin: Origin,
    /// The highest rank among the fields that name the address.
    pub rank: Rank,
    pub mode: Mode,
    pub decided_by: Rule,
    /// The PROXY header that connections begin with.
    pub header: Option<HeaderVersion>,
    /// Whether kube-proxy serves the address too, because of any entry.
    pub kube_proxy: KubeProxy,
}

/// Who assigned an address. Earlier variants win over later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The cluster: `spec.clusterIPs`.
    Cluster,
    /// The balancer's controller: `status.loadBalancer.ingress`.
    Balancer,
    /// The author of the Service: `spec.externalIPs`.
    Author,
    /// Not named by any field: a node port.
    Port,
}

impl Rank {
    pub const fn of(origin: Origin) -> Self {
        match origin {
            Origin::ClusterIP => Self::Cluster,
            Origin::LoadBalancer => Self::Balancer,
            Origin::ExternalIP => Self::Author,
            Origin::NodePort => Self::Port,
        }
    }
}

impl Claim {
    /// An address that belongs to the cluster, so that no balancer's mode applies.
    pub const fn of_cluster(ip: IpAddr, origin: Origin) -> Self {
        Self {
            ip,
            origin,
            rank: Rank::of(origin),
            mode: Mode::VIP,
            decided_by: Rule::NotApplicable,
            header: None,
            kube_proxy: KubeProxy::LeavesAlone,
        }
    }

    /// Whether any client may be served here. Split and Router count as served. So does Router without endpoints: an
    /// address must not change its owner with every restart of a pod.
    pub fn is_served(&self) -> bool {
        self.mode != Mode::Proxy
    }

    /// Whether this is a balancer's address that serves any client.
    pub fn is_vip(&self) -> bool {
        self.origin == Origin::LoadBalancer && self.is_served()
    }

    /// The port that clients dial here. `None` if this Service port is not served at such an address.
    pub const fn port(&self, port: &ServicePort) -> Option<u16> {
        match self.origin {
            Origin::NodePort => port.node_port,
            Origin::LoadBalancer | Origin::ExternalIP | Origin::ClusterIP => Some(port.port),
        }
    }
}
