//! Which endpoints get new flows: kube-proxy's `CategorizeEndpoints` (spec 2.3).

use lb_common::addr::Addr;
use lb_common::table::{Backend, MemberState};

use super::endpoint::{Candidate, Here, Place};
use crate::model::{Hints, TrafficPolicy};

/// Backends that a pool holds at most: a slot is chosen by 16 bits.
pub const POOL_MAX: usize = u16::MAX as usize;

/// The endpoints of one Service port after policy, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable<A> {
    /// For traffic policy Cluster; empty only where no endpoint is usable anywhere.
    pub cluster: Vec<Backend<A>>,
    /// Those on this node, for what comes from outside. Under policy Local they are chosen apart from the others, the
    /// fallback to terminating endpoints included (TERM-02); under policy Cluster they are those of `cluster`.
    pub local: Vec<Backend<A>>,
    /// Every backend whose known flows are honoured.
    pub members: Vec<(Backend<A>, MemberState)>,
}

/// Sorts the candidates into the sets. Never used: not ready and not terminating; terminating and not serving.
pub fn usable<A: Addr>(candidates: &[Candidate<'_, A>], here: &Here<'_>, external: TrafficPolicy) -> Usable<A> {
    let ready: Vec<&Candidate<'_, A>> = candidates.iter().filter(|c| c.conditions.ready).collect();
    let leaving: Vec<&Candidate<'_, A>> =
        candidates.iter().filter(|c| !c.conditions.ready && c.conditions.serving && c.conditions.terminating).collect();
    // TERM-01, TERM-05: the fallback ignores topology.
    let cluster = if ready.is_empty() { backends(leaving.iter().copied()) } else { preferred(&ready, here) };
    let local = match external {
        TrafficPolicy::Local if ready.iter().any(|c| c.place == Place::ThisNode) => on_this_node(&ready),
        TrafficPolicy::Local => on_this_node(&leaving),
        TrafficPolicy::Cluster if ready.is_empty() => on_this_node(&leaving),
        TrafficPolicy::Cluster => {
            let mut local = on_this_node(&ready);
            local.retain(|backend| cluster.binary_search(backend).is_ok());
            local
        }
    };
    let mut members: Vec<(Backend<A>, MemberState)> = ready.iter().map(|c| (c.backend, MemberState::Active)).collect();
    members.extend(leaving.iter().map(|c| {
        let chosen = cluster.binary_search(&c.backend).is_ok() || local.binary_search(&c.backend).is_ok();
        (c.backend, if chosen { MemberState::Active } else { MemberState::Draining })
    }));
    Usable { cluster, local, members }
}

fn backends<'a, A: Addr>(candidates: impl Iterator<Item = &'a Candidate<'a, A>>) -> Vec<Backend<A>> {
    candidates.map(|candidate| candidate.backend).collect()
}

fn on_this_node<A: Addr>(candidates: &[&Candidate<'_, A>]) -> Vec<Backend<A>> {
    backends(candidates.iter().copied().filter(|candidate| candidate.place == Place::ThisNode))
}

/// Ready endpoints after topology hints: those for this node, else those for its zone, else all. A preference holds
/// only while every ready endpoint has a hint of its sort and at least one names us.
fn preferred<A: Addr>(ready: &[&Candidate<'_, A>], here: &Here<'_>) -> Vec<Backend<A>> {
    let by_node = |hints: &Hints| is_hinted(&hints.nodes, Some(here.node));
    let by_zone = |hints: &Hints| is_hinted(&hints.zones, here.zone);
    subset(ready, by_node).or_else(|| subset(ready, by_zone)).unwrap_or_else(|| backends(ready.iter().copied()))
}

/// Whether the hints name us; `None` where there are no hints of this sort.
fn is_hinted(hinted: &[std::sync::Arc<str>], own: Option<&str>) -> Option<bool> {
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
