//! A dataplane in memory that fails on purpose, to test the failure handling of its callers.
//!
//! It does the worst that the contract of [`Dataplane`] allows: a failed step may have written any of its rows. It
//! panics if a caller breaks the contract by omitting a grace period while packets may still use a row.

mod links;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::addr::Addr;
use lb_common::host::HostFamily;
use lb_common::table::{Action, AddressBits, PoolKey, Port, Scopes};

use super::driver::Mode;
use super::garbage::Garbage;
use super::lease::Telling;
use super::links::{Ahead, Class, Link, LinkHeader};
use super::{Dataplane, Error, FamilyOp, FamilyTables, Op, Tables, UplinkRows, Write};

pub use links::FakeLinks;

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

/// The length of the tables of address bits in memory: short, so that many addresses share a bit.
pub const ADDRESS_WORDS: u32 = 4;

/// The clock has already run for a while, as a kernel's has.
pub const STARTED_JIFFIES: u64 = 1_000_000;

/// Tables in memory.
pub struct FakeDataplane {
    pub tables: Tables,
    /// The answer of [`Dataplane::frontends_in_use`].
    pub in_use: BTreeSet<u32>,
    /// Number of elements of `pools4` and of `pools6`.
    pub pool_elements: u32,
    /// The pool row that was last written to each element.
    elements: BTreeMap<u32, PoolKey>,
    /// Interfaces that attach or fail.
    pub links: FakeLinks,
    pub now_jiffies: u64,
    pub is_clock_broken: bool,
    /// The answer of [`Dataplane::socket_problem`].
    pub socket_problem: Option<String>,
    /// Number of grace periods so far.
    pub settled: usize,
    /// Rows that packets may still hold.
    unsettled: Unsettled,
    faults: Faults,
    /// Steps that always fail.
    refuses: fn(&Op) -> bool,
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
            links: FakeLinks::default(),
            now_jiffies: STARTED_JIFFIES,
            is_clock_broken: false,
            socket_problem: None,
            settled: 0,
            unsettled: Unsettled::default(),
            faults: Faults::Never,
            refuses: |_| false,
            random: Random(0),
            calls: 0,
            observer: None,
        }
    }

    /// A dataplane without rows on a node with these interfaces.
    pub fn with(links: FakeLinks) -> Self {
        Self { links, ..Self::default() }
    }

    /// Number of calls since the faults were last set.
    pub const fn calls(&self) -> usize {
        self.calls
    }

    /// Refuses these steps from now on. Nothing of them is written.
    pub fn refuse(&mut self, refuses: fn(&Op) -> bool) {
        self.refuses = refuses;
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

    fn check(&mut self, op: &'static str) -> Result<(), Error> {
        if self.must_fail() { Err(injected(op)) } else { Ok(()) }
    }

    /// Writes row by row. A step that must fail first writes some of the rows, possibly all.
    fn write(&mut self, op: &Op) -> Result<(), Error> {
        let rows = op.clone().into_parts(1);
        let must_fail = self.must_fail();
        let count = if must_fail { self.random.below(rows.len() as u64 + 1) as usize } else { rows.len() };
        for row in rows.into_iter().take(count) {
            match &row {
                Op::V4(op) => self.check_row(op)?,
                Op::V6(op) => self.check_row(op)?,
                Op::Scopes(write) => {
                    self.check_ages(write);
                    self.unsettled.scopes = true;
                }
                Op::FrontendAges(Write::Delete(ids)) => {
                    let balances = |id| self.tables.scopes.get(id).is_some_and(Scopes::balances);
                    assert!(!ids.iter().any(balances), "{ids:?} lost their age while they balance");
                }
                Op::FrontendAges(Write::Upsert(_)) | Op::Settle => {}
            }
            row.record(&mut self.tables);
            if let Some(observer) = &mut self.observer {
                observer(&self.tables);
            }
        }
        if must_fail { Err(injected("write")) } else { Ok(()) }
    }

    /// Refuses a pool past the end. Panics if the caller breaks the contract.
    fn check_row<A: HostFamily>(&mut self, op: &FamilyOp<A>) -> Result<(), Error> {
        let tables = A::tables(&self.tables);
        match op {
            FamilyOp::Pools(Write::Upsert(rows)) => {
                return rows.iter().try_for_each(|(key, _)| self.take_element(*key));
            }
            FamilyOp::Members(Write::Upsert(rows)) => {
                for (key, _) in rows {
                    let bit = key.address_bit(ADDRESS_WORDS);
                    let is_noted = tables.endpoints.contains_key(&key.endpoint()) && is_set(tables, bit.word, bit.mask);
                    assert!(is_noted, "{key:?} was written before its endpoint or address");
                }
            }
            FamilyOp::Frontends(Write::Upsert(rows)) => {
                for (key, frontend) in rows {
                    let old = tables.frontends.get(key);
                    assert!(old.is_none_or(|old| old.id == frontend.id), "the id of a frontend changed in place");
                    let is_reusing = old.is_none() && self.unsettled.deletes;
                    assert!(!is_reusing, "a frontend was inserted after a delete without a grace period");
                    let bit = key.address_bit(ADDRESS_WORDS);
                    assert!(is_set(tables, bit.word, bit.mask), "{key:?} was written before its address");
                }
            }
            FamilyOp::Frontends(Write::Delete(_)) => self.unsettled.deletes = true,
            FamilyOp::Pools(Write::Delete(keys)) => self.check_delete(keys),
            FamilyOp::SourceRanges(Write::Delete(keys)) => self.check_delete(keys),
            FamilyOp::Endpoints(Write::Delete(keys)) => {
                self.check_delete(keys);
                let is_named = tables.members.keys().any(|member| keys.contains(&member.endpoint()));
                assert!(!is_named, "{keys:?} were deleted while members have them");
            }
            FamilyOp::Addresses(Write::Upsert(rows)) => {
                for (word, value) in rows {
                    check_cleared(tables, *word, *value);
                }
            }
            FamilyOp::Addresses(Write::Delete(words)) => {
                for word in words {
                    check_cleared(tables, *word, AddressBits { bits: 0 });
                }
            }
            FamilyOp::Members(Write::Delete(_))
            | FamilyOp::SourceRanges(Write::Upsert(_))
            | FamilyOp::Endpoints(Write::Upsert(_)) => {}
        }
        Ok(())
    }

    /// Panics if a scope begins to balance before its frontend got the age.
    fn check_ages(&self, write: &Write<u32, Scopes>) {
        let Write::Upsert(rows) = write else { return };
        for (id, scopes) in rows {
            let begins = scopes.begins_to_balance(self.tables.scopes.get(id).unwrap_or(&Scopes::PASS));
            let age = self.tables.frontend_ages.get(id).map(|age| age.balanced_jiffies);
            assert!(!begins || age == Some(self.now_jiffies), "frontend {id} began to balance with the age {age:?}");
        }
    }

    fn check_delete<K: std::fmt::Debug>(&self, keys: &[K]) {
        assert!(!self.unsettled.scopes, "{keys:?} were deleted after a switch without a grace period");
    }

    /// Takes the element of a pool row. Panics if another pool, of either family, has it.
    fn take_element(&mut self, key: PoolKey) -> Result<(), Error> {
        let (max, element) = (self.pool_elements, key.element());
        if element >= max {
            return Err(Error::Full { map: "pools", max, setting: "--backends-max" });
        }
        let before = self.elements.insert(element, key).filter(|before| *before != key);
        let is_there = |key| self.tables.v4.pools.contains_key(key) || self.tables.v6.pools.contains_key(key);
        assert!(!before.as_ref().is_some_and(is_there), "{before:?} and {key:?} have the same element");
        Ok(())
    }
}

