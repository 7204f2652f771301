//! Computes the steps from the realised to the wanted tables, in an order that is safe after every single row.
//!
//! Referents are written before their referrers: endpoints, address bits, pools, members, source ranges, ages, scopes,
//! frontends. After a grace period the deletes follow in reverse order. Members that leave are deleted before the scopes
//! switch: a flow that meets the new pool checks its membership once and never again. A frontend is never deleted
//! outright: it drains first and is deleted when no flow refers to it.

mod ages;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::{Frontend, FrontendState};

use crate::dataplane::{FamilyOp, FamilyTables, Op, Tables, Write};
use crate::family::TableAddr;
use crate::realised::{Counts, Named, Realised};
use ages::ages;
pub use ages::needs_time;

/// Which draining frontends may be deleted.
#[derive(Clone, Copy, Debug)]
pub enum Drained<'a> {
    /// The flow table was not searched: no frontend may be deleted.
    Unknown,
    /// Those whose ID is not in this set. Valid only if the set was read after a grace period that followed the
    /// draining.
    Unless(&'a BTreeSet<u32>),
}

/// The steps, and what is counted after all of them.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub counts: Counts,
}

/// Computes the steps. There are none if the tables are already as wanted.
///
/// `old` are the realised rows that the wanted ones replace: all of them, or those of some Services. Endpoints and
/// address bits follow from the other rows: `old` and `wanted` may lack them. The ages of `wanted` are computed here,
/// those of frontends that begin to balance from the time.
pub fn plan(realised: &Realised, old: &Tables, wanted: &Tables, drained: Drained<'_>, now_jiffies: u64) -> Plan {
    let mut steps = Steps::default();
    steps.add_family::<[u8; 4]>(realised, (&old.v4, &wanted.v4), drained);
    steps.add_family::<[u8; 16]>(realised, (&old.v6, &wanted.v6), drained);
    let ages = Difference::of(&old.frontend_ages, &ages(old, wanted, now_jiffies));
    push(&mut steps.referents, Op::FrontendAges, Write::Upsert(ages.upserts));
    push(&mut steps.cleared, Op::FrontendAges, Write::Delete(ages.gone));
    let scopes = Difference::of(&old.scopes, &wanted.scopes);
    push(&mut steps.scopes, Op::Scopes, Write::Upsert(scopes.upserts));
    push(&mut steps.scopes, Op::Scopes, Write::Delete(scopes.gone));
    steps.into_plan()
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
    /// Stores that no packet depends on.
    cleared: Vec<Op>,
    counts: Counts,
}

impl Steps {
    fn add_family<A: TableAddr>(
        &mut self,
        realised: &Realised,
        (old, wanted): (&FamilyTables<A>, &FamilyTables<A>),
        drained: Drained<'_>,
    ) {
        let pools = Difference::of(&old.pools, &wanted.pools);
        let members = Difference::of(&old.members, &wanted.members);
        let ranges = Difference::of(&old.source_ranges, &wanted.source_ranges);
        let frontends = Difference::of(&old.frontends, &wanted.frontends);
        let (drain, deleted) = retire(&old.frontends, frontends.gone, drained);

        let new_members = members.upserts.iter().filter(|(key, _)| !old.members.contains_key(key));
        let new_frontends = frontends.upserts.iter().filter(|(key, _)| !old.frontends.contains_key(key));
        let added = new_members.map(|(key, _)| Named::Member(key));
        let added = added.chain(new_frontends.map(|(key, _)| Named::Frontend(key)));
        let removed = members.gone.iter().map(Named::Member).chain(deleted.iter().map(Named::Frontend));
        let derived = A::uses(realised.uses()).derived(A::tables(realised), added, removed);

        *A::counts_mut(&mut self.counts) = derived.counts;
        let mut upserts = frontends.upserts;
        upserts.extend(drain);
        let op = A::op;
        push(&mut self.referents, |write| op(FamilyOp::Endpoints(write)), Write::Upsert(derived.endpoints));
        push(&mut self.referents, |write| op(FamilyOp::Addresses(write)), Write::Upsert(derived.words));
        push(&mut self.referents, |write| op(FamilyOp::Pools(write)), Write::Upsert(pools.upserts));
        push(&mut self.referents, |write| op(FamilyOp::Members(write)), Write::Upsert(members.upserts));
        push(&mut self.referents, |write| op(FamilyOp::SourceRanges(write)), Write::Upsert(ranges.upserts));
        push(&mut self.frontends, |write| op(FamilyOp::Frontends(write)), Write::Upsert(upserts));
        push(&mut self.frontend_deletes, |write| op(FamilyOp::Frontends(write)), Write::Delete(deleted));
        push(&mut self.member_deletes, |write| op(FamilyOp::Members(write)), Write::Delete(members.gone));
        push(&mut self.referent_deletes, |write| op(FamilyOp::SourceRanges(write)), Write::Delete(ranges.gone));
        push(&mut self.referent_deletes, |write| op(FamilyOp::Pools(write)), Write::Delete(pools.gone));
        push(&mut self.referent_deletes, |write| op(FamilyOp::Endpoints(write)), Write::Delete(derived.gone_endpoints));
        push(&mut self.cleared, |write| op(FamilyOp::Addresses(write)), Write::Upsert(derived.cleared_words));
        push(&mut self.cleared, |write| op(FamilyOp::Addresses(write)), Write::Delete(derived.gone_words));
    }

    fn into_plan(self) -> Plan {
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
        ops.extend(self.cleared);
        if is_deleting {
            // The kernel recycles deleted hash elements at once. No row is inserted until no packet can hold a deleted
            // one.
            ops.push(Op::Settle);
        }
        Plan { ops, counts: self.counts }
    }
}

/// Adds a step, unless it has no rows.
fn push<K, V>(phase: &mut Vec<Op>, op: impl Fn(Write<K, V>) -> Op, write: Write<K, V>) {
    if !write.is_empty() {
        phase.push(op(write));
    }
}

/// Rows to write and keys to delete, found by walking both maps once.
struct Difference<K, V> {
    upserts: Vec<(K, V)>,
    gone: Vec<K>,
}

impl<K: Copy + Ord, V: Copy + PartialEq> Difference<K, V> {
    fn of(realised: &BTreeMap<K, V>, wanted: &BTreeMap<K, V>) -> Self {
        let upserts = Vec::with_capacity(wanted.len().saturating_sub(realised.len()));
        let mut difference = Self { upserts, gone: Vec::new() };
        let (mut old, mut new) = (realised.iter().peekable(), wanted.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (None, None) => {
                    // The first plan holds all rows of a large cluster.
                    difference.upserts.shrink_to_fit();
                    return difference;
                }
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

#[cfg(test)]
mod tests;
