//! Where pools stand in `pools4` and `pools6`, which is most of their ids.
//!
//! Both families share the numbers, so that an id is one pool's. A pool that begins where another one did has another id:
//! known flows are told by it.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::{POOL_ELEMENTS_MAX, PoolKey};

/// Ids of pools that begin at one element: what the upper bits can tell apart.
const TURNS: u32 = u32::MAX / POOL_ELEMENTS_MAX + 1;

/// Elements that are in use, and those between them.
#[derive(Debug)]
pub struct Elements {
    /// How many are in use in a row, by the first one.
    runs: BTreeMap<u32, u32>,
    /// How many are free in a row, and the first one; none before anybody has asked.
    gaps: Option<BTreeSet<(u32, u32)>>,
    /// Elements that there are; the first one is nobody's, as pool 0 is none.
    count: u32,
    /// The latest turn of a pool that there is.
    turn: Option<u32>,
}

impl Elements {
    /// All free.
    pub const fn new(count: u32) -> Self {
        Self { runs: BTreeMap::new(), gaps: None, count, turn: None }
    }

    pub const fn count(&self) -> u32 {
        self.count
    }

    /// A pool has at least so many rows, if it stands anywhere.
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

    /// The pool is gone.
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

    /// The first of so many free elements in a row, in use from now on. They are taken where they leave least: small pools
    /// do not cut up the room of large ones.
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

/// Hands out ids of pools.
#[derive(Debug)]
pub struct PoolIds {
    /// The turn of the next pool that begins at each element.
    turns: Vec<u16>,
    /// That of elements where none has begun yet.
    first_turn: u16,
    /// Ids that stand nowhere which were handed out.
    waiting: u32,
}

impl PoolIds {
    /// Beside those that are in use. In the turn after theirs: flows may still name one that went before a restart.
    pub fn beside(elements: &Elements) -> Self {
        let first_turn = elements.turn.map_or(0, |turn| (turn + 1) % TURNS) as u16;
        Self { turns: Vec::new(), first_turn, waiting: 0 }
    }

    /// Finds so many elements in a row. Where there are none the id is past the end: writing the pool will fail, and what
    /// names it waits.
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

    /// Whoever waited has lost his id.
    pub const fn forget_waiting(&mut self) {
        self.waiting = 0;
    }

    /// An id of a pool that stands nowhere, of the largest: its rows are written last, and fail when others stand.
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

    /// What an id says: the turn and the element.
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

    /// What would cut up the array, were the next free elements taken: a large pool that grows, and a small one behind it.
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
