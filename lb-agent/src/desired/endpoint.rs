//! The endpoints of one Service port and family, merged from its slices (spec 2.2).

use std::net::IpAddr;

use lb_common::addr::Family;
use lb_common::table::Backend;

use crate::family::TableAddr;
use crate::model::{Conditions, EndpointSlice, Hints, ServicePort, World};

/// Which node this is.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    pub node: &'a str,
    pub zone: Option<&'a str>,
    addresses: &'a [IpAddr],
}

impl<'a> Here<'a> {
    /// Zone and addresses are those of the Node with this name, where there is one.
    pub fn of(world: &'a World, node: &'a str) -> Self {
        let object = world.node(node);
        Self {
            node,
            zone: object.and_then(|object| object.zone.as_deref()),
            addresses: object.map_or(&[], |object| &object.addresses),
        }
    }

    /// Whether the Node names this address as its own.
    pub fn has(&self, addr: IpAddr) -> bool {
        self.addresses.contains(&addr)
    }

    /// The node's first address of a family: where kube-proxy's nftables mode serves NodePorts.
    pub fn primary(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|addr| addr.is_ipv4() == (family == Family::V4))
    }
}

/// An endpoint that policy may choose.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a, A> {
    pub backend: Backend<A>,
    pub conditions: Conditions,
    pub place: Place,
    pub hints: Option<&'a Hints>,
}

/// Where an endpoint runs: by node name only, never by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    ThisNode,
    Elsewhere,
}

/// All endpoints of the port, each (address, port) once, in order.
///
/// Slice ports match by name and protocol, never by number, so slices may disagree on the number (EPS-01).
pub fn of_port<'a, A: TableAddr>(
    slices: &[&'a EndpointSlice],
    port: &ServicePort,
    here: &Here<'_>,
) -> Vec<Candidate<'a, A>> {
    let mut candidates = Vec::with_capacity(slices.iter().map(|slice| slice.endpoints.len()).sum());
    // EPS-04: slices of the other family are ignored.
    for slice in slices.iter().filter(|slice| slice.family == A::FAMILY) {
        for number in slice.ports.iter().filter(|known| known.proto == port.proto && known.name == port.name) {
            candidates.extend(slice.endpoints.iter().filter_map(|endpoint| {
                let addr = A::from_ip(endpoint.addr)?;
                let is_here = endpoint.node.as_deref() == Some(here.node);
                Some(Candidate {
                    backend: Backend { addr, port: number.port },
                    conditions: endpoint.conditions,
                    place: if is_here { Place::ThisNode } else { Place::Elsewhere },
                    hints: endpoint.hints.as_deref(),
                })
            }));
        }
    }
    // EPS-05: of two with the same address and port, one that is not terminating wins, then one that is ready.
    candidates.sort_by_key(|c| (c.backend, c.conditions.terminating, !c.conditions.ready, c.place));
    candidates.dedup_by_key(|candidate| candidate.backend);
    candidates
}
