//! Health check node ports: where this node answers a balancer's checks of a Service, and how many endpoints it reports
//! (docs/contract.md#health-checks).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use lb_common::addr::Family;

use super::endpoint::{ByPort, Here, Place};
use super::facts::Facts;
use super::policy::HealthCheckPorts;
use crate::family::TableAddr;
use crate::model::{EndpointSlice, ObjectName, Service, ServiceType, TrafficPolicy, Warning, WarningKind};

/// The checks of one Service at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub service: Arc<ObjectName>,
    /// Where the balancer asks.
    pub at: SocketAddr,
    /// The endpoints on this node that get new connections in the ordinary case: ready ones, each address once.
    pub local_endpoints: usize,
}

/// The checks of all Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthChecks {
    pub by_address: BTreeMap<SocketAddr, HealthCheck>,
    /// About Services whose port belongs to another Service.
    pub warnings: Vec<Warning>,
}

/// The checks of a Service, whatever the mode of its addresses (IPM-23): one for each address of the node ports in the
/// families of its cluster addresses.
pub fn of_service(
    name: &Arc<ObjectName>,
    service: &Service,
    slices: &[&EndpointSlice],
    facts: &Facts<'_>,
) -> Vec<HealthCheck> {
    let Some(port) = port(service).filter(|_| facts.policy.health_checks == HealthCheckPorts::Served) else {
        return Vec::new();
    };
    let families = Family::ALL.into_iter().filter(|family| service.has_family(*family));
    let checks = |family| {
        let local_endpoints = match family {
            Family::V4 => local_endpoints::<[u8; 4]>(slices, &facts.here),
            Family::V6 => local_endpoints::<[u8; 16]>(slices, &facts.here),
        };
        // HC-10.
        let addresses = facts.node_ports.listening(family).iter();
        addresses.map(move |ip| HealthCheck {
            service: Arc::clone(name),
            at: SocketAddr::new(*ip, port),
            local_endpoints,
        })
    };
    families.flat_map(checks).collect()
}

/// The port of a Service that has checks: kube-proxy's `NeedsHealthCheck`.
fn port(service: &Service) -> Option<u16> {
    let is_balanced = service.service_type == ServiceType::LoadBalancer;
    service.health_check_node_port.filter(|_| is_balanced && service.external_policy == TrafficPolicy::Local)
}

/// kube-proxy's `LocalReadyEndpoints`. Endpoints that are terminating do not count, although they still serve if there
/// are no others: the balancer should turn to another node (HC-03).
fn local_endpoints<A: TableAddr>(slices: &[&EndpointSlice], here: &Here<'_>) -> usize {
    let endpoints = ByPort::<A>::of(slices);
    let ready = endpoints.of_all_ports(here).filter(|one| one.conditions.ready && one.place == Place::ThisNode);
    ready.map(|one| one.backend.addr).collect::<BTreeSet<A>>().len()
}

impl HealthChecks {
    /// Of two Services with one port, the older one has it. With each check comes the time of its Service's creation.
    pub fn of<'a>(checks: impl Iterator<Item = (i64, &'a HealthCheck)>) -> Self {
        let mut sorted: Vec<_> = checks.collect();
        sorted.sort_by_key(|(created_secs, check)| (*created_secs, Arc::clone(&check.service)));
        let (mut by_address, mut warnings) = (BTreeMap::new(), BTreeSet::new());
        for (_, check) in sorted {
            match by_address.entry(check.at) {
                Entry::Vacant(free) => drop(free.insert(check.clone())),
                Entry::Occupied(taken) => drop(warnings.insert(duplicate(check, taken.get()))),
            }
        }
        Self { by_address, warnings: warnings.into_iter().collect() }
    }
}

fn duplicate(check: &HealthCheck, winner: &HealthCheck) -> Warning {
    let problem = format!(
        "{} is also the port of Service {}, which is older: the answers there are those of that Service",
        check.at.port(),
        winner.service
    );
    Warning::new(WarningKind::Duplicate, problem, "give each Service a port of its own")
        .of(format_args!("Service {}", check.service))
        .at("spec.healthCheckNodePort")
}

#[cfg(test)]
mod tests;
