//! Rows of `show pools`, and of the `members` tables.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_common::addr::Addr;
use lb_common::table::{Backend, PoolKey};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Item, Row};
use crate::dataplane::{FamilyTables, Tables};
use crate::filter::{Facet, Facets, Filtered};

/// A backend of a pool. With Maglev it has many slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PoolRow {
    pub pool_id: u32,
    /// The first slot of the backend.
    pub slot: u32,
    /// The number of the backend's slots, and of all slots of the pool.
    pub slots: u32,
    pub of_slots: u32,
    /// Address and port: `10.1.0.9:8443` or `[2001:db8::9]:8443`.
    pub backend: SocketAddr,
}

/// The number of backends in each pool of a family. A backend counts once, however many slots it has.
pub struct Backends(BTreeMap<u32, usize>);

impl Backends {
    pub fn of<A: Addr>(tables: &FamilyTables<A>) -> Self {
        let rows = by_pool(tables).into_iter().map(|(pool, backends)| (pool, backends.len()));
        Self(rows.collect())
    }

    /// 0 if the pool does not exist.
    pub fn count(&self, pool: u32) -> usize {
        self.0.get(&pool).copied().unwrap_or_default()
    }
}

/// The slots that a backend has in a pool.
struct Slots {
    first: u32,
    count: u32,
}

/// The backends of each pool, sorted by address and port.
fn by_pool<A: Addr>(tables: &FamilyTables<A>) -> BTreeMap<u32, BTreeMap<Backend<A>, Slots>> {
    let mut pools: BTreeMap<u32, BTreeMap<Backend<A>, Slots>> = BTreeMap::new();
    for (PoolKey { pool, slot }, backend) in &tables.pools {
        let backends = pools.entry(*pool).or_default();
        backends.entry(*backend).or_insert(Slots { first: *slot, count: 0 }).count += 1;
    }
    pools
}

/// A backend that keeps its known flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    pub service_port: u32,
    pub backend: SocketAddr,
    pub state: String,
}

/// The backends of all pools, IPv4 first, sorted by pool, address and port.
pub fn pools(tables: &Tables) -> Vec<PoolRow> {
    fn family<A: Addr>(tables: &FamilyTables<A>) -> impl Iterator<Item = PoolRow> {
        by_pool(tables).into_iter().flat_map(|(pool, backends)| {
            let of_slots = backends.values().map(|slots| slots.count).sum();
            backends.into_iter().map(move |(backend, Slots { first, count })| PoolRow {
                pool_id: pool,
                slot: first,
                slots: count,
                of_slots,
                backend: SocketAddr::new(backend.addr.into(), backend.port),
            })
        })
    }
    family(&tables.v4).chain(family(&tables.v6)).collect()
}

/// All members, IPv4 first, sorted by Service port, address and port.
pub fn members(tables: &Tables) -> Vec<MemberRow> {
    fn family<A: Addr>(tables: &FamilyTables<A>) -> impl Iterator<Item = MemberRow> {
        tables.members.iter().map(|(key, member)| MemberRow {
            service_port: key.service_port,
            backend: SocketAddr::new(key.addr.into(), key.port),
            state: format!("{:?}", member.state),
        })
    }
    family(&tables.v4).chain(family(&tables.v6)).collect()
}

impl Item for PoolRow {
    const KIND: &'static str = "Pools";
}

impl Filtered for PoolRow {
    const FACETS: &'static [Facet] = &[];

    fn facets(&self) -> Facets<'_> {
        Facets::default()
    }
}

impl Row for PoolRow {
    const TITLES: &'static [&'static str] = &["POOL", "SLOT", "BACKEND"];

    fn cells(&self) -> Vec<String> {
        let Self { pool_id, slot, slots, of_slots, .. } = self;
        let slot = if *slots == 1 { slot.to_string() } else { format!("{slots} of {of_slots} (maglev)") };
        vec![pool_id.to_string(), slot, self.backend.to_string()]
    }
}

impl Row for MemberRow {
    const TITLES: &'static [&'static str] = &["PORT-ID", "BACKEND", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![self.service_port.to_string(), self.backend.to_string(), self.state.clone()]
    }
}
