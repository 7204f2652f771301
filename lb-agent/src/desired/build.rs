//! Rows of one family, Service by Service: what fits, and which pools are equal.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::table::{Backend, FrontendKey, MemberSets, Origin};

use super::access::{self, Access};
use super::claim::Claim;
use super::contest::Contests;
use super::endpoint::{self, Here};
use super::policy::Limits;
use super::protected::Protected;
use super::room::{Demand, PoolDemand, Rows};
use super::scope::{self, Target, Targets};
use super::selection::{self, Algorithm, Selection};
use super::table::{
    Choice, Choices, DesiredFrontend, DesiredMember, FamilyDesired, PoolIndex, ServicePortIndex, ServicePortName,
};
use super::usable::{self, POOL_MAX, Usable, Uses};
use crate::family::TableAddr;
use crate::model::{EndpointSlice, ObjectName, Service, ServicePort, Warning, WarningKind};

/// One Service and all that belongs to it.
pub struct OfService<'a> {
    pub service: &'a Service,
    pub name: Arc<ObjectName>,
    pub claims: &'a [Claim],
    pub slices: &'a [&'a EndpointSlice],
    pub here: &'a Here<'a>,
    /// Who has what several claim.
    pub contests: &'a Contests<'a>,
    pub protected: &'a Protected<'a>,
    pub selection: Selection,
}

/// What the families share while the rows are made.
pub struct Shared {
    limits: Limits,
    frontend_count: usize,
    pub service_ports: ServicePorts,
    pub warnings: Vec<Warning>,
    pub contests: Vec<(ObjectName, ObjectName)>,
    pub left_out: BTreeSet<ObjectName>,
    pub displaced: BTreeSet<ObjectName>,
}

impl Shared {
    pub fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            frontend_count: 0,
            service_ports: ServicePorts::default(),
            warnings: Vec::new(),
            contests: Vec::new(),
            left_out: BTreeSet::new(),
            displaced: BTreeSet::new(),
        }
    }
}

/// Service ports in the order in which they were met.
#[derive(Default)]
pub struct ServicePorts {
    names: Vec<ServicePortName>,
    /// Position of the first port of the Service that is being added: only there can a name stand already.
    current: usize,
}

impl ServicePorts {
    pub fn into_names(self) -> Vec<ServicePortName> {
        self.names
    }

    fn index(&mut self, service: &Arc<ObjectName>, port: &ServicePort) -> ServicePortIndex {
        if self.names.get(self.current).is_none_or(|first| !Arc::ptr_eq(&first.service, service)) {
            self.current = self.names.len();
        }
        let known = self.names[self.current..]
            .iter()
            .position(|known| known.port_name == port.name && known.proto == port.proto);
        ServicePortIndex(
            self.current
                + known.unwrap_or_else(|| {
                    let (port_name, proto) = (Arc::clone(&port.name), port.proto);
                    self.names.push(ServicePortName { service: Arc::clone(service), port_name, proto });
                    self.names.len() - 1 - self.current
                }),
        )
    }
}

/// Rows of one family so far.
pub struct FamilyBuilder<A> {
    rows: FamilyDesired<A>,
    /// Those of neighbours among them.
    taken: Rows,
    /// Those that are balanced at random, and Maglev tables.
    pools: Known<A>,
    tables: Known<A>,
}

/// Pools by their backends. One that only neighbours ask for is not among our rows.
type Known<A> = HashMap<Arc<[Backend<A>]>, Option<PoolIndex>>;

/// What is too small: with the Service there would be so many of them.
struct Shortage {
    what: &'static str,
    wanted: usize,
    max: u32,
    /// The flag that sizes the table.
    setting: &'static str,
}

/// One port of a Service, ready to become rows.
struct PortRows<'a, A> {
    port: &'a ServicePort,
    usable: Usable<A>,
    selection: Selection,
    /// What to write: address and decision. Addresses that another Service holds are not among them.
    frontends: Vec<FrontendRow<A>>,
}

/// One address of the port and what was decided for it.
struct FrontendRow<A> {
    key: FrontendKey<A>,
    claim: Claim,
    targets: Targets,
    access: Access<A>,
}

impl<A: TableAddr> FamilyBuilder<A> {
    pub fn new() -> Self {
        Self { rows: FamilyDesired::default(), taken: Rows::default(), pools: Known::new(), tables: Known::new() }
    }

    pub fn finish(self) -> FamilyDesired<A> {
        self.rows
    }

