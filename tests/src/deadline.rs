//! Waiting for something to become true, with an end: nothing here sleeps a fixed time and hopes.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for anything that a loaded two-core machine does on its own.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// The first value that `look` finds, or `None` when the deadline has passed.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// The first value that `look` finds. Panics with `what` when [`PATIENCE`] is over.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    match within(PATIENCE, look) {
        Some(found) => found,
        None => panic!("waited {} s in vain: {what}", PATIENCE.as_secs()),
    }
}

/// Waits until `is_so`. Panics with `what` when [`PATIENCE`] is over.
#[track_caller]
pub fn until_true(what: &str, mut is_so: impl FnMut() -> bool) {
    until(what, || is_so().then_some(()));
}
