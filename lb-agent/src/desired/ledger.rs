//! Accounts of the room in the tables: what each namespace takes, and which table is too small.

use std::collections::HashMap;
use std::sync::Arc;

use lb_common::table::Backend;

use super::access::SourcePrefix;
use super::applicant::Applicant;
use super::demand::{Bound, Demand};
use super::incumbent::Incumbents;
use super::policy::TableLimits;
use super::service_rows::{FamilyRows, ServiceRows};
use crate::family::TableAddr;

/// A table that is too small: it would have to hold `wanted` rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    pub what: &'static str,
    pub wanted: usize,
    pub max: u32,
    /// The flag that raises the limit.
    pub setting: &'static str,
    /// The namespace whose share is used up, if the table itself has room.
    pub namespace: Option<Arc<str>>,
}

/// What pools hold if any of them is a Maglev table.
pub const TABLE_SLOTS: &str = "slots of pools";

/// The tables of both families.
pub struct Ledger {
    limits: TableLimits,
    frontend_ids: usize,
    pub v4: Accounts<[u8; 4]>,
    pub v6: Accounts<[u8; 16]>,
}

/// The tables of one family: the total, and the part of each namespace.
pub struct Accounts<A> {
    all: Account<A>,
    namespaces: HashMap<Arc<str>, Account<A>>,
}

/// Rows that are taken. A pool or set of ranges counts once, however many frontends refer to it.
struct Account<A> {
    frontends: usize,
    /// Frontend rows of all Services.
    frontend_rows: usize,
    members: usize,
    pools: HashMap<Arc<[Backend<A>]>, usize>,
    /// Uses of Maglev tables, by their backends.
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

/// Selects the accounts and rows of a family.
pub trait Book: TableAddr {
    fn accounts(ledger: &mut Ledger) -> &mut Accounts<Self>;
    fn rows(rows: &ServiceRows) -> &FamilyRows<Self>;
    fn demand<'a>(of: &'a Applicant<'_>) -> &'a Demand<Self>;
}

/// What a Service takes.
#[derive(Clone, Copy, Debug)]
pub struct Take<'a, A> {
    pub demand: &'a Demand<A>,
    /// The frontends for which the tables hold no row of any Service: only these need a further row.
    pub new_frontends: usize,
}

impl Book for [u8; 4] {
    fn accounts(ledger: &mut Ledger) -> &mut Accounts<Self> {
        &mut ledger.v4
    }

    fn rows(rows: &ServiceRows) -> &FamilyRows<Self> {
        &rows.v4
    }

    fn demand<'a>(of: &'a Applicant<'_>) -> &'a Demand<Self> {
        &of.v4
    }
}

impl Book for [u8; 16] {
    fn accounts(ledger: &mut Ledger) -> &mut Accounts<Self> {
        &mut ledger.v6
    }

    fn rows(rows: &ServiceRows) -> &FamilyRows<Self> {
        &rows.v6
    }

    fn demand<'a>(of: &'a Applicant<'_>) -> &'a Demand<Self> {
        &of.v6
    }
}

impl Ledger {
    /// Existing frontends keep their rows until no flow refers to them, even if they are no longer wanted.
    pub fn new(limits: &TableLimits, incumbents: &Incumbents<'_>) -> Self {
        Self {
            limits: *limits,
            frontend_ids: 0,
            v4: Accounts::beside(incumbents.frontends::<[u8; 4]>()),
            v6: Accounts::beside(incumbents.frontends::<[u8; 16]>()),
        }
    }

    /// Takes the room if the tables have it.
    pub fn keep<A: Book>(&mut self, namespace: &Arc<str>, take: Take<'_, A>) -> bool {
        self.take(namespace, take);
        let is_kept = self.shortage::<A>().is_none();
        if !is_kept {
            self.release(namespace, take);
        }
        is_kept
    }

    /// Takes the room if the tables have it and the namespace stays within its share.
    pub fn admit<A: Book>(&mut self, namespace: &Arc<str>, take: Take<'_, A>) -> Result<(), Shortage> {
        self.take(namespace, take);
        let shortage = self.shortage::<A>().or_else(|| self.shortage_of::<A>(namespace));
        if shortage.is_some() {
            self.release(namespace, take);
        }
        shortage.map_or(Ok(()), Err)
    }

    /// Takes the room without a check.
    pub fn take<A: Book>(&mut self, namespace: &Arc<str>, take: Take<'_, A>) {
        self.frontend_ids += take.demand.frontends;
        let accounts = A::accounts(self);
        accounts.all.take(take);
        accounts.namespaces.entry(Arc::clone(namespace)).or_default().take(take);
    }

