//! IDs: existing rows keep their ID, new rows get an unused ID, and a restart adopts the IDs in the maps.
//!
//! Freed IDs are quarantined before reuse. Frontend IDs index `scopes` and `frontend_stats`, so they stay below a
//! limit. A pool ID encodes the pool's position in the array.

mod counter;
mod elements;
mod pools;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lb_common::client::PerClient;
use lb_common::table::{
    Frontend, FrontendKey, FrontendState, HeaderVersion, Member, MemberKey, PoolKey, Scope, ScopeFlags, Scopes,
    SourceRange, SourceRangeKey, bpf_spin_lock,
};

use crate::dataplane::{FamilyOp, FamilyTables, Op, Tables, Write};
use crate::dense;
use crate::desired::{
    Access, Algorithm, Desired, DesiredFrontend, DesiredScope, Extent, FamilyDesired, Incumbents, ServicePortName,
    SourcePrefix, ports_of,
};
use crate::family::TableAddr;
use crate::model::{ObjectName, Warning, WarningKind};
use crate::realised::Referrers;
use counter::Counter;
use elements::{Elements, PoolIds};
use pools::Pools;

/// The IDs of all rows. Survives a restart through the maps.
#[derive(Debug)]
pub struct Assignment {
    v4: FamilyIds<[u8; 4]>,
    v6: FamilyIds<[u8; 16]>,
    service_ports: BTreeMap<ServicePortName, u32>,
    /// IDs in use when all rows were last assigned, plus those assigned since.
    live: Live,
    frontend_counter: Counter,
    pool_ids: PoolIds,
    service_port_counter: Counter,
    source_set_counter: Counter,
}

#[derive(Debug)]
struct FamilyIds<A> {
    frontends: BTreeMap<FrontendKey<A>, u32>,
    pools: Pools<A>,
    source_sets: BTreeMap<Arc<[SourcePrefix<A>]>, u32>,
}

/// The wanted tables, and warnings about rows that got no ID.
#[derive(Debug, Default)]
pub struct Assigned {
    pub tables: Tables,
    pub warnings: Vec<Warning>,
}

/// The rows that a plan deletes.
#[derive(Debug, Default)]
pub struct Deleted {
    v4: Vec<FrontendKey<[u8; 4]>>,
    v6: Vec<FrontendKey<[u8; 16]>>,
    /// IDs of pools of both families.
    pools: BTreeSet<u32>,
}

impl Deleted {
    pub fn of(ops: &[Op]) -> Self {
        let mut deleted = Self::default();
        for op in ops {
            match op {
                Op::V4(FamilyOp::Frontends(Write::Delete(keys))) => deleted.v4.extend(keys),
                Op::V6(FamilyOp::Frontends(Write::Delete(keys))) => deleted.v6.extend(keys),
                Op::V4(FamilyOp::Pools(Write::Delete(keys))) | Op::V6(FamilyOp::Pools(Write::Delete(keys))) => {
                    deleted.pools.extend(keys.iter().map(|key| key.pool));
                }
                Op::V4(_) | Op::V6(_) | Op::Scopes(_) | Op::FrontendAges(_) | Op::Settle => {}
            }
        }
        deleted
    }
}

impl Assignment {
    /// Adopts the IDs that the maps hold. `frontend_ids_max` is the largest index of `scopes`. `pool_elements` is the
    /// length of `pools4` and of `pools6`, below [`POOL_ELEMENTS_MAX`](lb_common::table::POOL_ELEMENTS_MAX).
    pub fn adopt(realised: &Tables, frontend_ids_max: u32, pool_elements: u32) -> Self {
        let live = Live::of(realised, pool_elements);
        Self {
            v4: FamilyIds::adopt(&realised.v4, &realised.scopes),
            v6: FamilyIds::adopt(&realised.v6, &realised.scopes),
            service_ports: BTreeMap::new(),
            frontend_counter: Counter::after(live.frontends.last().copied(), frontend_ids_max),
            pool_ids: PoolIds::beside(&live.pools),
            service_port_counter: Counter::after(live.service_ports.last().copied(), u32::MAX),
            source_set_counter: Counter::after(live.source_sets.last().copied(), u32::MAX),
            live,
        }
    }

    /// The ID of every Service port.
    pub fn service_ports(&self) -> impl Iterator<Item = (&ServicePortName, u32)> {
        self.service_ports.iter().map(|(name, id)| (name, *id))
    }

