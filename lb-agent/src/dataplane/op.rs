//! The steps of a plan. All planned tables have the same kind of step: some rows are written, or some are deleted.

use std::collections::BTreeMap;
use std::ops::Range;

use lb_common::table::{
    AddressBits, Backend, Endpoint, EndpointKey, Frontend, FrontendAge, FrontendKey, Member, MemberKey, PoolKey,
    Scopes, SourceRange, SourceRangeKey,
};

use super::{FamilyTables, Tables};

/// Rows of one table to write or to delete. Rows are independent of each other. If an error is returned, any part of the
/// rows may have been written or deleted, and all of them may be written or deleted again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write<K, V> {
    /// Inserts new keys and changes existing rows in place.
    Upsert(Vec<(K, V)>),
    /// Rows that are missing are deleted already. An element of an array gets its empty value.
    Delete(Vec<K>),
}

/// A step for one table of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FamilyOp<A> {
    Pools(Write<PoolKey, Backend<A>>),
    Members(Write<MemberKey<A>, Member>),
    SourceRanges(Write<SourceRangeKey<A>, SourceRange>),
    /// The `id` of an existing row must not change.
    Frontends(Write<FrontendKey<A>, Frontend>),
    Endpoints(Write<EndpointKey<A>, Endpoint>),
    /// Each word is one store. A bit that stays is set before and after it.
    Addresses(Write<u32, AddressBits>),
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    V4(FamilyOp<[u8; 4]>),
    V6(FamilyOp<[u8; 16]>),
    /// One store switches one scope of one element.
    Scopes(Write<u32, Scopes>),
    FrontendAges(Write<u32, FrontendAge>),
    /// Waits one RCU grace period. Afterwards no program run sees the state from before the earlier writes.
    Settle,
}

impl<K, V> Write<K, V> {
    pub const fn len(&self) -> usize {
        match self {
            Self::Upsert(rows) => rows.len(),
            Self::Delete(keys) => keys.len(),
        }
    }

    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        let (rows, keys) = match self {
            Self::Upsert(rows) => (&rows[..], &[][..]),
            Self::Delete(keys) => (&[][..], &keys[..]),
        };
        rows.iter().map(|(key, _)| key).chain(keys)
    }

    /// Keeps the rows for which this is true. Rows to delete have no value.
    pub fn retain(&mut self, keep: impl Fn(&K, Option<&V>) -> bool) {
        match self {
            Self::Upsert(rows) => rows.retain(|(key, value)| keep(key, Some(value))),
            Self::Delete(keys) => keys.retain(|key| keep(key, None)),
        }
    }

    /// A copy of the rows at these positions.
    pub fn part(&self, rows: Range<usize>) -> Self
    where
        K: Clone,
        V: Clone,
    {
        match self {
            Self::Upsert(all) => Self::Upsert(all[rows].to_vec()),
            Self::Delete(all) => Self::Delete(all[rows].to_vec()),
        }
    }

    /// The rows without those at `positions`, which are sorted, and the keys of the latter.
    pub fn without(self, positions: &[usize]) -> (Self, Vec<K>) {
        if positions.is_empty() {
            return (self, Vec::new());
        }
        let is_left = |position: usize| positions.binary_search(&position).is_err();
        match self {
            Self::Upsert(rows) => {
                let (left, gone) = split(rows, is_left);
                (Self::Upsert(left), gone.into_iter().map(|(key, _)| key).collect())
            }
            Self::Delete(keys) => {
                let (left, gone) = split(keys, is_left);
                (Self::Delete(left), gone)
            }
        }
    }

    /// The same rows in parts of at most so many.
    pub fn into_parts(self, rows_max: usize) -> Vec<Self>
    where
        K: Clone,
        V: Clone,
    {
        match self {
            Self::Upsert(rows) if !rows.is_empty() && rows.len() <= rows_max => vec![Self::Upsert(rows)],
            Self::Upsert(rows) => rows.chunks(rows_max).map(|rows| Self::Upsert(rows.to_vec())).collect(),
            Self::Delete(keys) => keys.chunks(rows_max).map(|keys| Self::Delete(keys.to_vec())).collect(),
        }
    }
}

