//! What the rows of every Service depend on besides its own objects.

use super::endpoint::Here;
use super::node_port::NodePorts;
use super::policy::Policy;
use super::protected::Protected;
use crate::model::World;

/// The settings, this node, and the addresses that belong to the cluster.
pub struct Facts<'a> {
    pub policy: &'a Policy,
    pub here: Here<'a>,
    pub node_ports: NodePorts,
    pub protected: Protected<'a>,
    pub world: &'a World,
}

impl<'a> Facts<'a> {
    pub fn of(world: &'a World, policy: &'a Policy) -> Self {
        let here = Here::of(world, &policy.node_name);
        let node_ports = NodePorts::of(world, policy, &here);
        Self { policy, here, node_ports, protected: Protected::of(world, policy), world }
    }
}
