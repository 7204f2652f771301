//! The rows of one Service: a pure function of the Service, its slices and a few facts about the node and the cluster.
//!
//! Other Services and the room in the tables play no part here. [`Catalogue`](super::Catalogue) decides which of these
//! rows are granted.

use std::sync::Arc;

use lb_common::addr::{Addr, Family, Proto};
use lb_common::table::FrontendKey;

use super::access::{self, Access};
use super::claim::Claim;
use super::contender::{Contender, Key};
use super::demand::{Bound, Demand};
use super::endpoint::ByPort;
use super::facts::Facts;
use super::health_check::{self, HealthCheck};
use super::policy::Services;
use super::port_rows::{FrontendRow, PortRows};
use super::proxy_protocol::{self, Decision};
use super::scope::{self, Policies};
use super::selection::{self, Algorithm, Selection};
use super::usable::{self, POOL_MAX, Usable, Uses};
use super::{claims, hazard, local, warnings};
use crate::family::TableAddr;
use crate::model::{EndpointSlice, ObjectName, Service, ServicePort, ServiceType, Warning};

/// Everything that a Service puts into the tables. Shared by what is computed, what is granted and what is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRows {
    pub name: Arc<ObjectName>,
    pub created_secs: i64,
    pub policies: Policies,
    pub affinity_secs: Option<std::num::NonZeroU32>,
    pub v4: FamilyRows<[u8; 4]>,
    pub v6: FamilyRows<[u8; 16]>,
    /// Boxed: few Services have any.
    remarks: Option<Box<Remarks>>,
}

/// What is known of a Service besides its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Remarks {
    /// Claims that compete for their address but get no row.
    idle_claims: Vec<(Key, Claim)>,
    /// The families of node ports for which this node has no address.
    unaddressed: Vec<Family>,
    /// Warnings other than those about single ports.
    warnings: Vec<Warning>,
    /// In no table: the agent itself answers these.
    health_checks: Vec<HealthCheck>,
}

/// The rows of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyRows<A> {
    /// Boxed: a vector of one port would have room for four.
    pub ports: Box<[PortRows<A>]>,
}

impl<A> Default for FamilyRows<A> {
    fn default() -> Self {
        Self { ports: Box::default() }
    }
}

impl<A: TableAddr> FamilyRows<A> {
    pub fn of(ports: Vec<PortRows<A>>) -> Self {
        Self { ports: ports.into() }
    }

    /// What the rows take of the tables.
    pub fn demand(&self) -> Demand<A> {
        Demand::of(&self.ports)
    }

    pub fn keys(&self) -> impl Iterator<Item = &FrontendKey<A>> {
        self.ports.iter().flat_map(|port| &port.frontends).map(|row| &row.key)
    }

    fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.ports.iter().flat_map(PortRows::warnings)
    }

    fn claims(&self) -> impl Iterator<Item = (Key, &Claim)> {
        self.ports.iter().flat_map(|port| &port.frontends).map(|row| (row.named(), &row.claim))
    }
}

impl ServiceRows {
    /// No rows.
    pub fn nothing(name: Arc<ObjectName>) -> Self {
        Self {
            name,
            created_secs: i64::MAX,
            policies: Policies::CLUSTER,
            affinity_secs: None,
            v4: FamilyRows::default(),
            v6: FamilyRows::default(),
            remarks: None,
        }
    }

    /// The rows of a Service with these slices. `name` is the name of the Service.
    pub fn of(name: Arc<ObjectName>, service: &Service, slices: &[&EndpointSlice], facts: &Facts<'_>) -> Self {
        let mut rows = Self {
            // An object without a time stamp counts as the youngest.
            created_secs: service.created_secs.unwrap_or(i64::MAX),
            policies: Policies::of(service, facts.policy.forwarding),
            affinity_secs: service.affinity_secs,
            ..Self::nothing(name)
        };
        if !is_ours(service) {
            return rows;
        }
        let health_checks = health_check::of_service(&rows.name, service, slices, facts);
        let mut remarks = Remarks { health_checks, ..Remarks::default() };
        let claims = claims::claims(service, facts, &mut remarks.warnings);
        remarks.warnings.extend(warnings::without_address(service));
        if !claims.is_empty() && service.cluster_ips.is_empty() {
            remarks.warnings.push(warnings::no_cluster_ip(service));
        } else if !claims.is_empty() {
            let header = proxy_protocol::of_service(service, facts.policy);
            let header = header.as_ref();
            remarks.warn(service, &proxy_protocol::of_ports(header, &claims, service), header, slices, facts);
            let of = OfService { service, claims: &claims, header, slices, facts };
            rows.v4 = FamilyRows::of(of.ports(&mut remarks));
            rows.v6 = FamilyRows::of(of.ports(&mut remarks));
        }
        rows.remarks = remarks.boxed();
        rows
    }

