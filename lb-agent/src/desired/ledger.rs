//! The room in the tables: what is taken, by whom, and what is too small for more.

use std::collections::HashMap;
use std::sync::Arc;

use lb_common::table::Backend;

use super::access::SourcePrefix;
use super::incumbent::Incumbents;
use super::policy::Limits;
use super::room::Demand;
use crate::family::TableAddr;

/// What is too small: with the Service there would be so many of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub what: &'static str,
    pub wanted: usize,
    pub max: u32,
    /// The flag that makes room.
    pub setting: &'static str,
    /// Where the table has room: whose share of it is taken.
    pub namespace: Option<Arc<str>>,
}

/// What pools hold where some are Maglev tables.
pub const TABLE_SLOTS: &str = "slots of pools";

/// The tables of both families.
pub struct Ledger {
    limits: Limits,
    frontend_ids: usize,
    pub v4: Accounts<[u8; 4]>,
    pub v6: Accounts<[u8; 16]>,
}

/// The tables of one family: all of it, and what each namespace has.
pub struct Accounts<A> {
    all: Account<A>,
    namespaces: HashMap<Arc<str>, Account<A>>,
}

/// Rows that are taken. Pools and sets of ranges are there once, however many ask for them.
struct Account<A> {
    frontends: usize,
    /// Rows of frontends, of whomever.
    frontend_rows: usize,
    members: usize,
    pools: HashMap<Arc<[Backend<A>]>, usize>,
    /// Maglev tables, by their backends.
    tables: HashMap<Arc<[Backend<A>]>, usize>,
    in_pools: usize,
    table_slots: u16,
    source_sets: HashMap<Arc<[SourcePrefix<A>]>, usize>,
    source_ranges: usize,
}

impl<A> Default for Account<A> {
    fn default() -> Self {
        Self {
            frontends: 0,
            frontend_rows: 0,
            members: 0,
            pools: HashMap::new(),
            tables: HashMap::new(),
            in_pools: 0,
            table_slots: 0,
            source_sets: HashMap::new(),
            source_ranges: 0,
        }
    }
}

impl<A> Accounts<A> {
    fn beside(frontend_rows: usize) -> Self {
        Self { all: Account { frontend_rows, ..Account::default() }, namespaces: HashMap::new() }
    }
}

/// The accounts of a family.
pub trait Book: TableAddr {
    fn accounts(ledger: &mut Ledger) -> &mut Accounts<Self>;
}

impl Book for [u8; 4] {
    fn accounts(ledger: &mut Ledger) -> &mut Accounts<Self> {
        &mut ledger.v4
    }
}

impl Book for [u8; 16] {
    fn accounts(ledger: &mut Ledger) -> &mut Accounts<Self> {
        &mut ledger.v6
    }
}

impl Ledger {
    /// Frontends that are there keep their rows until no flow refers to them, whoever wants them.
    pub fn new(limits: &Limits, incumbents: &Incumbents<'_>) -> Self {
        Self {
            limits: *limits,
            frontend_ids: 0,
            v4: Accounts::beside(incumbents.frontends::<[u8; 4]>()),
            v6: Accounts::beside(incumbents.frontends::<[u8; 16]>()),
        }
    }

    /// Takes the room, where the tables have it.
    pub fn keep<A: Book>(&mut self, namespace: &Arc<str>, demand: &Demand<A>) -> bool {
        self.take(namespace, demand);
        let is_kept = self.shortage::<A>().is_none();
        if !is_kept {
            self.release(namespace, demand);
        }
        is_kept
    }

    /// Takes the room, where the tables have it and it is no more than the share of the namespace.
    pub fn admit<A: Book>(&mut self, namespace: &Arc<str>, demand: &Demand<A>) -> Result<(), Shortage> {
        self.take(namespace, demand);
        let shortage = self.shortage::<A>().or_else(|| self.shortage_of::<A>(namespace));
        if shortage.is_some() {
            self.release(namespace, demand);
        }
        shortage.map_or(Ok(()), Err)
    }

