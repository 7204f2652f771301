//! Performs a plan: isolates failures row by row, holds back what depends on a failed row, and records only successes
//! in `realised`.
//!
//! It may stop at any point and be repeated. After a failure the tables must be read again before the next plan: a row
//! whose write failed may have been written.

mod rows;

use std::collections::BTreeSet;

use lb_common::table::{AddressBits, FrontendAge, Scopes};

use crate::dataplane::{Dataplane, Error, FamilyOp, Op, Write};
use crate::family::TableAddr;
use crate::plan::Plan;
use crate::realised::{Named, Realised, pools_of};
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

    fn take<K>(&mut self, outcome: Outcome<K>) -> Vec<K> {
        self.rows += outcome.done;
        self.failed_rows += outcome.failed.len();
        let room = ERRORS_MAX.saturating_sub(self.errors.len());
        self.errors.extend(outcome.errors.into_iter().take(room));
        outcome.failed
    }
}

/// Performs a plan. `realised` is what the tables hold.
pub fn apply(dataplane: &mut dyn Dataplane, realised: &mut Realised, plan: Plan) -> Report {
    let mut run = Run { dataplane, realised, report: Report::default(), held: Held::default() };
    run.perform(plan.ops);
    if run.report.is_complete() {
        run.realised.settle(plan.counts);
    }
    run.report
}

/// What later steps must not touch because an earlier one failed.
#[derive(Default)]
struct Held {
    /// An endpoint or address bit may be missing: no row may name it.
    lacks_derived: bool,
    /// A member or frontend that was to go is still there: no derived row may go.
    keeps_named: bool,
    /// Pools with a missing row: no scope may name them.
    pools: BTreeSet<u32>,
    /// Sets with a missing source range: no scopes may refer to them, or they would drop allowed clients.
    source_sets: BTreeSet<u32>,
    /// Frontends whose age could not be written: none of their scopes may begin to balance.
    ages: BTreeSet<u32>,
    /// Frontends whose scopes could not be stored: their frontend rows must not change either.
    frontends: BTreeSet<u32>,
    /// A grace period failed, so packets may still use the old rows: nothing may be deleted.
    deletes: bool,
}

struct Run<'a> {
    dataplane: &'a mut dyn Dataplane,
    realised: &'a mut Realised,
    report: Report,
    held: Held,
}