    /// These rows with others of each family, and with further warnings.
    pub fn with(&self, v4: FamilyRows<[u8; 4]>, v6: FamilyRows<[u8; 16]>, warnings: Vec<Warning>) -> Self {
        let mut remarks = self.remarks.as_deref().cloned().unwrap_or_default();
        remarks.warnings.extend(warnings);
        Self { v4, v6, remarks: remarks.boxed(), ..self.clone() }
    }

    /// The families of node ports for which this node has no address.
    pub fn unaddressed(&self) -> &[Family] {
        self.remarks.as_ref().map_or(&[], |remarks| &remarks.unaddressed)
    }

    /// The health checks that this node answers for the Service.
    pub fn health_checks(&self) -> &[HealthCheck] {
        self.remarks.as_ref().map_or(&[], |remarks| &remarks.health_checks)
    }

    /// All warnings about these rows.
    pub fn all_warnings(&self) -> impl Iterator<Item = &Warning> {
        let remarks = self.remarks.iter().flat_map(|remarks| &remarks.warnings);
        remarks.chain(self.v4.warnings()).chain(self.v6.warnings())
    }

    /// What the Service claims, served or not.
    pub fn contenders(&self) -> impl Iterator<Item = Contender> {
        let idle = self.remarks.iter().flat_map(|remarks| &remarks.idle_claims).map(|(key, claim)| (*key, claim));
        let claims = self.v4.claims().chain(self.v6.claims()).chain(idle);
        claims.map(|(key, claim)| Contender {
            key,
            is_left: !claim.is_served(),
            rank: claim.rank,
            created_secs: self.created_secs,
            service: Arc::clone(&self.name),
        })
    }

    /// What the rows take, by family.
    pub fn bounds(&self) -> [Bound; 2] {
        [Bound::of(&self.v4.ports), Bound::of(&self.v6.ports)]
    }
}

impl Remarks {
    fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }

    /// Adds the warnings about the Service as a whole. The claims are those of all its ports.
    fn warn(
        &mut self,
        service: &Service,
        claims: &[Claim],
        header: Option<&Decision>,
        slices: &[&EndpointSlice],
        facts: &Facts<'_>,
    ) {
        self.warnings.extend(hazard::warnings(service, claims));
        self.warnings.extend(local::warnings(service, claims, facts.policy, &facts.here, facts.world));
        self.warnings.extend(selection::warning(service));
        if facts.policy.services == Services::All {
            self.warnings.extend(hazard::unenforced(service, claims));
            let has_node_port = service.ports.iter().any(|port| port.node_port.is_some());
            let is_missed = |family: &Family| {
                has_node_port && service.has_family(*family) && facts.node_ports.served(*family).is_empty()
            };
            self.unaddressed.extend(Family::ALL.into_iter().filter(is_missed));
        } else {
            // A kube-proxy runs on this node.
            self.warnings.extend(hazard::filters(service, claims, header, slices, &facts.here));
        }
        if slices.is_empty() {
            self.warnings.extend(warnings::unmirrored(service, facts.world));
        }
    }
}

/// FLT-01 to FLT-05: Services of another proxy, headless ones and ExternalName are ignored.
const fn is_ours(service: &Service) -> bool {
    !service.served_elsewhere && !service.headless && !matches!(service.service_type, ServiceType::ExternalName)
}

/// A Service with everything that its rows depend on.
struct OfService<'a> {
    service: &'a Service,
    claims: &'a [Claim],
    /// Whether ports get a PROXY header, if that is asked for.
    header: Option<&'a Decision>,
    slices: &'a [&'a EndpointSlice],
    facts: &'a Facts<'a>,
}

