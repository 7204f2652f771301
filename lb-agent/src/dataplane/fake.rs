//! A dataplane in memory that fails on purpose, to test the failure handling of its callers.
//!
//! It does the worst that the contract of [`Dataplane`] allows: a failed step may have written any of its rows. It
//! panics if a caller breaks the contract by omitting a grace period while packets may still use a row.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::{Action, Backend, PoolKey, Scopes};

use super::{Dataplane, Error, FamilyOp, FamilyTables, Op, Tables};

/// Which calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    Never,
    /// This share of the calls, drawn by a generator with this seed.
    Random {
        percent: u8,
        seed: u64,
    },
    /// Only the call with this number, counted from 0.
    Nth(usize),
    /// All calls.
    Always,
}

/// Writes since the last grace period.
#[derive(Clone, Copy, Debug, Default)]
struct Unsettled {
    /// Scopes were switched: packets may still use the previous pools.
    scopes: bool,
    /// Frontends were deleted: packets may be reading elements that an insert would reuse.
    deletes: bool,
}

/// Checks the tables after each row, and panics if an invariant is broken.
pub type Observer = Box<dyn FnMut(&Tables) + Send>;

/// Tables in memory.
pub struct FakeDataplane {
    pub tables: Tables,
    /// The answer of [`Dataplane::frontends_in_use`].
    pub in_use: BTreeSet<u32>,
    /// Number of elements of `pools4` and of `pools6`.
    pub pool_elements: u32,
    /// The pool row that was last written to each element.
    elements: BTreeMap<u32, PoolKey>,
    /// Number of grace periods so far.
    pub settled: usize,
    /// Rows that packets may still hold.
    unsettled: Unsettled,
    faults: Faults,
    random: Random,
    calls: usize,
    observer: Option<Observer>,
}

impl Default for FakeDataplane {
    fn default() -> Self {
        Self::holding(Tables::default())
    }
}

impl FakeDataplane {
    /// A dataplane that already holds these tables, as after a restart.
    pub fn holding(tables: Tables) -> Self {
        Self {
            elements: elements(&tables),
            tables,
            in_use: BTreeSet::new(),
            pool_elements: u32::MAX,
            settled: 0,
            unsettled: Unsettled::default(),
            faults: Faults::Never,
            random: Random(0),
            calls: 0,
            observer: None,
        }
    }

    /// Sets which of the following calls fail.
    pub fn fail(&mut self, faults: Faults) {
        self.faults = faults;
        self.calls = 0;
        if let Faults::Random { seed, .. } = faults {
            self.random = Random(seed);
        }
    }

