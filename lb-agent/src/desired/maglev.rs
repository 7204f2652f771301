//! Maglev tables: which backend is in which slot (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4).
//!
//! A table depends only on the set of backends, so all nodes compute the same table. Each backend has a permutation of
//! the slots, derived from its address and port. In turns, each backend takes the next free slot of its permutation. So
//! the shares differ by one slot at most, and if a backend leaves, most slots of the others stay.

use lb_common::addr::Addr;
use lb_common::selection::backend_hash;
use lb_common::table::Backend;

/// Seeds of the two numbers that define a permutation. Changing them moves flows while a cluster is upgraded.
const OFFSET_SEED: u32 = 1;
const SKIP_SEED: u32 = 2;

/// Number of slots of a table. It is a prime, so that every permutation visits all slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize(u16);

impl TableSize {
    /// Values of `--maglev-table-size`: the largest primes below powers of two, up to what a scope can count.
    pub const ALLOWED: [u16; 9] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];
    /// A hundred slots for each of ten backends, as the paper recommends.
    pub const DEFAULT: Self = Self(1021);

    /// Returns `None` if `slots` is not a prime.
    pub fn new(slots: u16) -> Option<Self> {
        let is_prime = slots > 1 && (2..=slots.isqrt()).all(|divisor| !slots.is_multiple_of(divisor));
        is_prime.then_some(Self(slots))
    }

    pub const fn slots(self) -> u16 {
        self.0
    }
}

/// A backend's position in its permutation of the slots.
struct Permutation {
    next: u32,
    skip: u32,
}

impl Permutation {
    fn of<A: Addr>(backend: &Backend<A>, slots: u32) -> Self {
        let hash = |seed| backend_hash(&backend.addr, backend.port, seed);
        Self { next: hash(OFFSET_SEED) % slots, skip: hash(SKIP_SEED) % (slots - 1) + 1 }
    }

    fn take_next(&mut self, slots: u32) -> usize {
        let slot = self.next;
        self.next = (slot + self.skip) % slots;
        slot as usize
    }
}

/// The table of these backends, slot by slot. `backends` is sorted, without duplicates, and not longer than the table.
pub fn table<A: Addr>(backends: &[Backend<A>], size: TableSize) -> Vec<Backend<A>> {
    let slots = u32::from(size.0);
    let mut permutations: Vec<Permutation> = backends.iter().map(|backend| Permutation::of(backend, slots)).collect();
    let mut table: Vec<Option<Backend<A>>> = vec![None; slots as usize];
    for turn in 0..slots as usize {
        let chooser = turn % backends.len();
        // Fewer turns than slots have passed, so a slot of the permutation is free.
        while let Some(slot) = table.get_mut(permutations[chooser].take_next(slots)) {
            if slot.is_none() {
                *slot = Some(backends[chooser]);
                break;
            }
        }
    }
    table.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn backends(numbers: impl IntoIterator<Item = u32>) -> Vec<Backend<[u8; 4]>> {
        numbers.into_iter().map(|number| Backend { addr: (0x0a00_0000 + number).to_be_bytes(), port: 8080 }).collect()
    }

    fn size(slots: u16) -> TableSize {
        TableSize::new(slots).expect("a prime")
    }

    fn ratio(part: usize, whole: usize) -> f64 {
        let small = |number| f64::from(u32::try_from(number).expect("a small number"));
        small(part) / small(whole)
    }

    /// The largest share divided by the average.
    fn imbalance(table: &[Backend<[u8; 4]>], backends: usize) -> f64 {
        let mut shares: BTreeMap<[u8; 4], usize> = BTreeMap::new();
        for backend in table {
            *shares.entry(backend.addr).or_default() += 1;
        }
        ratio(shares.into_values().max().unwrap_or_default() * backends, table.len())
    }

    /// The share of slots that change their backend, although it stays, when another one leaves: averaged over all
    /// departures.
    fn disruption(of: &[Backend<[u8; 4]>], size: TableSize) -> f64 {
        let before = table(of, size);
        let moved = |gone: usize| {
            let mut rest = of.to_vec();
            let gone = rest.remove(gone);
            let after = table(&rest, size);
            before.iter().zip(&after).filter(|(old, new)| old != new && **old != gone).count()
        };
        ratio((0..of.len()).map(moved).sum(), of.len() * before.len())
    }

    #[test]
    fn only_primes_are_sizes() {
        assert!(TableSize::ALLOWED.into_iter().all(|slots| TableSize::new(slots).is_some()));
        assert!([0, 1, 4, 1022, 65_535].into_iter().all(|slots| TableSize::new(slots).is_none()));
    }

    /// Other nodes and other versions must compute the same table.
    #[test]
    fn tables_never_change() {
        let slots: Vec<u8> = table(&backends(1..4), size(7)).iter().map(|backend| backend.addr[3]).collect();
        assert_eq!(slots, [1, 1, 3, 1, 3, 2, 2]);
    }

    /// Section 5.3 of the paper: with enough slots for each backend, shares differ by about a percent, and few of the
    /// slots that could stay change.
    #[test]
    fn shares_are_even_and_few_slots_move() {
        for (count, slots, moved_max) in
            [(3, 251, 0.02), (10, 1021, 0.06), (10, 16_381, 0.02), (100, 1021, 0.04), (100, 16_381, 0.02)]
        {
            let of = backends(1..=count);
            let started = std::time::Instant::now();
            let made = table(&of, size(slots));
            // Printed for information (--release, --nocapture). Time is not asserted.
            println!("{count} backends, {slots} slots: made in {:?}", started.elapsed());
            let (even, moved) = (imbalance(&made, of.len()), disruption(&of, size(slots)));
            println!(
                "{count} backends, {slots} slots: max/avg {even:.4}, moved beyond 1/{count}: {:.2} %",
                moved * 100.0
            );
            assert!(even <= 1.0 + f64::from(count) / f64::from(slots), "{count} of {slots}: {even}");
            assert!(moved < moved_max, "{count} of {slots}: {moved}");
        }
    }

    proptest! {
        /// Every slot is taken, and no backend has two slots more than another.
        #[test]
        fn every_backend_has_its_share(numbers in prop::collection::btree_set(any::<u16>(), 1..200), slots in prop::sample::select(vec![211_u16, 251, 1021])) {
            let of = backends(numbers.into_iter().map(u32::from));
            let table = table(&of, size(slots));
            prop_assert_eq!(table.len(), usize::from(slots));
            for backend in &of {
                let share = table.iter().filter(|found| *found == backend).count();
                let fair = usize::from(slots) / of.len();
                prop_assert!(share == fair || share == fair + 1, "{} of {} slots", share, slots);
            }
        }
    }
}
