//! Warnings for the owners of Services, about what is left out or done differently.

use lb_common::table::{FrontendKey, Origin};

use super::claim::Claim;
use super::selection;
use super::usable::POOL_MAX;
use crate::model::{HostNames, ObjectName, Service, ServicePort, ServiceType, Warning, WarningKind, World};

/// A Service without any cluster IP is skipped. If it claims an address, a warning says so.
pub fn no_cluster_ip(service: &Service) -> Warning {
    let warning = Warning::new(
        WarningKind::BadField,
        "names no address, so the Service is not served; kube-proxy skips the Service as well",
        "add a cluster IP of each family to serve",
    );
    warning.of(format_args!("Service {}", service.name)).at("spec.clusterIP")
}

/// A Service of type `LoadBalancer` of which no balancer's address can be served: it has no port, or its status has no
/// IP (yet).
pub fn without_address(service: &Service) -> Option<Warning> {
    if service.service_type != ServiceType::LoadBalancer || !service.ports.is_empty() && !service.ingress.is_empty() {
        return None;
    }
    let (kind, field, problem, remedy) = match (service.ports.is_empty(), service.host_names) {
        (true, _) => {
            (WarningKind::BadField, "spec.ports", "has no port that can be read, so nothing is served", "add a port")
        }
        (false, HostNames::Present) => (
            WarningKind::Unserved,
            "status.loadBalancer.ingress",
            "names the balancer by host name only, so every connection goes to the balancer",
            "if that is not wanted, have the balancer's controller write an IP",
        ),
        (false, HostNames::Absent) => (
            WarningKind::Unserved,
            "status.loadBalancer.ingress",
            "has no IP yet, so no balancer's address is served",
            "if it does not come, look at the balancer's controller, which writes the status",
        ),
    };
    let warning = Warning::new(kind, problem, remedy);
    Some(warning.of(format_args!("Service {}", service.name)).at(field))
}

/// The API server makes EndpointSlices from pods if the Service has a selector, and mirrors Endpoints only if it has
/// none. So the Endpoints object of a Service with a selector is ignored.
pub fn unmirrored(service: &Service, world: &World) -> Option<Warning> {
    if !service.has_selector || !world.endpoints().contains_key(&service.name) {
        return None;
    }
    let problem = "is set, so the Endpoints object of the Service is ignored, as by the API server, and no \
        EndpointSlice exists";
    let warning = Warning::new(WarningKind::Ignored, problem, "add EndpointSlices, or remove the selector");
    Some(warning.of(format_args!("Service {}", service.name)).at("spec.selector"))
}

pub fn too_small_table(service: &Service, port: &ServicePort, count: usize, slots: u16) -> Warning {
    let problem = format!(
        "port {} has {count} endpoints and a Maglev table {slots} slots; they are chosen at random instead",
        port.port
    );
    let remedy = format!("raise --maglev-table-size, or annotate the Service with {}: random", selection::ANNOTATION);
    Warning::new(WarningKind::Capacity, problem, remedy).of(format_args!("Service {}", service.name))
}

pub fn too_many_endpoints(service: &Service, port: &ServicePort, count: usize) -> Warning {
    let problem =
        format!("port {} has {count} endpoints, a pool holds at most {POOL_MAX}; the port is left out", port.port);
    Warning::new(WarningKind::Capacity, problem, "split the Service").of(format_args!("Service {}", service.name))
}

/// Another Service has the address that this one claims.
pub fn duplicate<A>(service: &ObjectName, key: &FrontendKey<A>, claim: &Claim, winner: &ObjectName) -> Warning {
    let field = match claim.origin {
        Origin::LoadBalancer => "status.loadBalancer.ingress",
        Origin::ExternalIP => "spec.externalIPs",
        Origin::ClusterIP => "spec.clusterIPs",
        Origin::NodePort => "spec.ports",
    };
    let problem = format!("{} port {}/{} is already Service {winner}'s", claim.ip, key.port, key.proto.name());
    Warning::new(WarningKind::Duplicate, problem, "give one of them another address or port")
        .of(format_args!("Service {service}"))
        .at(field)
}

pub fn sctp_port(service: &Service, port: &ServicePort) -> Warning {
    Warning::new(
        WarningKind::Unsupported,
        format!("SCTP port {} differs from the endpoints' port; only the address is translated", port.port),
        "let the endpoints listen on the port of the Service",
    )
    .of(format_args!("Service {}", service.name))
    .at("spec.ports")
}
