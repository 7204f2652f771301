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
}
