//! How many scopes refer to each pool and to each set of source ranges.

use std::collections::{BTreeMap, HashMap};

use lb_common::table::{Scope, Scopes};

use crate::dataplane::Write;

/// References, by ID. What no scope refers to is not in them.
#[derive(Clone, Debug, Default)]
pub struct Referrers {
    pools: HashMap<u32, u32>,
    source_sets: HashMap<u32, u32>,
}

impl Referrers {
    pub fn of<'a>(scopes: impl Iterator<Item = &'a Scopes>) -> Self {
        let mut referrers = Self::default();
        scopes.for_each(|scopes| referrers.add(scopes));
        referrers
    }

    /// Number of references to a pool.
    pub fn to_pool(&self, pool: u32) -> u32 {
        self.pools.get(&pool).copied().unwrap_or(0)
    }

    /// Number of references to a set of source ranges.
    pub fn to_source_set(&self, set: u32) -> u32 {
        self.source_sets.get(&set).copied().unwrap_or(0)
    }

    /// The pools, each once.
    pub fn pools(&self) -> impl Iterator<Item = u32> {
        self.pools.keys().copied()
    }

    /// The sets of source ranges, each once.
    pub fn source_sets(&self) -> impl Iterator<Item = u32> {
        self.source_sets.keys().copied()
    }

    /// Takes in a step that was done. `before` are the scopes before it.
    pub fn record(&mut self, write: &Write<u32, Scopes>, before: &BTreeMap<u32, Scopes>) {
        write.keys().filter_map(|id| before.get(id)).for_each(|scopes| self.remove(scopes));
        if let Write::Upsert(rows) = write {
            for (_, scopes) in rows {
                self.add(scopes);
            }
        }
    }

    fn add(&mut self, scopes: &Scopes) {
        pools_of(scopes).for_each(|pool| *self.pools.entry(pool).or_default() += 1);
        source_set_of(scopes).for_each(|set| *self.source_sets.entry(set).or_default() += 1);
    }

    fn remove(&mut self, scopes: &Scopes) {
        pools_of(scopes).for_each(|pool| decrement(&mut self.pools, pool));
        source_set_of(scopes).for_each(|set| decrement(&mut self.source_sets, set));
    }
}

/// The pools that these scopes refer to.
pub fn pools_of(scopes: &Scopes) -> impl Iterator<Item = u32> + use<> {
    scopes.per_client().into_array().into_iter().map(|Scope { pool, .. }| pool).filter(|pool| *pool != 0)
}

/// The set of source ranges that these scopes refer to. 0 means "unset".
fn source_set_of(scopes: &Scopes) -> impl Iterator<Item = u32> + use<> {
    Some(scopes.source_ranges).filter(|set| *set != 0).into_iter()
}

fn decrement(counts: &mut HashMap<u32, u32>, id: u32) {
    if let Some(count) = counts.get_mut(&id) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&id);
        }
    }
}