impl OfService<'_> {
    /// All ports in one family.
    fn ports<A: TableAddr>(&self, remarks: &mut Remarks) -> Vec<PortRows<A>> {
        // IPM-09: a family without a cluster IP is not served at all.
        let claims: Vec<(A, Claim)> =
            self.claims.iter().filter_map(|claim| Some((A::from_ip(claim.ip)?, *claim))).collect();
        if !self.service.has_family(A::FAMILY) || claims.is_empty() {
            return Vec::new();
        }
        let is_vip = |claim: Claim| self.service.ports.iter().any(|port| self.claim(claim, port).is_vip());
        let vips = || claims.iter().filter(|(_, claim)| is_vip(*claim)).map(|(addr, _)| *addr);
        let access = access::access(self.service, self.facts.here.primary(A::FAMILY), vips());
        let endpoints = ByPort::of(self.slices);
        let ports = self.service.ports.iter();
        ports.filter_map(|port| self.port(port, &endpoints, &claims, &access, remarks)).collect()
    }

    /// A claim as the port needs it.
    fn claim(&self, claim: Claim, port: &ServicePort) -> Claim {
        self.header.map_or(claim, |decision| decision.of_port(claim, port))
    }

    fn port<A: TableAddr>(
        &self,
        port: &ServicePort,
        endpoints: &ByPort<'_, A>,
        claims: &[(A, Claim)],
        access: &Access<A>,
        remarks: &mut Remarks,
    ) -> Option<PortRows<A>> {
        let Self { service, facts, .. } = self;
        let claims: Vec<_> = claims.iter().map(|(addr, claim)| (*addr, self.claim(*claim, port))).collect();
        let candidates = endpoints.candidates(port, &facts.here);
        let usable = usable::usable(&candidates, &facts.here, Uses::of(service, port, &claims));
        let is_too_large = usable.members.len() > POOL_MAX;
        if is_too_large {
            remarks.warnings.push(warnings::too_many_endpoints(service, port, usable.members.len()));
        }
        let mut frontends = Vec::with_capacity(claims.len());
        for (addr, claim) in &claims {
            let Some(number) = claim.port(port) else { continue };
            let key = FrontendKey { addr: *addr, port: number, proto: port.proto, pad: 0 };
            let named = (claim.ip, number, port.proto);
            let refusal = if is_too_large { None } else { facts.protected.refuses_port(service, named, claim.origin) };
            if is_too_large || refusal.is_some() {
                remarks.idle_claims.push((named, *claim));
                remarks.warnings.extend(refusal);
                continue;
            }
            // IPM-41: source ranges do not apply to addresses that are left to the balancer.
            let access = if claim.is_vip() { access.clone() } else { Access::Open };
            let treatments = scope::treatments(claim, Policies::of(service, facts.policy.forwarding), usable.supply());
            frontends.push(FrontendRow { key, claim: *claim, treatments, access });
        }
        if frontends.is_empty() {
            return None;
        }
        let wanted = selection::of_service(service, facts.policy.selection);
        let too_small_table = too_small_table(service, port, wanted, &usable).map(Box::new);
        let algorithm = if too_small_table.is_some() { Algorithm::Random } else { wanted.algorithm };
        let selection = Selection { algorithm, ..wanted };
        let renumbered = is_renumbered(port, &usable).then(|| Box::new(warnings::sctp_port(service, port)));
        Some(PortRows { port: port.clone(), usable, selection, frontends, too_small_table, renumbered })
    }
}

/// Whether SCTP endpoints listen on another port.
fn is_renumbered<A: Addr>(port: &ServicePort, usable: &Usable<A>) -> bool {
    port.proto == Proto::SCTP && usable.members.iter().any(|(backend, _)| backend.port != port.port)
}

/// A warning if a Maglev table has fewer slots than endpoints. Backends are then chosen at random.
fn too_small_table<A: Addr>(
    service: &Service,
    port: &ServicePort,
    selection: Selection,
    usable: &Usable<A>,
) -> Option<Warning> {
    let (count, slots) = (usable.sets().map(<[_]>::len).max()?, selection.maglev_table_size.slots());
    let is_too_small = selection.algorithm == Algorithm::Maglev && count > usize::from(slots);
    is_too_small.then(|| warnings::too_small_table(service, port, count, slots))
}