impl Run<'_> {
    fn perform(&mut self, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::V4(op) => self.family(op),
                Op::V6(op) => self.family(op),
                Op::Scopes(write) => self.scopes(write),
                Op::FrontendAges(write) => self.ages(write),
                Op::Settle => self.settle(),
            }
        }
    }

    fn family<A: TableAddr>(&mut self, op: FamilyOp<A>) {
        match op {
            FamilyOp::Endpoints(write) => {
                let failed =
                    self.write(write, FamilyOp::<A>::Endpoints, |run, _, row| row.is_none() && run.held.keeps_named);
                self.held.lacks_derived |= !failed.is_empty();
            }
            FamilyOp::Addresses(write) => {
                let failed =
                    self.write(write, FamilyOp::<A>::Addresses, |run, word, row| run.must_keep::<A>(*word, row));
                self.held.lacks_derived |= !failed.is_empty();
            }
            FamilyOp::Pools(write) => {
                let failed = self.write(write, FamilyOp::<A>::Pools, |run, key, row| {
                    row.is_none() && run.realised.referrers().to_pool(key.pool) > 0
                });
                self.held.pools.extend(failed.iter().map(|key| key.pool));
            }
            FamilyOp::Members(write) => {
                self.named(write, FamilyOp::<A>::Members, |run, key, row| {
                    row.is_some() && run.lacks_derived::<A>(Named::Member(key))
                });
            }
            FamilyOp::SourceRanges(write) => {
                let failed = self.write(write, FamilyOp::<A>::SourceRanges, |run, key, row| {
                    row.is_none() && run.realised.referrers().to_source_set(key.set) > 0
                });
                self.held.source_sets.extend(failed.iter().map(|key| key.set));
            }
            FamilyOp::Frontends(write) => {
                self.named(write, FamilyOp::<A>::Frontends, |run, key, row| {
                    row.is_some_and(|frontend| run.held.frontends.contains(&frontend.id))
                        || (row.is_some() && run.lacks_derived::<A>(Named::Frontend(key)))
                });
            }
        }
    }

    /// Performs a step, less the rows that must wait, and records what succeeded. Returns the keys that failed.
    fn write<A: TableAddr, K: Clone, V: Clone>(
        &mut self,
        mut write: Write<K, V>,
        op: impl Fn(Write<K, V>) -> FamilyOp<A>,
        must_wait: impl Fn(&Self, &K, Option<&V>) -> bool,
    ) -> Vec<K> {
        let is_held = matches!(write, Write::Delete(_)) && self.held.deletes;
        let before = write.len();
        write.retain(|key, row| !is_held && !must_wait(self, key, row));
        self.report.failed_rows += before - write.len();
        let Self { dataplane, realised, .. } = self;
        let outcome = perform_rows(*dataplane, write, |write| A::op(op(write)), |op| realised.record(op));
        self.report.take(outcome)
    }

    /// As [`Run::write`], for rows that name derived rows.
    fn named<A: TableAddr, K: Clone, V: Clone>(
        &mut self,
        write: Write<K, V>,
        op: impl Fn(Write<K, V>) -> FamilyOp<A>,
        must_wait: impl Fn(&Self, &K, Option<&V>) -> bool,
    ) {
        let (is_delete, failed_before) = (matches!(write, Write::Delete(_)), self.report.failed_rows);
        self.write(write, op, must_wait);
        self.held.keeps_named |= is_delete && self.report.failed_rows > failed_before;
    }

    /// Whether an endpoint or address bit is missing that a row to write names.
    fn lacks_derived<A: TableAddr>(&self, named: Named<'_, A>) -> bool {
        self.held.lacks_derived && !A::uses(self.realised.uses()).has_derived(A::tables(self.realised), named)
    }

    /// Whether a store clears bits that a row may still need.
    fn must_keep<A: TableAddr>(&self, word: u32, row: Option<&AddressBits>) -> bool {
        let before = A::tables(self.realised).addresses.get(&word).map_or(0, |row| row.bits);
        before & !row.map_or(0, |row| row.bits) != 0 && (self.held.deletes || self.held.keeps_named)
    }

    fn scopes(&mut self, mut write: Write<u32, Scopes>) {
        let Self { dataplane, realised, report, held } = self;
        let is_ageless = |id: &u32, scopes: &Scopes| {
            held.ages.contains(id) && scopes.begins_to_balance(realised.scopes.get(id).unwrap_or(&Scopes::PASS))
        };
        let is_blocked = |(id, scopes): &&(u32, Scopes)| {
            held.source_sets.contains(&scopes.source_ranges)
                || pools_of(scopes).any(|pool| held.pools.contains(&pool))
                || is_ageless(id, scopes)
        };
        let mut blocked = BTreeSet::new();
        if let Write::Upsert(rows) = &write {
            blocked.extend(rows.iter().filter(is_blocked).map(|(id, _)| *id));
        }
        write.retain(|id, _| !blocked.contains(id));
        report.failed_rows += blocked.len();
        let outcome = perform_rows(*dataplane, write, Op::Scopes, |op| realised.record(op));
        let failed = report.take(outcome);
        held.frontends.extend(blocked.iter().chain(&failed));
    }

    fn ages(&mut self, mut write: Write<u32, FrontendAge>) {
        let Self { dataplane, realised, report, held } = self;
        let before = write.len();
        // A frontend that still balances, because its scopes could not be stored, keeps its age.
        write.retain(|id, age| age.is_some() || !realised.scopes.get(id).is_some_and(Scopes::balances));
        report.failed_rows += before - write.len();
        let outcome = perform_rows(*dataplane, write, Op::FrontendAges, |op| realised.record(op));
        held.ages.extend(report.take(outcome));
    }

    fn settle(&mut self) {
        if let Err(error) = self.dataplane.perform(&Op::Settle) {
            self.held.deletes = true;
            self.report.failed_rows += 1;
            self.report.errors.push(error);
        }
    }
}

#[cfg(test)]
mod tests;
