//! Every address and port that a Service names, served or not: why this agent leaves it alone, and what a kube-proxy does
//! with it.

use std::net::IpAddr;

use lb_common::addr::Family;
use lb_common::table::Origin;
use serde::{Deserialize, Serialize};

use super::claims;
use super::endpoint::ByPort;
use super::facts::Facts;
use super::policy::{Forwarding, Policy, Services};
use super::scope::{self, Policies, Supply, Treatment};
use super::table::KubeProxy;
use super::usable::{self, Uses};
use crate::family::TableAddr;
use crate::model::{
    EndpointSlice, HostNames, IngressEntry, Service, ServicePort, ServiceType, SourceRange, Warning, World,
};

/// The most destinations of a Service that are listed.
const DESTINATIONS_MAX: usize = 512;

/// An address and port that a Service names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub address: IpAddr,
    pub port: u16,
    /// The number of the Service's port, which for a node port is another one.
    pub service_port: u16,
    /// Empty if the only port has no name.
    pub port_name: String,
    pub proto: String,
    /// The field that holds the address.
    pub field: String,
    /// Why this agent does not serve it, as far as the Service itself shows.
    pub reason: Option<String>,
    pub kube_proxy: Rivalry,
}

/// What a kube-proxy on this node does with packets for a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rivalry {
    /// With those of pods of this node and of the node itself.
    pub inside: Act,
    /// With those that arrive from the network.
    pub outside: Act,
    /// The prefixes from which it lets clients in; empty: from everywhere.
    pub ranges: Vec<String>,
}

/// What a kube-proxy does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    /// It has no rule.
    #[default]
    Nothing,
    /// It sends the connection to an endpoint.
    Translate,
    /// There is no endpoint anywhere.
    Refuse,
    /// The policy is Local, and there is no endpoint on this node.
    Drop,
}

impl Act {
    const fn of(treatment: Treatment) -> Self {
        match treatment {
            Treatment::Pass => Self::Nothing,
            Treatment::Reject => Self::Refuse,
            Treatment::Drop => Self::Drop,
            Treatment::Cluster | Treatment::Near | Treatment::Local | Treatment::Forward => Self::Translate,
        }
    }
}

/// Why no address of the Service, or none of a balancer's, is served; empty if some may be.
pub fn remarks(service: &Service, policy: &Policy) -> Vec<String> {
    let of_all = why_nothing(service);
    let balancers = match (service.service_type, service.ingress.is_empty(), service.host_names) {
        (ServiceType::LoadBalancer, true, HostNames::Absent) => Some(
            "its status.loadBalancer.ingress is empty: the balancer's controller has not given it an address yet"
                .into(),
        ),
        (ServiceType::LoadBalancer, true, HostNames::Present) => {
            Some("its status.loadBalancer.ingress has host names only, which are never resolved (IPM-06)".into())
        }
        (ServiceType::ClusterIP | ServiceType::NodePort, true, _) if policy.services == Services::LoadBalancers => {
            Some("it has no balancer's address, and with --services=lb kube-proxy serves all others".into())
        }
        _ => None,
    };
    of_all.map(str::to_owned).into_iter().chain(balancers).collect()
}

/// Why nothing of the Service is served at all (FLT-01, FLT-03, FLT-05).
const fn why_nothing(service: &Service) -> Option<&'static str> {
    if service.served_elsewhere {
        return Some(
            "another proxy serves it: its label service.kubernetes.io/service-proxy-name is not the one that this agent \
             serves (FLT-01)",
        );
    }
    if service.headless {
        return Some("it is headless (clusterIP: None): clients dial its endpoints themselves (FLT-03)");
    }
    if matches!(service.service_type, ServiceType::ExternalName) {
        return Some("its type is ExternalName: only DNS answers for it (FLT-05)");
    }
    if service.cluster_ips.is_empty() {
        return Some("it has no cluster IP, and a family without one is not served (IPM-09)");
    }
    None
}

/// The addresses and ports that a Service names.
pub fn named(service: &Service, world: &World, policy: &Policy) -> Vec<Named> {
    let facts = Facts::of(world, policy);
    let slices: Vec<&EndpointSlice> = world.live_slices_of(&service.name).collect();
    let namer = Namer { service, facts: &facts, slices: &slices };
    let named = service.ports.iter().flat_map(|port| namer.of_port(port));
    named.take(DESTINATIONS_MAX).collect()
}

/// A Service with everything that decides about its destinations.
struct Namer<'a> {
    service: &'a Service,
    facts: &'a Facts<'a>,
    slices: &'a [&'a EndpointSlice],
}

