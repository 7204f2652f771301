//! The rows in the tables that a step for some Services may replace: theirs, and what only they use.

use std::collections::BTreeSet;

use lb_common::table::{FrontendKey, MemberKey, PoolKey};

use crate::dataplane::{FamilyTables, Tables};
use crate::desired::ServiceRows;
use crate::family::TableAddr;
use crate::realised::{Realised, Referrers};

/// The rows of these Services as the tables hold them, and existing rows that `wanted` names. Pools and sets of source
/// ranges that other Services use are left out if `wanted` does not name them.
pub fn rows<'a>(realised: &Realised, settled: impl Iterator<Item = &'a ServiceRows>, wanted: &Tables) -> Tables {
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
    let (all, theirs) = (realised.referrers(), Referrers::of(rows.scopes.values()));
    let wanted = Referrers::of(wanted.scopes.values());
    let pools = theirs.pools().filter(|pool| all.to_pool(*pool) == theirs.to_pool(*pool));
    for pool in pools.chain(wanted.pools()) {
        take_pool(pool, &realised.v4, &mut rows.v4);
        take_pool(pool, &realised.v6, &mut rows.v6);
    }
    let sets = theirs.source_sets().filter(|set| all.to_source_set(*set) == theirs.to_source_set(*set));
    for set in sets.chain(wanted.source_sets()) {
        rows.v4.source_ranges.extend(realised.v4.source_ranges_of(set).map(|(key, range)| (*key, *range)));
        rows.v6.source_ranges.extend(realised.v6.source_ranges_of(set).map(|(key, range)| (*key, *range)));
    }
    rows
}

/// Adds all draining frontends.
pub fn add_draining(realised: &Realised, rows: &mut Tables) {
    take_frontends(realised.uses().v4.draining().iter(), realised, rows);
    take_frontends(realised.uses().v6.draining().iter(), realised, rows);
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

fn take_members<A: TableAddr>(service_port: u32, realised: &FamilyTables<A>, rows: &mut FamilyTables<A>) {
    let first = MemberKey { service_port, addr: A::new_zeroed(), port: 0, pad: 0 };
    let found = realised.members.range(first..).take_while(|(key, _)| key.service_port == service_port);
    rows.members.extend(found.map(|(key, member)| (*key, *member)));
}

fn take_pool<A: TableAddr>(pool: u32, realised: &FamilyTables<A>, rows: &mut FamilyTables<A>) {
    let found = realised.pools.range(PoolKey { pool, slot: 0 }..=PoolKey { pool, slot: u32::MAX });
    rows.pools.extend(found.map(|(key, backend)| (*key, *backend)));
}
