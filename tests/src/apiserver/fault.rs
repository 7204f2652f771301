//! Ways to misbehave.

use std::collections::{BTreeMap, BTreeSet};

use super::resource::Resource;

/// How the server misbehaves until it is told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Lists of these resources are not answered until they are taken off.
    pub held_lists: BTreeSet<Resource>,
    /// After the first page, lists of these resources are not answered until they are taken off.
    pub held_pages: BTreeSet<Resource>,
    /// Lists of these resources begin, and have no end.
    pub endless_lists: BTreeSet<Resource>,
    /// Lists are refused with this code.
    pub refused_lists: BTreeMap<Resource, u16>,
    /// Watches are refused with this code, before they begin.
    pub refused_watches: BTreeMap<Resource, u16>,
    /// Fields that cannot be selected by, as on an old server.
    pub unknown_fields: BTreeSet<&'static str>,
    /// Lists show the state of this version, as a server that lags behind would.
    pub outdated: Option<u64>,
    /// New watches tell each event twice, and tell the last one before their start again.
    pub duplicates: bool,
    /// New watches end without a word after so many events.
    pub watch_events_max: Option<usize>,
    /// No more objects on a page, whatever the request wants.
    pub page_max: Option<usize>,
    /// What happens to watches up to this number.
    pub(super) afflicted: Vec<(u64, WatchFault)>,
}

/// What may happen to a watch that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// The connection breaks, in the middle of a line.
    Cut,
    /// Nothing is sent any more, not even the end.
    Stalled,
    /// An event begins, and has no end.
    Endless,
    /// Its position is told to be too old (410), and it ends.
    Expired,
    /// It ends as it would after its time.
    Ended,
}

impl Faults {
    /// What happened to the watch with this number.
    pub(super) fn of_watch(&self, number: u64) -> Option<WatchFault> {
        self.afflicted.iter().find(|(until, _)| number <= *until).map(|(_, fault)| *fault)
    }
}
