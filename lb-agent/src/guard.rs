//! The guard: keeps a kube-proxy on this node off addresses that are left to the balancer by *our* decision.
//!
//! kube-proxy knows only the `ipMode` of the status. If an annotation or a flag of ours says Proxy or Split, its nat
//! rules would still send the connection to a pod. The guard is a small nftables table that translates the destination
//! to itself just before kube-proxy's turn. A connection is translated only once, so it continues unchanged, and later
//! rules (a CNI's masquerade) still apply. The guard cannot undo rejects and drops, which are in kube-proxy's filter
//! chains. It does not help against ipvs either, because there the address is local.

mod door;
pub mod fake;
mod keeper;
mod table;

use std::collections::BTreeSet;

use lb_common::client::{Client, PerClient};
use lb_common::table::{FrontendKey, Mode};

use crate::dataplane::Tables;
use crate::desired::{Desired, DesiredFrontend, DesiredScope, FamilyDesired, KubeProxy};

pub use door::{Change, Door, Found};
pub use keeper::Keeper;
pub use table::Table;

/// Whether the guard keeps kube-proxy away from addresses that the agent leaves to the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarding {
    On,
    Off,
}

/// The guarded addresses: one set for each family and kind of client, as in `scopes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardRows {
    pub v4: FamilyRows<[u8; 4]>,
    pub v6: FamilyRows<[u8; 16]>,
    /// The indexes of the interfaces of this node's pods, and of their bridges. Their clients count as *workload*.
    pub links: BTreeSet<u32>,
}

/// The sets of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyRows<A> {
    pub sets: PerClient<Keys<A>>,
}

type Keys<A> = BTreeSet<FrontendKey<A>>;

impl<A> Default for FamilyRows<A> {
    fn default() -> Self {
        Self { sets: PerClient { workload: Keys::new(), host: Keys::new(), external: Keys::new() } }
    }
}

/// The addresses to guard: left alone by our decision, and claimed by kube-proxy. `links` is empty.
pub fn rows(desired: &Desired) -> GuardRows {
    GuardRows { v4: FamilyRows::of(&desired.v4), v6: FamilyRows::of(&desired.v6), links: BTreeSet::new() }
}

impl<A: Copy + Ord> FamilyRows<A> {
    fn of(desired: &FamilyDesired<A>) -> Self {
        let mut rows = Self::default();
        for (key, frontend) in &desired.frontends {
            let DesiredFrontend { mode, kube_proxy, scopes, header, .. } = frontend;
            // VIP: kube-proxy may serve the clients that we do not. Router: if we pass, kube-proxy has no endpoint
            // either, so its nat rules do not match.
            // A header: kube-proxy would send processes of the node to the backend without one.
            let is_meant = match (kube_proxy, mode) {
                (KubeProxy::Claims, Mode::VIP) if header.is_some() => {
                    PerClient { host: true, ..PerClient::same(false) }
                }
                (KubeProxy::LeavesAlone, _) | (_, Mode::VIP | Mode::Router) => continue,
                (KubeProxy::Claims, Mode::Proxy) => PerClient::same(true),
                (KubeProxy::Claims, Mode::Split) => PerClient { external: false, ..PerClient::same(true) },
            };
            for client in Client::ALL {
                if *is_meant.get(client) && *scopes.get(client) == DesiredScope::Pass {
                    rows.sets.get_mut(client).insert(*key);
                }
            }
        }
        rows
    }

    /// Whether both guard these addresses for the same clients.
    fn agrees<'a>(&self, other: &Self, mut keys: impl Iterator<Item = &'a FrontendKey<A>>) -> bool
    where
        A: 'a,
    {
        let pairs = self.sets.as_ref().zip(other.sets.as_ref()).into_array();
        keys.all(|key| pairs.iter().all(|(a, b)| a.contains(key) == b.contains(key)))
    }

    fn len(&self) -> usize {
        self.sets.as_ref().into_array().into_iter().map(BTreeSet::len).sum()
    }

    fn combine(&self, other: &Self, how: impl Fn(&Keys<A>, &Keys<A>) -> Keys<A>) -> Self {
        Self { sets: self.sets.as_ref().zip(other.sets.as_ref()).map(|(a, b)| how(a, b)) }
    }
}

impl GuardRows {
    /// Whether no address is guarded. Interfaces alone do not count.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of elements in all address sets.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether both guard the frontends of `tables` and of `desired` for the same clients.
    pub fn agrees(&self, other: &Self, tables: &Tables, desired: &Desired) -> bool {
        let v4 = tables.v4.frontends.keys().chain(desired.v4.frontends.keys());
        let v6 = tables.v6.frontends.keys().chain(desired.v6.frontends.keys());
        self.v4.agrees(&other.v4, v4) && self.v6.agrees(&other.v6, v6)
    }

    /// The union of both.
    #[must_use]
    pub fn with(&self, others: &Self) -> Self {
        Self {
            v4: self.v4.combine(&others.v4, |a, b| a | b),
            v6: self.v6.combine(&others.v6, |a, b| a | b),
            links: &self.links | &others.links,
        }
    }

    /// These rows without the others.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self {
            v4: self.v4.combine(&others.v4, |a, b| a - b),
            v6: self.v6.combine(&others.v6, |a, b| a - b),
            links: &self.links - &others.links,
        }
    }

    /// The rows whose address is no frontend of `desired`: left by an object that cannot be read at the moment.
    #[must_use]
    pub fn unknown_to(&self, desired: &Desired) -> Self {
        fn unknown<A: Copy + Ord>(rows: &FamilyRows<A>, desired: &FamilyDesired<A>) -> FamilyRows<A> {
            let pick =
                |keys: &Keys<A>| keys.iter().filter(|key| !desired.frontends.contains_key(*key)).copied().collect();
            FamilyRows { sets: rows.sets.as_ref().map(pick) }
        }
        Self { v4: unknown(&self.v4, &desired.v4), v6: unknown(&self.v6, &desired.v6), links: BTreeSet::new() }
    }
}

#[cfg(test)]
mod tests;