    /// Assigns an ID to every row of `desired`, which covers the Services of `extent`. `realised` says which IDs the maps
    /// still use, so these are not reused.
    pub fn assign(&mut self, desired: &Desired, extent: &Extent, realised: &Tables) -> Assigned {
        let mut adoptable: Vec<Option<u32>> = vec![None; desired.service_ports.len()];
        if self.service_ports.is_empty() {
            adoptable_service_ports(&desired.v6, realised, &mut adoptable);
            adoptable_service_ports(&desired.v4, realised, &mut adoptable);
        }
        let known = match extent {
            Extent::Everything => {
                self.count(realised);
                std::mem::take(&mut self.service_ports)
            }
            Extent::Services(services) => self.take_ports_of(services),
        };
        self.rows(desired, known, &adoptable)
    }

    /// Counts the IDs in use anew.
    fn count(&mut self, realised: &Tables) {
        self.live = Live::of(realised, self.live.pools.count());
        self.live.frontends.extend(self.v4.frontends.values().chain(self.v6.frontends.values()));
        self.v4.add_pools_to(&mut self.live.pools);
        self.v6.add_pools_to(&mut self.live.pools);
        self.live.service_ports.extend(self.service_ports.values());
        self.live.source_sets.extend(self.v4.source_sets.values().chain(self.v6.source_sets.values()));
    }

    fn take_ports_of(&mut self, services: &BTreeSet<ObjectName>) -> BTreeMap<ServicePortName, u32> {
        let ports = services.iter().flat_map(|service| ports_of(&self.service_ports, service));
        let ports: BTreeMap<ServicePortName, u32> = ports.map(|(name, id)| (name.clone(), id)).collect();
        for name in ports.keys() {
            self.service_ports.remove(name);
        }
        ports
    }

    /// What each Service has now, if the tables hold `realised`.
    pub const fn incumbents<'a>(&'a self, realised: &'a Tables) -> Incumbents<'a> {
        Incumbents::of(realised, &self.service_ports)
    }

    /// Forgets the IDs of rows that the maps no longer hold or never held. A freed frontend ID is quarantined until the
    /// counter wraps around.
    pub fn forget(&mut self, realised: &Tables) {
        let asked: BTreeSet<u32> = realised.scopes.values().map(|scopes| scopes.source_ranges).collect();
        self.v4.forget(&realised.v4, &mut self.live.pools, &asked);
        self.v6.forget(&realised.v6, &mut self.live.pools, &asked);
        self.pool_ids.forget_waiting();
    }

    /// Forgets the IDs of deleted rows, and of sets of source ranges that no scope refers to.
    pub fn forget_deleted(&mut self, deleted: &Deleted, referrers: &Referrers) {
        self.v4.forget_deleted(&deleted.v4, &deleted.pools, &mut self.live);
        self.v6.forget_deleted(&deleted.v6, &deleted.pools, &mut self.live);
        self.v4.source_sets.retain(|_, set| referrers.to_source_set(*set) > 0);
        self.v6.source_sets.retain(|_, set| referrers.to_source_set(*set) > 0);
    }

    /// Frees unused room, which assigning all IDs leaves.
    pub fn condense(&mut self) {
        dense::fill(&mut self.v4.frontends);
        self.v4.pools.condense();
        dense::fill(&mut self.v6.frontends);
        self.v6.pools.condense();
        dense::fill(&mut self.service_ports);
        dense::fill_set(&mut self.live.frontends);
        dense::fill_set(&mut self.live.service_ports);
    }

    fn rows(
        &mut self,
        desired: &Desired,
        known: BTreeMap<ServicePortName, u32>,
        adoptable: &[Option<u32>],
    ) -> Assigned {
        let service_ports = self.service_port_ids(desired, known, adoptable);
        let mut assigned = Assigned::default();
        let owners: Vec<u32> = desired.service_ports.iter().map(|name| name.service.tag()).collect();
        let mut family = FamilyAssign {
            service_ports: &service_ports,
            owners: &owners,
            live: &mut self.live,
            frontend_counter: &mut self.frontend_counter,
            pool_ids: &mut self.pool_ids,
            source_set_counter: &mut self.source_set_counter,
            scopes: &mut assigned.tables.scopes,
            warnings: &mut assigned.warnings,
        };
        assigned.tables.v4 = family.tables(&desired.v4, &mut self.v4);
        assigned.tables.v6 = family.tables(&desired.v6, &mut self.v6);
        assigned
    }

