//! The ways in which the server misbehaves.

use std::collections::{BTreeMap, BTreeSet};

use super::resource::Resource;

/// How the server misbehaves until that is changed.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Lists of these resources are not answered until they are removed from this set.
    pub held_lists: BTreeSet<Resource>,
    /// Lists of these resources are not answered after the first page until they are removed from this set.
    pub held_pages: BTreeSet<Resource>,
    /// Lists of these resources begin but never end.
    pub endless_lists: BTreeSet<Resource>,
    /// Lists are refused with this code.
    pub refused_lists: BTreeMap<Resource, u16>,
    /// Watches are refused with this code, before they begin.
    pub refused_watches: BTreeMap<Resource, u16>,
    /// Fields that field selectors cannot name, as on an old server.
    pub unknown_fields: BTreeSet<&'static str>,
    /// Lists show the state of this version, as from a server that lags behind.
    pub outdated: Option<u64>,
    /// New watches send each event twice, and repeat the last event before their start.
    pub duplicates: bool,
    /// New watches end without notice after so many events.
    pub watch_events_max: Option<usize>,
    /// The most objects on a page, whatever limit the request has.
    pub page_max: Option<usize>,
    /// Faults of the watches up to this number.
    pub(super) afflicted: Vec<(u64, WatchFault)>,
}

/// Faults of an open watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFault {
    /// The connection breaks, in the middle of a line.
    Cut,
    /// Nothing more is sent, not even the end.
    Stalled,
    /// An event begins but never ends.
    Endless,
    /// It gets an error event that its position is too old (410), and ends.
    Expired,
    /// It ends as after its time-out.
    Ended,
}

impl Faults {
    /// The fault of the watch with this number.
    pub(super) fn of_watch(&self, number: u64) -> Option<WatchFault> {
        self.afflicted.iter().find(|(until, _)| number <= *until).map(|(_, fault)| *fault)
    }
}
