//! Back-off: the wait before a retry grows with each failure and is randomised, so that nodes do not retry together.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The delays of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Delays start at about `min` and double each time up to about `max`.
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next delay: 0.5 to 1.5 times the nominal one, so that a thousand nodes that lost the same API server do not
    /// come back at once.
    pub fn delay(&mut self) -> Duration {
        let nominal = self.next;
        self.next = (nominal * 2).min(self.max);
        nominal.mul_f64(0.5 + fraction())
    }

    /// Starts again after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

/// A random number from 0 to 1. The keys of the standard hasher are random, and differ on each call.
pub fn fraction() -> f64 {
    f64::from(RandomState::new().hash_one(()) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_limit_and_start_again() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(3));
        let mut backoff = Backoff::new(min, max);
        let mut nominal = min;
        for _ in 0..20 {
            let delay = backoff.delay();
            assert!(delay >= nominal / 2 && delay <= nominal * 3 / 2, "{delay:?} around {nominal:?}");
            nominal = (nominal * 2).min(max);
        }
        assert_eq!(nominal, max);
        backoff.reset();
        assert!(backoff.delay() <= min * 3 / 2);
    }

    #[test]
    fn delays_differ() {
        let delays: std::collections::BTreeSet<Duration> =
            (0..8).map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).delay()).collect();
        assert!(delays.len() > 1, "{delays:?}");
    }
}
