//! What the tables should say, as a pure function of the world and the policy: no IDs, no clock, no kernel.
//!
//! Recomputed whole each time. [`assign`](crate::assign) adds the IDs.

mod access;
mod annotations;
mod build;
mod claim;
mod claims;
mod contest;
mod endpoint;
mod grant;
mod hazard;
mod incumbent;
mod keep;
mod ledger;
mod local;
mod maglev;
mod mode;
mod node_name;
mod node_port;
mod of_service;
mod policy;
mod prepare;
mod protected;
mod room;
mod scope;
mod selection;
mod table;
mod usable;
mod vendor;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use access::{Access, SourcePrefix};
pub use annotations::annotation_keys;
use build::{FamilyBuilder, ServicePorts, no_room};
use claim::Claim;
use contest::Contests;
use endpoint::Here;
use grant::{Grant, Grants, granted};
pub use incumbent::{Incumbents, ports_of};
use lb_common::table::FrontendKey;
use ledger::Ledger;
pub use maglev::TableSize;
pub use node_name::unknown_node;
use of_service::{Notes, OfService};
pub use policy::{AnnotationMatch, ExternalIps, Limits, Policy, Services, VendorAnnotations};
use prepare::{PortRows, demand, prepare};
use protected::Protected;
use room::Neighbour;
pub use room::Neighbours;
pub use selection::{Algorithm, Selection};
pub use table::{
    Choice, Choices, Desired, DesiredFrontend, DesiredMember, FamilyDesired, KubeProxy, PoolIndex, ServicePortIndex,
    ServicePortName,
};
pub use usable::POOL_MAX;

use crate::family::TableAddr;
use crate::model::{EndpointSlice, Service, ServiceType, Warning, WarningKind, World};

/// Computes all tables. `contest.rs` decides who gets an address that several Services claim; `grant.rs` decides who
/// gets room if it is scarce.
pub fn desired(world: &World, policy: &Policy, limits: &Limits, incumbents: &Incumbents<'_>) -> Desired {
    let stage = Stage::of(world, policy, incumbents);
    // Usually everything fits and no namespace exceeds its share.
    with_services(&stage, |services| {
        all(services, &stage, &limits.of_namespace(), incumbents).or_else(|| {
            let grants = grant::grants(services, std::iter::empty(), limits, incumbents)?;
            Some(some(services, &stage, &grants, incumbents))
        })
    })
    .unwrap_or_default()
}

/// As [`desired`], for a part of the world while room is scarce. The neighbours keep what they have. Returns `None` if
/// that alone is too much.
pub fn desired_beside<'a>(
    neighbours: impl Iterator<Item = &'a Neighbour>,
    world: &World,
    policy: &Policy,
    limits: &Limits,
    incumbents: &Incumbents<'_>,
) -> Option<Desired> {
    let stage = Stage::of(world, policy, incumbents);
    with_services(&stage, |services| {
        let grants = grant::grants(services, neighbours, limits, incumbents)?;
        Some(some(services, &stage, &grants, incumbents))
    })
}

/// What is known before room is assigned.
struct Stage<'a> {
    here: Here<'a>,
    protected: Protected<'a>,
    claimants: Vec<(&'a Service, Vec<Claim>)>,
    contests: Contests<'a>,
    slices: Slices<'a>,
    policy: &'a Policy,
    warnings: Vec<Warning>,
}

impl<'a> Stage<'a> {
    fn of(world: &'a World, policy: &'a Policy, incumbents: &Incumbents<'_>) -> Self {
        let here = Here::of(world, &policy.node_name);
        let protected = Protected::of(world, policy);
        let mut warnings = Vec::new();
        let claimants = claimants(world, policy, &here, &protected, &mut warnings);
        let contests = Contests::of(&claimants, incumbents);
        let slices = slices_by_service(world);
        if policy.services == Services::All {
            warnings.extend(node_port::without_address(&claimants, &here));
        } else {
            // A kube-proxy runs on this node.
            let told = claimants
                .iter()
                .flat_map(|(service, claims)| hazard::filters(service, claims, slices_of(&slices, service), &here));
            warnings.extend(told);
        }
        let without = claimants.iter().map(|(service, _)| *service).filter(|of| slices_of(&slices, of).is_empty());
        warnings.extend(without.filter_map(|service| unmirrored(service, world)));
        Self { here, protected, claimants, contests, slices, policy, warnings }
    }
}

