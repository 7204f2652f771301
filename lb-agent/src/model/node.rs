//! Nodes, as far as forwarding depends on them.

use std::net::IpAddr;
use std::sync::Arc;

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub name: Arc<str>,
    /// Label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// `status.addresses`: those of type InternalIP in their order, then those of type ExternalIP.
    pub addresses: Vec<IpAddr>,
    /// The Node has a deletion timestamp, or the taint by which the cluster autoscaler announces the deletion (HZ-02,
    /// HZ-06).
    pub is_leaving: bool,
}

impl Node {
    /// Whether forwarding is the same on both.
    pub fn forwards_like(&self, other: &Self) -> bool {
        (&self.zone, &self.addresses) == (&other.zone, &other.addresses)
    }
}