    pub fn release<A: Book>(&mut self, namespace: &Arc<str>, take: Take<'_, A>) {
        self.frontend_ids -= take.demand.frontends;
        let accounts = A::accounts(self);
        accounts.all.release(take);
        if let Some(account) = accounts.namespaces.get_mut(namespace) {
            account.release(take);
        }
    }

    /// Which table of a family is too small, if any.
    pub fn shortage<A: Book>(&mut self) -> Option<Shortage> {
        let (limits, ids) = (self.limits, self.frontend_ids);
        A::accounts(self).all.shortage(&limits, ids, None)
    }

    /// The table of which this namespace takes more than its share, if any.
    fn shortage_of<A: Book>(&mut self, namespace: &Arc<str>) -> Option<Shortage> {
        let limits = self.limits.of_namespace();
        A::accounts(self).namespaces.get(namespace)?.shortage(&limits, 0, Some(namespace))
    }
}

impl<A: TableAddr> Account<A> {
    fn take(&mut self, Take { demand, new_frontends }: Take<'_, A>) {
        self.frontends += demand.frontends;
        self.frontend_rows += new_frontends;
        self.members += demand.members;
        for pool in &*demand.pools {
            let uses = self.known(pool.table_slots).entry(Arc::clone(&pool.backends)).or_default();
            *uses += 1;
            if *uses == 1 {
                self.in_pools += pool.rows();
            }
            self.table_slots = self.table_slots.max(pool.table_slots.unwrap_or(0));
        }
        for set in &*demand.source_sets {
            let uses = self.source_sets.entry(Arc::clone(set)).or_default();
            *uses += 1;
            if *uses == 1 {
                self.source_ranges += set.len();
            }
        }
    }

    fn release(&mut self, Take { demand, new_frontends }: Take<'_, A>) {
        self.frontends -= demand.frontends;
        self.frontend_rows -= new_frontends;
        self.members -= demand.members;
        for pool in &*demand.pools {
            if forget(self.known(pool.table_slots), &pool.backends) {
                self.in_pools -= pool.rows();
            }
        }
        for set in &*demand.source_sets {
            if forget(&mut self.source_sets, set) {
                self.source_ranges -= set.len();
            }
        }
    }

    const fn known(&mut self, table_slots: Option<u16>) -> &mut HashMap<Arc<[Backend<A>]>, usize> {
        if table_slots.is_some() { &mut self.tables } else { &mut self.pools }
    }

    fn shortage(&self, limits: &TableLimits, ids: usize, namespace: Option<&Arc<str>>) -> Option<Shortage> {
        let taken = Bound {
            frontends: self.frontends,
            members: self.members,
            pool_rows: self.in_pools,
            table_slots: if self.tables.is_empty() { 0 } else { self.table_slots },
            source_ranges: self.source_ranges,
        };
        shortage(&taken, self.frontend_rows, limits, ids, namespace)
    }
}

/// Whether this fits in the tables of a family, which then have `frontend_rows`, beside `ids` of both families.
pub fn fits(taken: &Bound, frontend_rows: usize, limits: &TableLimits, ids: usize) -> bool {
    shortage(taken, frontend_rows, limits, ids, None).is_none()
}

fn shortage(
    taken: &Bound,
    frontend_rows: usize,
    limits: &TableLimits,
    ids: usize,
    namespace: Option<&Arc<str>>,
) -> Option<Shortage> {
    let (what_pools_hold, pool_rows_max) = match taken.table_slots {
        0 => ("backends in pools", limits.pool_rows_max),
        slots => (TABLE_SLOTS, limits.pool_rows_beside_tables(slots)),
    };
    [
        ("frontend ids", ids, limits.frontend_ids_max, "--frontends-max"),
        ("frontends", taken.frontends.max(frontend_rows), limits.frontends_max, "--frontends-max"),
        (what_pools_hold, taken.pool_rows, pool_rows_max, "--backends-max"),
        ("members", taken.members, limits.members_max, "--backends-max"),
        ("source ranges", taken.source_ranges, limits.source_ranges_max, "--source-ranges-max"),
    ]
    .into_iter()
    .map(|(what, wanted, max, setting)| Shortage { what, wanted, max, setting, namespace: namespace.cloned() })
    .find(|shortage| shortage.wanted > shortage.max as usize)
}

/// Decrements a use count. Returns `true` for the last use.
fn forget<K: std::hash::Hash + Eq + ?Sized>(uses: &mut HashMap<Arc<K>, usize>, key: &Arc<K>) -> bool {
    let Some(count) = uses.get_mut(key) else { return false };
    *count -= 1;
    let is_last = *count == 0;
    if is_last {
        uses.remove(key);
    }
    is_last
}
