//! Rows of one family, Service by Service: who wins an address, what fits, and which pools are equal.

use std::collections::HashMap;
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::table::{Backend, FrontendKey, MemberSets, Origin};

use super::access::{self, Access};
use super::claim::Claim;
use super::endpoint::{self, Here};
use super::node_port::Reserved;
use super::policy::Limits;
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
    /// Who has which address and port of this node, apart from node ports.
    pub reserved: &'a Reserved<'a>,
    pub selection: Selection,
}

/// What the families share while the rows are made.
pub struct Shared {
    limits: Limits,
    frontend_count: u32,
    pub service_ports: ServicePorts,
    pub warnings: Vec<Warning>,
}

impl Shared {
    pub fn new(limits: &Limits) -> Self {
        Self { limits: *limits, frontend_count: 0, service_ports: ServicePorts::default(), warnings: Vec::new() }
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
    pool_rows: usize,
    source_ranges: usize,
    /// By their backends: those that are balanced at random, and Maglev tables.
    pools: HashMap<Arc<[Backend<A>]>, PoolIndex>,
    tables: HashMap<Arc<[Backend<A>]>, PoolIndex>,
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
        Self {
            rows: FamilyDesired::default(),
            pool_rows: 0,
            source_ranges: 0,
            pools: HashMap::new(),
            tables: HashMap::new(),
        }
    }

    pub fn finish(self) -> FamilyDesired<A> {
        self.rows
    }

