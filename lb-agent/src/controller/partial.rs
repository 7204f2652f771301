//! A step for a few Services: computes the same rows as a full step without computing the other Services.
//!
//! Services are independent of each other except for contested addresses, full tables, and shared pools and sets of
//! source ranges. Services that claim the same address or wait for room are computed together (`company.rs`). In any
//! other doubt the full step decides. The result equals that of the full step, including IDs and warnings
//! (`tests/model.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::table::{FrontendKey, FrontendState, MemberKey, PoolKey, Scopes};

use crate::apply::pools_of;
use crate::dataplane::{FamilyTables, Tables};
use crate::desired::{Desired, FamilyDesired};
use crate::family::TableAddr;
use crate::model::{Change, EndpointSlice, Kind, Object, ObjectName, Service, Warning, World, api_server};

use super::company::Company;

/// Up to this many Services are few in any world.
const FEW: usize = 16;
/// In a large world, few is this part of all Services, as a divisor.
const FEW_PART: usize = 4;

/// What has changed since the last step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Only these Services, their endpoints, and the Services that claim these addresses.
    Services {
        names: BTreeSet<ObjectName>,
        addresses: BTreeSet<IpAddr>,
    },
    Everything,
}

impl Touched {
    pub const NOTHING: Self = Self::Services { names: BTreeSet::new(), addresses: BTreeSet::new() };

    /// Takes in a change before the world does.
    pub fn add(&mut self, change: &Change, world: &World, node: &str) {
        match change {
            Change::Apply { object: Object::Service(service), .. } => {
                self.add_service(&service.name, &service.cluster_ips, world);
            }
            Change::Apply { object: Object::EndpointSlice(slice), .. } => {
                self.add_slice(&slice.name, Some(slice.service_name()), world);
            }
            Change::Apply { object: Object::Node(changed), .. } if *changed.name != *node => {
                self.add_node(&changed.name, &changed.addresses, world);
            }
            Change::Apply { object: Object::Endpoints(endpoints), .. } => self.add_mirrored(&endpoints.name),
            Change::Remove(gone) => match gone.kind {
                Kind::Service => self.add_service(&gone.name, &[], world),
                Kind::EndpointSlice => self.add_slice(&gone.name, None, world),
                Kind::Endpoints => self.add_mirrored(&gone.name),
                Kind::Node if *gone.name.name != *node => self.add_node(&gone.name.name, &[], world),
                Kind::Node => *self = Self::Everything,
            },
            // Unreadable objects matter only while frontends are inherited, and then all steps are full.
            Change::Place { .. } => {}
            Change::Apply { object: Object::Node(_), .. } | Change::Listed => *self = Self::Everything,
        }
    }

    /// Adds a Service that from now on has these cluster addresses.
    fn add_service(&mut self, name: &ObjectName, cluster_ips: &[IpAddr], world: &World) {
        let Self::Services { names, .. } = self else { return };
        names.insert(name.clone());
        self.add_addresses(world.services().get(name).map_or(&[][..], |before| &before.cluster_ips), cluster_ips);
    }

    fn add_slice(&mut self, name: &ObjectName, service: Option<ObjectName>, world: &World) {
        let Self::Services { names, .. } = self else { return };
        let before = world.slices().get(name).map(EndpointSlice::service_name);
        let touched: Vec<ObjectName> = before.into_iter().chain(service).collect();
        if touched.contains(&api_server()) {
            // The addresses of API servers are refused to all Services, so a change may affect any of them.
            *self = Self::Everything;
            return;
        }
        names.extend(touched);
    }

    /// Adds the Service of this name: the API server would mirror its Endpoints.
    fn add_mirrored(&mut self, name: &ObjectName) {
        let Self::Services { names, .. } = self else { return };
        names.insert(name.clone());
    }

    /// Adds the addresses that another node gains or loses.
    fn add_node(&mut self, name: &str, addresses: &[IpAddr], world: &World) {
        self.add_addresses(world.node(name).map_or(&[][..], |before| &before.addresses), addresses);
    }

