//! Flows between the network and endpoints of other nodes, which this node forwards from ports of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::{Addr, Proto};
use lb_common::table::{DIRECT, Direction, EDGE_UPLINK, Flow, FlowKey};

use super::Error;
use super::maps::Table;

/// Whether the entry is of such a flow.
fn is_in_transit<A: Addr>(key: &FlowKey<A>, flow: &Flow<A>) -> bool {
    let is_masqueraded = match key.direction {
        Direction::Request => flow.to.src != key.tuple.src,
        Direction::Reply => flow.to.dst != key.tuple.dst,
    };
    key.edge == EDGE_UPLINK && flow.frontend != DIRECT && is_masqueraded
}

/// Deletes those of datagrams. Returns the number of flows.
pub fn forget_datagrams<A: Addr>(flows: &Table<FlowKey<A>, Flow<A>>) -> Result<usize, Error> {
    let rows = flows.dump()?.into_iter();
    let is_gone = |(key, flow): &(FlowKey<A>, Flow<A>)| key.proto != Proto::TCP && is_in_transit(key, flow);
    let gone: Vec<_> = rows.filter(is_gone).map(|(key, _)| key).collect();
    flows.delete(&gone)?;
    Ok(gone.iter().filter(|key| key.direction == Direction::Request).count())
}

/// An address of this node, and an endpoint that knows it as its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub node: IpAddr,
    pub endpoint: SocketAddr,
    pub proto: Proto,
}

/// Ports of this node in use, by pair. Each flow has a port of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortUse(BTreeMap<Pair, Vec<u16>>);

impl PortUse {
    /// Notes the port of a flow by its reply entry: the endpoint answers to this node. A connection of the node itself
    /// takes its port from the forwarded ones.
    pub fn add<A: Addr>(&mut self, key: &FlowKey<A>, flow: &Flow<A>) {
        let is_of_node = key.edge == EDGE_UPLINK && (flow.frontend == DIRECT || is_in_transit(key, flow));
        // SCTP keeps the ports of its clients. A flow that has ended gives way.
        let holds = key.proto != Proto::SCTP && !flow.state.has_ended();
        if key.direction == Direction::Reply && is_of_node && holds {
            let endpoint = SocketAddr::new(key.tuple.src.into(), key.tuple.sport);
            let pair = Pair { node: key.tuple.dst.into(), endpoint, proto: key.proto };
            self.0.entry(pair).or_default().push(key.tuple.dport);
        }
    }

    /// The pairs with at least so many of these ports in use.
    pub fn at_least(&self, count: usize, is_of_range: impl Fn(u16) -> bool) -> impl Iterator<Item = (&Pair, usize)> {
        let counted =
            self.0.iter().map(move |(pair, used)| (pair, used.iter().filter(|port| is_of_range(**port)).count()));
        counted.filter(move |(_, used)| *used >= count)
    }
}
