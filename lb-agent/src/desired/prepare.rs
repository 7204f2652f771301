//! Prepares one Service in one family, before room is assigned: which addresses it gets, what each kind of client gets
//! there, and how much of the tables that takes.

use std::collections::HashSet;
use std::sync::Arc;

use lb_common::addr::{Addr, Proto};
use lb_common::table::{FrontendKey, Origin};

use super::access::{self, Access};
use super::claim::Claim;
use super::endpoint::ByPort;
use super::incumbent::Incumbents;
use super::of_service::{Notes, OfService};
use super::room::{Demand, PoolDemand};
use super::scope::{self, Target, Targets};
use super::selection::{self, Algorithm, Selection};
use super::usable::{self, POOL_MAX, Usable, Uses};
use crate::family::TableAddr;
use crate::model::{ObjectName, Service, ServicePort, Warning, WarningKind};

/// One port of a Service, ready to become rows.
pub struct PortRows<'a, A> {
    pub port: &'a ServicePort,
    pub usable: Usable<A>,
    pub selection: Selection,
    /// The addresses to write, with their decisions. Excludes addresses that another Service holds.
    pub frontends: Vec<FrontendRow<A>>,
}

/// One address of the port, and the decision for it.
pub struct FrontendRow<A> {
    pub key: FrontendKey<A>,
    pub claim: Claim,
    pub targets: Targets,
    pub access: Access<A>,
}

/// All ports of a Service in this family.
pub fn prepare<'a, A: TableAddr>(of: &OfService<'a>, notes: &mut Notes) -> Vec<PortRows<'a, A>> {
    // IPM-09: a family without a cluster IP is not served at all.
    let claims: Vec<(A, Claim)> = of.claims.iter().filter_map(|claim| Some((A::from_ip(claim.ip)?, *claim))).collect();
    if !of.service.has_family(A::FAMILY) || claims.is_empty() {
        return Vec::new();
    }
    let vips = || claims.iter().filter(|(_, claim)| claim.is_vip()).map(|(addr, _)| *addr);
    let access = access::access(of.service, of.here.primary(A::FAMILY), vips());
    let endpoints = ByPort::of(of.slices);
    let ports = of.service.ports.iter();
    ports.filter_map(|port| port_rows(of, port, &endpoints, &claims, &access, notes)).collect()
}

fn port_rows<'a, A: TableAddr>(
    of: &OfService<'a>,
    port: &'a ServicePort,
    endpoints: &ByPort<'_, A>,
    claims: &[(A, Claim)],
    access: &Access<A>,
    notes: &mut Notes,
) -> Option<PortRows<'a, A>> {
    let candidates = endpoints.candidates(port, of.here);
    let usable = usable::usable(&candidates, of.here, Uses::of(of.service, port, claims));
    if usable.members.len() > POOL_MAX {
        notes.left_out.insert(of.service.name.clone());
        notes.warnings.push(too_many_endpoints(of.service, port, usable.members.len()));
        return None;
    }
    let mut frontends = Vec::with_capacity(claims.len());
    for (addr, claim) in claims {
        let Some(number) = claim.port(port) else { continue };
        let key = FrontendKey { addr: *addr, port: number, proto: port.proto, pad: 0 };
        let named = (claim.ip, number, port.proto);
        if let Some(refusal) = of.protected.refuses_port(of.service, named, claim.origin) {
            notes.warnings.push(refusal);
            continue;
        }
        if let Some(winner) = of.contests.winner_over(of.service, claim, named) {
            if *winner != of.service.name {
                // A claim that leaves all clients to the balancer has lost nothing.
                if claim.is_served() {
                    notes.warnings.push(duplicate(of.service, &key, claim, winner));
                }
                notes.contests.push((of.service.name.clone(), winner.clone()));
            }
            continue;
        }
        // IPM-41: source ranges do not apply to addresses that are left to the balancer.
        let access = if claim.is_vip() { access.clone() } else { Access::Open };
        let targets = scope::targets(claim, of.service, usable.supply());
        frontends.push(FrontendRow { key, claim: *claim, targets, access });
    }
    if frontends.is_empty() {
        return None;
    }
    let is_served = frontends.iter().any(|row| row.claim.is_served());
    if is_served && port.proto == Proto::SCTP && usable.members.iter().any(|(backend, _)| backend.port != port.port) {
        notes.warnings.push(sctp_port(of.service, port));
    }
    let selection = match too_small_table(of, port, &usable) {
        Some(warning) => {
            notes.warnings.push(warning);
            Selection { algorithm: Algorithm::Random, ..of.selection }
        }
        None => of.selection,
    };
    Some(PortRows { port, usable, selection, frontends })
}

/// How much of the tables these rows take.
pub fn demand<A: TableAddr>(ports: &[PortRows<'_, A>], incumbents: &Incumbents<'_>) -> Demand<A> {
    // Two ports of one Service may share name and protocol by mistake. Their endpoints are then the same.
    let mut counted = HashSet::with_capacity(ports.len());
    let mut demand = Demand { pools: asked_for(ports), ..Demand::default() };
    for rows in ports {
        demand.frontends += rows.frontends.len();
        demand.new_frontends += rows.frontends.iter().filter(|row| !incumbents.has_row(&row.key)).count();
        if counted.insert((&*rows.port.name, rows.port.proto)) {
            demand.members += rows.usable.members.len();
        }
        for row in &rows.frontends {
            let Access::Only(set) = &row.access else { continue };
            // All addresses and ports of a Service have equal sets, usually the same allocation.
            if !demand.source_sets.iter().any(|known| Arc::ptr_eq(known, set) || known == set) {
                demand.source_sets.push(Arc::clone(set));
            }
        }
    }
    demand
}

/// The pools that these frontends need, each once: ports with equal sets share a pool.
fn asked_for<A: TableAddr>(ports: &[PortRows<'_, A>]) -> Vec<PoolDemand<A>> {
    let mut known = HashSet::with_capacity(ports.len());
    let mut pools = Vec::with_capacity(ports.len());
    for rows in ports {
        let is_asked_for = |target| rows.frontends.iter().any(|row| row.targets.contains(target));
        let Usable { cluster, near, local, .. } = &rows.usable;
        for (target, set) in [(Target::Cluster, cluster), (Target::Near, near), (Target::Local, local)] {
            let table_slots = rows.selection.table_slots(set.len());
            if is_asked_for(target) && known.insert((set.as_slice(), table_slots)) {
                pools.push(PoolDemand { backends: set.as_slice().into(), table_slots });
            }
        }
    }
    pools
}

/// A warning if a Maglev table has fewer slots than endpoints. Backends are then chosen at random.
fn too_small_table<A: Addr>(of: &OfService<'_>, port: &ServicePort, usable: &Usable<A>) -> Option<Warning> {
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
