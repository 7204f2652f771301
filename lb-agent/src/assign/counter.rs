//! Counters that assign IDs upwards from 1 and, after wrapping around, skip the live ones.

use std::collections::BTreeSet;

/// The next ID to try. Freed IDs are quarantined until all others have been used.
#[derive(Debug)]
pub struct Counter {
    next: u32,
    max: u32,
}

impl Counter {
    /// Starts after the largest ID in use.
    pub fn after(largest: Option<u32>, max: u32) -> Self {
        let next = largest.filter(|largest| *largest < max).map_or(1, |largest| largest + 1);
        Self { next, max }
    }

    /// Returns the next ID that is not live and marks it live. Returns `None` if all IDs are live.
    pub fn take(&mut self, live: &mut BTreeSet<u32>) -> Option<u32> {
        // At least one of `live.len() + 1` candidates is not live.
        for _ in 0..=live.len() {
            if self.next > self.max {
                self.next = 1;
            }
            let id = self.next;
            self.next = id.checked_add(1).unwrap_or(1);
            if id <= self.max && live.insert(id) {
                return Some(id);
            }
        }
        None
    }

    /// As [`Self::take`], for IDs that cannot run out.
    pub fn take_unbounded(&mut self, live: &mut BTreeSet<u32>) -> u32 {
        self.take(live).unwrap_or_else(|| unreachable!("{} ids of 32 bits are in use", live.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_ids_rest_until_the_counter_comes_round() {
        let mut live = BTreeSet::from([2]);
        let mut counter = Counter::after(Some(2), 5);
        assert_eq!(counter.take(&mut live), Some(3));
        live.remove(&3);
        assert_eq!(counter.take(&mut live), Some(4));
        assert_eq!(counter.take(&mut live), Some(5));
        assert_eq!(counter.take(&mut live), Some(1));
        // 2 is live; 3 has been quarantined long enough.
        assert_eq!(counter.take(&mut live), Some(3));
        assert_eq!(counter.take(&mut live), None);
    }

    #[test]
    fn wraps_at_the_end_of_u32() {
        let mut live = BTreeSet::from([1]);
        let mut counter = Counter::after(Some(u32::MAX - 1), u32::MAX);
        assert_eq!(counter.take(&mut live), Some(u32::MAX));
        assert_eq!(counter.take(&mut live), Some(2));
    }

    #[test]
    fn starts_at_one_when_the_largest_is_the_last() {
        assert_eq!(Counter::after(Some(5), 5).take(&mut BTreeSet::from([5])), Some(1));
        assert_eq!(Counter::after(None, 5).take(&mut BTreeSet::new()), Some(1));
    }
}