/// The rows at positions for which this is true, and the others.
fn split<T>(rows: Vec<T>, is_left: impl Fn(usize) -> bool) -> (Vec<T>, Vec<T>) {
    let (mut left, mut gone) = (Vec::with_capacity(rows.len()), Vec::new());
    for (position, row) in rows.into_iter().enumerate() {
        if is_left(position) { left.push(row) } else { gone.push(row) }
    }
    (left, gone)
}

impl<K: Ord, V> Write<K, V> {
    /// Does the same to rows in memory.
    pub fn record(self, rows: &mut BTreeMap<K, V>) {
        match self {
            // The first list: a tree that is built from sorted rows is built faster, and its nodes are full.
            Self::Upsert(new) if rows.is_empty() => *rows = new.into_iter().collect(),
            Self::Upsert(new) => rows.extend(new),
            Self::Delete(keys) => keys.iter().for_each(|key| drop(rows.remove(key))),
        }
    }
}

impl<A: Ord> FamilyOp<A> {
    /// Does the same to tables in memory.
    pub fn record(self, tables: &mut FamilyTables<A>) {
        match self {
            Self::Pools(write) => write.record(&mut tables.pools),
            Self::Members(write) => write.record(&mut tables.members),
            Self::SourceRanges(write) => write.record(&mut tables.source_ranges),
            Self::Frontends(write) => write.record(&mut tables.frontends),
            Self::Endpoints(write) => write.record(&mut tables.endpoints),
            Self::Addresses(write) => write.record(&mut tables.addresses),
        }
    }
}

impl Op {
    /// Whether the step deletes backends of a Service port.
    pub const fn deletes_members(&self) -> bool {
        matches!(self, Self::V4(FamilyOp::Members(Write::Delete(_))) | Self::V6(FamilyOp::Members(Write::Delete(_))))
    }

    /// Does the same to tables in memory.
    pub fn record(self, tables: &mut Tables) {
        match self {
            Self::V4(op) => op.record(&mut tables.v4),
            Self::V6(op) => op.record(&mut tables.v6),
            Self::Scopes(write) => write.record(&mut tables.scopes),
            Self::FrontendAges(write) => write.record(&mut tables.frontend_ages),
            Self::Settle => {}
        }
    }

    /// The same step in parts of at most so many rows.
    pub fn into_parts(self, rows_max: usize) -> Vec<Self> {
        fn family<A: Copy>(op: FamilyOp<A>, rows_max: usize) -> Vec<FamilyOp<A>> {
            match op {
                FamilyOp::Pools(write) => parts(write, rows_max, FamilyOp::Pools),
                FamilyOp::Members(write) => parts(write, rows_max, FamilyOp::Members),
                FamilyOp::SourceRanges(write) => parts(write, rows_max, FamilyOp::SourceRanges),
                FamilyOp::Frontends(write) => parts(write, rows_max, FamilyOp::Frontends),
                FamilyOp::Endpoints(write) => parts(write, rows_max, FamilyOp::Endpoints),
                FamilyOp::Addresses(write) => parts(write, rows_max, FamilyOp::Addresses),
            }
        }
        fn parts<K: Clone, V: Clone, O>(write: Write<K, V>, rows_max: usize, op: fn(Write<K, V>) -> O) -> Vec<O> {
            write.into_parts(rows_max).into_iter().map(op).collect()
        }
        match self {
            Self::V4(op) => family(op, rows_max).into_iter().map(Self::V4).collect(),
            Self::V6(op) => family(op, rows_max).into_iter().map(Self::V6).collect(),
            Self::Scopes(write) => parts(write, rows_max, Self::Scopes),
            Self::FrontendAges(write) => parts(write, rows_max, Self::FrontendAges),
            Self::Settle => vec![Self::Settle],
        }
    }
}