    /// Adds the addresses that are in only one of the two sets. Services that claim one of these are touched.
    pub fn add_addresses<'a>(
        &mut self,
        before: impl IntoIterator<Item = &'a IpAddr>,
        after: impl IntoIterator<Item = &'a IpAddr>,
    ) {
        let Self::Services { addresses, .. } = self else { return };
        let (before, after): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) =
            (before.into_iter().copied().collect(), after.into_iter().copied().collect());
        addresses.extend(before.symmetric_difference(&after));
    }

    /// The names of the touched Services, if they are few.
    pub fn few(self, world: &World) -> Option<BTreeSet<ObjectName>> {
        let Self::Services { mut names, addresses } = self else { return None };
        if !addresses.is_empty() {
            let claims = |service: &&Service| {
                let external = service.external_ips.iter();
                external.chain(service.ingress.iter().map(|entry| &entry.ip)).any(|ip| addresses.contains(ip))
            };
            names.extend(world.services().values().filter(claims).map(|service| service.name.clone()));
        }
        are_few(names.len(), world).then_some(names)
    }
}

/// Whether this many Services are few.
pub fn are_few(count: usize, world: &World) -> bool {
    count <= FEW.max(world.services().len() / FEW_PART)
}

/// Replaces the warnings about these Services by `new`; `warnings` stay sorted. Returns `None`, without a change, if a
/// warning that is about no Service may be outdated.
pub fn renew(warnings: &mut Vec<Warning>, services: &BTreeSet<ObjectName>, new: Vec<Warning>) -> Option<()> {
    let names: BTreeSet<String> = services.iter().map(|name| format!("Service {name}")).collect();
    let is_of_service =
        |warning: &Warning| warning.object.as_deref().is_some_and(|object| object.starts_with("Service "));
    if warnings.iter().any(|warning| !is_of_service(warning) && !new.contains(warning)) {
        return None;
    }
    warnings.retain(|warning| {
        is_of_service(warning) && warning.object.as_ref().is_some_and(|object| !names.contains(object))
    });
    warnings.extend(new);
    warnings.sort_unstable();
    Some(())
}

/// IDs of the Service ports that now hold the wanted addresses.
pub fn owners(realised: &Tables, desired: &Desired) -> BTreeSet<u32> {
    fn family<A: TableAddr>(realised: &Tables, desired: &FamilyDesired<A>) -> impl Iterator<Item = u32> {
        let wanted = desired.frontends.keys().chain(&desired.left_out);
        let found = wanted.filter_map(|key| A::tables(realised).frontends.get(key));
        let active = found.filter(|frontend| frontend.state == FrontendState::Active);
        active.filter_map(|frontend| realised.scopes.get(&frontend.id)).map(|scopes| scopes.service_port)
    }
    family(realised, &desired.v4).chain(family(realised, &desired.v6)).collect()
}

/// Finds the rows of a Service port, which otherwise takes a scan of the tables.
#[derive(Debug, Default)]
pub struct Index {
    /// Active frontends, by the ID of their Service port.
    v4: BTreeSet<(u32, FrontendKey<[u8; 4]>)>,
    v6: BTreeSet<(u32, FrontendKey<[u8; 16]>)>,
    /// How many scopes balance over each pool.
    pool_uses: BTreeMap<u32, u32>,
    /// How many frontends refer to each set of source ranges.
    set_uses: BTreeMap<u32, u32>,
    /// Which Services depend on each other.
    pub company: Company,
}

impl Index {
    /// Builds the index of tables that are as desired.
    pub fn of(tables: &Tables, company: Company) -> Self {
        let mut index = Self { company, ..Self::default() };
        index.add(tables);
        index
    }

