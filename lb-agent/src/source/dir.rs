//! `--source=dir:PATH`: a folder of ordinary Kubernetes YAML and JSON, watched for changes.
//!
//! inotify reports changes at once. A periodic look at the folder finds changes whose event was lost. A file that is
//! being written is not read until its writer has closed it.

mod document;
mod folder;
mod writers;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::model::{AnnotationKeys, Change};
use crate::source::claim::Claim;
use crate::source::progress::Progress;
pub use folder::{Error, Folder};
use writers::Writers;

/// How often the folder is read without an event.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which a burst of events is over.
const QUIET: Duration = Duration::from_millis(5);
/// A burst is cut off after this time, so that changes are applied within 100 ms in any case.
const BURST_MAX: Duration = Duration::from_millis(50);

/// The folder and its watcher.
pub struct DirSource {
    folder: Folder,
    watch: Watch,
    writers: Writers,
}

impl DirSource {
    /// Fails if the folder cannot be listed. If it cannot be watched, it is read every second instead.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Events name absolute paths.
        let folder = Folder::open(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))?.patient();
        Ok(Self { folder, watch: Watch::new(), writers: Writers::default() })
    }

    /// Converts for an agent that claims these Services.
    pub fn claiming(mut self, claim: Claim) -> Self {
        self.folder = self.folder.claiming(claim);
        self
    }

    /// Keeps only these annotations of Services.
    pub fn keeping(mut self, annotations: AnnotationKeys) -> Self {
        self.folder = self.folder.keeping(annotations);
        self
    }

    /// What the source is reading, shared with its observers.
    pub fn progress(&self) -> Progress {
        self.folder.progress()
    }

    /// Sends batches until the receiver is closed: first all objects, ending in [`Change::Listed`], then changes.
    /// Blocks, so it needs its own thread.
    pub fn run(mut self, batches: &tokio::sync::mpsc::Sender<Vec<Change>>) {
        loop {
            // The watch starts before the look, so no change is missed in between.
            self.watch.follow(self.folder.path(), self.folder.outside_folders());
            let batch = self.folder.look(&self.writers.busy(Instant::now()));
            let writer = self.writers.oldest().map(|(since, path)| (since, name_of(path)));
            self.folder.progress().wait_for(writer);
            let is_closed = if batch.is_empty() { batches.is_closed() } else { batches.blocking_send(batch).is_err() };
            if is_closed {
                return;
            }
            self.wait(batches);
        }
    }

    /// Returns when it is time to look again.
    fn wait(&mut self, batches: &tokio::sync::mpsc::Sender<Vec<Change>>) {
        let first = self.writers.next_deadline(Instant::now()).unwrap_or(LOOK_INTERVAL).min(LOOK_INTERVAL);
        let started = Instant::now();
        while !self.take_event(first.saturating_sub(started.elapsed())) {
            if started.elapsed() >= first || batches.is_closed() {
                return;
            }
        }
        let burst = Instant::now();
        while burst.elapsed() < BURST_MAX && self.take_event(QUIET) {}
    }

    /// Waits for one event. Returns whether the folder may have changed.
    fn take_event(&mut self, patience: Duration) -> bool {
        match self.watch.events.recv_timeout(patience) {
            Ok(Ok(event)) => self.writers.observe(&event, Instant::now()),
            // An unreadable event: look at the folder.
            Ok(Err(_)) => true,
            Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => false,
        }
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// An inotify watch over the folder and over the folders of the targets of symbolic links.
struct Watch {
    /// `None` if inotify is not available.
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<notify::Result<notify::Event>>,
    /// Keeps `events` connected. A disconnected channel would turn waiting into spinning.
    _sender: mpsc::Sender<notify::Result<notify::Event>>,
    followed: BTreeSet<Followed>,
}

/// A watched folder, identified by inode: another folder that takes its path is not the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Followed {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Watch {
    fn new() -> Self {
        let (sender, events) = mpsc::channel();
        let watcher = notify::recommended_watcher(sender.clone());
        if let Err(error) = &watcher {
            tracing::warn!(%error, "inotify is not available: the agent reads the folder every second instead");
        }
        Self { watcher: watcher.ok(), events, _sender: sender, followed: BTreeSet::new() }
    }

    /// Watches exactly these folders.
    fn follow(&mut self, folder: &Path, outside: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeSet<Followed> =
            outside.into_iter().chain([folder.to_owned()]).filter_map(Followed::of).collect();
        for gone in self.followed.difference(&wanted) {
            // If the folder was removed, the kernel has already dropped the watch.
            let _ = watcher.unwatch(&gone.path);
        }
        let mut followed: BTreeSet<Followed> = self.followed.intersection(&wanted).cloned().collect();
        for new in wanted.difference(&self.followed) {
            match watcher.watch(&new.path, RecursiveMode::NonRecursive) {
                Ok(()) => drop(followed.insert(new.clone())),
                Err(error) => tracing::debug!(%error, path = %new.path.display(), "cannot watch it, trying again"),
            }
        }
        self.followed = followed;
    }
}

impl Followed {
    fn of(path: PathBuf) -> Option<Self> {
        let metadata = std::fs::metadata(&path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino(), path })
    }
}

#[cfg(test)]
mod tests;
