//! How often the API server is asked.

use std::time::Duration;

/// Sizes and times of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Objects a page: what is in memory at once.
    pub page_size: u32,
    /// Time for the answer to a list, or for the start of one to a watch.
    pub patience: Duration,
    /// Life of a watch, up to one and a half of it; a watch that is silent for longer is dead.
    pub watch: Duration,
    /// Before the first repetition of what failed; doubled each time.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            page_size: 250,
            patience: Duration::from_secs(30),
            // A dead connection is noticed within this time; each renewal is one request.
            watch: Duration::from_mins(2),
            // Those of client-go are 800 ms and 30 s.
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
        }
    }
}
