//! Protects the cluster's own addresses: a Service, whatever its age, does not get one by naming it in `externalIPs` or
//! in its status (CVE-2020-8554).

use std::collections::HashSet;
use std::net::IpAddr;

use lb_common::addr::Proto;
use lb_common::table::Origin;

use super::policy::{ExternalIps, Policy, Services};
use crate::model::{Prefix, Service, Warning, WarningKind, World, api_server};

/// The addresses that belong to the cluster.
pub struct Protected<'a> {
    world: &'a World,
    policy: ExternalIps,
    ranges: &'a [Prefix],
    nodes: HashSet<IpAddr>,
    api_servers: HashSet<(IpAddr, u16, Proto)>,
}

impl<'a> Protected<'a> {
    pub fn of(world: &'a World, policy: &'a Policy) -> Self {
        let nodes = match policy.services {
            Services::All => world.nodes().flat_map(|node| node.addresses.iter().copied()).collect(),
            // Not needed: kube-proxy serves externalIPs.
            Services::LoadBalancers => HashSet::new(),
        };
        let mut api_servers = HashSet::new();
        for slice in world.slices_of(&api_server()) {
            for port in &slice.ports {
                api_servers.extend(slice.endpoints.iter().map(|endpoint| (endpoint.addr, port.port, port.proto)));
            }
        }
        Self { world, policy: policy.external_ips, ranges: &policy.cluster_ranges, nodes, api_servers }
    }

    /// The reason why a Service may not have an address of its status, if there is one.
    pub fn refuses_ingress(&self, service: &Service, index: u32, ip: IpAddr) -> Option<Warning> {
        let field = || format!("status.loadBalancer.ingress[{index}]");
        self.clusters(service, ip).map(|owner| refusal(service, ip, owner, BALANCER_REMEDY).at(field()))
    }

    /// The reason why a Service may not have one of its externalIPs, if there is one.
    pub fn refuses_external_ip(&self, service: &Service, ip: IpAddr) -> Option<Warning> {
        let owner = match self.policy {
            ExternalIps::Any => return None,
            ExternalIps::Off => return Some(switched_off(service)),
            ExternalIps::Guarded => self.clusters(service, ip).or_else(|| {
                // Interface addresses are not considered: a router's protocol may assign this very externalIP to an
                // interface.
                self.nodes.contains(&ip).then_some("is an address of a node")
            })?,
        };
        let remedy = "name an address that is routed to the nodes and is none of the cluster's own, or give \
            --external-ips=any if everyone who may edit Services is trusted with all traffic";
        Some(refusal(service, ip, owner, remedy).at("spec.externalIPs"))
    }

    /// The reason why a Service may not have this port of an address, if there is one.
    pub fn refuses_port(&self, service: &Service, key: (IpAddr, u16, Proto), origin: Origin) -> Option<Warning> {
        let (field, is_trusted) = match origin {
            Origin::LoadBalancer => ("status.loadBalancer.ingress", false),
            Origin::ExternalIP => ("spec.externalIPs", self.policy == ExternalIps::Any),
            Origin::ClusterIP | Origin::NodePort => return None,
        };
        if is_trusted || !self.api_servers.contains(&key) || service.name == api_server() {
            return None;
        }
        let (ip, port, proto) = key;
        let problem = format!("an API server listens at {ip} port {port}/{}; the port is not served", proto.name());
        let warning = Warning::new(WarningKind::Refused, problem, "use another address or port");
        Some(warning.of(format_args!("Service {}", service.name)).at(field))
    }

    /// A description of the owner, if the address belongs to the cluster and not to this Service.
    fn clusters(&self, service: &Service, ip: IpAddr) -> Option<&'static str> {
        if service.cluster_ips.contains(&ip) {
            return None;
        }
        if self.world.is_cluster_address_of_others(ip, service) {
            return Some("is the cluster address of another Service");
        }
        self.ranges.iter().any(|range| range.contains(ip)).then_some("is in a range of --cluster-cidrs")
    }
}

const BALANCER_REMEDY: &str = "have the balancer publish an address of its own";

fn refusal(service: &Service, ip: IpAddr, owner: &str, remedy: &str) -> Warning {
    let problem = format!("{ip} {owner} and is not served for this Service");
    Warning::new(WarningKind::Refused, problem, remedy).of(format_args!("Service {}", service.name))
}

fn switched_off(service: &Service) -> Warning {
    Warning::new(
        WarningKind::Refused,
        "are not served (--external-ips=off)",
        "remove them, or ask the operator of the cluster",
    )
    .of(format_args!("Service {}", service.name))
    .at("spec.externalIPs")
}