/// The Services and everything that belongs to them, oldest first.
fn with_services<T>(stage: &Stage<'_>, work: impl FnOnce(&[OfService<'_>]) -> T) -> T {
    let services: Vec<OfService<'_>> = stage
        .claimants
        .iter()
        .map(|(service, claims)| OfService {
            service,
            name: Arc::new(service.name.clone()),
            claims,
            slices: slices_of(&stage.slices, service),
            here: &stage.here,
            contests: &stage.contests,
            protected: &stage.protected,
            selection: selection::of_service(service, stage.policy.selection),
        })
        .collect();
    work(&services)
}

/// Computes all that is wanted. Returns `None` if it does not fit.
fn all(services: &[OfService<'_>], stage: &Stage<'_>, limits: &Limits, incumbents: &Incumbents<'_>) -> Option<Desired> {
    let mut rows = Rows::new(stage);
    let mut ledger = Ledger::new(limits, incumbents);
    let mut takes = Neighbours::default();
    for of in services {
        let namespace = &of.name.namespace;
        let (v4, v6) = (prepare(of, &mut rows.notes), prepare(of, &mut rows.notes));
        let (demand4, demand6) = (demand(&v4, incumbents), demand(&v6, incumbents));
        let fits = ledger.keep(namespace, &demand4) && ledger.keep(namespace, &demand6);
        if !fits {
            return None;
        }
        takes.push(Neighbour::new(&of.service.name, demand4, demand6));
        rows.v4.add(of, v4, &mut rows.service_ports);
        rows.v6.add(of, v6, &mut rows.service_ports);
    }
    Some(Desired { takes, ..rows.finish() })
}

/// Computes what was granted.
fn some(services: &[OfService<'_>], stage: &Stage<'_>, grants: &[Grants], incumbents: &Incumbents<'_>) -> Desired {
    let mut rows = Rows::new(stage);
    let mut takes = Neighbours::default();
    for (of, Grants { v4, v6 }) in services.iter().zip(grants) {
        let (ports4, ports6) =
            (granted(of, v4, incumbents, &mut rows.notes), granted(of, v6, incumbents, &mut rows.notes));
        takes.push(Neighbour::new(&of.service.name, demand(&ports4, incumbents), demand(&ports6, incumbents)));
        tell(of, v4, &ports4, &mut rows.v4, &mut rows.notes);
        tell(of, v6, &ports6, &mut rows.v6, &mut rows.notes);
        rows.v4.add(of, ports4, &mut rows.service_ports);
        rows.v6.add(of, ports6, &mut rows.service_ports);
    }
    Desired { takes, is_scarce: true, ..rows.finish() }
}

/// Warns about rows that were not granted.
fn tell<A: TableAddr>(
    of: &OfService<'_>,
    grant: &Grant,
    ports: &[PortRows<'_, A>],
    rows: &mut FamilyBuilder<A>,
    notes: &mut Notes,
) {
    let (shortage, is_known) = match grant {
        Grant::All => return,
        Grant::Kept(shortage) => (shortage, true),
        Grant::Nothing(shortage) => (shortage, false),
    };
    notes.left_out.insert(of.service.name.clone());
    notes.warnings.push(no_room(of.service, shortage, is_known));
    let has: HashSet<FrontendKey<A>> = ports.iter().flat_map(|port| &port.frontends).map(|row| row.key).collect();
    let wanted = prepare::<A>(of, &mut Notes::default());
    rows.leave_out(wanted.iter().flat_map(|port| &port.frontends).map(|row| row.key).filter(|key| !has.contains(key)));
}

/// Rows of both families so far.
struct Rows {
    v4: FamilyBuilder<[u8; 4]>,
    v6: FamilyBuilder<[u8; 16]>,
    service_ports: ServicePorts,
    notes: Notes,
}

impl Rows {
    fn new(stage: &Stage<'_>) -> Self {
        let notes = Notes { warnings: stage.warnings.clone(), ..Notes::default() };
        Self { v4: FamilyBuilder::new(), v6: FamilyBuilder::new(), service_ports: ServicePorts::default(), notes }
    }

    fn finish(self) -> Desired {
        let Notes { warnings, contests, left_out } = self.notes;
        Desired {
            v4: self.v4.finish(),
            v6: self.v6.finish(),
            service_ports: self.service_ports.into_names(),
            warnings,
            contests,
            left_out,
            ..Desired::default()
        }
    }
}

/// The Services that claim an address, oldest first.
fn claimants<'a>(
    world: &'a World,
    policy: &Policy,
    here: &Here<'_>,
    protected: &Protected<'_>,
    warnings: &mut Vec<Warning>,
) -> Vec<(&'a Service, Vec<Claim>)> {
    let mut claimants = Vec::with_capacity(world.services().len());
    for service in by_age(world).into_iter().filter(|service| is_ours(service)) {
        let claims = claims::claims(service, policy, here, protected, warnings);
        if !claims.is_empty() && has_cluster_ip(service, warnings) {
            warnings.extend(hazard::warnings(service, &claims));
            warnings.extend(local::warnings(service, &claims, policy, here, world));
            warnings.extend(selection::warning(service));
            claimants.push((service, claims));
        }
    }
    claimants
}

/// The annotation or label that decides the mode of a Service's addresses, if one does.
pub fn deciding_key<'a>(service: &Service, policy: &'a Policy) -> Option<&'a str> {
    mode::of_service(service, policy).map(|decision| decision.key)
}