    fn add(&mut self, tables: &Tables) {
        self.v4.extend(active(&tables.v4, &tables.scopes));
        self.v6.extend(active(&tables.v6, &tables.scopes));
        for pool in tables.scopes.values().flat_map(pools_of) {
            *self.pool_uses.entry(pool).or_default() += 1;
        }
        for set in tables.scopes.values().filter_map(set_of) {
            *self.set_uses.entry(set).or_default() += 1;
        }
    }

    fn remove(&mut self, tables: &Tables) {
        for row in active(&tables.v4, &tables.scopes) {
            self.v4.remove(&row);
        }
        for row in active(&tables.v6, &tables.scopes) {
            self.v6.remove(&row);
        }
        tables.scopes.values().flat_map(pools_of).for_each(|pool| less(&mut self.pool_uses, pool));
        tables.scopes.values().filter_map(set_of).for_each(|set| less(&mut self.set_uses, set));
    }

    /// Replaces `old` rows by `new` ones.
    pub fn replace(&mut self, old: &Tables, new: &Tables) {
        self.remove(old);
        self.add(new);
    }
}

/// The set of source ranges that these scopes refer to.
fn set_of(scopes: &Scopes) -> Option<u32> {
    (scopes.source_ranges != 0).then_some(scopes.source_ranges)
}

/// Decrements a use count.
fn less(uses: &mut BTreeMap<u32, u32>, id: u32) {
    if let Some(count) = uses.get_mut(&id) {
        *count -= 1;
        if *count == 0 {
            uses.remove(&id);
        }
    }
}

fn active<A: TableAddr>(
    family: &FamilyTables<A>,
    scopes: &BTreeMap<u32, Scopes>,
) -> impl Iterator<Item = (u32, FrontendKey<A>)> {
    let active = family.frontends.iter().filter(|(_, frontend)| frontend.state == FrontendState::Active);
    active.filter_map(|(key, frontend)| Some((scopes.get(&frontend.id)?.service_port, *key)))
}

/// The rows of these Service ports as the tables hold them, plus draining frontends at wanted addresses. Returns `None`
/// if an active frontend at a wanted address belongs to another Service.
pub fn rows_of(index: &Index, realised: &Tables, service_ports: &BTreeSet<u32>, desired: &Desired) -> Option<Tables> {
    let mut rows = Tables::default();
    for port in service_ports {
        take_frontends(&index.v4, *port, realised, &mut rows);
        take_frontends(&index.v6, *port, realised, &mut rows);
        take_members(*port, &realised.v4, &mut rows.v4);
        take_members(*port, &realised.v6, &mut rows.v6);
    }
    take_draining(desired.v4.frontends.keys(), realised, &mut rows)?;
    take_draining(desired.v6.frontends.keys(), realised, &mut rows)?;
    for pool in rows.scopes.values().flat_map(pools_of).collect::<BTreeSet<u32>>() {
        take_pool(pool, &realised.v4, &mut rows.v4);
        take_pool(pool, &realised.v6, &mut rows.v6);
    }
    for set in rows.scopes.values().filter_map(set_of).collect::<BTreeSet<u32>>() {
        take_set(set, realised, &mut rows);
    }
    Some(rows)
}

fn take_frontends<A: TableAddr>(
    index: &BTreeSet<(u32, FrontendKey<A>)>,
    port: u32,
    realised: &Tables,
    rows: &mut Tables,
) {
    let first = FrontendKey { addr: A::new_zeroed(), port: 0, proto: lb_common::addr::Proto::TCP, pad: 0 };
    for (_, key) in index.range((port, first)..).take_while(|(found, _)| *found == port) {
        take_frontend(key, realised, rows);
    }
}

fn take_frontend<A: TableAddr>(key: &FrontendKey<A>, realised: &Tables, rows: &mut Tables) {
    let Some(frontend) = A::tables(realised).frontends.get(key) else { return };
    A::tables_mut(rows).frontends.insert(*key, *frontend);
    let Some(scopes) = realised.scopes.get(&frontend.id) else { return };
    rows.scopes.insert(frontend.id, *scopes);
}

