//! Waits for conditions, with a time limit. The harness never sleeps for a fixed time.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for any step on a loaded two-core machine.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(5);

/// The first value that `look` finds, or `None` after the time limit.
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

/// The first value that `look` finds. Panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    match within(PATIENCE, look) {
        Some(found) => found,
        None => panic!("waited {} s in vain: {what}", PATIENCE.as_secs()),
    }
}

/// Waits until `is_so`. Panics with `what` after [`PATIENCE`].
#[track_caller]
pub fn until_true(what: &str, mut is_so: impl FnMut() -> bool) {
    until(what, || is_so().then_some(()));
}
