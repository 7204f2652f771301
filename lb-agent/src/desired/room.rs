//! What Services take of the tables, so that a part of them can be computed and find the room that the whole would leave.

use std::sync::Arc;

use lb_common::table::Backend;

use crate::model::{ObjectName, Service};

/// What a Service takes of the tables of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand<A> {
    pub frontends: usize,
    pub members: usize,
    pub source_ranges: usize,
    /// All that it asks for. Rows are taken by the oldest Service that asks.
    pub pools: Vec<PoolDemand<A>>,
}

/// A pool by what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolDemand<A> {
    pub backends: Arc<[Backend<A>]>,
    /// Of a Maglev table; `None` where the backends themselves are the rows.
    pub table_slots: Option<u16>,
}

impl<A> PoolDemand<A> {
    pub fn rows(&self) -> usize {
        self.table_slots.map_or(self.backends.len(), usize::from)
    }
}

impl<A> Default for Demand<A> {
    fn default() -> Self {
        Self { frontends: 0, members: 0, source_ranges: 0, pools: Vec::new() }
    }
}

/// Rows of one family.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rows {
    pub frontends: usize,
    /// Of all pools.
    pub in_pools: usize,
    /// Of each Maglev table, where there is one among the pools.
    pub table_slots: Option<u16>,
    pub members: usize,
    pub source_ranges: usize,
}

/// A Service by what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    created_secs: i64,
    pub name: ObjectName,
    pub v4: Demand<[u8; 4]>,
    pub v6: Demand<[u8; 16]>,
}

impl Neighbour {
    pub fn new(service: &Service, v4: Demand<[u8; 4]>, v6: Demand<[u8; 16]>) -> Self {
        Self { created_secs: created_secs(service), name: service.name.clone(), v4, v6 }
    }

    /// Whether it has its turn before this Service.
    pub fn is_older_than(&self, service: &Service) -> bool {
        self.age() < (created_secs(service), &service.name)
    }

    const fn age(&self) -> (i64, &ObjectName) {
        (self.created_secs, &self.name)
    }
}

/// An object without a time stamp counts as the youngest.
pub fn created_secs(service: &Service) -> i64 {
    service.created_secs.unwrap_or(i64::MAX)
}

/// Services in the order in which they have their turn: oldest first, ties by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours(Vec<Neighbour>);

impl Neighbours {
    /// `neighbour` is younger than all that there are.
    pub fn push(&mut self, neighbour: Neighbour) {
        self.0.push(neighbour);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.0.iter()
    }

    /// These Services are replaced by those.
    pub fn replace(&mut self, is_replaced: impl Fn(&ObjectName) -> bool, by: Self) {
        self.0.retain(|neighbour| !is_replaced(&neighbour.name));
        self.0.extend(by.0);
        self.0.sort_by(|a, b| a.age().cmp(&b.age()));
    }
}