fn take_draining<'a, A: TableAddr>(
    mut wanted: impl Iterator<Item = &'a FrontendKey<A>>,
    realised: &Tables,
    rows: &mut Tables,
) -> Option<()> {
    wanted.try_for_each(|key| {
        let is_ours = A::tables(rows).frontends.contains_key(key);
        match A::tables(realised).frontends.get(key) {
            Some(frontend) if !is_ours && frontend.state == FrontendState::Active => return None,
            Some(_) if !is_ours => take_frontend(key, realised, rows),
            Some(_) | None => {}
        }
        Some(())
    })
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

/// Adds the ranges of a set, which belongs to one family.
fn take_set(set: u32, realised: &Tables, rows: &mut Tables) {
    fn family<A: TableAddr>(set: u32, realised: &Tables, rows: &mut Tables) {
        let found = A::tables(realised).source_ranges_of(set).map(|(key, range)| (*key, *range));
        A::tables_mut(rows).source_ranges.extend(found);
    }
    family::<[u8; 4]>(set, realised, rows);
    family::<[u8; 16]>(set, realised, rows);
}

/// Completes both sides by the pools and sets of source ranges that other Services share: a wanted one may exist
/// already, and an unwanted one may still be used elsewhere.
pub fn share(index: &Index, realised: &Tables, old: &mut Tables, wanted: &mut Tables) {
    let count = |tables: &Tables| {
        let mut uses = BTreeMap::<u32, u32>::new();
        tables.scopes.values().flat_map(pools_of).for_each(|pool| *uses.entry(pool).or_default() += 1);
        uses
    };
    let (old_uses, new_uses) = (count(old), count(wanted));
    for pool in new_uses.keys() {
        take_pool(*pool, &realised.v4, &mut old.v4);
        take_pool(*pool, &realised.v6, &mut old.v6);
    }
    for set in wanted.scopes.values().filter_map(set_of).collect::<BTreeSet<u32>>() {
        take_set(set, realised, old);
    }
    let mut old_sets = BTreeMap::<u32, u32>::new();
    old.scopes.values().filter_map(set_of).for_each(|set| *old_sets.entry(set).or_default() += 1);
    for (set, uses) in old_sets {
        if index.set_uses.get(&set).is_some_and(|all| *all > uses) {
            take_set(set, realised, wanted);
        }
    }
    for (pool, uses) in old_uses {
        if index.pool_uses.get(&pool).is_some_and(|all| *all > uses) {
            take_pool(pool, &realised.v4, &mut wanted.v4);
            take_pool(pool, &realised.v6, &mut wanted.v6);
        }
    }
}

/// The sets of source ranges that are no longer used. Computed from the scopes, because an empty set has no rows.
pub fn gone_sets(index: &Index, replaced: &Tables, wanted: &Tables) -> BTreeSet<u32> {
    let mut left = BTreeMap::<u32, u32>::new();
    for set in replaced.scopes.values().filter_map(set_of) {
        let uses = left.entry(set).or_insert_with(|| index.set_uses.get(&set).copied().unwrap_or_default());
        *uses = uses.saturating_sub(1);
    }
    for set in wanted.scopes.values().filter_map(set_of) {
        left.remove(&set);
    }
    left.into_iter().filter(|(_, uses)| *uses == 0).map(|(set, _)| set).collect()
}

/// The pools that are no longer wanted.
pub fn gone_pools(old: &Tables, wanted: &Tables) -> Tables {
    fn gone<A: TableAddr>(old: &FamilyTables<A>, wanted: &FamilyTables<A>) -> FamilyTables<A> {
        let rows = old.pools.iter().filter(|(key, _)| !wanted.pools.contains_key(key));
        FamilyTables { pools: rows.map(|(key, backend)| (*key, *backend)).collect(), ..FamilyTables::default() }
    }
    Tables { v4: gone(&old.v4, &wanted.v4), v6: gone(&old.v6, &wanted.v6), ..Tables::default() }
}
