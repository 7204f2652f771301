//! What `unload` removes: first it is listed, which changes nothing, then that list is removed.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::clsact::Filters;
use super::driver;
use super::folder::entries;
use super::links::Attachment;
use super::pinned::{remove_link, remove_pin};
use super::pins::{PinPath, maps_and_others, remove_directory};
use super::tcx::{self, Pinned};
use super::{Error, Refusal, uplinks};

/// Between two looks at the lock of an agent that is to end.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// Everything of a pin path that is removed, and what is left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Classifiers on the qdisc clsact of interfaces: those at ingress first, so that no request is translated if its
    /// reply is not.
    pub filters: Vec<Attachment>,
    /// Those of drivers come first, then the hooks that translate dials.
    pub links: Vec<PathBuf>,
    pub maps: Vec<PathBuf>,
    /// Whether classifiers may be left in another network namespace, to which the tables belonged.
    pub is_elsewhere: bool,
    /// Files that are not ours. They stay, and so do the folders that hold them.
    pub left: Vec<PathBuf>,
}

impl Removal {
    /// Lists what there is. Unlike links, classifiers stay when the pins are lost.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let filters = Filters::read(path)?.attached().keys().copied().collect();
        let pins = PinPath::new(path);
        if !pins.is_there()? {
            return Ok(Self { filters, ..Self::default() });
        }
        let Pinned { live, sockets, drivers, dead, foreign } = tcx::pinned(&pins.links())?;
        // The links of interfaces belong to the tables: if there are any, there are no classifiers.
        let is_foreign = pins.check_owner().is_err_and(|error| matches!(error, Error::Refused(_)));
        let is_elsewhere = is_foreign && live.is_empty();
        let hooks = sockets.keys().rev().map(|hook| hook.pin_name());
        let drivers = drivers.keys().map(|ifindex| driver::pin_name(*ifindex));
        let names = drivers.chain(hooks).chain(live.keys().map(Attachment::to_string));
        let links = names.map(|name| pins.links().join(name)).chain(dead).collect();
        let mut removal = Self { filters, links, is_elsewhere, left: foreign, ..Self::default() };
        for directory in [pins.maps(), pins.maps_next()] {
            let (maps, others) = maps_and_others(&directory)?;
            removal.maps.extend(maps);
            removal.left.extend(others);
        }
        let ours = [pins.links(), pins.maps(), pins.maps_next()];
        removal.left.extend(entries(pins.root())?.into_iter().filter(|entry| !ours.contains(entry)));
        Ok(removal)
    }

    fn perform(&self, path: &Path) -> Result<(), Error> {
        let pins = PinPath::new(path);
        if let Err(error) = uplinks::stop_redirects(&pins.maps()) {
            tracing::warn!(%error, "some cards may drop frames while their programs are detached");
        }
        self.links.iter().try_for_each(|pin| remove_link(pin))?;
        let mut filters = Filters::read(path)?;
        self.filters.iter().try_for_each(|attachment| filters.detach(attachment))?;
        self.maps.iter().try_for_each(|pin| remove_pin(pin))?;
        let folders = [pins.links(), pins.maps(), pins.maps_next(), pins.root().to_owned()];
        folders.iter().try_for_each(|folder| remove_directory(folder))
    }
}

/// Removes programs, links and pins. Succeeds if nothing is pinned. Refused while an agent uses the pins.
pub fn unload(path: &Path) -> Result<Removal, Error> {
    let pins = PinPath::new(path);
    let _lock = pins.is_there()?.then(|| pins.lock()).transpose()?;
    remove_pins(path)
}

/// Removes the pins even if an agent is running. Its descriptors keep the maps alive.
pub fn remove_pins(path: &Path) -> Result<Removal, Error> {
    let removal = Removal::of(path)?;
    removal.perform(path)?;
    Ok(removal)
}

/// Whether an agent uses the pins.
pub fn is_used(path: &Path) -> Result<bool, Error> {
    match lock_now(path) {
        Ok(_) => Ok(false),
        Err(Error::Refused(Refusal::Locked { .. })) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Waits until no agent uses the pins. `None`: for as long as it takes.
pub fn wait_until_free(path: &Path, limit: Option<Duration>) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        match lock_now(path) {
            Err(Error::Refused(Refusal::Locked { .. })) if limit.is_none_or(|limit| started.elapsed() < limit) => {
                std::thread::sleep(LOCK_INTERVAL);
            }
            result => return result.map(drop),
        }
    }
}

/// The lock, if there is a folder to lock.
fn lock_now(path: &Path) -> Result<Option<OwnedFd>, Error> {
    let pins = PinPath::new(path);
    if !pins.is_there()? {
        return Ok(None);
    }
    match pins.lock() {
        // An `unload` was faster.
        Err(Error::Refused(Refusal::Gone { .. })) => Ok(None),
        lock => lock.map(Some),
    }
}
