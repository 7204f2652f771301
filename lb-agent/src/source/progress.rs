//! What a source is reading now: shared between the source and its observers, to show whether it makes progress.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Warning, WarningKind};

/// Reading that takes longer gets a warning.
const READING_MAX: Duration = Duration::from_secs(5);

/// Clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Works>>);

#[derive(Clone, Debug, Default)]
struct Works {
    /// What is being read.
    reading: Option<Work>,
    /// A file that is not read because it is being written.
    writing: Option<Work>,
}

/// Work that is not complete yet.
#[derive(Clone, Debug)]
struct Work {
    since: Instant,
    what: String,
}

impl Progress {
    /// Starts reading. Until [`Self::end`], no change is reported.
    pub fn begin(&self, what: impl Into<String>) {
        self.works().reading = Some(Work { since: Instant::now(), what: what.into() });
    }

    /// Reading has reached this part.
    pub fn reach(&self, what: &str) {
        if let Some(work) = &mut self.works().reading {
            what.clone_into(&mut work.what);
        }
    }

    /// Everything has been read.
    pub fn end(&self) {
        self.works().reading = None;
    }

    /// Sets the file that is not read because it is being written, and since when.
    pub fn wait_for(&self, writer: Option<(Instant, String)>) {
        self.works().writing = writer.map(|(since, what)| Work { since, what });
    }

    /// How long the oldest read or write has not ended; zero while the source waits for changes.
    pub fn stalled(&self) -> Duration {
        let Works { reading, writing } = self.works().clone();
        reading.iter().chain(&writing).map(|work| work.since.elapsed()).max().unwrap_or_default()
    }

    /// A warning if the source makes no progress.
    pub fn warning(&self) -> Option<Warning> {
        let Works { reading, writing } = self.works().clone();
        let works = [(reading, "read", "make it smaller, or remove it"), (writing, "written", "write it and close it")];
        works.into_iter().find_map(|(work, done, remedy)| {
            let Work { since, what } = work.filter(|work| work.since.elapsed() > READING_MAX)?;
            let secs = since.elapsed().as_secs();
            let problem = format!("has been {done} for {secs} s without an end; the objects known before are kept");
            Some(Warning::new(WarningKind::Source, problem, remedy).in_file(what))
        })
    }

    fn works(&self) -> MutexGuard<'_, Works> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pretends that reading began this long ago.
    #[cfg(test)]
    pub fn begin_ago(&self, what: &str, ago: Duration) {
        self.works().reading = Instant::now().checked_sub(ago).map(|since| Work { since, what: what.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_told_until_it_ends() {
        let progress = Progress::default();
        assert_eq!(progress.stalled(), Duration::ZERO);
        progress.begin("folder");
        assert!(progress.warning().is_none());
        progress.begin_ago("folder", Duration::from_secs(20));
        progress.reach("a.yaml");
        let warning = progress.clone().warning().expect("it takes long").to_string();
        assert!(warning.starts_with("a.yaml: has been read for 20 s without an end"), "{warning}");
        assert!(progress.stalled() >= Duration::from_secs(20));
        progress.end();
        assert!(progress.warning().is_none());
        progress.wait_for(Instant::now().checked_sub(Duration::from_secs(9)).map(|since| (since, "b.yaml".to_owned())));
        let warning = progress.warning().expect("it takes long").to_string();
        assert!(warning.starts_with("b.yaml: has been written for 9 s without an end"), "{warning}");
        progress.wait_for(None);
        assert_eq!(progress.stalled(), Duration::ZERO);
    }
}