impl Dataplane for FakeDataplane {
    fn address_words(&self) -> u32 {
        ADDRESS_WORDS
    }

    fn dump(&mut self) -> Result<Tables, Error> {
        self.check("dump")?;
        Ok(self.tables.clone())
    }

    fn perform(&mut self, op: &Op) -> Result<(), Error> {
        if *op == Op::Settle {
            self.check("settle")?;
            self.settled += 1;
            self.unsettled = Unsettled::default();
            return Ok(());
        }
        if (self.refuses)(op) {
            self.calls += 1;
            return Err(injected("write"));
        }
        self.write(op)
    }

    fn now_jiffies(&mut self) -> Result<u64, Error> {
        if self.is_clock_broken { Err(injected("clock")) } else { Ok(self.now_jiffies) }
    }

    fn frontends_in_use(&mut self) -> Result<BTreeSet<u32>, Error> {
        self.check("flows")?;
        Ok(self.in_use.clone())
    }

    fn activate(&mut self) -> Result<(), Error> {
        self.links.activate()
    }

    fn set_uplinks(&mut self, uplinks: &UplinkRows) -> Result<(), Error> {
        self.links.uplinks.clone_from(uplinks);
        Ok(())
    }

    fn set_ports(&mut self, ports: &[Port]) -> Result<(), Error> {
        self.links.set_ports(ports)
    }

