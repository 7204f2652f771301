//! Tables with IDs that depend on their content alone: numbered in the order in which a reader meets them.

use std::collections::BTreeMap;

use lb_agent::dataplane::{FamilyTables, Tables};
use lb_common::addr::Addr;
use lb_common::table::{FrontendKey, MemberKey, PoolKey, Scope, Scopes, SourceRangeKey};

/// New numbers for old ones, in the order of the lookups.
#[derive(Default)]
struct Numbers(BTreeMap<u32, u32>);

impl Numbers {
    /// 0 means "none" and stays 0.
    fn of(&mut self, old: u32) -> u32 {
        let next = self.0.len() as u32 + 1;
        if old == 0 { 0 } else { *self.0.entry(old).or_insert(next) }
    }
}

#[derive(Default)]
struct Ids {
    frontends: Numbers,
    pools: Numbers,
    service_ports: Numbers,
    source_sets: Numbers,
}

/// The same tables, renumbered.
pub fn normal(tables: &Tables) -> Tables {
    let mut ids = Ids::default();
    let mut scopes = BTreeMap::new();
    let mut normal = Tables::default();
    normal.v4.frontends = frontends(&tables.v4, tables, &mut ids, &mut scopes);
    normal.v6.frontends = frontends(&tables.v6, tables, &mut ids, &mut scopes);
    normal.scopes = scopes;
    rest(&tables.v4, &mut normal.v4, &mut ids);
    rest(&tables.v6, &mut normal.v6, &mut ids);
    normal
}

fn frontends<A: Addr>(
    family: &FamilyTables<A>,
    tables: &Tables,
    ids: &mut Ids,
    scopes: &mut BTreeMap<u32, Scopes>,
) -> BTreeMap<FrontendKey<A>, lb_common::table::Frontend> {
    let mut rows = BTreeMap::new();
    for (key, frontend) in &family.frontends {
        let id = ids.frontends.of(frontend.id);
        rows.insert(*key, lb_common::table::Frontend { id, ..*frontend });
        if let Some(old) = tables.scopes.get(&frontend.id) {
            let mut scope = |scope: Scope| Scope { pool: ids.pools.of(scope.pool), ..scope };
            let (workload, host, external) = (scope(old.workload), scope(old.host), scope(old.external));
            let service_port = ids.service_ports.of(old.service_port);
            let source_ranges = ids.source_sets.of(old.source_ranges);
            scopes.insert(id, Scopes { workload, host, external, service_port, source_ranges, ..*old });
        }
    }
    rows
}

/// Pools and members; those of no frontend come last.
fn rest<A: Addr>(family: &FamilyTables<A>, normal: &mut FamilyTables<A>, ids: &mut Ids) {
    for (key, backend) in &family.pools {
        normal.pools.insert(PoolKey { pool: ids.pools.of(key.pool), ..*key }, *backend);
    }
    for (key, range) in &family.source_ranges {
        normal.source_ranges.insert(SourceRangeKey { set: ids.source_sets.of(key.set), ..*key }, *range);
    }
    for (key, member) in &family.members {
        normal.members.insert(MemberKey { service_port: ids.service_ports.of(key.service_port), ..*key }, *member);
    }
}
