//! Positions of pools in `pools4` and `pools6`, which make up most of a pool's ID.
//!
//! Both families share the numbers, so an ID belongs to one pool only. If a new pool begins at the element of an
//! earlier pool, it gets another ID, because flow entries recognise a pool by its ID.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::{POOL_ELEMENTS_MAX, PoolKey};

/// Number of IDs for pools that begin at the same element: the values of the upper bits.
const TURNS: u32 = u32::MAX / POOL_ELEMENTS_MAX + 1;

/// Array elements in use, and the gaps between them.
#[derive(Debug)]
pub struct Elements {
    /// Length of each run of used elements, by its first element.
    runs: BTreeMap<u32, u32>,
    /// Length and first element of each gap. `None` until first needed.
    gaps: Option<BTreeSet<(u32, u32)>>,
    /// Number of elements. Element 0 is unused because pool 0 means none.
    count: u32,
    /// The latest turn of any known pool.
    turn: Option<u32>,
}

impl Elements {
    /// All elements are free.
    pub const fn new(count: u32) -> Self {
        Self { runs: BTreeMap::new(), gaps: None, count, turn: None }
    }

    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Records that a pool has at least this many rows, if it lies within the array.
    pub fn add(&mut self, pool: u32, rows: u32) {
        let first = first_element(pool);
        if first >= self.count {
            return;
        }
        let known = self.runs.entry(first).or_default();
        *known = rows.max(*known);
        self.gaps = None;
        self.turn = self.turn.max(Some(pool / POOL_ELEMENTS_MAX));
    }

    /// Records that a pool was deleted.
    pub fn remove(&mut self, pool: u32) {
        let first = first_element(pool);
        let Some(rows) = self.runs.remove(&first) else { return };
        let before = self.runs.range(..first).next_back().map_or(1, |(first, rows)| first + rows);
        let behind = self.runs.range(first..).next().map_or(self.count, |(first, _)| *first);
        if let Some(gaps) = &mut self.gaps {
            gaps.remove(&(first.saturating_sub(before), before));
            gaps.remove(&(behind.saturating_sub(first + rows), first + rows));
            gaps.insert((behind.saturating_sub(before), before));
        }
    }

    /// Allocates this many adjacent elements and returns the first. Uses the smallest gap that fits, so that small
    /// pools do not fragment the room for large ones.
    fn take(&mut self, rows: u32) -> Option<u32> {
        let gaps = self.gaps.get_or_insert_with(|| gaps(&self.runs, self.count));
        let (free, first) = *gaps.range((rows, 0)..).next()?;
        gaps.remove(&(free, first));
        if free > rows {
            gaps.insert((free - rows, first + rows));
        }
        self.runs.insert(first, rows);
        Some(first)
    }
}

fn gaps(runs: &BTreeMap<u32, u32>, count: u32) -> BTreeSet<(u32, u32)> {
    let mut next = 1;
    let ends = runs.iter().map(|(first, rows)| (*first, first + rows)).chain([(count, count)]);
    let gaps = ends.map(|(first, end)| {
        let gap = (first.saturating_sub(next), next);
        next = next.max(end);
        gap
    });
    gaps.filter(|(free, _)| *free > 0).collect()
}

/// Assigns pool IDs.
#[derive(Debug)]
pub struct PoolIds {
    /// The turn of the next pool that begins at each element.
    turns: Vec<u16>,
    /// The turn of elements where no pool has begun yet.
    first_turn: u16,
    /// Number of IDs assigned past the end of the array.
    waiting: u32,
}

impl PoolIds {
    /// Starts in the turn after those in use: flows may still refer to a pool that was deleted before a restart.
    pub fn beside(elements: &Elements) -> Self {
        let first_turn = elements.turn.map_or(0, |turn| (turn + 1) % TURNS) as u16;
        Self { turns: Vec::new(), first_turn, waiting: 0 }
    }

    /// Finds this many adjacent elements. If there is no such gap, the ID lies past the end: writing the pool fails,
    /// and the scopes that refer to it wait.
    pub fn take(&mut self, rows: u32, elements: &mut Elements) -> u32 {
        let Some(element) = elements.take(rows) else { return self.past_the_end(elements.count) };
        let index = element as usize;
        if index >= self.turns.len() {
            self.turns.resize(index + 1, self.first_turn);
        }
        let turn = u32::from(self.turns[index]);
        self.turns[index] = ((turn + 1) % TURNS) as u16;
        turn * POOL_ELEMENTS_MAX + element
    }

    /// Starts again with the IDs past the end: the pools that had them were forgotten.
    pub const fn forget_waiting(&mut self) {
        self.waiting = 0;
    }