    /// Adds this family of a Service: all ports, or none where they do not fit.
    pub fn add(&mut self, of: &OfService<'_>, shared: &mut Shared) {
        // IPM-09: a family without a cluster IP is not served at all.
        let claims: Vec<(A, Claim)> =
            of.claims.iter().filter_map(|claim| Some((A::from_ip(claim.ip)?, *claim))).collect();
        if !of.service.has_family(A::FAMILY) || claims.is_empty() {
            return;
        }
        let vips = || claims.iter().filter(|(_, claim)| claim.is_vip()).map(|(addr, _)| *addr);
        let access = access::access(of.service, of.here.primary(A::FAMILY), vips());
        let mut ports = Vec::with_capacity(of.service.ports.len());
        for port in &of.service.ports {
            ports.extend(self.port_rows(of, port, &claims, &access, shared));
        }
        match self.shortage(&ports, shared) {
            None => ports.into_iter().for_each(|rows| self.insert(of, rows, shared)),
            Some((problem, remedy)) => shared.warnings.push(
                Warning::new(WarningKind::Capacity, problem, remedy).of(format_args!("Service {}", of.service.name)),
            ),
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
            shared.warnings.push(too_many_endpoints(of.service, port, usable.members.len()));
            return None;
        }
        let mut frontends = Vec::with_capacity(claims.len());
        for (addr, claim) in claims {
            let Some(number) = claim.port(port) else { continue };
            let key = FrontendKey { addr: *addr, port: number, proto: port.proto, pad: 0 };
            if let Some(winner) = self.winner(&key, claim, of, shared) {
                if *winner != of.service.name {
                    shared.warnings.push(duplicate(of.service, &key, claim, winner));
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

    /// Who has this address and port already.
    fn winner<'a>(
        &self,
        key: &FrontendKey<A>,
        claim: &Claim,
        of: &OfService<'a>,
        shared: &'a Shared,
    ) -> Option<&'a ObjectName> {
        let older = self.rows.frontends.get(key).map(|row| &*shared.service_ports.names[row.service_port.0].service);
        older.or_else(|| match claim.origin {
            Origin::NodePort => of.reserved.get(&(claim.ip, key.port, key.proto)).copied(),
            Origin::LoadBalancer | Origin::ExternalIP | Origin::ClusterIP => None,
        })
    }

    /// What is too small for these rows, if anything, and what to do.
    fn shortage(&self, ports: &[PortRows<'_, A>], shared: &Shared) -> Option<(String, &'static str)> {
        let frontends = ports.iter().map(|rows| rows.frontends.len()).sum::<usize>();
        let members = ports.iter().map(|rows| rows.usable.members.len()).sum::<usize>();
        let pools = self.new_pool_rows(ports);
        let ranges = ports.iter().flat_map(|rows| &rows.frontends).map(|row| row.access.len()).sum::<usize>();
        let limits = &shared.limits;
        let ids = shared.frontend_count as usize;
        let has_tables = !self.tables.is_empty() || ports.iter().any(PortRows::has_table);
        let slots = ports.first().filter(|_| has_tables).map(|rows| rows.selection.maglev_table_size.slots());
        let pool_rows_max = slots.map_or(limits.pool_rows_max, |slots| limits.pool_rows_beside_tables(slots));
        [
            ("frontend ids", ids + frontends, limits.frontend_ids_max),
            ("frontends", self.rows.frontends.len() + frontends, limits.frontends_max),
            (what_pools_hold(slots), self.pool_rows + pools, pool_rows_max),
            ("members", self.rows.members.len() + members, limits.members_max),
            ("source ranges", self.source_ranges + ranges, limits.source_ranges_max),
        ]
        .into_iter()
        .find(|(_, wanted, max)| *wanted > *max as usize)
        .map(|(what, wanted, max)| {
            let problem = format!("does not fit and is left out: {wanted} {what}, the limit is {max}");
            (problem, if what == TABLE_SLOTS { SMALLER_TABLES } else { "raise the limit, or remove Services" })
        })
    }

    /// Rows of the pools that these frontends ask for and that nobody has asked for before: equal sets of several ports
    /// share one.
    fn new_pool_rows(&self, ports: &[PortRows<'_, A>]) -> usize {
        let mut pools: Vec<(usize, &[Backend<A>])> = Vec::with_capacity(3 * ports.len());
        for rows in ports {
            let is_asked_for = |target| rows.frontends.iter().any(|row| row.targets.contains(target));
            let Usable { cluster, near, local, .. } = &rows.usable;
            for (target, set) in [(Target::Cluster, cluster), (Target::Near, near), (Target::Local, local)] {
                let is_known = self.known_pools(rows.selection, set).contains_key(set.as_slice());
                let pool = (rows.selection.slots(set.len()), set.as_slice());
                if !is_known && !pools.contains(&pool) && is_asked_for(target) {
                    pools.push(pool);
                }
            }
        }
        pools.into_iter().map(|(slots, _)| slots).sum()
    }

    fn insert(&mut self, of: &OfService<'_>, rows: PortRows<'_, A>, shared: &mut Shared) {
        let PortRows { port, usable, selection, frontends } = rows;
        let service_port = shared.service_ports.index(&of.name, port);
        shared.frontend_count += frontends.len() as u32;
        for FrontendRow { key, claim, targets, access } in frontends {
            self.source_ranges += access.len();
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

    /// The pool of these backends; made where there is none.
    fn pool(&mut self, selection: Selection, backends: &[Backend<A>]) -> PoolIndex {
        if let Some(known) = self.known_pools(selection, backends).get(backends) {
            return *known;
        }
        let (content, index) = (selection.pool(backends), PoolIndex(self.rows.pools.len()));
        self.pool_rows += content.len();
        self.rows.pools.push(Arc::clone(&content));
        if selection.has_table(backends.len()) {
            self.tables.insert(backends.into(), index);
        } else {
            self.pools.insert(content, index);
        }
        index
    }

    /// Where to look for the pool of these backends.
    const fn known_pools(
        &self,
        selection: Selection,
        backends: &[Backend<A>],
    ) -> &HashMap<Arc<[Backend<A>]>, PoolIndex> {
        if selection.has_table(backends.len()) { &self.tables } else { &self.pools }
    }
}

impl<A: TableAddr> PortRows<'_, A> {
    /// Whether one of its pools is a Maglev table.
    fn has_table(&self) -> bool {
        self.usable.sets().any(|set| self.selection.has_table(set.len()))
    }
}

const TABLE_SLOTS: &str = "slots of pools";
const SMALLER_TABLES: &str =
    "raise --backends-max, lower --maglev-table-size, or annotate Services with lb-agent.io/lb-algorithm: random";

const fn what_pools_hold(table_slots: Option<u16>) -> &'static str {
    match table_slots {
        Some(_) => TABLE_SLOTS,
        None => "backends in pools",
    }
}

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