impl Namer<'_> {
    fn of_port(&self, port: &ServicePort) -> Vec<Named> {
        let Self { service, facts, .. } = self;
        let entries = service.ingress.iter().map(|entry| (entry.ip, Origin::LoadBalancer, Some(entry)));
        let external = service.external_ips.iter().map(|ip| (*ip, Origin::ExternalIP, None));
        let cluster = service.cluster_ips.iter().map(|ip| (*ip, Origin::ClusterIP, None));
        let node = self.node_addresses().into_iter().map(|ip| (ip, Origin::NodePort, None));
        let node = node.filter(|_| port.node_port.is_some());
        let all = entries.chain(external).chain(cluster).chain(node);
        all.map(|(ip, origin, entry)| {
            let number = if origin == Origin::NodePort { port.node_port.unwrap_or(port.port) } else { port.port };
            let refusal = facts.protected.refuses_port(service, (ip, number, port.proto), origin);
            let reason = self.reason(ip, origin, entry).or_else(|| refusal.as_ref().map(told));
            Named {
                address: ip,
                port: number,
                service_port: port.port,
                port_name: port.name.to_string(),
                proto: port.proto.name().into(),
                field: field(origin).into(),
                reason,
                kube_proxy: self.rivalry(port, ip, origin, entry),
            }
        })
        .collect()
    }

    /// Where node ports are dialled: where this agent serves them, else where a kube-proxy does by default.
    fn node_addresses(&self) -> Vec<IpAddr> {
        Family::ALL
            .into_iter()
            .flat_map(|family| match self.facts.node_ports.served(family) {
                [] => self.facts.here.primary(family).into_iter().collect(),
                served => served.to_vec(),
            })
            .collect()
    }

    fn reason(&self, ip: IpAddr, origin: Origin, entry: Option<&IngressEntry>) -> Option<String> {
        let Self { service, facts, .. } = self;
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        if let Some(reason) = why_nothing(service) {
            return Some(reason.into());
        }
        if !service.has_family(family) {
            return Some(format!(
                "the Service has no cluster IP of {}, so the family is not served (IPM-09)",
                family.name()
            ));
        }
        match (origin, facts.policy.services) {
            (Origin::LoadBalancer, _) => {
                let entry = entry?;
                facts.protected.refuses_ingress(service, entry.index, entry.ip).as_ref().map(told)
            }
            (_, Services::LoadBalancers) => {
                Some("this agent leaves it to kube-proxy (--services=lb): it is no balancer's address".into())
            }
            (Origin::ExternalIP, Services::All) => facts.protected.refuses_external_ip(service, ip).as_ref().map(told),
            (Origin::ClusterIP | Origin::NodePort, Services::All) => None,
        }
    }

    /// As kube-proxy decides, whatever our annotations and flags say.
    fn rivalry(&self, port: &ServicePort, ip: IpAddr, origin: Origin, entry: Option<&IngressEntry>) -> Rivalry {
        let Self { service, .. } = self;
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        if why_nothing(service).is_some() || !service.has_family(family) {
            return Rivalry::default();
        }
        let supply = match family {
            Family::V4 => self.supply::<[u8; 4]>(port),
            Family::V6 => self.supply::<[u8; 16]>(port),
        };
        let policies = Policies::of(service, Forwarding::Snat);
        let is_claimed = entry.is_none_or(|entry| claims::kube_proxy(service, entry) == KubeProxy::Claims);
        let is_external = service.external_ips.contains(&ip);
        let treatments = match origin {
            Origin::ClusterIP => scope::cluster_ip(policies, supply),
            Origin::LoadBalancer if !is_claimed && !is_external => return Rivalry::default(),
            Origin::LoadBalancer | Origin::ExternalIP | Origin::NodePort => scope::external(policies, supply),
        };
        let has_ranges = origin == Origin::LoadBalancer && is_claimed && supply.anywhere;
        let ranges = if has_ranges { ranges(service, family) } else { Vec::new() };
        Rivalry { inside: Act::of(treatments.host), outside: Act::of(treatments.external), ranges }
    }

    fn supply<A: TableAddr>(&self, port: &ServicePort) -> Supply {
        let candidates = ByPort::<A>::of(self.slices).candidates(port, &self.facts.here);
        usable::usable(&candidates, &self.facts.here, Uses { cluster: true, local: true }).supply()
    }
}

/// The source ranges of a family, as text.
fn ranges(service: &Service, family: Family) -> Vec<String> {
    let of_family = service.source_ranges.iter().filter(|range| range.family() == family);
    of_family.filter_map(SourceRange::prefix).map(|prefix| prefix.to_string()).collect()
}

/// A warning without the object, which is named beside it.
fn told(warning: &Warning) -> String {
    format!("{}; {}", warning.problem, warning.remedy)
}

const fn field(origin: Origin) -> &'static str {
    match origin {
        Origin::LoadBalancer => "status.loadBalancer.ingress[].ip",
        Origin::ExternalIP => "spec.externalIPs[]",
        Origin::ClusterIP => "spec.clusterIPs[]",
        Origin::NodePort => "spec.ports[].nodePort",
    }
}

#[cfg(test)]
mod tests;
