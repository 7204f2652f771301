//! Packets and dials that were refused, rejected or dropped, by frontend, interface and reason.
//!
//! IDs of frontends are used again: `new_frontends` deletes what was counted for an earlier one.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use lb_common::table::maps::SHARED;
use lb_common::table::{Counter, DropCount, DropKey};

use super::Error;
use super::pinned::find_pin;
use super::sys;

/// A row of `drop_counts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drops {
    /// 0: none, or it is not known.
    pub frontend: u32,
    /// [`EDGE_UPLINK`](lb_common::table::EDGE_UPLINK), the index of a pod's interface, or
    /// [`EDGE_SOCKETS`](lb_common::table::EDGE_SOCKETS).
    pub edge: u32,
    pub reason: Counter,
    pub packets: u64,
    pub bytes: u64,
    pub last_jiffies: u64,
}

/// The map. The pins of an older version lack it.
pub struct DropCounts(Option<OwnedFd>);

impl DropCounts {
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Ok(Self(find_pin(directory, SHARED.drop_counts.name())?))
    }

    /// All rows, sorted. Reasons that this version does not know are left out.
    pub fn rows(&self) -> Result<Vec<Drops>, Error> {
        let row = |(key, count): (DropKey, DropCount)| {
            let reason = Counter::ALL.iter().copied().find(|counter| *counter as u32 == key.reason)?;
            let (DropKey { frontend, edge, .. }, DropCount { packets, bytes, last_jiffies }) = (key, count);
            Some(Drops { frontend, edge, reason, packets, bytes, last_jiffies })
        };
        let mut rows: Vec<_> = self.dump()?.into_iter().filter_map(row).collect();
        rows.sort_unstable();
        Ok(rows)
    }

    /// Deletes the rows of these frontends.
    pub fn forget(&self, frontends: &BTreeSet<u32>) -> Result<(), Error> {
        let Some(map) = &self.0 else { return Ok(()) };
        let keys = self.dump()?.into_iter().map(|(key, _)| key);
        let gone: Vec<_> = keys.filter(|key| frontends.contains(&key.frontend)).collect();
        sys::delete_batch(map.as_fd(), &gone).map_err(|error| failed("deleting rows of", error.source))
    }

    fn dump(&self) -> Result<Vec<(DropKey, DropCount)>, Error> {
        let Some(map) = &self.0 else { return Ok(Vec::new()) };
        let (rows, _) = sys::dump(map.as_fd()).map_err(|source| failed("reading", source))?;
        Ok(rows)
    }
}

const fn failed(op: &'static str, source: std::io::Error) -> Error {
    Error::Table { op, map: SHARED.drop_counts.name(), source }
}
