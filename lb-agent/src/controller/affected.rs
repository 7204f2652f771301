//! The rows in the tables that a step for some Services may replace: theirs, and what only they use.

use std::collections::BTreeSet;

use lb_common::table::{FrontendKey, FrontendState, MemberKey, PoolKey, Scopes};

use crate::apply::pools_of;
use crate::dataplane::{FamilyTables, Tables};
use crate::desired::ServiceRows;
use crate::family::TableAddr;

/// The rows of these Services as the tables hold them, and existing rows that `wanted` names. Pools and sets of source
/// ranges that other Services use are left out if `wanted` does not name them.
pub fn rows<'a>(realised: &Tables, settled: impl Iterator<Item = &'a ServiceRows>, wanted: &Tables) -> Tables {
    let mut rows = Tables::default();
    for service in settled {
        take_frontends(service.v4.keys(), realised, &mut rows);
        take_frontends(service.v6.keys(), realised, &mut rows);
    }
    for port in rows.scopes.values().map(|scopes| scopes.service_port).collect::<BTreeSet<u32>>() {
        take_members(port, &realised.v4, &mut rows.v4);
        take_members(port, &realised.v6, &mut rows.v6);
    }
    take_frontends(wanted.v4.frontends.keys(), realised, &mut rows);
    take_frontends(wanted.v6.frontends.keys(), realised, &mut rows);
    let mut referents = Referents::of(rows.scopes.values());
    let others = realised.scopes.iter().filter(|(id, _)| !rows.scopes.contains_key(id));
    referents.remove_those_of(others.map(|(_, scopes)| scopes));
    referents.extend(Referents::of(wanted.scopes.values()));
    for pool in referents.pools {
        take_pool(pool, &realised.v4, &mut rows.v4);
        take_pool(pool, &realised.v6, &mut rows.v6);
    }
    for set in referents.source_sets {
        rows.v4.source_ranges.extend(realised.v4.source_ranges_of(set).map(|(key, range)| (*key, *range)));
        rows.v6.source_ranges.extend(realised.v6.source_ranges_of(set).map(|(key, range)| (*key, *range)));
    }
    rows
}

/// Adds all draining frontends.
pub fn add_draining(realised: &Tables, rows: &mut Tables) {
    take_frontends(draining(&realised.v4), realised, rows);
    take_frontends(draining(&realised.v6), realised, rows);
}

/// What scopes refer to.
#[derive(Default)]
struct Referents {
    pools: BTreeSet<u32>,
    source_sets: BTreeSet<u32>,
}

impl Referents {
    fn of<'a>(scopes: impl Iterator<Item = &'a Scopes>) -> Self {
        let mut referents = Self::default();
        for scopes in scopes {
            referents.pools.extend(pools_of(scopes));
            referents.source_sets.insert(scopes.source_ranges);
        }
        // 0 means "unset".
        referents.source_sets.remove(&0);
        referents
    }

    fn remove_those_of<'a>(&mut self, others: impl Iterator<Item = &'a Scopes>) {
        if self.pools.is_empty() && self.source_sets.is_empty() {
            return;
        }
        for scopes in others {
            for pool in pools_of(scopes) {
                self.pools.remove(&pool);
            }
            self.source_sets.remove(&scopes.source_ranges);
        }
    }

    fn extend(&mut self, other: Self) {
        self.pools.extend(other.pools);
        self.source_sets.extend(other.source_sets);
    }
}

fn take_frontends<'a, A: TableAddr>(
    keys: impl Iterator<Item = &'a FrontendKey<A>>,
    realised: &Tables,
    rows: &mut Tables,
) {
    for key in keys {
        let Some(frontend) = A::tables(realised).frontends.get(key) else { continue };
        A::tables_mut(rows).frontends.insert(*key, *frontend);
        if let Some(scopes) = realised.scopes.get(&frontend.id) {
            rows.scopes.insert(frontend.id, *scopes);
        }
        if let Some(age) = realised.frontend_ages.get(&frontend.id) {
            rows.frontend_ages.insert(frontend.id, *age);
        }
    }
}

fn draining<A: TableAddr>(tables: &FamilyTables<A>) -> impl Iterator<Item = &FrontendKey<A>> {
    let draining = tables.frontends.iter().filter(|(_, frontend)| frontend.state == FrontendState::Draining);
    draining.map(|(key, _)| key)
}

fn take_members<A: TableAddr>(service_port: u32, realised: &FamilyTables<A>, rows: &mut FamilyTables<A>) {
    let first = MemberKey { service_port, addr: A::new_zeroed(), port: 0, pad: 0 };
    let found = realised.members.range(first..).take_while(|(key, _)| key.service_port == service_port);
    rows.members.extend(found.map(|(key, member)| (*key, *member)));
}

fn take_pool<A: TableAddr>(pool: u32, realised: &FamilyTables<A>, rows: &mut FamilyTables<A>) {
    let found = realised.pools.range(PoolKey { pool, slot: 0 }..=PoolKey { pool, slot: u32::MAX });
    rows.pools.extend(found.map(|(key, backend)| (*key, *backend)));
}
