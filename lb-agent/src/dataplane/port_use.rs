//! How many ports of this node forwarded flows use towards each endpoint of another node. Each flow has a port of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::{Addr, Proto};
use lb_common::table::{DIRECT, Direction, EDGE_UPLINK, Flow, FlowKey};

/// An address of this node, and an endpoint that knows it as its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub node: IpAddr,
    pub endpoint: SocketAddr,
    pub proto: Proto,
}

/// Ports in use by pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortUse(BTreeMap<Pair, usize>);

impl PortUse {
    /// Counts a flow by its reply entry, if it is forwarded: the endpoint answers to this node.
    pub fn add<A: Addr>(&mut self, key: &FlowKey<A>, flow: &Flow<A>) {
        let is_forwarded = key.edge == EDGE_UPLINK && flow.frontend != DIRECT && flow.to.dst != key.tuple.dst;
        // SCTP keeps the ports of its clients.
        if key.direction == Direction::Reply && is_forwarded && key.proto != Proto::SCTP {
            let endpoint = SocketAddr::new(key.tuple.src.into(), key.tuple.sport);
            *self.0.entry(Pair { node: key.tuple.dst.into(), endpoint, proto: key.proto }).or_default() += 1;
        }
    }

    /// The pairs with at least so many ports in use.
    pub fn at_least(&self, ports: usize) -> impl Iterator<Item = (&Pair, usize)> {
        self.0.iter().map(|(pair, used)| (pair, *used)).filter(move |(_, used)| *used >= ports)
    }
}
