//! Time stamps that limit the repair of evicted flows: since when an interface is attached and a frontend balances. An
//! older connection may never have had a flow. Like those of flows, the stamps are in jiffies64 and outlive the agent.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use lb_common::addr::Family;
use lb_common::share::usable;
use lb_common::table::maps::SHARED;
use lb_common::table::{Action, EDGE_UPLINK, EdgeAge, Evictions, FrontendAge, Scopes, edge_index};
use zerocopy::TryFromBytes as _;

use super::links::{Attachment, Class};
use super::pinned::open_pin;
use super::sys;
use super::{Error, Refusal};

/// The maps with the time stamps.
pub struct Ages {
    edges: OwnedFd,
    frontends: OwnedFd,
    evictions: OwnedFd,
}

impl Ages {
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Ok(Self {
            edges: open_pin(directory, SHARED.edge_ages.name())?,
            frontends: open_pin(directory, SHARED.frontend_ages.name())?,
            evictions: open_pin(directory, SHARED.evictions.name())?,
        })
    }

    /// Stamps an interface that has just been attached.
    pub fn attached(&self, attachment: Attachment, now_jiffies: u64) -> Result<(), Error> {
        sys::update_array(self.edges.as_fd(), index(attachment), &EdgeAge { attached_jiffies: now_jiffies })
            .map_err(writing("edge_ages"))
    }

    /// Stamps an interface that was attached before this agent started, unless an earlier agent has stamped it.
    pub fn adopted(&self, attachment: Attachment, now_jiffies: u64) -> Result<(), Error> {
        let bytes = sys::lookup_array(self.edges.as_fd(), index(attachment), size_of::<EdgeAge>())
            .map_err(|source| Error::Table { op: "reading", map: "edge_ages", source })?;
        let age = EdgeAge::try_read_from_bytes(&bytes).map_err(|_| Refusal::Torn { map: "edge_ages" })?;
        if age.attached_jiffies == 0 { self.attached(attachment, now_jiffies) } else { Ok(()) }
    }

    /// Stamps frontends that have begun to balance.
    pub fn balanced(&self, frontends: &[u32], now_jiffies: u64) -> Result<(), Error> {
        let age = FrontendAge { balanced_jiffies: now_jiffies };
        sys::update_array_batch(self.frontends.as_fd(), frontends, age)
            .map_err(|error| writing("frontend_ages")(error.source))
    }

    /// Notes that the kernel may have evicted flows of a family, and that such flows may be missing until the given
    /// time.
    pub fn evicted(&self, family: Family, until_jiffies: u64) -> Result<(), Error> {
        sys::update_array(self.evictions.as_fd(), family as u32, &Evictions { until_jiffies })
            .map_err(writing("evictions"))
    }
}

/// The index of an interface in `edge_ages`.
const fn index(attachment: Attachment) -> u32 {
    edge_index(match attachment.class {
        Class::Workload => attachment.ifindex,
        Class::Uplink => EDGE_UPLINK,
    })
}

fn writing(map: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Table { op: "writing", map, source }
}

/// Whether a scope balances in `new` that did not in `old`. Its clients may have connections that never had a flow.
pub fn begins_to_balance(old: &Scopes, new: &Scopes) -> bool {
    let balances =
        |scopes: &Scopes| [scopes.workload, scopes.host, scopes.external].map(|scope| scope.action == Action::Balance);
    balances(old).into_iter().zip(balances(new)).any(|(before, after)| after && !before)
}

/// Whether the table is so full that the kernel may evict entries.
pub const fn is_evicting(entries: usize, entries_max: u32, cpus: usize) -> bool {
    entries > 0 && entries as u64 >= usable(entries_max, cpus)
}

#[cfg(test)]
mod tests {
    use lb_common::table::Scope;

    use super::*;

    #[test]
    fn what_balances_anew_is_young() {
        let balance = Scope::balance(1, 2);
        let split = Scopes { external: balance, ..Scopes::PASS };
        let vip = Scopes { workload: balance, host: balance, external: balance, ..Scopes::PASS };
        let moved = Scopes { external: Scope::balance(9, 3), ..Scopes::PASS };
        for (old, new, expected) in [
            (Scopes::PASS, vip, true),
            (split, vip, true),
            (vip, split, false),
            (split, moved, false),
            (vip, Scopes::PASS, false),
            (Scopes::PASS, Scopes::PASS, false),
        ] {
            assert_eq!(begins_to_balance(&old, &new), expected, "{old:?} -> {new:?}");
        }
    }

    #[test]
    fn a_table_evicts_when_it_is_nearly_full() {
        for (entries_max, cpus, from) in [
            (8_000, 2, 7_000),
            (8_000, 7, 7_000),
            (8_000, 8, 6_976),
            (262_144, 64, 229_376),
            (262_144, 512, 196_608),
            // Every CPU may keep its share of a small table to itself.
            (8_192, 64, 1),
            (8_192, 512, 1),
        ] {
            let is_evicting = |entries| is_evicting(entries, entries_max, cpus);
            assert!(is_evicting(from) && !is_evicting(from - 1), "{entries_max} entries, {cpus} CPUs");
        }
    }
}
