//! Frontends that a start found in the tables and that nobody has claimed yet.
//!
//! While a part of the input cannot be read they are kept as they are: what is missing may be theirs, and a restart
//! must not lose what worked.

use std::collections::BTreeSet;

use lb_common::table::{FrontendKey, FrontendState, MemberKey, PoolKey, Scopes};

use crate::dataplane::{FamilyTables, Tables};
use crate::family::TableAddr;

/// The keys, by family.
#[derive(Debug, Default)]
pub struct Inherited {
    v4: BTreeSet<FrontendKey<[u8; 4]>>,
    v6: BTreeSet<FrontendKey<[u8; 16]>>,
}

impl Inherited {
    /// All active frontends.
    pub fn of(tables: &Tables) -> Self {
        Self { v4: active(&tables.v4), v6: active(&tables.v6) }
    }

    /// Adds to `wanted` what stays. Once claimed, a frontend is no longer inherited.
    pub fn keep(&mut self, realised: &Tables, wanted: &mut Tables) {
        keep(&mut self.v4, realised, wanted);
        keep(&mut self.v6, realised, wanted);
    }
}

fn active<A: TableAddr>(tables: &FamilyTables<A>) -> BTreeSet<FrontendKey<A>> {
    let rows = tables.frontends.iter().filter(|(_, frontend)| frontend.state == FrontendState::Active);
    rows.map(|(key, _)| *key).collect()
}

fn keep<A: TableAddr>(inherited: &mut BTreeSet<FrontendKey<A>>, realised: &Tables, wanted: &mut Tables) {
    inherited.retain(|key| !A::tables(wanted).frontends.contains_key(key));
    let claimed: BTreeSet<u32> = wanted.scopes.values().map(|scopes| scopes.service_port).collect();
    for key in inherited.iter() {
        let Some(frontend) = A::tables(realised).frontends.get(key) else { continue };
        A::tables_mut(wanted).frontends.insert(*key, *frontend);
        let Some(scopes) = realised.scopes.get(&frontend.id) else { continue };
        wanted.scopes.insert(frontend.id, *scopes);
        keep_pools(scopes, A::tables(realised), A::tables_mut(wanted));
        if !claimed.contains(&scopes.service_port) {
            keep_members(scopes.service_port, A::tables(realised), A::tables_mut(wanted));
        }
    }
}

/// Live pool ids are never given to another content, so equal ids are equal rows.
fn keep_pools<A: TableAddr>(scopes: &Scopes, realised: &FamilyTables<A>, wanted: &mut FamilyTables<A>) {
    for pool in [scopes.workload.pool, scopes.host.pool, scopes.external.pool] {
        let rows = realised.pools.range(PoolKey { pool, slot: 0 }..=PoolKey { pool, slot: u32::MAX });
        wanted.pools.extend(rows.map(|(key, backend)| (*key, *backend)));
    }
}

fn keep_members<A: TableAddr>(service_port: u32, realised: &FamilyTables<A>, wanted: &mut FamilyTables<A>) {
    let members = realised.members.iter().filter(|(key, _)| key.service_port == service_port);
    wanted.members.extend(members.map(|(key, member): (&MemberKey<A>, _)| (*key, *member)));
}
