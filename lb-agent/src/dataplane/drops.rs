//! The last packets that were rejected or dropped, which each CPU notes by reason.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use lb_common::table::maps::{FAMILY4, FAMILY6, Map};
use lb_common::table::{Counter, Dropped, TableType};
use zerocopy::TryFromBytes as _;

use super::Error;
use super::pinned::find_pin;
use super::sys;

/// The last packet of each reason, on whichever CPU it was.
pub type LastDrops<A> = BTreeMap<Counter, Dropped<A>>;

/// The pinned maps. The pins of an older version lack them.
pub struct Drops {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
    /// Number of possible CPUs.
    cpus: usize,
}

impl Drops {
    pub fn open(directory: &Path, cpus: usize) -> Result<Self, Error> {
        Ok(Self {
            v4: find_pin(directory, FAMILY4.drops.name())?,
            v6: find_pin(directory, FAMILY6.drops.name())?,
            cpus,
        })
    }

    pub fn last4(&self) -> Result<LastDrops<[u8; 4]>, Error> {
        self.last(self.v4.as_ref(), &FAMILY4.drops)
    }

    pub fn last6(&self) -> Result<LastDrops<[u8; 16]>, Error> {
        self.last(self.v6.as_ref(), &FAMILY6.drops)
    }

    fn last<A>(&self, fd: Option<&OwnedFd>, map: &Map<u32, Dropped<A>>) -> Result<LastDrops<A>, Error>
    where
        Dropped<A>: TableType,
    {
        let Some(fd) = fd else { return Ok(LastDrops::new()) };
        let len = size_of::<Dropped<A>>();
        let mut last = LastDrops::new();
        for reason in Counter::ALL {
            let (index, map) = (*reason as u32, map.name());
            let bytes = sys::lookup_array(fd.as_fd(), index, self.cpus * len).map_err(|source| Error::Element {
                op: "reading",
                map,
                index,
                source,
            })?;
            let noted = bytes.chunks_exact(len).filter_map(|bytes| Dropped::<A>::try_read_from_bytes(bytes).ok());
            let latest = noted.filter(|dropped| dropped.at_jiffies != 0).max_by_key(|dropped| dropped.at_jiffies);
            last.extend(latest.map(|dropped| (*reason, dropped)));
        }
        Ok(last)
    }
}