    /// An ID past the end of the array, in the last turns. Its rows are written last, so they fail after the other
    /// pools were written.
    fn past_the_end(&mut self, end: u32) -> u32 {
        let places = POOL_ELEMENTS_MAX - end;
        let (turn, place) = (TURNS - 1 - self.waiting / places % TURNS, self.waiting % places);
        self.waiting += 1;
        turn * POOL_ELEMENTS_MAX + end + place
    }
}

const fn first_element(pool: u32) -> u32 {
    PoolKey { pool, slot: 0 }.element()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The turn and the element that an ID encodes.
    fn place(pool: u32) -> (u32, u32) {
        (pool / POOL_ELEMENTS_MAX, first_element(pool))
    }

    fn new(count: u32) -> (Elements, PoolIds) {
        let elements = Elements::new(count);
        let ids = PoolIds::beside(&elements);
        (elements, ids)
    }

    #[test]
    fn no_id_is_given_twice() {
        let (mut elements, mut ids) = new(10);
        let pools = [3, 2].map(|rows| ids.take(rows, &mut elements));
        assert_eq!(pools.map(place), [(0, 1), (0, 4)]);
        elements.remove(pools[0]);
        let again = ids.take(3, &mut elements);
        assert_eq!(place(again), (1, 1));
        elements.remove(again);
        assert_eq!([1, 2].map(|rows| place(ids.take(rows, &mut elements))), [(2, 1), (0, 2)]);
    }

    #[test]
    fn a_pool_stands_where_it_leaves_least() {
        let (mut elements, mut ids) = new(20);
        let pools = [4, 1, 2, 1, 3, 1].map(|rows| ids.take(rows, &mut elements));
        assert_eq!(pools.map(first_element), [1, 5, 6, 8, 9, 12]);
        for pool in [pools[0], pools[2], pools[4]] {
            elements.remove(pool);
        }
        assert_eq!([2, 3, 4].map(|rows| first_element(ids.take(rows, &mut elements))), [6, 9, 1]);
        assert_eq!(first_element(ids.take(7, &mut elements)), 13, "the rest, to the end");
    }

    #[test]
    fn gaps_grow_together() {
        let (mut elements, mut ids) = new(11);
        let pools = [2, 3, 2, 3].map(|rows| ids.take(rows, &mut elements));
        assert!(first_element(ids.take(1, &mut elements)) >= 11, "it is full");
        elements.remove(pools[0]);
        elements.remove(pools[2]);
        let waiting = [3, 3].map(|rows| ids.take(rows, &mut elements));
        for pool in waiting {
            elements.add(pool, 3);
        }
        assert!(waiting.iter().all(|pool| first_element(*pool) >= 11), "two gaps of two");
        assert_ne!(waiting[0], waiting[1]);
        elements.remove(pools[1]);
        assert_eq!(place(ids.take(7, &mut elements)), (1, 1));
        elements.remove(pools[3]);
        assert_eq!(place(ids.take(3, &mut elements)), (1, 8));
    }

    /// Allocating the next free elements would fragment the array: a large pool grows, and a small one follows it.
    #[test]
    fn small_pools_leave_large_ones_their_room() {
        let (mut elements, mut ids) = new(1000);
        let mut pools = [0, 0];
        for rows in 50..240 {
            for (pool, rows) in pools.iter_mut().zip([rows, 1 + rows % 3]) {
                let next = ids.take(rows, &mut elements);
                assert!(first_element(next) < 1000, "no room for {rows}: {elements:?}");
                elements.remove(std::mem::replace(pool, next));
            }
        }
    }

    #[test]
    fn a_restart_knows_the_gaps_and_gives_new_ids() {
        let mut elements = Elements::new(30);
        elements.add(2 * POOL_ELEMENTS_MAX + 5, 3);
        elements.add(POOL_ELEMENTS_MAX + 20, 4);
        let mut ids = PoolIds::beside(&elements);
        assert_eq!([12, 4, 6].map(|rows| place(ids.take(rows, &mut elements))), [(3, 8), (3, 1), (3, 24)]);
        elements.remove(2 * POOL_ELEMENTS_MAX + 5);
        assert_eq!(place(ids.take(3, &mut elements)), (3, 5));
    }

    #[test]
    fn turns_come_round() {
        let mut elements = Elements::new(10);
        elements.add((TURNS - 2) * POOL_ELEMENTS_MAX + 9, 1);
        let mut ids = PoolIds::beside(&elements);
        let last = ids.take(8, &mut elements);
        elements.remove(last);
        assert_eq!([place(last), place(ids.take(8, &mut elements))], [(TURNS - 1, 1), (0, 1)]);
    }
}