    /// Adds this family of a Service: all ports, or none where they do not fit. Returns what it takes.
    pub fn add(&mut self, of: &OfService<'_>, shared: &mut Shared) -> Demand<A> {
        // IPM-09: a family without a cluster IP is not served at all.
        let claims: Vec<(A, Claim)> =
            of.claims.iter().filter_map(|claim| Some((A::from_ip(claim.ip)?, *claim))).collect();
        if !of.service.has_family(A::FAMILY) || claims.is_empty() {
            return Demand::default();
        }
        let vips = || claims.iter().filter(|(_, claim)| claim.is_vip()).map(|(addr, _)| *addr);
        let access = access::access(of.service, of.here.primary(A::FAMILY), vips());
        let mut ports = Vec::with_capacity(of.service.ports.len());
        for port in &of.service.ports {
            ports.extend(self.port_rows(of, port, &claims, &access, shared));
        }
        let demand = self.demand(&ports);
        if let Some(shortage) = self.shortage(&self.new_rows(&demand), shared) {
            shared.left_out.insert(of.service.name.clone());
            shared.warnings.push(no_room(of.service, &shortage));
            self.rows.left_out.extend(ports.iter().flat_map(|rows| &rows.frontends).map(|row| row.key));
            return Demand::default();
        }
        self.take(&demand, shared);
        for rows in ports {
            self.insert(of, rows, shared);
        }
        demand
    }

    /// Counts what a neighbour takes; `false` where there is no room for it.
    pub fn make_room(&mut self, demand: &Demand<A>, shared: &mut Shared) -> bool {
        let has_room = self.shortage(&self.new_rows(demand), shared).is_none();
        if has_room {
            self.take(demand, shared);
        }
        has_room
    }

    fn take(&mut self, demand: &Demand<A>, shared: &mut Shared) {
        let new = self.new_rows(demand);
        shared.frontend_count += new.frontends;
        self.taken.frontends += new.frontends;
        self.taken.in_pools += new.in_pools;
        self.taken.table_slots = self.taken.table_slots.or(new.table_slots);
        self.taken.members += new.members;
        self.taken.source_ranges += new.source_ranges;
        for PoolDemand { backends, table_slots } in &demand.pools {
            self.known_pools_mut(*table_slots).entry(Arc::clone(backends)).or_insert(None);
        }
    }