    /// IDs in the order of `desired.service_ports`. After a restart, a port without an ID adopts the one that the maps
    /// hold for any of its frontends, unless another port has taken that ID.
    fn service_port_ids(
        &mut self,
        desired: &Desired,
        mut known: BTreeMap<ServicePortName, u32>,
        adoptable: &[Option<u32>],
    ) -> Vec<u32> {
        let (mut taken, mut new) = (BTreeSet::new(), Vec::with_capacity(desired.service_ports.len()));
        let mut ids = Vec::with_capacity(desired.service_ports.len());
        for (name, adoptable) in desired.service_ports.iter().zip(adoptable) {
            let kept = known.remove(name).or_else(|| adoptable.filter(|id| !taken.contains(id)));
            let id = kept.unwrap_or_else(|| self.service_port_counter.take_unbounded(&mut self.live.service_ports));
            taken.insert(id);
            ids.push(id);
            new.push((name.clone(), id));
        }
        if self.service_ports.is_empty() {
            self.service_ports = new.into_iter().collect();
        } else {
            self.service_ports.extend(new);
        }
        ids
    }
}

/// The IDs in use, in the maps or in this assignment.
#[derive(Debug)]
struct Live {
    frontends: BTreeSet<u32>,
    pools: Elements,
    service_ports: BTreeSet<u32>,
    source_sets: BTreeSet<u32>,
}

impl Live {
    fn of(tables: &Tables, pool_elements: u32) -> Self {
        let mut live = Self {
            frontends: BTreeSet::new(),
            pools: Elements::new(pool_elements),
            service_ports: BTreeSet::new(),
            source_sets: BTreeSet::new(),
        };
        live.add_family(&tables.v4);
        live.add_family(&tables.v6);
        for (id, scopes) in &tables.scopes {
            live.frontends.insert(*id);
            live.service_ports.insert(scopes.service_port);
            live.source_sets.insert(scopes.source_ranges);
            for scope in scopes.per_client().into_array().iter().filter(|scope| scope.pool != 0) {
                live.pools.add(scope.pool, scope.count.into());
            }
        }
        // 0 means "unset".
        live.service_ports.remove(&0);
        live.source_sets.remove(&0);
        live
    }

    fn add_family<A: TableAddr>(&mut self, tables: &FamilyTables<A>) {
        self.frontends.extend(tables.frontends.values().map(|frontend| frontend.id));
        // The rows of a pool are adjacent: one insert per pool, not per row.
        for rows in tables.pools.iter().collect::<Vec<_>>().chunk_by(|(a, _), (b, _)| a.pool == b.pool) {
            let (last, _) = rows[rows.len() - 1];
            self.pools.add(last.pool, last.slot + 1);
        }
        self.source_sets.extend(tables.source_ranges.keys().map(|key| key.set));
        let mut service_port = 0;
        for key in tables.members.keys() {
            if std::mem::replace(&mut service_port, key.service_port) != key.service_port {
                self.service_ports.insert(key.service_port);
            }
        }
    }
}

fn adoptable_service_ports<A: TableAddr>(desired: &FamilyDesired<A>, realised: &Tables, found: &mut [Option<u32>]) {
    for (key, frontend) in &desired.frontends {
        let old = A::tables(realised).frontends.get(key).and_then(|frontend| realised.scopes.get(&frontend.id));
        if let Some(scopes) = old.filter(|scopes| scopes.service_port != 0) {
            found[frontend.service_port.0] = Some(scopes.service_port);
        }
    }
}

impl<A: TableAddr> FamilyIds<A> {
    fn adopt(tables: &FamilyTables<A>, scopes: &BTreeMap<u32, Scopes>) -> Self {
        let frontends = tables.frontends.iter().map(|(key, frontend)| (*key, frontend.id)).collect();
        let mut pools = Pools::default();
        let mut rows = tables.pools.iter().peekable();
        while let Some((first, backend)) = rows.next() {
            let (mut content, mut is_whole) = (vec![*backend], first.slot == 0);
            while let Some((key, backend)) = rows.next_if(|(key, _)| key.pool == first.pool) {
                is_whole &= key.slot as usize == content.len();
                content.push(*backend);
            }
            // A pool with a missing slot was being deleted. It is not adopted, and its rows are deleted.
            if is_whole {
                pools.id_or_add(&content.into(), || first.pool);
            }
        }
        Self { frontends, pools, source_sets: source_sets(tables, scopes) }
    }

    /// `asked` are the sets of source ranges that scopes refer to. An empty set, which allows no client, has no rows.
    fn forget(&mut self, realised: &FamilyTables<A>, elements: &mut Elements, asked: &BTreeSet<u32>) {
        self.source_sets.retain(|content, set| match content.first() {
            Some(first) => realised.source_ranges.contains_key(&range_key(*set, first)),
            None => asked.contains(set),
        });
        self.frontends.retain(|key, _| realised.frontends.contains_key(key));
        let is_gone = |pool: &u32| !realised.pools.contains_key(&PoolKey { pool: *pool, slot: 0 });
        let gone: Vec<u32> = self.pools.iter().map(|(pool, _)| pool).filter(is_gone).collect();
        self.remove_pools(gone.into_iter(), elements);
    }

