//! Performs a plan: isolates failures row by row, holds back what depends on a failed row, and records only successes
//! in `realised`.
//!
//! It may stop at any point and be repeated. After a failure the tables must be read again before the next plan: a row
//! whose write failed may have been written.

mod rows;

use std::collections::BTreeSet;

use lb_common::table::{Backend, MemberKey, PoolKey, Scope, Scopes, SourceRangeKey};

use crate::dataplane::{Dataplane, Error, FamilyOp, FamilyTables, Op, Tables};
use crate::family::TableAddr;
use rows::{Outcome, perform_rows};

/// The result of a plan.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows that were written or deleted.
    pub rows: usize,
    /// Rows that were refused or held back.
    pub failed_rows: usize,
    /// The first few reasons: a dead dataplane refuses every row.
    pub errors: Vec<Error>,
}

/// Number of reasons that are kept per plan.
const ERRORS_MAX: usize = 16;

impl Report {
    pub const fn is_complete(&self) -> bool {
        self.failed_rows == 0
    }

    fn take<R>(&mut self, outcome: Outcome<R>) -> Vec<R> {
        self.rows += outcome.done;
        self.failed_rows += outcome.failed.len();
        let room = ERRORS_MAX.saturating_sub(self.errors.len());
        self.errors.extend(outcome.errors.into_iter().take(room));
        outcome.failed
    }
}

/// Performs `ops` in order. `realised` is what the tables hold.
pub fn apply(dataplane: &mut dyn Dataplane, realised: &mut Tables, ops: Vec<Op>) -> Report {
    let mut run = Run { dataplane, realised, report: Report::default(), held: Held::default() };
    for op in ops {
        match op {
            Op::V4(op) => run.family(op),
            Op::V6(op) => run.family(op),
            Op::StoreScopes(rows) => run.store_scopes(rows),
            Op::Settle => run.settle(),
        }
    }
    run.report
}

/// What later steps must not touch because an earlier one failed.
#[derive(Default)]
struct Held {
    /// Pools with a missing row: no scope may name them.
    pools: BTreeSet<u32>,
    /// Sets with a missing source range: no scopes may refer to them, or they would drop allowed clients.
    source_sets: BTreeSet<u32>,
    /// Frontends whose scopes could not be stored: their frontend rows must not change either.
    frontends: BTreeSet<u32>,
    /// Service ports of these frontends: their members stay.
    service_ports: BTreeSet<u32>,
    /// A grace period failed, so packets may still use the old rows: nothing may be deleted.
    deletes: bool,
}

struct Run<'a> {
    dataplane: &'a mut dyn Dataplane,
    realised: &'a mut Tables,
    report: Report,
    held: Held,
}