/// The API server makes EndpointSlices from pods if the Service has a selector, and mirrors Endpoints only if it has
/// none. So the Endpoints object of a Service with a selector is ignored.
fn unmirrored(service: &Service, world: &World) -> Option<Warning> {
    if !service.has_selector || !world.endpoints().contains_key(&service.name) {
        return None;
    }
    let problem = "makes its Endpoints object count for nothing, as for the API server, and there is no EndpointSlice";
    let warning = Warning::new(WarningKind::Ignored, problem, "add the EndpointSlices, or remove the selector");
    Some(warning.of(format_args!("Service {}", service.name)).at("spec.selector"))
}

/// Slices by namespace and name of their Service.
type Slices<'a> = HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

fn slices_of<'s, 'a>(slices: &'s Slices<'a>, service: &'a Service) -> &'s [&'a EndpointSlice] {
    slices.get(&(&*service.name.namespace, &*service.name.name)).map_or(&[], Vec::as_slice)
}

fn slices_by_service(world: &World) -> Slices<'_> {
    let mut index: HashMap<_, Vec<_>> = HashMap::with_capacity(world.slices().len());
    for slice in world.live_slices() {
        index.entry((&*slice.name.namespace, &*slice.service)).or_default().push(slice);
    }
    index
}

/// Oldest first. An object without a time stamp counts as the youngest. Ties are broken by namespace and name.
fn by_age(world: &World) -> Vec<&Service> {
    let mut services: Vec<&Service> = world.services().values().collect();
    // The sort is stable, and the map is sorted by name.
    services.sort_by_key(|service| room::created_secs(service));
    services
}

/// FLT-01 to FLT-05: Services of another proxy, headless ones and ExternalName are ignored.
const fn is_ours(service: &Service) -> bool {
    !service.served_elsewhere && !service.headless && !matches!(service.service_type, ServiceType::ExternalName)
}

/// A Service without any cluster IP is skipped. If it claims an address, a warning says so.
fn has_cluster_ip(service: &Service, warnings: &mut Vec<Warning>) -> bool {
    if service.cluster_ips.is_empty() {
        let warning = Warning::new(
            WarningKind::BadField,
            "names no address, so no family of the Service is served (kube-proxy skips it as well)",
            "add a cluster IP of each family to serve",
        );
        warnings.push(warning.of(format_args!("Service {}", service.name)).at("spec.clusterIP"));
    }
    !service.cluster_ips.is_empty()
}

#[cfg(test)]
pub mod tests;