    fn add_pools_to(&self, elements: &mut Elements) {
        self.pools.iter().for_each(|(pool, content)| elements.add(pool, content.len() as u32));
    }

    fn forget_deleted(&mut self, frontends: &[FrontendKey<A>], pools: &BTreeSet<u32>, live: &mut Live) {
        for key in frontends {
            if let Some(id) = self.frontends.remove(key) {
                live.frontends.remove(&id);
            }
        }
        self.remove_pools(pools.iter().copied(), &mut live.pools);
    }

    fn remove_pools(&mut self, pools: impl Iterator<Item = u32>, elements: &mut Elements) {
        for pool in pools {
            if self.pools.remove(pool) {
                elements.remove(pool);
            }
        }
    }
}

const fn range_key<A: TableAddr>(set: u32, prefix: &SourcePrefix<A>) -> SourceRangeKey<A> {
    SourceRangeKey::of_prefix(set, prefix.addr, prefix.length)
}

/// The sets of source ranges that frontends of this family refer to.
fn source_sets<A: TableAddr>(
    tables: &FamilyTables<A>,
    scopes: &BTreeMap<u32, Scopes>,
) -> BTreeMap<Arc<[SourcePrefix<A>]>, u32> {
    let mut contents = BTreeMap::<u32, Vec<SourcePrefix<A>>>::new();
    let asked = tables.frontends.values().filter_map(|frontend| Some(scopes.get(&frontend.id)?.source_ranges));
    contents.extend(asked.filter(|set| *set != 0).map(|set| (set, Vec::new())));
    for key in tables.source_ranges.keys() {
        let prefix = SourcePrefix { addr: key.addr, length: key.length() as u8 };
        // A set that no frontend refers to was being written or deleted: it may be incomplete.
        contents.entry(key.set).and_modify(|prefixes| prefixes.push(prefix));
    }
    let mut sets = BTreeMap::new();
    for (set, mut prefixes) in contents {
        prefixes.sort_unstable();
        sets.entry(prefixes.into()).or_insert(set);
    }
    sets
}

/// Builds the rows of each family in turn.
struct FamilyAssign<'a> {
    service_ports: &'a [u32],
    /// The tags of the Services that own the ports.
    owners: &'a [u32],
    live: &'a mut Live,
    frontend_counter: &'a mut Counter,
    pool_ids: &'a mut PoolIds,
    source_set_counter: &'a mut Counter,
    scopes: &'a mut BTreeMap<u32, Scopes>,
    warnings: &'a mut Vec<Warning>,
}