    /// Calls `observer` after each following write of a row.
    pub fn observe(&mut self, observer: impl FnMut(&Tables) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    fn must_fail(&mut self) -> bool {
        let call = self.calls;
        self.calls += 1;
        match self.faults {
            Faults::Never => false,
            Faults::Random { percent, .. } => self.random.below(100) < u64::from(percent),
            Faults::Nth(nth) => call == nth,
            Faults::Always => true,
        }
    }

    fn check(&mut self, what: &str) -> Result<(), Error> {
        if self.must_fail() { Err(injected(what)) } else { Ok(()) }
    }

    /// Writes row by row. A step that must fail first writes some of the rows, possibly all.
    fn write<R>(
        &mut self,
        name: &str,
        rows: &[R],
        mut write: impl FnMut(&mut Tables, &R) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let must_fail = self.must_fail();
        let count = if must_fail { self.random.below(rows.len() as u64 + 1) as usize } else { rows.len() };
        for row in &rows[..count] {
            write(&mut self.tables, row)?;
            if let Some(observer) = &mut self.observer {
                observer(&self.tables);
            }
        }
        if must_fail { Err(injected(name)) } else { Ok(()) }
    }

    /// Panics if two pools, of either family, share an element.
    fn upsert_pools<A: Ord + Copy>(
        &mut self,
        rows: &[(PoolKey, Backend<A>)],
        of: fn(&mut Tables) -> &mut FamilyTables<A>,
    ) -> Result<(), Error> {
        let (max, mut elements) = (self.pool_elements, std::mem::take(&mut self.elements));
        let result = self.write("pools", rows, |tables, (key, backend)| {
            if key.element() >= max {
                return Err(Error::Full { map: "pools", max, setting: "--backends-max" });
            }
            let before = elements.insert(key.element(), *key).filter(|before| before != key);
            let is_there = |key| tables.v4.pools.contains_key(key) || tables.v6.pools.contains_key(key);
            assert!(!before.as_ref().is_some_and(is_there), "{before:?} and {key:?} have the same element");
            of(tables).pools.insert(*key, *backend);
            Ok(())
        });
        self.elements = elements;
        result
    }

    fn family<A: Ord + Copy>(
        &mut self,
        op: &FamilyOp<A>,
        of: fn(&mut Tables) -> &mut FamilyTables<A>,
    ) -> Result<(), Error> {
        match op {
            FamilyOp::UpsertPools(rows) => self.upsert_pools(rows, of),
            FamilyOp::UpsertMembers(rows) => self.write("members", rows, |tables, (key, member)| {
                of(tables).members.insert(*key, *member);
                Ok(())
            }),
            FamilyOp::UpsertSourceRanges(rows) => self.write("source_ranges", rows, |tables, (key, range)| {
                of(tables).source_ranges.insert(*key, *range);
                Ok(())
            }),
            FamilyOp::UpsertFrontends(rows) => {
                let is_settled = !self.unsettled.deletes;
                self.write("frontends", rows, |tables, (key, frontend)| {
                    let old = of(tables).frontends.insert(*key, *frontend);
                    assert!(old.is_none_or(|old| old.id == frontend.id), "the id of a frontend changed in place");
                    assert!(
                        old.is_some() || is_settled,
                        "a frontend was inserted after a delete without a grace period"
                    );
                    Ok(())
                })
            }
            FamilyOp::DeleteFrontends(keys) => {
                self.unsettled.deletes = true;
                self.write("frontends", keys, |tables, key| {
                    of(tables).frontends.remove(key);
                    Ok(())
                })
            }
            FamilyOp::DeleteMembers(keys) => self.write("members", keys, |tables, key| {
                of(tables).members.remove(key);
                Ok(())
            }),
            FamilyOp::DeleteSourceRanges(keys) => {
                assert!(!self.unsettled.scopes, "a source range was deleted after a switch without a grace period");
                self.write("source_ranges", keys, |tables, key| {
                    of(tables).source_ranges.remove(key);
                    Ok(())
                })
            }
            FamilyOp::DeletePools(keys) => {
                assert!(!self.unsettled.scopes, "a pool was deleted after a switch without a grace period");
                self.write("pools", keys, |tables, key| {
                    of(tables).pools.remove(key);
                    Ok(())
                })
            }
        }
    }
}

impl Dataplane for FakeDataplane {
    fn dump(&mut self) -> Result<Tables, Error> {
        self.check("dump")?;
        Ok(self.tables.clone())
    }

    fn perform(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::V4(op) => self.family(op, |tables| &mut tables.v4),
            Op::V6(op) => self.family(op, |tables| &mut tables.v6),
            Op::StoreScopes(rows) => {
                self.unsettled.scopes = true;
                self.write("scopes", rows, |tables, (id, scopes)| {
                    if *scopes == Scopes::PASS {
                        tables.scopes.remove(id);
                    } else {
                        tables.scopes.insert(*id, *scopes);
                    }
                    Ok(())
                })
            }
            Op::Settle => {
                self.check("settle")?;
                self.settled += 1;
                self.unsettled = Unsettled::default();
                Ok(())
            }
        }
    }

    fn frontends_in_use(&mut self) -> Result<BTreeSet<u32>, Error> {
        self.check("flows")?;
        Ok(self.in_use.clone())
    }
}

fn elements(tables: &Tables) -> BTreeMap<u32, PoolKey> {
    tables.v4.pools.keys().chain(tables.v6.pools.keys()).map(|key| (key.element(), *key)).collect()
}

fn injected(what: &str) -> Error {
    Error::Kernel { what: what.to_owned(), source: std::io::Error::other("injected fault") }
}

/// SplitMix64: reproducible, and random enough to choose which calls fail.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Panics if a lookup would find no backend: each balancing scope of a frontend must have its slots `0..count`.
pub fn assert_no_dangling_pool(tables: &Tables) {
    fn family<A: lb_common::addr::Addr>(family: &FamilyTables<A>, tables: &Tables) {
        for (key, frontend) in &family.frontends {
            let Some(scopes) = tables.scopes.get(&frontend.id) else { continue };
            for scope in [scopes.workload, scopes.host, scopes.external] {
                if scope.action != Action::Balance {
                    continue;
                }
                assert!(scope.count > 0, "frontend {key:?} balances over nothing");
                for slot in 0..u32::from(scope.count) {
                    let row = PoolKey { pool: scope.pool, slot };
                    assert!(family.pools.contains_key(&row), "frontend {key:?} leads to {row:?}, which is not there");
                }
            }
        }
    }
    family(&tables.v4, tables);
    family(&tables.v6, tables);
}