impl Run<'_> {
    fn family<A: TableAddr>(&mut self, op: FamilyOp<A>) {
        match op {
            FamilyOp::UpsertPools(rows) => self.upsert_pools(rows),
            FamilyOp::UpsertMembers(rows) => {
                self.rows(rows, FamilyOp::UpsertMembers, |tables: &mut FamilyTables<A>, rows| {
                    tables.members.extend(rows);
                });
            }
            FamilyOp::UpsertSourceRanges(rows) => {
                let failed = self.rows(rows, FamilyOp::UpsertSourceRanges, |tables: &mut FamilyTables<A>, rows| {
                    tables.source_ranges.extend(rows);
                });
                self.held.source_sets.extend(failed.iter().map(|(key, _)| key.set));
            }
            FamilyOp::UpsertFrontends(mut rows) => {
                let held = &self.held.frontends;
                self.report.failed_rows += hold_back(&mut rows, |(_, frontend)| held.contains(&frontend.id));
                self.rows(rows, FamilyOp::UpsertFrontends, |tables: &mut FamilyTables<A>, rows| {
                    tables.frontends.extend(rows);
                });
            }
            FamilyOp::DeleteFrontends(keys) => {
                self.delete(
                    keys,
                    |_, _| false,
                    FamilyOp::DeleteFrontends,
                    |tables: &mut FamilyTables<A>, key| {
                        tables.frontends.remove(key);
                    },
                );
            }
            FamilyOp::DeleteMembers(keys) => {
                let must_wait = |run: &Self, key: &MemberKey<A>| run.held.service_ports.contains(&key.service_port);
                self.delete(keys, must_wait, FamilyOp::DeleteMembers, |tables: &mut FamilyTables<A>, key| {
                    tables.members.remove(key);
                });
            }
            FamilyOp::DeleteSourceRanges(keys) => {
                let leaving: BTreeSet<u32> = keys.iter().map(|key| key.set).collect();
                let asked = self.realised.scopes.values().map(|scopes| scopes.source_ranges);
                let referred: BTreeSet<u32> = asked.filter(|set| leaving.contains(set)).collect();
                let must_wait = |_: &Self, key: &SourceRangeKey<A>| referred.contains(&key.set);
                self.delete(keys, must_wait, FamilyOp::DeleteSourceRanges, |tables: &mut FamilyTables<A>, key| {
                    tables.source_ranges.remove(key);
                });
            }
            FamilyOp::DeletePools(keys) => {
                let leaving: BTreeSet<u32> = keys.iter().map(|key| key.pool).collect();
                let referred = referred_pools(self.realised.scopes.values(), &leaving);
                let must_wait = |_: &Self, key: &PoolKey| referred.contains(&key.pool);
                self.delete(keys, must_wait, FamilyOp::DeletePools, |tables: &mut FamilyTables<A>, key| {
                    tables.pools.remove(key);
                });
            }
        }
    }

    /// A pool with a failed row holds back the scopes that refer to it.
    fn upsert_pools<A: TableAddr>(&mut self, rows: Vec<(PoolKey, Backend<A>)>) {
        let failed =
            self.rows(rows, FamilyOp::UpsertPools, |tables: &mut FamilyTables<A>, rows| tables.pools.extend(rows));
        self.held.pools.extend(failed.iter().map(|(key, _)| key.pool));
    }

    /// Performs a step on these rows, records the successes and returns the rows that failed.
    fn rows<A: TableAddr, R: Clone>(
        &mut self,
        rows: Vec<R>,
        op: impl Fn(Vec<R>) -> FamilyOp<A>,
        record: impl Fn(&mut FamilyTables<A>, Vec<R>),
    ) -> Vec<R> {
        let tables = A::tables_mut(self.realised);
        let outcome = perform_rows(self.dataplane, rows, |rows| A::op(op(rows)), |rows| record(tables, rows));
        self.report.take(outcome)
    }

    fn delete<A: TableAddr, K: Clone>(
        &mut self,
        mut keys: Vec<K>,
        must_wait: impl Fn(&Self, &K) -> bool,
        op: impl Fn(Vec<K>) -> FamilyOp<A>,
        forget: impl Fn(&mut FamilyTables<A>, &K),
    ) {
        self.report.failed_rows += hold_back(&mut keys, |key| self.held.deletes || must_wait(self, key));
        self.rows(keys, op, |tables, keys| keys.iter().for_each(|key| forget(tables, key)));
    }

    fn store_scopes(&mut self, rows: Vec<(u32, Scopes)>) {
        let Self { dataplane, realised, report, held } = self;
        let (blocked, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, scopes)| {
            held.source_sets.contains(&scopes.source_ranges) || pools_of(scopes).any(|pool| held.pools.contains(&pool))
        });
        report.failed_rows += blocked.len();
        let known = &mut realised.scopes;
        let outcome = perform_rows(*dataplane, rows, Op::StoreScopes, |rows| {
            for (id, scopes) in rows {
                if scopes == Scopes::PASS {
                    known.remove(&id)
                } else {
                    known.insert(id, scopes)
                };
            }
        });
        let failed = report.take(outcome);
        for (id, _) in blocked.iter().chain(&failed) {
            held.frontends.insert(*id);
            held.service_ports.extend(realised.scopes.get(id).map(|scopes| scopes.service_port));
        }
    }

    fn settle(&mut self) {
        if let Err(error) = self.dataplane.perform(&Op::Settle) {
            self.held.deletes = true;
            self.report.failed_rows += 1;
            self.report.errors.push(error);
        }
    }
}

/// Removes the rows that must wait and returns their number.
fn hold_back<R>(rows: &mut Vec<R>, must_wait: impl Fn(&R) -> bool) -> usize {
    let before = rows.len();
    rows.retain(|row| !must_wait(row));
    before - rows.len()
}

/// The pools of this set that scopes refer to.
fn referred_pools<'a>(scopes: impl Iterator<Item = &'a Scopes>, pools: &BTreeSet<u32>) -> BTreeSet<u32> {
    scopes.flat_map(pools_of).filter(|pool| pools.contains(pool)).collect()
}

/// The pools that these scopes refer to.
pub fn pools_of(scopes: &Scopes) -> impl Iterator<Item = u32> {
    [scopes.workload, scopes.host, scopes.external].into_iter().map(|Scope { pool, .. }| pool).filter(|pool| *pool != 0)
}

#[cfg(test)]
mod tests;
