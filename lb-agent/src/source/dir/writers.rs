//! Files that somebody is replacing: from the first write until the file is closed, or its writer falls silent; from
//! its removal until it is back, or stays away.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, MetadataKind, ModifyKind, RenameMode};
use notify::{Event, EventKind};

/// Silence after which a file that was not closed is read all the same.
pub const SILENCE: Duration = Duration::from_millis(40);
/// The same for an empty file: it was truncated and is about to be written, or it would be closed by now.
const SILENCE_EMPTY: Duration = Duration::from_secs(1);

/// When each open file was last written, and each missing one removed.
#[derive(Debug, Default)]
pub struct Writers {
    written: HashMap<PathBuf, Written>,
}

/// When a file was written first, since it was last complete, and when last.
#[derive(Clone, Copy, Debug)]
struct Written {
    first: Instant,
    last: Instant,
}

impl Writers {
    /// Takes an event in. Says whether anything may have changed: our own reading does not count.
    pub fn observe(&mut self, event: &Event, now: Instant) -> bool {
        match event.kind {
            // Complete: closed by its writer, or renamed from elsewhere.
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.forget(event);
                true
            }
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(MetadataKind::AccessTime)) => false,
            // Editors move a file away, or remove it, and then write it anew.
            EventKind::Create(CreateKind::File)
            | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Name(RenameMode::From))
            | EventKind::Remove(_) => {
                for path in &event.paths {
                    self.written.entry(path.clone()).or_insert(Written { first: now, last: now }).last = now;
                }
                true
            }
            EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Other => true,
        }
    }

    /// Files to leave alone for now.
    pub fn busy(&mut self, now: Instant) -> HashSet<PathBuf> {
        self.written.retain(|path, written| now.duration_since(written.last) < silence(path));
        self.written.keys().cloned().collect()
    }

    /// How long until the first of them is read all the same.
    pub fn next_deadline(&self, now: Instant) -> Option<Duration> {
        self.written.iter().map(|(path, written)| (written.last + silence(path)).saturating_duration_since(now)).min()
    }

    /// The file that has been open for longest, and since when.
    pub fn oldest(&self) -> Option<(Instant, &PathBuf)> {
        self.written.iter().map(|(path, written)| (written.first, path)).min()
    }

    fn forget(&mut self, event: &Event) {
        for path in &event.paths {
            self.written.remove(path);
        }
    }
}

fn silence(path: &PathBuf) -> Duration {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() == 0 => SILENCE_EMPTY,
        // Gone or unreadable: the look says so.
        Ok(_) | Err(_) => SILENCE,
    }
}