    /// Takes the room of what is there already.
    pub fn take<A: Book>(&mut self, namespace: &Arc<str>, demand: &Demand<A>) {
        self.frontend_ids += demand.frontends;
        let accounts = A::accounts(self);
        accounts.all.take(demand);
        accounts.namespaces.entry(Arc::clone(namespace)).or_default().take(demand);
    }

    pub fn release<A: Book>(&mut self, namespace: &Arc<str>, demand: &Demand<A>) {
        self.frontend_ids -= demand.frontends;
        let accounts = A::accounts(self);
        accounts.all.release(demand);
        if let Some(account) = accounts.namespaces.get_mut(namespace) {
            account.release(demand);
        }
    }

    /// Which table of a family is too small, if any.
    pub fn shortage<A: Book>(&mut self) -> Option<Shortage> {
        let (limits, ids) = (self.limits, self.frontend_ids);
        A::accounts(self).all.shortage(&limits, ids, None)
    }

    /// Of which table this namespace has more than its share.
    fn shortage_of<A: Book>(&mut self, namespace: &Arc<str>) -> Option<Shortage> {
        let limits = self.limits.of_namespace();
        A::accounts(self).namespaces.get(namespace)?.shortage(&limits, 0, Some(namespace))
    }
}

impl<A: TableAddr> Account<A> {
    fn take(&mut self, demand: &Demand<A>) {
        self.frontends += demand.frontends;
        self.frontend_rows += demand.new_frontends;
        self.members += demand.members;
        for pool in &demand.pools {
            let uses = self.known(pool.table_slots).entry(Arc::clone(&pool.backends)).or_default();
            *uses += 1;
            if *uses == 1 {
                self.in_pools += pool.rows();
            }
            self.table_slots = self.table_slots.max(pool.table_slots.unwrap_or(0));
        }
        for set in &demand.source_sets {
            let uses = self.source_sets.entry(Arc::clone(set)).or_default();
            *uses += 1;
            if *uses == 1 {
                self.source_ranges += set.len();
            }
        }
    }

    fn release(&mut self, demand: &Demand<A>) {
        self.frontends -= demand.frontends;
        self.frontend_rows -= demand.new_frontends;
        self.members -= demand.members;
        for pool in &demand.pools {
            if forget(self.known(pool.table_slots), &pool.backends) {
                self.in_pools -= pool.rows();
            }
        }
        for set in &demand.source_sets {
            if forget(&mut self.source_sets, set) {
                self.source_ranges -= set.len();
            }
        }
    }

    const fn known(&mut self, table_slots: Option<u16>) -> &mut HashMap<Arc<[Backend<A>]>, usize> {
        if table_slots.is_some() { &mut self.tables } else { &mut self.pools }
    }

    fn shortage(&self, limits: &Limits, ids: usize, namespace: Option<&Arc<str>>) -> Option<Shortage> {
        let (what_pools_hold, pool_rows_max) = if self.tables.is_empty() {
            ("backends in pools", limits.pool_rows_max)
        } else {
            (TABLE_SLOTS, limits.pool_rows_beside_tables(self.table_slots))
        };
        [
            ("frontend ids", ids, limits.frontend_ids_max, "--frontends-max"),
            ("frontends", self.frontends.max(self.frontend_rows), limits.frontends_max, "--frontends-max"),
            (what_pools_hold, self.in_pools, pool_rows_max, "--backends-max"),
            ("members", self.members, limits.members_max, "--backends-max"),
            ("source ranges", self.source_ranges, limits.source_ranges_max, "--source-ranges-max"),
        ]
        .into_iter()
        .map(|(what, wanted, max, setting)| Shortage { what, wanted, max, setting, namespace: namespace.cloned() })
        .find(|shortage| shortage.wanted > shortage.max as usize)
    }
}

/// Counts a user less. `true` where it was the last one.
fn forget<K: std::hash::Hash + Eq + ?Sized>(uses: &mut HashMap<Arc<K>, usize>, key: &Arc<K>) -> bool {
    let Some(count) = uses.get_mut(key) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        uses.remove(key);
    }
    is_last
}
