//! The guard: keeps a kube-proxy on this node from claiming addresses that are left to the balancer by *our* decision.
//!
//! kube-proxy knows `ipMode` of the status and nothing else. Where an annotation or a flag of ours says Proxy or Split,
//! its nat rules would still send the connection to a pod. The guard is a small nftables table that translates the
//! destination to itself just before kube-proxy's turn: a connection is translated once, so it goes on unchanged, and
//! what comes later (a CNI's masquerade) still applies. Rejects and drops of kube-proxy stand in its filter chains, and
//! no nat rule overcomes them; nor does anything here help beside ipvs, where the address is a local one.

mod door;
pub mod fake;
mod keeper;
mod table;

use std::collections::BTreeSet;

use lb_common::table::{FrontendKey, Mode};

use crate::dataplane::Tables;
use crate::desired::{Choice, Desired, DesiredFrontend, FamilyDesired, KubeProxy};

pub use door::{Change, Door, Found};
pub use keeper::Keeper;
pub use table::Table;

/// What the guard holds: one set for each kind of client and family, as `scopes` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardRows {
    pub v4: FamilyRows<[u8; 4]>,
    pub v6: FamilyRows<[u8; 16]>,
    /// Indexes of the interfaces behind which pods of this node are, bridges included: who counts as *workload*.
    pub links: BTreeSet<u32>,
}

/// The sets of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyRows<A> {
    pub workload: BTreeSet<FrontendKey<A>>,
    pub host: BTreeSet<FrontendKey<A>>,
    pub external: BTreeSet<FrontendKey<A>>,
}

impl<A> Default for FamilyRows<A> {
    fn default() -> Self {
        Self { workload: BTreeSet::new(), host: BTreeSet::new(), external: BTreeSet::new() }
    }
}

/// The addresses that need it: left alone by our decision, and claimed by kube-proxy. Interfaces are not part of it.
pub fn rows(desired: &Desired) -> GuardRows {
    GuardRows { v4: FamilyRows::of(&desired.v4), v6: FamilyRows::of(&desired.v6), links: BTreeSet::new() }
}

impl<A: Copy + Ord> FamilyRows<A> {
    fn of(desired: &FamilyDesired<A>) -> Self {
        let mut rows = Self::default();
        for (key, frontend) in &desired.frontends {
            let DesiredFrontend { mode, kube_proxy, choices, .. } = frontend;
            // VIP: who is not served by us is left to kube-proxy. Router: where we pass, kube-proxy has no endpoint
            // either, so that its nat rules claim nothing.
            let (inside, outside) = match (kube_proxy, mode) {
                (KubeProxy::LeavesAlone, _) | (_, Mode::VIP | Mode::Router) => continue,
                (KubeProxy::Claims, Mode::Proxy) => (true, true),
                (KubeProxy::Claims, Mode::Split) => (true, false),
            };
            let mut add = |set: fn(&mut Self) -> &mut BTreeSet<FrontendKey<A>>, is_meant, choice| {
                if is_meant && choice == Choice::Pass {
                    set(&mut rows).insert(*key);
                }
            };
            add(|rows| &mut rows.workload, inside, choices.workload);
            add(|rows| &mut rows.host, inside, choices.host);
            add(|rows| &mut rows.external, outside, choices.external);
        }
        rows
    }

    /// Whether both say the same of these addresses.
    fn agrees<'a>(&self, other: &Self, mut keys: impl Iterator<Item = &'a FrontendKey<A>>) -> bool
    where
        A: 'a,
    {
        keys.all(|key| self.sets().into_iter().zip(other.sets()).all(|(a, b)| a.contains(key) == b.contains(key)))
    }

    fn sets(&self) -> [&BTreeSet<FrontendKey<A>>; 3] {
        [&self.workload, &self.host, &self.external]
    }

    fn combine(
        &self,
        other: &Self,
        how: impl Fn(&BTreeSet<FrontendKey<A>>, &BTreeSet<FrontendKey<A>>) -> Keys<A>,
    ) -> Self {
        Self {
            workload: how(&self.workload, &other.workload),
            host: how(&self.host, &other.host),
            external: how(&self.external, &other.external),
        }
    }
}

type Keys<A> = BTreeSet<FrontendKey<A>>;

impl GuardRows {
    /// Whether no address needs it; interfaces alone are of no use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of all sets of addresses.
    pub fn len(&self) -> usize {
        let v4 = self.v4.sets().into_iter().map(BTreeSet::len).sum::<usize>();
        v4 + self.v6.sets().into_iter().map(BTreeSet::len).sum::<usize>()
    }

    /// Whether both say the same of the addresses that some tables have, and of those that are wanted.
    pub fn agrees(&self, other: &Self, tables: &Tables, desired: &Desired) -> bool {
        let v4 = tables.v4.frontends.keys().chain(desired.v4.frontends.keys());
        let v6 = tables.v6.frontends.keys().chain(desired.v6.frontends.keys());
        self.v4.agrees(&other.v4, v4) && self.v6.agrees(&other.v6, v6)
    }

    /// These, and the others as well.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        Self {
            v4: self.v4.combine(&others.v4, |a, b| a | b),
            v6: self.v6.combine(&others.v6, |a, b| a | b),
            links: &self.links | &others.links,
        }
    }

    /// These, without the others.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self {
            v4: self.v4.combine(&others.v4, |a, b| a - b),
            v6: self.v6.combine(&others.v6, |a, b| a - b),
            links: &self.links - &others.links,
        }
    }

    /// Those whose address is no frontend of these tables: what an object that cannot be read at the moment left.
    #[must_use]
    pub fn unknown_to(&self, desired: &Desired) -> Self {
        fn unknown<A: Copy + Ord>(rows: &FamilyRows<A>, desired: &FamilyDesired<A>) -> FamilyRows<A> {
            let pick =
                |keys: &Keys<A>| keys.iter().filter(|key| !desired.frontends.contains_key(*key)).copied().collect();
            FamilyRows { workload: pick(&rows.workload), host: pick(&rows.host), external: pick(&rows.external) }
        }
        Self { v4: unknown(&self.v4, &desired.v4), v6: unknown(&self.v6, &desired.v6), links: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests;
