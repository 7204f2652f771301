//! Which endpoints get new flows: kube-proxy's `CategorizeEndpoints` (docs/contract.md#usable-endpoints).

use std::sync::Arc;

use lb_common::addr::{Addr, Family};
use lb_common::table::{Backend, MemberState};

use super::claim::Claim;
use super::endpoint::{Candidate, Here, Place};
use super::scope::{Supply, Whereabouts};
use crate::model::{Hints, Service, ServicePort, TrafficPolicy};

/// The most backends that a pool holds: a slot is chosen by 16 bits.
pub const POOL_MAX: usize = u16::MAX as usize;

/// Which of the two sets a Service port needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// Endpoints of the cluster.
    pub cluster: bool,
    /// Endpoints of this node, chosen independently of the other nodes.
    pub local: bool,
}

impl Uses {
    /// `claims` are those of one family. The external policy does not apply to a Service that is unreachable from
    /// outside: if all entries are Proxy and there are no node ports, policy Local changes nothing (IPM-25).
    pub fn of<A: Addr>(service: &Service, port: &ServicePort, claims: &[(A, Claim)]) -> Self {
        let has_external_ip = service.external_ips.iter().any(|ip| ip.is_ipv4() == (A::FAMILY == Family::V4));
        let has_vip = claims.iter().any(|(_, claim)| claim.is_vip());
        let is_accessible = port.node_port.is_some() || has_external_ip || has_vip;
        let (internal, external) = (service.internal_policy, service.external_policy);
        Self {
            cluster: internal == TrafficPolicy::Cluster || is_accessible,
            local: internal == TrafficPolicy::Local || (external == TrafficPolicy::Local && is_accessible),
        }
    }
}

/// The endpoints of one Service port after policy, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable<A> {
    /// For traffic policy Cluster, after topology hints.
    pub cluster: Arc<[Backend<A>]>,
    /// The endpoints of `cluster` on this node. A client in the network gets these, because nothing is forwarded to
    /// other nodes.
    pub near: Arc<[Backend<A>]>,
    /// For traffic policy Local: endpoints on this node, chosen independently of the others, with their own fallback to
    /// terminating ones (TERM-02).
    pub local: Arc<[Backend<A>]>,
    /// Every backend whose established flows continue.
    pub members: Box<[(Backend<A>, MemberState)]>,
}

impl<A> Usable<A> {
    /// The sets that pools are made of.
    pub fn sets(&self) -> impl Iterator<Item = &[Backend<A>]> {
        [&*self.cluster, &*self.near, &*self.local].into_iter()
    }

    /// Which of the sets are not empty.
    pub fn supply(&self) -> Supply {
        Supply {
            // A member that is in no set is draining, but still answers.
            anywhere: !self.members.is_empty(),
            cluster: Whereabouts::of(self.cluster.len(), self.near.len()),
            local: !self.local.is_empty(),
        }
    }
}

/// Sorts the candidates into the sets. An endpoint is never used if it is neither ready nor terminating, or if it is
/// terminating and not serving.
pub fn usable<A: Addr>(candidates: &[Candidate<'_, A>], here: &Here<'_>, uses: Uses) -> Usable<A> {
    let ready: Vec<&Candidate<'_, A>> = candidates.iter().filter(|c| c.conditions.ready).collect();
    let leaving: Vec<&Candidate<'_, A>> =
        candidates.iter().filter(|c| !c.conditions.ready && c.conditions.serving && c.conditions.terminating).collect();
    let cluster = match (uses.cluster, ready.is_empty()) {
        (false, _) => Vec::new(),
        // TERM-01, TERM-05: the fallback ignores topology.
        (true, true) => backends(leaving.iter().copied()),
        (true, false) => preferred(&ready, here),
    };
    let local = match (uses.local, ready.iter().any(|c| c.place == Place::ThisNode)) {
        (false, _) => Vec::new(),
        (true, true) => on_this_node(&ready),
        (true, false) => on_this_node(&leaving),
    };
    let mut near = on_this_node(if ready.is_empty() { &leaving } else { &ready });
    near.retain(|backend| cluster.binary_search(backend).is_ok());
    let mut members: Vec<(Backend<A>, MemberState)> = ready.iter().map(|c| (c.backend, MemberState::Active)).collect();
    members.extend(leaving.iter().map(|c| {
        let chosen = cluster.binary_search(&c.backend).is_ok() || local.binary_search(&c.backend).is_ok();
        (c.backend, if chosen { MemberState::Active } else { MemberState::Draining })
    }));
    let [cluster, near, local] = [cluster, near, local].map(shared);
    Usable { cluster, near, local, members: members.into() }
}

/// The set as a shared slice. Empty sets take no memory.
pub fn shared<A: Addr>(set: Vec<Backend<A>>) -> Arc<[Backend<A>]> {
    if set.is_empty() { Arc::default() } else { set.into() }
}

fn backends<'a, A: Addr>(candidates: impl Iterator<Item = &'a Candidate<'a, A>>) -> Vec<Backend<A>> {
    candidates.map(|candidate| candidate.backend).collect()
}

fn on_this_node<A: Addr>(candidates: &[&Candidate<'_, A>]) -> Vec<Backend<A>> {
    backends(candidates.iter().copied().filter(|candidate| candidate.place == Place::ThisNode))
}

/// Ready endpoints after topology hints: those for this node, else those for its zone, else all. A preference applies
/// only if every ready endpoint has a hint of its sort and at least one hint names this node or zone.
fn preferred<A: Addr>(ready: &[&Candidate<'_, A>], here: &Here<'_>) -> Vec<Backend<A>> {
    let by_node = |hints: &Hints| is_hinted(&hints.nodes, Some(here.node));
    let by_zone = |hints: &Hints| is_hinted(&hints.zones, here.zone);
    subset(ready, by_node).or_else(|| subset(ready, by_zone)).unwrap_or_else(|| backends(ready.iter().copied()))
}

/// Whether the hints name this node or zone. `None` if there are no hints of this sort.
fn is_hinted(hinted: &[Arc<str>], own: Option<&str>) -> Option<bool> {
    (!hinted.is_empty()).then(|| own.is_some_and(|own| hinted.iter().any(|name| **name == *own)))
}

fn subset<A: Addr>(ready: &[&Candidate<'_, A>], is_ours: impl Fn(&Hints) -> Option<bool>) -> Option<Vec<Backend<A>>> {
    let mut ours = Vec::with_capacity(ready.len());
    for candidate in ready {
        if is_ours(candidate.hints?)? {
            ours.push(candidate.backend);
        }
    }
    (!ours.is_empty()).then_some(ours)
}
