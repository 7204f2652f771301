//! The ring that `lb-agent monitor` reads, under a lease.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData, RingBuf};
use lb_common::table::Told;
use lb_common::table::maps::SHARED;
use zerocopy::TryFromBytes as _;

use super::folder::Folder;
use super::lease::{Lease, Telling};
use super::pinned::open_pin;
use super::pins::PinPath;
use super::{Error, Refusal};

/// The event in these bytes of the ring.
pub fn event(bytes: &[u8]) -> Option<Told> {
    Told::try_read_from_bytes(bytes).ok()
}

/// Listens to the programs, alone.
pub struct Listener {
    lease: Lease,
    ring: RingBuf<MapData>,
    lost_before: u64,
    path: PathBuf,
    /// Says whether the pins are still those that were opened: an agent with tables of other sizes replaces them.
    inode: u64,
    _lock: OwnedFd,
}

impl Listener {
    /// Opens the pins below `pin_path`. Refused while another one listens: what one reads, the other does not get.
    pub fn open(pin_path: &Path) -> Result<Self, Error> {
        let pins = PinPath::new(pin_path);
        let maps = pins.maps();
        let missing = || Error::from(Refusal::NotPinned { path: pin_path.to_owned() });
        let folder = Folder::open(&maps)?.ok_or_else(missing)?;
        let lock = folder.lock().map_err(|source| match source.kind() {
            std::io::ErrorKind::WouldBlock => Error::from(Refusal::Listened),
            _ => Error::Path { op: "locking", path: maps.clone(), source },
        })?;
        let lease = Lease::find(&maps)?.ok_or(Refusal::NoLease)?;
        let path = maps.join(SHARED.monitor.name());
        let mut listener =
            Self { ring: ring(&maps)?, lost_before: lease.lost()?, lease, inode: inode(&path)?, path, _lock: lock };
        // What an earlier listener has left.
        listener.take(|_| ());
        Ok(listener)
    }

    /// Says that this process still listens, and wants so many events per second at most.
    pub fn renew(&self, per_sec: u32) -> Result<(), Error> {
        self.lease.renew(per_sec)
    }

    /// What the agent says of the attached programs.
    pub fn telling(&self) -> Result<Telling, Error> {
        self.lease.telling()
    }

    /// Hands on the events that have come since the last call.
    pub fn take(&mut self, mut hand_on: impl FnMut(Told)) {
        while let Some(item) = self.ring.next() {
            if let Some(told) = event(&item) {
                hand_on(told);
            }
        }
    }

    /// How many events were lost since the last call.
    pub fn lost(&mut self) -> Result<u64, Error> {
        let lost = self.lease.lost()?;
        Ok(lost.wrapping_sub(std::mem::replace(&mut self.lost_before, lost)))
    }

    /// Whether the pins were replaced or removed.
    pub fn is_outdated(&self) -> bool {
        inode(&self.path).ok() != Some(self.inode)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Without it, the lease ends a moment later.
        let _ = self.lease.end();
    }
}

fn ring(maps: &Path) -> Result<RingBuf<MapData>, Error> {
    let opening = |error: aya::maps::MapError| Error::Table {
        op: "opening",
        map: SHARED.events.name(),
        source: std::io::Error::other(error),
    };
    let data = MapData::from_fd(open_pin(maps, SHARED.events.name())?).map_err(opening)?;
    RingBuf::try_from(Map::RingBuf(data)).map_err(opening)
}

fn inode(path: &Path) -> Result<u64, Error> {
    let asked = fs::metadata(path).map_err(|source| Error::Path { op: "asking for", path: path.to_owned(), source })?;
    Ok(asked.ino())
}
