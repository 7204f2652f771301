//! Computes the steps from the realised to the wanted tables, in an order that is safe after every single row.
//!
//! Referents are written before their referrers: pools, members, source ranges, scopes, frontends. After a grace period
//! the deletes follow in reverse order. Members that leave are deleted before the scopes switch: a flow that meets the
//! new pool checks its membership once and never again. A frontend is never deleted outright: it drains first and is
//! deleted when no flow refers to it.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::{Frontend, FrontendState, Scopes};

use crate::dataplane::{FamilyOp, FamilyTables, Op, Tables};
use crate::family::TableAddr;

/// Which draining frontends may be deleted.
#[derive(Clone, Copy, Debug)]
pub enum Drained<'a> {
    /// The flow table was not searched: no frontend may be deleted.
    Unknown,
    /// Those whose ID is not in this set. Valid only if the set was read after a grace period that followed the
    /// draining.
    Unless(&'a BTreeSet<u32>),
}

/// Computes the steps. Returns an empty list if the tables are already as wanted.
pub fn plan(realised: &Tables, wanted: &Tables, drained: Drained<'_>) -> Vec<Op> {
    let mut steps = Steps::default();
    steps.add_family(&realised.v4, &wanted.v4, drained);
    steps.add_family(&realised.v6, &wanted.v6, drained);
    let scopes = changed_scopes(&realised.scopes, &wanted.scopes);
    if !scopes.is_empty() {
        steps.scopes.push(Op::StoreScopes(scopes));
    }
    steps.in_order()
}

/// Steps by phase.
#[derive(Default)]
struct Steps {
    referents: Vec<Op>,
    member_deletes: Vec<Op>,
    scopes: Vec<Op>,
    frontends: Vec<Op>,
    frontend_deletes: Vec<Op>,
    referent_deletes: Vec<Op>,
}

impl Steps {
    fn add_family<A: TableAddr>(&mut self, realised: &FamilyTables<A>, wanted: &FamilyTables<A>, drained: Drained<'_>) {
        let pools = Difference::of(&realised.pools, &wanted.pools);
        let members = Difference::of(&realised.members, &wanted.members);
        let ranges = Difference::of(&realised.source_ranges, &wanted.source_ranges);
        let frontends = Difference::of(&realised.frontends, &wanted.frontends);
        let (drain, delete) = retire(&realised.frontends, frontends.gone, drained);
        let mut upserts = frontends.upserts;
        upserts.extend(drain);
        let push = |phase: &mut Vec<Op>, is_empty: bool, op: FamilyOp<A>| {
            if !is_empty {
                phase.push(A::op(op));
            }
        };
        push(&mut self.referents, pools.upserts.is_empty(), FamilyOp::UpsertPools(pools.upserts));
        push(&mut self.referents, members.upserts.is_empty(), FamilyOp::UpsertMembers(members.upserts));
        push(&mut self.referents, ranges.upserts.is_empty(), FamilyOp::UpsertSourceRanges(ranges.upserts));
        push(&mut self.frontends, upserts.is_empty(), FamilyOp::UpsertFrontends(upserts));
        push(&mut self.frontend_deletes, delete.is_empty(), FamilyOp::DeleteFrontends(delete));
        push(&mut self.member_deletes, members.gone.is_empty(), FamilyOp::DeleteMembers(members.gone));
        push(&mut self.referent_deletes, ranges.gone.is_empty(), FamilyOp::DeleteSourceRanges(ranges.gone));
        push(&mut self.referent_deletes, pools.gone.is_empty(), FamilyOp::DeletePools(pools.gone));
    }

    fn in_order(self) -> Vec<Op> {
        let phases = [&self.member_deletes, &self.frontend_deletes, &self.referent_deletes];
        let is_deleting = phases.iter().any(|phase| !phase.is_empty());
        // The operations are moved, not copied: the first plan of a large cluster holds all of its rows.
        let mut ops = self.referents;
        ops.extend(self.member_deletes);
        ops.extend(self.scopes);
        ops.extend(self.frontends);
        if is_deleting {
            // After this, no packet still uses a scope or frontend that it read before the switch.
            ops.push(Op::Settle);
        }
        ops.extend(self.frontend_deletes);
        ops.extend(self.referent_deletes);
        if is_deleting {
            // The kernel recycles deleted hash elements at once. No row is inserted until no packet can hold a deleted
            // one.
            ops.push(Op::Settle);
        }
        ops
    }
}

/// Rows to write and keys to delete, found by walking both maps once.
struct Difference<K, V> {
    upserts: Vec<(K, V)>,
    gone: Vec<K>,
}

impl<K: Copy + Ord, V: Copy + PartialEq> Difference<K, V> {
    fn of(realised: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> Self {
        let mut difference = Self { upserts: Vec::new(), gone: Vec::new() };
        let (mut old, mut new) = (realised.iter().peekable(), wanted.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (None, None) => return difference,
                (Some((key, _)), None) => {
                    difference.gone.push(**key);
                    old.next();
                }
                (None, Some((key, value))) => {
                    difference.upserts.push((**key, **value));
                    new.next();
                }
                (Some((old_key, old_value)), Some((new_key, new_value))) => match old_key.cmp(new_key) {
                    std::cmp::Ordering::Less => {
                        difference.gone.push(**old_key);
                        old.next();
                    }
                    std::cmp::Ordering::Greater => {
                        difference.upserts.push((**new_key, **new_value));
                        new.next();
                    }
                    std::cmp::Ordering::Equal => {
                        if old_value != new_value {
                            difference.upserts.push((**new_key, **new_value));
                        }
                        old.next();
                        new.next();
                    }
                },
            }
        }
    }
}

/// Frontends that are no longer wanted drain first. Once drained, they are deleted.
fn retire<K: Copy + Ord>(
    realised: &BTreeMap<K, Frontend>,
    gone: Vec<K>,
    drained: Drained<'_>,
) -> (Vec<(K, Frontend)>, Vec<K>) {
    let (mut drain, mut delete) = (Vec::new(), Vec::new());
    for key in gone {
        let frontend = realised[&key];
        match (frontend.state, drained) {
            (FrontendState::Active, _) => drain.push((key, Frontend { state: FrontendState::Draining, ..frontend })),
            (FrontendState::Draining, Drained::Unless(in_use)) if !in_use.contains(&frontend.id) => delete.push(key),
            (FrontendState::Draining, _) => {}
        }
    }
    (drain, delete)
}

/// Scopes to store. Scopes that are no longer wanted become `PASS`.
fn changed_scopes(realised: &BTreeMap<u32, Scopes>, wanted: &BTreeMap<u32, Scopes>) -> Vec<(u32, Scopes)> {
    let difference = Difference::of(realised, wanted);
    let mut scopes = difference.upserts;
    scopes.extend(difference.gone.into_iter().map(|id| (id, Scopes::PASS)));
    scopes.sort_unstable_by_key(|(id, _)| *id);
    scopes
}

#[cfg(test)]
mod tests;
