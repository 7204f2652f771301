//! Frontends that the agent found in the tables at its start and that the input does not account for yet.
//!
//! They are kept unchanged while a part of the input cannot be read: the missing Service or endpoints may be theirs,
//! and a restart must not break what worked. The agent does not know which objects they belonged to, so keeping them
//! ends after a time.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb_common::table::{Action, FrontendKey, FrontendState, MemberKey, PoolKey, Scope, Scopes};

use crate::dataplane::{FamilyTables, Tables};
use crate::family::TableAddr;
use crate::model::{Warning, WarningKind};

/// Number of frontends that get a warning each; one more warning counts the rest.
const TOLD_MAX: usize = 16;

/// Keys of the inherited frontends, by family.
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

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// One warning for each frontend that is kept, up to `TOLD_MAX`.
    pub fn warnings(&self) -> Vec<Warning> {
        let names = self.v4.iter().map(name).chain(self.v6.iter().map(name));
        let mut warnings: Vec<Warning> =
            names.take(TOLD_MAX).map(|name| kept().of(format_args!("frontend {name}"))).collect();
        let count = self.v4.len() + self.v6.len();
        if count > TOLD_MAX {
            warnings.push(kept().of(format_args!("{} further frontends", count - TOLD_MAX)));
        }
        warnings
    }

    /// Adds the inherited rows to `wanted`. A frontend that the input accounts for is no longer inherited.
    pub fn keep(&mut self, realised: &Tables, wanted: &mut Tables) {
        keep(&mut self.v4, realised, wanted);
        keep(&mut self.v6, realised, wanted);
    }
}

fn kept() -> Warning {
    let problem = "is served as before the start, because part of the input cannot be read and no readable object \
        claims it or has endpoints for it; it is removed --keep-unclaimed-secs after the start";
    Warning::new(WarningKind::Source, problem, "correct the input that other warnings name")
}

/// `203.0.113.7:443/tcp`.
fn name<A: TableAddr>(key: &FrontendKey<A>) -> String {
    format!("{}/{}", SocketAddr::new(key.addr.into(), key.port), key.proto.name())
}

fn active<A: TableAddr>(tables: &FamilyTables<A>) -> BTreeSet<FrontendKey<A>> {
    let rows = tables.frontends.iter().filter(|(_, frontend)| frontend.state == FrontendState::Active);
    rows.map(|(key, _)| *key).collect()
}

fn keep<A: TableAddr>(inherited: &mut BTreeSet<FrontendKey<A>>, realised: &Tables, wanted: &mut Tables) {
    inherited.retain(|key| !is_accounted_for(key, realised, wanted));
    let claimed: BTreeSet<u32> = A::tables(wanted).members.keys().map(|key| key.service_port).collect();
    for key in inherited.iter() {
        let Some(frontend) = A::tables(realised).frontends.get(key) else { continue };
        A::tables_mut(wanted).frontends.insert(*key, *frontend);
        let Some(scopes) = realised.scopes.get(&frontend.id) else { continue };
        wanted.scopes.insert(frontend.id, *scopes);
        keep_pools(scopes, A::tables(realised), A::tables_mut(wanted));
        keep_source_ranges(scopes.source_ranges, A::tables(realised), A::tables_mut(wanted));
        if !claimed.contains(&scopes.service_port) {
            keep_members(scopes.service_port, A::tables(realised), A::tables_mut(wanted));
        }
    }
}

/// Whether the input fully explains this frontend. It does not if a Service claims it in the same mode as before but no
/// longer has endpoints.
fn is_accounted_for<A: TableAddr>(key: &FrontendKey<A>, realised: &Tables, wanted: &Tables) -> bool {
    let (old, new) = (A::tables(realised).frontends.get(key), A::tables(wanted).frontends.get(key));
    let (Some(old), Some(new)) = (old, new) else { return new.is_some() };
    let rejects = |id| wanted.scopes.get(id).is_some_and(|scopes| scopes.workload.action == Action::Reject);
    let balances = |id| realised.scopes.get(id).is_some_and(|scopes| scopes.workload.action == Action::Balance);
    !(old.mode == new.mode && rejects(&new.id) && balances(&old.id))
}

/// A live pool ID is never given to other content, so equal IDs mean equal rows.
fn keep_pools<A: TableAddr>(scopes: &Scopes, realised: &FamilyTables<A>, wanted: &mut FamilyTables<A>) {
    for Scope { pool, .. } in scopes.per_client().into_array() {
        let rows = realised.pools.range(PoolKey { pool, slot: 0 }..=PoolKey { pool, slot: u32::MAX });
        wanted.pools.extend(rows.map(|(key, backend)| (*key, *backend)));
    }
}

fn keep_source_ranges<A: TableAddr>(set: u32, realised: &FamilyTables<A>, wanted: &mut FamilyTables<A>) {
    wanted.source_ranges.extend(realised.source_ranges_of(set).map(|(key, range)| (*key, *range)));
}

fn keep_members<A: TableAddr>(service_port: u32, realised: &FamilyTables<A>, wanted: &mut FamilyTables<A>) {
    let members = realised.members.iter().filter(|(key, _)| key.service_port == service_port);
    wanted.members.extend(members.map(|(key, member): (&MemberKey<A>, _)| (*key, *member)));
}