impl FamilyAssign<'_> {
    fn tables<A: TableAddr>(&mut self, desired: &FamilyDesired<A>, ids: &mut FamilyIds<A>) -> FamilyTables<A> {
        let pools = self.pool_ids(desired, ids);
        let mut frontends = Vec::with_capacity(desired.frontends.len());
        let mut source_ranges = BTreeMap::new();
        let mut last_set: Option<(&Arc<[SourcePrefix<A>]>, u32)> = None;
        for (key, frontend) in &desired.frontends {
            let Some(id) = self.frontend_id(key, ids) else { continue };
            frontends.push((*key, row(id, frontend)));
            let service_port = self.service_ports[frontend.service_port.0];
            let (restricted, set) = match (&frontend.access, last_set) {
                (Access::Open, _) => (0, 0),
                // All addresses and ports of a Service share the same list, so it is compared only once.
                (Access::Only(prefixes), Some((last, set))) if Arc::ptr_eq(last, prefixes) => {
                    (ScopeFlags::SOURCE_RANGES, set)
                }
                (Access::Only(prefixes), _) => {
                    let set = self.source_set_id(prefixes, ids);
                    source_ranges
                        .extend(prefixes.iter().map(|prefix| (range_key(set, prefix), SourceRange { flags: 0 })));
                    last_set = Some((prefixes, set));
                    (ScopeFlags::SOURCE_RANGES, set)
                }
            };
            let keeps_clients = if frontend.affinity_secs.is_some() { ScopeFlags::AFFINITY } else { 0 };
            let by_hash = match frontend.algorithm {
                Algorithm::Random => 0,
                Algorithm::Maglev => ScopeFlags::MAGLEV,
            };
            let header = frontend.header.map_or(0, HeaderVersion::flag);
            let common = restricted | keeps_clients | by_hash | header;
            let flags = frontend.pool_flags.map(|pool_flag| common | pool_flag);
            let affinity_secs = frontend.affinity_secs.map_or(0, std::num::NonZeroU32::get);
            let pool = |pool: usize| (pools[pool], desired.pools[pool].len());
            let owner = self.owners[frontend.service_port.0];
            let scopes = Scopes {
                affinity_secs,
                owner,
                source_ranges: set,
                ..scopes(service_port, frontend.scopes.zip(flags), pool)
            };
            self.scopes.insert(id, scopes);
        }
        let pool_rows = desired.pools.iter().zip(&pools).flat_map(|(content, pool)| {
            (0u32..).zip(content.iter()).map(|(slot, backend)| (PoolKey { pool: *pool, slot }, *backend))
        });
        let members = desired.members.iter().map(|member| {
            let service_port = self.service_ports[member.service_port.0];
            let key = MemberKey { service_port, addr: member.backend.addr, port: member.backend.port, pad: 0 };
            (key, Member { state: member.state, sets: member.sets, pad: [0; 2] })
        });
        FamilyTables {
            frontends: frontends.into_iter().collect(),
            pools: pool_rows.collect(),
            members: members.collect(),
            source_ranges,
            ..FamilyTables::default()
        }
    }

    fn pool_ids<A: TableAddr>(&mut self, desired: &FamilyDesired<A>, ids: &mut FamilyIds<A>) -> Vec<u32> {
        let mut found: Vec<Option<u32>> = desired.pools.iter().map(|content| ids.pools.id(content)).collect();
        let mut new: Vec<usize> = (0..found.len()).filter(|pool| found[*pool].is_none()).collect();
        // If there is no room for all pools, the smallest are placed first.
        new.sort_by_key(|pool| desired.pools[*pool].len());
        ids.pools.reserve(new.len());
        for pool in new {
            let content = &desired.pools[pool];
            let take = || self.pool_ids.take(content.len() as u32, &mut self.live.pools);
            found[pool] = Some(ids.pools.id_or_add(content, take));
        }
        found.into_iter().flatten().collect()
    }

    fn source_set_id<A: TableAddr>(&mut self, prefixes: &Arc<[SourcePrefix<A>]>, ids: &mut FamilyIds<A>) -> u32 {
        let take = || self.source_set_counter.take_unbounded(&mut self.live.source_sets);
        *ids.source_sets.entry(Arc::clone(prefixes)).or_insert_with(take)
    }

    fn frontend_id<A: TableAddr>(&mut self, key: &FrontendKey<A>, ids: &mut FamilyIds<A>) -> Option<u32> {
        if let Some(id) = ids.frontends.get(key) {
            return Some(*id);
        }
        let Some(id) = self.frontend_counter.take(&mut self.live.frontends) else {
            let addr: std::net::IpAddr = key.addr.into();
            let problem = format!("no frontend ID is free for {addr} port {}/{}", key.port, key.proto.name());
            self.warnings.push(Warning::new(WarningKind::Capacity, problem, "raise --frontends-max"));
            return None;
        };
        ids.frontends.insert(*key, id);
        Some(id)
    }
}

const fn row<A>(id: u32, frontend: &DesiredFrontend<A>) -> Frontend {
    Frontend {
        id,
        mode: frontend.mode,
        decided_by: frontend.decided_by,
        origin: frontend.origin,
        state: FrontendState::Active,
        lock: bpf_spin_lock { val: 0 },
    }
}

/// A frontend that passes keeps its Service port: its flows from before it passed are still checked against the
/// members.
fn scopes(service_port: u32, desired: PerClient<(DesiredScope, u8)>, pool: impl Fn(usize) -> (u32, usize)) -> Scopes {
    let PerClient { workload, host, external } = desired.map(|(scope, flags)| match scope {
        DesiredScope::Pass => Scope::PASS,
        DesiredScope::Reject => Scope::REJECT.with_flags(flags & ScopeFlags::SOURCE_RANGES),
        DesiredScope::Drop => Scope::DROP.with_flags(flags & ScopeFlags::SOURCE_RANGES),
        DesiredScope::Balance(index) => {
            let crate::desired::PoolIndex(index) = index;
            let (id, count) = pool(index);
            // `desired` makes no pool that is larger than this type allows.
            Scope::balance(id, count as u16).with_flags(flags)
        }
    });
    Scopes { workload, host, external, service_port, ..Scopes::PASS }
}

#[cfg(test)]
mod tests;
