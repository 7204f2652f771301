//! How much of the tables each Service takes, so that a partial computation finds the same room as a full one.

use std::sync::Arc;

use lb_common::table::Backend;

use super::access::SourcePrefix;
use crate::model::{ObjectName, Service};

/// What a Service takes of the tables of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand<A> {
    pub frontends: usize,
    /// The frontends for which the tables hold no row of any Service: only these need a further row.
    pub new_frontends: usize,
    pub members: usize,
    /// All pools, each once. If several Services need equal pools, the rows are taken once.
    pub pools: Vec<PoolDemand<A>>,
    /// The sets of source ranges, each once.
    pub source_sets: Vec<Arc<[SourcePrefix<A>]>>,
}

/// A pool, identified by its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolDemand<A> {
    pub backends: Arc<[Backend<A>]>,
    /// Slots of a Maglev table. `None` if the backends themselves are the rows.
    pub table_slots: Option<u16>,
}

impl<A> PoolDemand<A> {
    pub fn rows(&self) -> usize {
        self.table_slots.map_or(self.backends.len(), usize::from)
    }
}

impl<A> Default for Demand<A> {
    fn default() -> Self {
        Self { frontends: 0, new_frontends: 0, members: 0, pools: Vec::new(), source_sets: Vec::new() }
    }
}

/// A Service, reduced to what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub name: ObjectName,
    pub v4: Demand<[u8; 4]>,
    pub v6: Demand<[u8; 16]>,
}

impl Neighbour {
    /// What a Service takes once its rows are written. No frontend is new then.
    pub fn new(name: &ObjectName, v4: Demand<[u8; 4]>, v6: Demand<[u8; 16]>) -> Self {
        Self { name: name.clone(), v4: Demand { new_frontends: 0, ..v4 }, v6: Demand { new_frontends: 0, ..v6 } }
    }
}

/// An object without a time stamp counts as the youngest.
pub fn created_secs(service: &Service) -> i64 {
    service.created_secs.unwrap_or(i64::MAX)
}

/// Services and what they take, unordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours(Vec<Neighbour>);

impl Neighbours {
    pub fn push(&mut self, neighbour: Neighbour) {
        self.0.push(neighbour);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.0.iter()
    }

    /// Replaces the selected Services by others.
    pub fn replace(&mut self, is_replaced: impl Fn(&ObjectName) -> bool, by: Self) {
        self.0.retain(|neighbour| !is_replaced(&neighbour.name));
        self.0.extend(by.0);
    }
}
