//! A claim: an address that a Service wants to answer on, with its mode.

use std::net::IpAddr;

use lb_common::table::{Mode, Origin, Rule};

use super::table::KubeProxy;
use crate::model::ServicePort;

/// One address of a Service; all its ports are served there (IPM-13: `ports[]` of the entry is ignored).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub ip: IpAddr,
    pub origin: Origin,
    /// The best of the fields that name the address.
    pub rank: Rank,
    pub mode: Mode,
    pub decided_by: Rule,
    /// Whether kube-proxy serves the address as well, by any entry.
    pub kube_proxy: KubeProxy,
}

/// Who assigned an address: what one says wins over what those after it say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// The cluster: `spec.clusterIPs`.
    Cluster,
    /// The balancer's controller: `status.loadBalancer.ingress`.
    Balancer,
    /// Whoever wrote the Service: `spec.externalIPs`.
    Author,
    /// Nobody named it: a node port.
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
    /// An address whose owner is the cluster, so that no balancer's mode applies to it.
    pub const fn of_cluster(ip: IpAddr, origin: Origin) -> Self {
        Self {
            ip,
            origin,
            rank: Rank::of(origin),
            mode: Mode::VIP,
            decided_by: Rule::NotApplicable,
            kube_proxy: KubeProxy::LeavesAlone,
        }
    }

    /// Whether anybody is to be served here. Split and Router serve in part and count as serving, Router also while it has
    /// no endpoint: an address does not change hands with every restart of a pod.
    pub fn is_served(&self) -> bool {
        self.mode != Mode::Proxy
    }

    /// Whether it is a balancer's address that somebody is served at.
    pub fn is_vip(&self) -> bool {
        self.origin == Origin::LoadBalancer && self.is_served()
    }

    /// The port that clients dial here; `None` where this port of the Service is not served at such an address.
    pub const fn port(&self, port: &ServicePort) -> Option<u16> {
        match self.origin {
            Origin::NodePort => port.node_port,
            Origin::LoadBalancer | Origin::ExternalIP | Origin::ClusterIP => Some(port.port),
        }
    }
}