    fn attach(&mut self, link: &Link) -> Result<(), Error> {
        self.links.attach(link)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        self.links.detach(ifindex);
        Ok(())
    }

    fn attached(&self) -> BTreeSet<(u32, Class, LinkHeader)> {
        self.links.attached.clone()
    }

    fn attach_driver(&mut self, ifindex: u32, mode: Mode) -> Result<(), Error> {
        self.links.attach_driver(ifindex, mode)
    }

    fn detach_driver(&mut self, ifindex: u32) -> Result<(), Error> {
        self.links.detach_driver(ifindex);
        Ok(())
    }

    fn drivers(&self) -> BTreeMap<u32, Mode> {
        self.links.drivers.clone()
    }

    fn socket_problem(&self) -> Option<&str> {
        self.socket_problem.as_deref()
    }

    fn follow_monitor(&mut self) -> Result<Option<Telling>, Error> {
        Ok(None)
    }

    fn release_sockets(&mut self) -> Result<usize, Error> {
        Ok(0)
    }

    fn forget_forwarded_datagrams(&mut self) -> Result<usize, Error> {
        Ok(0)
    }

    fn ahead(&self) -> Vec<Ahead> {
        self.links.ahead.clone()
    }

    fn forget_lost(&mut self) -> bool {
        self.links.forget_lost()
    }

    fn collect(&mut self) -> Result<Option<Garbage>, Error> {
        Ok(self.links.collect())
    }
}

fn is_set<A>(tables: &FamilyTables<A>, word: u32, mask: u64) -> bool {
    tables.addresses.get(&word).is_some_and(|found| found.bits & mask != 0)
}

/// Panics if a store clears the bit of an address that a row has.
fn check_cleared<A: Addr>(tables: &FamilyTables<A>, word: u32, value: AddressBits) {
    let cleared = tables.addresses.get(&word).map_or(0, |found| found.bits) & !value.bits;
    if cleared == 0 {
        return;
    }
    let dialled = tables.frontends.keys().map(|key| key.address_bit(ADDRESS_WORDS));
    let mut needed = dialled.chain(tables.members.keys().map(|key| key.address_bit(ADDRESS_WORDS)));
    assert!(
        !needed.any(|bit| bit.word == word && bit.mask & cleared != 0),
        "a bit of word {word} was cleared while a row needs it"
    );
}

fn elements(tables: &Tables) -> BTreeMap<u32, PoolKey> {
    tables.v4.pools.keys().chain(tables.v6.pools.keys()).map(|key| (key.element(), *key)).collect()
}

fn injected(op: &'static str) -> Error {
    Error::Kernel { op, source: std::io::Error::other("injected fault") }
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
            for scope in scopes.per_client().into_array() {
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
