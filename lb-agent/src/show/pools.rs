//! Pools: the backends behind the frontends, and who uses them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::Row;
use crate::dataplane::Tables;
use crate::explain::backend_address;
use crate::family::TableAddr;

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct PoolRow {
    pub pool: u32,
    pub slot: u32,
    pub backend: SocketAddr,
    /// Frontends that choose from the pool; 0 for a pool that is about to go.
    pub frontends: usize,
}

impl Row for PoolRow {
    const HEADER: &'static [&'static str] = &["#POOL", "#SLOT", "BACKEND", "#FRONTENDS"];

    fn cells(&self) -> Vec<String> {
        vec![self.pool.to_string(), self.slot.to_string(), self.backend.to_string(), self.frontends.to_string()]
    }
}

pub fn rows(tables: &Tables) -> Vec<PoolRow> {
    let mut users: BTreeMap<u32, usize> = BTreeMap::new();
    for scopes in tables.scopes.values() {
        let mut pools = [scopes.workload.pool, scopes.host.pool, scopes.external.pool];
        pools.sort_unstable();
        for (index, pool) in pools.iter().enumerate() {
            if *pool != 0 && pools.get(index.wrapping_sub(1)) != Some(pool) {
                *users.entry(*pool).or_default() += 1;
            }
        }
    }
    let mut rows = Vec::new();
    add::<[u8; 4]>(tables, &users, &mut rows);
    add::<[u8; 16]>(tables, &users, &mut rows);
    rows
}

fn add<A: TableAddr>(tables: &Tables, users: &BTreeMap<u32, usize>, rows: &mut Vec<PoolRow>) {
    rows.extend(A::tables(tables).pools.iter().map(|(key, backend)| PoolRow {
        pool: key.pool,
        slot: key.slot,
        backend: backend_address(backend),
        frontends: users.get(&key.pool).copied().unwrap_or(0),
    }));
}

#[cfg(test)]
mod tests {
    use lb_common::table::{Backend, PoolKey, Scope, Scopes};

    use super::*;

    #[test]
    fn counts_each_frontend_once() {
        let mut tables = Tables::default();
        let balance = Scope::balance(7, 1);
        tables.v4.pools.insert(PoolKey { pool: 7, slot: 0 }, Backend { addr: [10, 0, 0, 1], port: 8080, flags: 0 });
        tables.v4.pools.insert(PoolKey { pool: 8, slot: 0 }, Backend { addr: [10, 0, 0, 2], port: 8080, flags: 0 });
        tables.scopes.insert(1, Scopes { workload: balance, host: balance, ..Scopes::PASS });
        tables.scopes.insert(2, Scopes { workload: balance, external: Scope::balance(9, 1), ..Scopes::PASS });
        let rows: Vec<_> =
            rows(&tables).into_iter().map(|row| (row.pool, row.backend.to_string(), row.frontends)).collect();
        assert_eq!(rows, [(7, "10.0.0.1:8080".into(), 2), (8, "10.0.0.2:8080".into(), 0)]);
    }
}
