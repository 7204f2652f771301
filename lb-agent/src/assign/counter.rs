//! Counters that hand out ids: upwards, from 1, skipping live ones when they come round.

use std::collections::BTreeSet;

/// The next id to try. Freed ids rest until all others have been used.
#[derive(Debug)]
pub struct Counter {
    next: u32,
    max: u32,
}

impl Counter {
    /// Starts after the largest id that is in use.
    pub fn after(largest: Option<u32>, max: u32) -> Self {
        let next = largest.filter(|largest| *largest < max).map_or(1, |largest| largest + 1);
        Self { next, max }
    }

    /// The next id that is not live, made live; `None` when all are.
    pub fn take(&mut self, live: &mut BTreeSet<u32>) -> Option<u32> {
        // Among `live.len() + 1` candidates one is not live.
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

    /// As [`Self::take`], for ids that 32 bits are enough for.
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
        // 2 is live, 3 has rested.
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
