//! Limits the work for expensive pages: one at a time, with a pause after each page as long as the page took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// The turn. Clones share it.
#[derive(Clone, Default)]
pub struct Turn(Arc<Mutex<Last>>);

/// How long the last page took, and when it was done.
#[derive(Default)]
struct Last {
    took: Duration,
    ended: Option<Instant>,
}

/// The work on a page. Dropping it ends the turn.
pub struct Work {
    last: OwnedMutexGuard<Last>,
    started: Instant,
}

impl Turn {
    /// Waits for the turn, in the order of asking. Without recent requests there is no wait. Probes do not use turns.
    pub async fn work(&self) -> Work {
        let last = Arc::clone(&self.0).lock_owned().await;
        if let Some(ended) = last.ended {
            // Timers cannot measure less than a millisecond.
            let rest = last.took.max(Duration::from_millis(1));
            tokio::time::sleep_until((ended + rest).into()).await;
        }
        Work { last, started: Instant::now() }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let now = Instant::now();
        self.last.took = now.saturating_duration_since(self.started);
        self.last.ended = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn others_get_half_of_the_time() {
        let turn = Turn::default();
        let work = turn.work().await;
        std::thread::sleep(Duration::from_millis(50));
        drop(work);
        let ended = Instant::now();
        drop(turn.work().await);
        assert!(ended.elapsed() >= Duration::from_millis(40), "{:?}", ended.elapsed());
        // After a page that took no time, the next one follows at once.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let asked = Instant::now();
        drop(turn.work().await);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
}
