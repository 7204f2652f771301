//! The endpoints of one Service port and family, merged from its slices (docs/contract.md#endpoints).

use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::IpAddr;

use lb_common::addr::{Family, Proto};
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
    /// Takes zone and addresses from the Node with this name, if it exists.
    pub fn of(world: &'a World, node: &'a str) -> Self {
        let object = world.node(node);
        Self {
            node,
            zone: object.and_then(|object| object.zone.as_deref()),
            addresses: object.map_or(&[], |object| &object.addresses),
        }
    }

    /// Whether the Node lists this address.
    pub fn has(&self, addr: IpAddr) -> bool {
        self.addresses.contains(&addr)
    }

    /// The node's first address of a family, where kube-proxy's nftables mode serves NodePorts.
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

/// Where an endpoint runs: decided by node name only, never by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    ThisNode,
    Elsewhere,
}

/// The slices of a Service in one family, indexed by port: a Service may have thousands of slices.
pub struct ByPort<'a, A> {
    slices: HashMap<(&'a str, Proto), Vec<(&'a EndpointSlice, u16)>>,
    family: PhantomData<A>,
}

impl<'a, A: TableAddr> ByPort<'a, A> {
    pub fn of(slices: &[&'a EndpointSlice]) -> Self {
        let mut by_port = HashMap::<_, Vec<_>>::new();
        // EPS-04: slices of the other family are ignored.
        for slice in slices.iter().filter(|slice| slice.family == A::FAMILY) {
            for port in &slice.ports {
                by_port.entry((&*port.name, port.proto)).or_default().push((*slice, port.port));
            }
        }
        Self { slices: by_port, family: PhantomData }
    }

    /// All endpoints of the port, each (address, port) once, sorted.
    ///
    /// Slice ports match by name and protocol, never by number, so slices may disagree on the number (EPS-01).
    pub fn candidates(&self, port: &ServicePort, here: &Here<'_>) -> Vec<Candidate<'a, A>> {
        merged(self.slices.get(&(&*port.name, port.proto)).map_or(&[][..], Vec::as_slice), here)
    }

    /// The endpoints of every port of the slices, also of ports that the Service does not have.
    pub fn of_all_ports(&self, here: &Here<'_>) -> impl Iterator<Item = Candidate<'a, A>> {
        self.slices.values().flat_map(|found| merged(found, here))
    }
}

/// All endpoints of the slices of one port, each (address, port) once, sorted.
fn merged<'a, A: TableAddr>(found: &[(&'a EndpointSlice, u16)], here: &Here<'_>) -> Vec<Candidate<'a, A>> {
    let mut candidates = Vec::with_capacity(found.iter().map(|(slice, _)| slice.endpoints.len()).sum());
    for (slice, number) in found {
        candidates.extend(slice.endpoints.iter().filter_map(|endpoint| {
            let addr = A::from_ip(endpoint.addr)?;
            let is_here = endpoint.node.as_deref() == Some(here.node);
            Some(Candidate {
                backend: Backend { addr, port: *number },
                conditions: endpoint.conditions,
                place: if is_here { Place::ThisNode } else { Place::Elsewhere },
                hints: endpoint.hints.as_deref(),
            })
        }));
    }
    // EPS-05: of two endpoints with equal address and port, one that is not terminating wins, then one that is
    // ready.
    candidates.sort_by_key(|c| (c.backend, c.conditions.terminating, !c.conditions.ready, c.place));
    candidates.dedup_by_key(|candidate| candidate.backend);
    candidates
}
