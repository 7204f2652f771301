//! Where pools stand in `pools4` and `pools6`, which is most of their ids.
//!
//! Both families share the numbers, so that an id is one pool's. Elements that were freed rest until all others have been
//! used, and a pool that begins where another one did has another id: known flows are told by it.

use std::collections::BTreeMap;

use lb_common::table::{POOL_ELEMENTS_MAX, PoolKey};

/// Ids of pools that begin at one element: what the upper bits can tell apart.
const TURNS: u32 = u32::MAX / POOL_ELEMENTS_MAX + 1;

/// Elements that are in use.
#[derive(Debug, Default)]
pub struct Taken {
    /// How many there are in a row, by the first one.
    runs: BTreeMap<u32, u32>,
    /// The largest id.
    last: u32,
}

impl Taken {
    /// A pool has at least so many rows.
    pub fn add(&mut self, pool: u32, rows: u32) {
        let known = self.runs.entry(first_element(pool)).or_default();
        *known = rows.max(*known);
        self.last = self.last.max(pool);
    }

    /// The pool is gone.
    pub fn remove(&mut self, pool: u32) {
        self.runs.remove(&first_element(pool));
    }

    /// So many free elements in a row, at or after `from` and before `end`.
    fn gap(&self, from: u32, rows: u32, end: u32) -> Option<u32> {
        let mut start = self.runs.range(..from).next_back().map_or(from, |(first, rows)| from.max(first + rows));
        for (first, rows_there) in self.runs.range(from..) {
            if first.saturating_sub(start) >= rows {
                break;
            }
            start = start.max(first + rows_there);
        }
        (start.saturating_add(rows) <= end).then_some(start)
    }
}

/// Hands out ids of pools, in the order of the elements.
#[derive(Debug)]
pub struct PoolIds {
    /// The element to try first.
    next: u32,
    /// How often all have been gone through.
    turn: u32,
    /// Elements that there are; the first one is nobody's, as pool 0 is none.
    elements: u32,
    /// Ids that stand nowhere which were handed out.
    waiting: u32,
}

impl PoolIds {
    /// Starts after the largest id that is in use.
    pub fn after(taken: &Taken, elements: u32) -> Self {
        let last = first_element(taken.last);
        let next = last + taken.runs.get(&last).copied().unwrap_or(1);
        Self { next, turn: taken.last / POOL_ELEMENTS_MAX, elements: elements.min(POOL_ELEMENTS_MAX - 1), waiting: 0 }
    }

    /// Finds so many elements in a row. Where there are none the id is past the end: writing the pool will fail, and what
    /// names it waits.
    pub fn take(&mut self, rows: u32, taken: &mut Taken) -> u32 {
        let ahead = taken.gap(self.next, rows, self.elements);
        let Some(element) = ahead.or_else(|| taken.gap(1, rows, self.elements)) else { return self.past_the_end() };
        if ahead.is_none() {
            self.turn = (self.turn + 1) % TURNS;
        }
        self.next = element + rows;
        let pool = self.turn * POOL_ELEMENTS_MAX + element;
        taken.add(pool, rows);
        pool
    }

    /// An id of a pool that stands nowhere. The largest ids: their rows are written last, and fail when all others stand.
    fn past_the_end(&mut self) -> u32 {
        let places = POOL_ELEMENTS_MAX - self.elements;
        let (turn, place) = (TURNS - 1 - self.waiting / places % TURNS, self.waiting % places);
        self.waiting = self.waiting.wrapping_add(1);
        turn * POOL_ELEMENTS_MAX + self.elements + place
    }
}

const fn first_element(pool: u32) -> u32 {
    PoolKey { pool, slot: 0 }.element()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an id says: the turn and the element.
    fn place(pool: u32) -> (u32, u32) {
        (pool / POOL_ELEMENTS_MAX, first_element(pool))
    }

    #[test]
    fn freed_elements_rest_until_all_others_have_been_used() {
        let mut taken = Taken::default();
        let mut ids = PoolIds::after(&taken, 10);
        let first = ids.take(3, &mut taken);
        let second = ids.take(2, &mut taken);
        assert_eq!([first, second], [1, 4]);
        taken.remove(first);
        assert_eq!(place(ids.take(4, &mut taken)), (0, 6));
        // The end: where the first one was, under another id.
        assert_eq!(place(ids.take(2, &mut taken)), (1, 1));
        assert_eq!(place(ids.take(1, &mut taken)), (1, 3));
    }

    #[test]
    fn a_pool_stands_where_all_of_it_has_room() {
        let mut taken = Taken::default();
        let mut ids = PoolIds::after(&taken, 12);
        let pools = [2, 3, 2, 4].map(|rows| ids.take(rows, &mut taken));
        assert_eq!(pools.map(place), [(0, 1), (0, 3), (0, 6), (0, 8)]);
        taken.remove(pools[0]);
        taken.remove(pools[2]);
        let large = ids.take(3, &mut taken);
        assert!(first_element(large) >= 12, "two gaps of two");
        assert_eq!(place(ids.take(2, &mut taken)), (1, 1));
        taken.remove(pools[1]);
        assert_eq!(place(ids.take(5, &mut taken)), (1, 3));
        assert_ne!(ids.take(3, &mut taken), large, "each that waits has its own id");
    }

    #[test]
    fn a_restart_goes_on_behind_the_latest_pool() {
        let mut taken = Taken::default();
        taken.add(2 * POOL_ELEMENTS_MAX + 5, 3);
        taken.add(POOL_ELEMENTS_MAX + 20, 4);
        let mut ids = PoolIds::after(&taken, 30);
        assert_eq!([12, 6, 2].map(|rows| place(ids.take(rows, &mut taken))), [(2, 8), (2, 24), (3, 1)]);
    }

    #[test]
    fn the_turns_come_round() {
        let mut taken = Taken::default();
        taken.add((TURNS - 1) * POOL_ELEMENTS_MAX + 1, 4);
        assert_eq!(place(PoolIds::after(&taken, 10).take(5, &mut taken)), (TURNS - 1, 5));
        taken.remove(1);
        taken.add((TURNS - 1) * POOL_ELEMENTS_MAX + 9, 1);
        assert_eq!(place(PoolIds::after(&taken, 10).take(4, &mut taken)), (0, 1));
    }
}
