//! How often and how much the API server is asked.

use std::time::Duration;

/// Sizes and times of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Objects per page, which are in memory at once.
    pub page_size: u32,
    /// Time-out for the answer to a list, or for the start of the answer to a watch.
    pub patience: Duration,
    /// Life of a watch, up to 1.5 times this value. A watch that is silent for longer is dead.
    pub watch: Duration,
    /// Wait before the first retry. Doubled each time.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            page_size: 250,
            patience: Duration::from_secs(30),
            // A dead connection is noticed within this time. Each renewal costs one request.
            watch: Duration::from_mins(2),
            // client-go uses 800 ms and 30 s.
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
        }
    }
}
