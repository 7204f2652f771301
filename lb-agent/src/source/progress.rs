//! What a source is reading at the moment: shared between the source and whoever shows whether it gets anywhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{Warning, WarningKind};

/// Reading for longer than this is worth a word.
const READING_MAX: Duration = Duration::from_secs(5);

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Option<Work>>>);

/// What is not complete yet.
#[derive(Clone, Debug)]
struct Work {
    since: Instant,
    what: String,
}

impl Progress {
    /// Reading starts; until [`Self::end`], nothing that changes is told.
    pub fn begin(&self, what: impl Into<String>) {
        self.set(Some(Work { since: Instant::now(), what: what.into() }));
    }

    /// It has come to this part.
    pub fn reach(&self, what: &str) {
        if let Some(work) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            what.clone_into(&mut work.what);
        }
    }

    /// All that there was is read.
    pub fn end(&self) {
        self.set(None);
    }

    /// For how long it has been reading; zero while it waits for changes.
    pub fn reading(&self) -> Duration {
        self.now().map_or(Duration::ZERO, |work| work.since.elapsed())
    }

    /// What to tell where it gets nowhere.
    pub fn warning(&self) -> Option<Warning> {
        let work = self.now().filter(|work| work.since.elapsed() > READING_MAX)?;
        let secs = work.since.elapsed().as_secs();
        let problem = format!("has been read for {secs} s without an end; what was told before is kept");
        Some(Warning::new(WarningKind::Source, problem, "make it smaller, or remove it").in_file(work.what))
    }

    fn now(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, work: Option<Work>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = work;
    }

    /// As if it had begun so long ago.
    #[cfg(test)]
    pub fn begin_ago(&self, what: &str, ago: Duration) {
        self.set(Instant::now().checked_sub(ago).map(|since| Work { since, what: what.to_owned() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_told_until_it_ends() {
        let progress = Progress::default();
        assert_eq!(progress.reading(), Duration::ZERO);
        progress.begin("folder");
        assert!(progress.warning().is_none());
        progress.begin_ago("folder", Duration::from_secs(20));
        progress.reach("a.yaml");
        let warning = progress.clone().warning().expect("it takes long").to_string();
        assert!(warning.starts_with("a.yaml: has been read for 20 s without an end"), "{warning}");
        assert!(progress.reading() >= Duration::from_secs(20));
        progress.end();
        assert!(progress.warning().is_none());
    }
}
