//! Tracks files that are being replaced: from the first write until the file is closed or falls silent, and from the
//! removal until the file is back or stays away.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, CreateKind, MetadataKind, ModifyKind, RenameMode};
use notify::{Event, EventKind};

/// Silence after which a file that was not closed is read anyway.
pub const SILENCE: Duration = Duration::from_millis(40);
/// The same for an empty file: it was probably truncated to be written anew.
const SILENCE_EMPTY: Duration = Duration::from_secs(1);

/// When each open file was last written, and each missing one was removed.
#[derive(Debug, Default)]
pub struct Writers {
    written: HashMap<PathBuf, Written>,
}

/// The first and the last write since the file was last complete.
#[derive(Clone, Copy, Debug)]
struct Written {
    first: Instant,
    last: Instant,
}

impl Writers {
    /// Takes in an event. Returns whether the folder may have changed. Our own reads do not count.
    pub fn observe(&mut self, event: &Event, now: Instant) -> bool {
        match event.kind {
            // Complete: closed by its writer, or renamed into place.
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                self.forget(event);
                true
            }
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(MetadataKind::AccessTime)) => false,
            // Editors rename or remove a file and then write it anew.
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

    /// The files that must not be read now.
    pub fn busy(&mut self, now: Instant) -> HashSet<PathBuf> {
        self.written.retain(|path, written| now.duration_since(written.last) < silence(path));
        self.written.keys().cloned().collect()
    }

    /// How long until the first of these files is read anyway.
    pub fn next_deadline(&self, now: Instant) -> Option<Duration> {
        self.written.iter().map(|(path, written)| (written.last + silence(path)).saturating_duration_since(now)).min()
    }

    /// The file that has been open longest, and since when.
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
        // Missing or unreadable: the next look reports it.
        Ok(_) | Err(_) => SILENCE,
    }
}