    fn port_rows<'a>(
        &self,
        of: &OfService<'a>,
        port: &'a ServicePort,
        claims: &[(A, Claim)],
        access: &Access<A>,
        shared: &mut Shared,
    ) -> Option<PortRows<'a, A>> {
        let candidates = endpoint::of_port::<A>(of.slices, port, of.here);
        let usable = usable::usable(&candidates, of.here, Uses::of(of.service, port, claims));
        if usable.members.len() > POOL_MAX {
            shared.left_out.insert(of.service.name.clone());
            shared.warnings.push(too_many_endpoints(of.service, port, usable.members.len()));
            return None;
        }
        let mut frontends = Vec::with_capacity(claims.len());
        for (addr, claim) in claims {
            let Some(number) = claim.port(port) else { continue };
            let key = FrontendKey { addr: *addr, port: number, proto: port.proto, pad: 0 };
            let named = (claim.ip, number, port.proto);
            if let Some(refusal) = of.protected.refuses_port(of.service, named, claim.origin) {
                shared.warnings.push(refusal);
                continue;
            }
            if let Some(winner) = of.contests.winner_over(of.service, claim, named) {
                if *winner != of.service.name {
                    // Who leaves it to the balancer anyway has lost nothing.
                    if claim.is_served() {
                        shared.warnings.push(duplicate(of.service, &key, claim, winner));
                    }
                    shared.contests.push((of.service.name.clone(), winner.clone()));
                }
                continue;
            }
            // IPM-41: nobody is kept from an address that is the balancer's.
            let access = if claim.is_vip() { access.clone() } else { Access::Open };
            let targets = scope::targets(claim, of.service, usable.supply());
            frontends.push(FrontendRow { key, claim: *claim, targets, access });
        }
        if frontends.is_empty() {
            return None;
        }
        let is_served = frontends.iter().any(|row| row.claim.is_served());
        if is_served && port.proto == Proto::SCTP && usable.members.iter().any(|(backend, _)| backend.port != port.port)
        {
            shared.warnings.push(sctp_port(of.service, port));
        }
        let selection = match too_small_table(of, port, &usable) {
            Some(warning) => {
                shared.warnings.push(warning);
                Selection { algorithm: Algorithm::Random, ..of.selection }
            }
            None => of.selection,
        };
        Some(PortRows { port, usable, selection, frontends })
    }

    fn demand(&self, ports: &[PortRows<'_, A>]) -> Demand<A> {
        // Two ports of one Service may share name and protocol by mistake; their endpoints are the same then.
        let is_same = |a: &ServicePort, b: &ServicePort| a.name == b.name && a.proto == b.proto;
        let is_first = |index: usize| !ports[..index].iter().any(|rows| is_same(rows.port, ports[index].port));
        let members = ports.iter().enumerate().filter(|(index, _)| is_first(*index));
        Demand {
            frontends: ports.iter().map(|rows| rows.frontends.len()).sum(),
            members: members.map(|(_, rows)| rows.usable.members.len()).sum(),
            source_ranges: ports.iter().flat_map(|rows| &rows.frontends).map(|row| row.access.len()).sum(),
            pools: self.asked_for(ports),
        }
    }

    /// The pools that these frontends ask for, each once: equal sets of several ports share one.
    fn asked_for(&self, ports: &[PortRows<'_, A>]) -> Vec<PoolDemand<A>> {
        let mut pools: Vec<PoolDemand<A>> = Vec::with_capacity(ports.len());
        for rows in ports {
            let is_asked_for = |target| rows.frontends.iter().any(|row| row.targets.contains(target));
            let Usable { cluster, near, local, .. } = &rows.usable;
            for (target, set) in [(Target::Cluster, cluster), (Target::Near, near), (Target::Local, local)] {
                let table_slots = rows.selection.table_slots(set.len());
                let is_there = |pool: &PoolDemand<A>| pool.table_slots == table_slots && *pool.backends == **set;
                if is_asked_for(target) && !pools.iter().any(is_there) {
                    let known = self.known_pools(table_slots).get_key_value(set.as_slice());
                    let backends = known.map_or_else(|| set.as_slice().into(), |(backends, _)| Arc::clone(backends));
                    pools.push(PoolDemand { backends, table_slots });
                }
            }
        }
        pools
    }

    /// The rows that this takes beside those that there are: a pool that somebody has asked for before takes none.
    fn new_rows(&self, demand: &Demand<A>) -> Rows {
        let is_new = |pool: &&PoolDemand<A>| !self.known_pools(pool.table_slots).contains_key(&pool.backends);
        Rows {
            frontends: demand.frontends,
            in_pools: demand.pools.iter().filter(is_new).map(PoolDemand::rows).sum(),
            table_slots: demand.pools.iter().find_map(|pool| pool.table_slots),
            members: demand.members,
            source_ranges: demand.source_ranges,
        }
    }

    /// What is too small for these rows, if anything.
    fn shortage(&self, new: &Rows, shared: &Shared) -> Option<Shortage> {
        let (taken, limits) = (&self.taken, &shared.limits);
        let (ids, frontends) = (shared.frontend_count + new.frontends, taken.frontends + new.frontends);
        let (pool_rows, members) = (taken.in_pools + new.in_pools, taken.members + new.members);
        let source_ranges = taken.source_ranges + new.source_ranges;
        let (what_pools_hold, pool_rows_max) = match taken.table_slots.or(new.table_slots) {
            Some(slots) => (TABLE_SLOTS, limits.pool_rows_beside_tables(slots)),
            None => ("backends in pools", limits.pool_rows_max),
        };
        [
            ("frontend ids", ids, limits.frontend_ids_max, "--frontends-max"),
            ("frontends", frontends, limits.frontends_max, "--frontends-max"),
            (what_pools_hold, pool_rows, pool_rows_max, "--backends-max"),
            ("members", members, limits.members_max, "--backends-max"),
            ("source ranges", source_ranges, limits.source_ranges_max, "--source-ranges-max"),
        ]
        .into_iter()
        .map(|(what, wanted, max, setting)| Shortage { what, wanted, max, setting })
        .find(|shortage| shortage.wanted > shortage.max as usize)
    }

    fn insert(&mut self, of: &OfService<'_>, rows: PortRows<'_, A>, shared: &mut Shared) {
        let PortRows { port, usable, selection, frontends } = rows;
        let service_port = shared.service_ports.index(&of.name, port);
        for FrontendRow { key, claim, targets, access } in frontends {
            let choices = Choices {
                workload: self.choice(targets.workload, selection, &usable),
                host: self.choice(targets.host, selection, &usable),
                external: self.choice(targets.external, selection, &usable),
            };
            let pool_flags = [targets.workload, targets.host, targets.external].map(Target::pool_flag);
            let (Claim { mode, decided_by, origin, kube_proxy, .. }, affinity_secs) = (claim, of.service.affinity_secs);
            let row = DesiredFrontend {
                service_port,
                mode,
                decided_by,
                origin,
                kube_proxy,
                choices,
                pool_flags,
                algorithm: selection.algorithm,
                access,
                affinity_secs,
            };
            self.rows.frontends.insert(key, row);
        }
        // Two ports of one Service may share name and protocol by mistake; their endpoints are the same then.
        let is_known = self.rows.members.last().is_some_and(|last| last.service_port >= service_port);
        if !is_known {
            let Usable { cluster, near, local, members } = usable;
            let sets = |backend: &Backend<A>| {
                let bit = |set: &[Backend<A>], bit| if set.binary_search(backend).is_ok() { bit } else { 0 };
                bit(&cluster, MemberSets::CLUSTER) | bit(&near, MemberSets::NEAR) | bit(&local, MemberSets::LOCAL)
            };
            self.rows.members.extend(members.into_iter().map(|(backend, state)| {
                let sets = sets(&backend);
                DesiredMember { service_port, backend, state, sets }
            }));
        }
    }

    fn choice(&mut self, target: Target, selection: Selection, usable: &Usable<A>) -> Choice {
        match target {
            Target::Pass => Choice::Pass,
            Target::Reject => Choice::Reject,
            Target::Drop => Choice::Drop,
            Target::Cluster => Choice::Balance(self.pool(selection, &usable.cluster)),
            Target::Near => Choice::Balance(self.pool(selection, &usable.near)),
            Target::Local => Choice::Balance(self.pool(selection, &usable.local)),
        }
    }

    /// The pool of these backends; made where it is not among our rows.
    fn pool(&mut self, selection: Selection, backends: &[Backend<A>]) -> PoolIndex {
        let table_slots = selection.table_slots(backends.len());
        let backends = match self.known_pools(table_slots).get_key_value(backends) {
            Some((_, Some(index))) => return *index,
            Some((known, None)) => Arc::clone(known),
            None => backends.into(),
        };
        let index = PoolIndex(self.rows.pools.len());
        self.rows.pools.push(selection.pool(&backends));
        self.known_pools_mut(table_slots).insert(backends, Some(index));
        index
    }

    /// Where to look for pools of this kind.
    const fn known_pools(&self, table_slots: Option<u16>) -> &Known<A> {
        if table_slots.is_some() { &self.tables } else { &self.pools }
    }

    const fn known_pools_mut(&mut self, table_slots: Option<u16>) -> &mut Known<A> {
        if table_slots.is_some() { &mut self.tables } else { &mut self.pools }
    }
}

const TABLE_SLOTS: &str = "slots of pools";
const SMALLER_TABLES: &str =
    "raise --backends-max, lower --maglev-table-size, or annotate Services with lb-agent.io/lb-algorithm: random";

/// Told where a Maglev table has no slot for each of the endpoints: they are chosen at random then.
fn too_small_table<A: TableAddr>(of: &OfService<'_>, port: &ServicePort, usable: &Usable<A>) -> Option<Warning> {
    let Selection { algorithm, maglev_table_size } = of.selection;
    let (count, slots) = (usable.sets().map(<[_]>::len).max()?, maglev_table_size.slots());
    if algorithm == Algorithm::Random || count <= usize::from(slots) {
        return None;
    }
    let problem = format!(
        "port {} has {count} endpoints and a Maglev table {slots} slots; they are chosen at random instead",
        port.port
    );
    let remedy = format!("raise --maglev-table-size, or annotate the Service with {}: random", selection::ANNOTATION);
    Some(Warning::new(WarningKind::Capacity, problem, remedy).of(format_args!("Service {}", of.service.name)))
}

fn no_room(service: &Service, shortage: &Shortage) -> Warning {
    let Shortage { what, wanted, max, setting } = shortage;
    let problem = format!("does not fit and is left out: {wanted} {what}, the limit is {max}");
    let remedy =
        if *what == TABLE_SLOTS { SMALLER_TABLES.into() } else { format!("raise {setting}, or remove Services") };
    Warning::new(WarningKind::Capacity, problem, remedy).of(format_args!("Service {}", service.name))
}

fn too_many_endpoints(service: &Service, port: &ServicePort, count: usize) -> Warning {
    let problem =
        format!("port {} has {count} endpoints, a pool holds at most {POOL_MAX}; the port is left out", port.port);
    Warning::new(WarningKind::Capacity, problem, "split the Service").of(format_args!("Service {}", service.name))
}

fn duplicate<A>(service: &Service, key: &FrontendKey<A>, claim: &Claim, winner: &ObjectName) -> Warning {
    let field = match claim.origin {
        Origin::LoadBalancer => "status.loadBalancer.ingress",
        Origin::ExternalIP => "spec.externalIPs",
        Origin::ClusterIP => "spec.clusterIPs",
        Origin::NodePort => "spec.ports",
    };
    let problem = format!("{} port {}/{} is already Service {winner}'s", claim.ip, key.port, key.proto.name());
    Warning::new(WarningKind::Duplicate, problem, "give one of them another address or port")
        .of(format_args!("Service {}", service.name))
        .at(field)
}

fn sctp_port(service: &Service, port: &ServicePort) -> Warning {
    Warning::new(
        WarningKind::Unsupported,
        format!("SCTP port {} differs from the endpoints' port; only the address is translated", port.port),
        "let the endpoints listen on the port of the Service",
    )
    .of(format_args!("Service {}", service.name))
    .at("spec.ports")
}
