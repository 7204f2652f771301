//! How much of the tables a Service takes.

use std::collections::HashSet;
use std::sync::Arc;

use lb_common::table::Backend;

use super::access::{Access, SourcePrefix};
use super::port_rows::PortRows;
use super::scope::Treatment;
use super::usable::Usable;
use crate::family::TableAddr;

/// What a Service takes of the tables of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand<A> {
    pub frontends: usize,
    pub members: usize,
    /// All pools, each once. If several Services need equal pools, the rows are taken once.
    pub pools: Box<[PoolDemand<A>]>,
    /// The sets of source ranges, each once.
    pub source_sets: Box<[Arc<[SourcePrefix<A>]>]>,
}

/// A pool, identified by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolDemand<A> {
    pub backends: Arc<[Backend<A>]>,
    /// Slots of a Maglev table. `None` if the backends themselves are the rows.
    pub table_slots: Option<u16>,
}

impl<A> PoolDemand<A> {
    pub fn rows(&self) -> usize {
        rows(&self.backends, self.table_slots)
    }
}

fn rows<A>(backends: &[Backend<A>], table_slots: Option<u16>) -> usize {
    table_slots.map_or(backends.len(), usize::from)
}

impl<A> Default for Demand<A> {
    fn default() -> Self {
        Self { frontends: 0, members: 0, pools: Box::default(), source_sets: Box::default() }
    }
}

impl<A: TableAddr> Demand<A> {
    /// What these ports of one Service take.
    pub fn of(ports: &[PortRows<A>]) -> Self {
        // Two ports of one Service may share name and protocol by mistake. Their endpoints are then the same.
        let mut counted = HashSet::with_capacity(ports.len());
        let mut source_sets: Vec<Arc<[SourcePrefix<A>]>> = Vec::new();
        let (mut frontends, mut members) = (0, 0);
        for rows in ports {
            frontends += rows.frontends.len();
            if counted.insert((&*rows.port.name, rows.port.proto)) {
                members += rows.usable.members.len();
            }
            for row in &rows.frontends {
                let Access::Only(set) = &row.access else { continue };
                // All addresses and ports of a Service have equal sets, usually the same allocation.
                if !source_sets.iter().any(|known| Arc::ptr_eq(known, set) || known == set) {
                    source_sets.push(Arc::clone(set));
                }
            }
        }
        Self { frontends, members, pools: asked_for(ports), source_sets: source_sets.into() }
    }
}

/// The pools that these frontends need, each once: ports with equal sets share a pool.
fn asked_for<A: TableAddr>(ports: &[PortRows<A>]) -> Box<[PoolDemand<A>]> {
    let mut known = HashSet::with_capacity(ports.len());
    let mut pools = Vec::with_capacity(ports.len());
    for (set, table_slots) in ports.iter().flat_map(pools_of) {
        if known.insert((set, table_slots)) {
            pools.push(PoolDemand { backends: Arc::clone(set), table_slots });
        }
    }
    pools.into()
}

/// The pools that the frontends of a port need, and the slots of those that are Maglev tables.
fn pools_of<A: TableAddr>(rows: &PortRows<A>) -> impl Iterator<Item = (&Arc<[Backend<A>]>, Option<u16>)> {
    let Usable { cluster, near, local, .. } = &rows.usable;
    let is_asked_for = |by: &[Treatment]| {
        let mut treatments = rows.frontends.iter().flat_map(|row| row.treatments.into_array());
        treatments.any(|treatment| by.contains(&treatment))
    };
    let of_cluster: &[_] = &[Treatment::Cluster, Treatment::Forward];
    let sets = [(of_cluster, cluster), (&[Treatment::Near], near), (&[Treatment::Local], local)];
    let asked_for = sets.into_iter().filter(move |(treatments, _)| is_asked_for(treatments));
    asked_for.map(|(_, set)| (set, rows.selection.table_slots(set.len())))
}

/// An upper bound of what Services take together: pools and sets of source ranges that ports or Services share are
/// counted for each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bound {
    pub frontends: usize,
    pub members: usize,
    pub pool_rows: usize,
    /// The most slots of any Maglev table.
    pub table_slots: u16,
    pub source_ranges: usize,
}

impl Bound {
    /// What these ports of one Service take at most.
    pub fn of<A: TableAddr>(ports: &[PortRows<A>]) -> Self {
        let mut bound = Self::default();
        for port in ports {
            bound.frontends += port.frontends.len();
            bound.members += port.usable.members.len();
            for (set, table_slots) in pools_of(port) {
                bound.pool_rows += rows(set, table_slots);
                bound.table_slots = bound.table_slots.max(table_slots.unwrap_or_default());
            }
            // All addresses of a Service have equal sets.
            bound.source_ranges += port.frontends.iter().map(|row| row.access.len()).max().unwrap_or_default();
        }
        bound
    }

    /// The reverse of `add`, apart from `table_slots`, which stays an upper bound.
    pub const fn subtract(&mut self, other: &Self) {
        self.frontends -= other.frontends;
        self.members -= other.members;
        self.pool_rows -= other.pool_rows;
        self.source_ranges -= other.source_ranges;
    }

    pub fn add(&mut self, other: &Self) {
        self.frontends += other.frontends;
        self.members += other.members;
        self.pool_rows += other.pool_rows;
        self.table_slots = self.table_slots.max(other.table_slots);
        self.source_ranges += other.source_ranges;
    }
}
