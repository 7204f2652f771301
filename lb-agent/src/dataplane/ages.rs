//! Time stamps that limit the repair of evicted flows: since when an interface is attached and a frontend balances. An
//! older connection may never have had a flow. Like those of flows, the stamps are in jiffies64 and outlive the agent.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use lb_common::addr::Family;
use lb_common::share::usable;
use lb_common::table::maps::SHARED;
use lb_common::table::{EDGE_UPLINK, EdgeAge, Evictions, FrontendAge, edge_index};
use zerocopy::TryFromBytes as _;

use super::links::{Attachment, Class};
use super::pinned::open_pin;
use super::sys;
use super::{Error, Refusal, Write};

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

    /// Writes rows of `frontend_ages`. An element without a row is zero.
    pub fn write_frontends(&self, write: &Write<u32, FrontendAge>) -> Result<(), Error> {
        let (indexes, ages): (Vec<u32>, Vec<FrontendAge>) = match write {
            Write::Upsert(rows) => rows.iter().copied().unzip(),
            Write::Delete(ids) => ids.iter().map(|id| (*id, FrontendAge { balanced_jiffies: 0 })).unzip(),
        };
        sys::update_batch(self.frontends.as_fd(), &indexes, &ages, 0)
            .map_err(|error| writing("frontend_ages")(error.source))
    }

    /// The rows of `frontend_ages`.
    pub fn frontends(&self) -> Result<BTreeMap<u32, FrontendAge>, Error> {
        let (rows, _) = sys::dump::<u32, FrontendAge>(self.frontends.as_fd()).map_err(|source| Error::Table {
            op: "reading",
            map: "frontend_ages",
            source,
        })?;
        Ok(rows.into_iter().filter(|(_, age)| age.balanced_jiffies != 0).collect())
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

/// Whether the table is so full that the kernel may evict entries.
pub const fn is_evicting(entries: usize, entries_max: u32, cpus: usize) -> bool {
    entries > 0 && entries as u64 >= usable(entries_max, cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

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
