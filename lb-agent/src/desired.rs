//! What the tables should say, as a pure function of the world and the policy: no ids, no clock, no kernel.
//!
//! Recomputed whole each time; ids are added by [`assign`](crate::assign).

mod access;
mod build;
mod claim;
mod contest;
mod endpoint;
mod hazard;
mod incumbent;
mod local;
mod maglev;
mod mode;
mod node_name;
mod node_port;
mod policy;
mod protected;
mod room;
mod scope;
mod selection;
mod table;
mod usable;
mod vendor;

use std::collections::HashMap;
use std::sync::Arc;

pub use access::{Access, SourcePrefix};
use build::{FamilyBuilder, OfService, Shared};
use claim::Claim;
use contest::Contests;
use endpoint::Here;
pub use incumbent::{Incumbents, ports_of};
pub use maglev::TableSize;
pub use node_name::unknown_node;
pub use policy::{AnnotationMatch, ExternalIps, Limits, Policy, Services, VendorAnnotations};
use protected::Protected;
use room::Neighbour;
pub use room::Neighbours;
pub use selection::{Algorithm, Selection};
pub use table::{
    Choice, Choices, Desired, DesiredFrontend, DesiredMember, FamilyDesired, KubeProxy, PoolIndex, ServicePortIndex,
    ServicePortName,
};
pub use usable::POOL_MAX;

use crate::model::{EndpointSlice, Service, ServiceType, Warning, WarningKind, World};

/// Computes all tables. Services are taken oldest first: the newest is left out when the tables are full. Who gets what
/// several claim, `contest.rs` says.
pub fn desired(world: &World, policy: &Policy, limits: &Limits, incumbents: &Incumbents<'_>) -> Desired {
    desired_beside(std::iter::empty(), world, policy, limits, incumbents)
}

/// As [`desired`], of a world that is a part of another: its neighbours, oldest first, take their room in their turn.
pub fn desired_beside<'a>(
    neighbours: impl Iterator<Item = &'a Neighbour>,
    world: &World,
    policy: &Policy,
    limits: &Limits,
    incumbents: &Incumbents<'_>,
) -> Desired {
    let slices = slices_by_service(world);
    let here = Here::of(world, &policy.node_name);
    let mut shared = Shared::new(limits);
    let mut v4 = FamilyBuilder::<[u8; 4]>::new();
    let mut v6 = FamilyBuilder::<[u8; 16]>::new();
    let protected = Protected::of(world, policy);
    let claimants = claimants(world, policy, &here, &protected, &mut shared.warnings);
    let contests = Contests::of(&claimants, incumbents);
    if policy.services == Services::LoadBalancers {
        // Beside a kube-proxy.
        let told = claimants
            .iter()
            .flat_map(|(service, claims)| hazard::filters(service, claims, slices_of(&slices, service), &here));
        shared.warnings.extend(told);
    }
    if policy.services == Services::All {
        shared.warnings.extend(node_port::without_address(&claimants, &here));
    }
    let mut others = neighbours.peekable();
    let mut takes = Neighbours::default();
    for (service, claims) in &claimants {
        while let Some(other) = others.next_if(|other| other.is_older_than(service)) {
            make_room(other, &mut v4, &mut v6, &mut shared);
        }
        let slices = slices_of(&slices, service);
        if slices.is_empty() {
            shared.warnings.extend(unmirrored(service, world));
        }
        let of = OfService {
            service,
            name: Arc::new(service.name.clone()),
            claims,
            slices,
            here: &here,
            contests: &contests,
            protected: &protected,
            selection: selection::of_service(service, policy),
        };
        takes.push(Neighbour::new(service, v4.add(&of, &mut shared), v6.add(&of, &mut shared)));
    }
    others.for_each(|other| make_room(other, &mut v4, &mut v6, &mut shared));
    Desired {
        v4: v4.finish(),
        v6: v6.finish(),
        service_ports: shared.service_ports.into_names(),
        warnings: shared.warnings,
        contests: shared.contests,
        left_out: shared.left_out,
        displaced: shared.displaced,
        takes,
    }
}

fn make_room(
    other: &Neighbour,
    v4: &mut FamilyBuilder<[u8; 4]>,
    v6: &mut FamilyBuilder<[u8; 16]>,
    shared: &mut Shared,
) {
    if !(v4.make_room(&other.v4, shared) && v6.make_room(&other.v6, shared)) {
        shared.displaced.insert(other.name.clone());
    }
}

/// The Services that want an address here, oldest first.
fn claimants<'a>(
    world: &'a World,
    policy: &Policy,
    here: &Here<'_>,
    protected: &Protected<'_>,
    warnings: &mut Vec<Warning>,
) -> Vec<(&'a Service, Vec<Claim>)> {
    let mut claimants = Vec::with_capacity(world.services().len());
    for service in by_age(world).into_iter().filter(|service| is_ours(service)) {
        let claims = claim::claims(service, policy, here, protected, warnings);
        if !claims.is_empty() && has_cluster_ip(service, warnings) {
            warnings.extend(hazard::warnings(service, &claims));
            warnings.extend(local::warnings(service, &claims, policy, here, world));
            warnings.extend(selection::warning(service));
            claimants.push((service, claims));
        }
    }
    claimants
}

/// The annotation or label that decides the mode of a Service's addresses, where one does.
pub fn deciding_key<'a>(service: &Service, policy: &'a Policy) -> Option<&'a str> {
    mode::of_service(service, policy).map(|decision| decision.key)
}

/// The API server makes slices of pods where a Service chooses some, and of Endpoints elsewhere: a folder that holds
/// the Endpoints of a Service with a selector holds nothing that counts.
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

/// Oldest first. An object without a time stamp counts as the youngest; ties go by namespace and name.
fn by_age(world: &World) -> Vec<&Service> {
    let mut services: Vec<&Service> = world.services().values().collect();
    // Stable, and the map is in order of names.
    services.sort_by_key(|service| room::created_secs(service));
    services
}

/// Spec 2.1: another proxy's Services, headless ones and ExternalName are none of our business.
const fn is_ours(service: &Service) -> bool {
    !service.served_elsewhere && !service.headless && !matches!(service.service_type, ServiceType::ExternalName)
}

/// Spec 2.1: a Service without any cluster IP is skipped. Where it has an address to serve, its owner is told.
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
mod tests;
#[cfg(test)]
mod upstream;
