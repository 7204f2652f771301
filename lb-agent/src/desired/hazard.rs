//! Warnings about configurations that are valid but known to hurt (docs/contract.md#known-to-hurt), if the object
//! itself shows it.

use std::collections::BTreeSet;

use lb_common::table::{Mode, Origin};

use super::claim::Claim;
use super::endpoint::{ByPort, Here};
use super::proxy_protocol::Decision;
use super::scope::Supply;
use super::table::KubeProxy;
use super::usable::{self, Uses};
use crate::family::TableAddr;
use crate::model::{EndpointSlice, Service, ServicePort, TrafficPolicy, Warning, WarningKind};

/// Number of ports that a warning lists.
const PORTS_MAX: usize = 5;

const AWS_TYPE: &str = "service.beta.kubernetes.io/aws-load-balancer-type";
const AWS_TARGET_TYPE: &str = "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type";
const AWS_ATTRIBUTES: &str = "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes";
const OCI_PRESERVE: &str = "oci-network-load-balancer.oraclecloud.com/is-preserve-source";

/// The annotations that are read.
pub const KEYS: [&str; 4] = [AWS_TYPE, AWS_TARGET_TYPE, AWS_ATTRIBUTES, OCI_PRESERVE];

/// Warnings for a Service whose addresses are left to the balancer.
pub fn warnings(service: &Service, claims: &[Claim]) -> Vec<Warning> {
    let is_left = |claim: &&Claim| claim.origin == Origin::LoadBalancer && claim.mode == Mode::Proxy;
    if !claims.iter().any(|claim| is_left(&claim)) {
        return Vec::new();
    }
    let mut warnings: Vec<Warning> = preserving(service).map(|key| preserved(service, key)).into_iter().collect();
    // The controller that writes the status knows the balancer. An override may have been set without that knowledge.
    let is_overridden = claims.iter().filter(is_left).any(|claim| claim.kube_proxy == KubeProxy::Claims);
    if is_overridden && service.external_policy == TrafficPolicy::Local {
        warnings.push(local(service));
    }
    warnings
}

/// Warns of source ranges that no node enforces, as no kube-proxy runs: the balancer must let the nodes in.
pub fn unenforced(service: &Service, claims: &[Claim]) -> Option<Warning> {
    let is_left = |claim: &Claim| is_left_by_us(claim) && claim.mode == Mode::Proxy;
    (claims.iter().any(is_left) && !service.source_ranges.is_empty()).then(|| {
        Warning::new(
            WarningKind::Hazard,
            "is enforced by no node, as connections are left to the balancer: it must let in what the ranges name, and this \
             node",
            "have the balancer enforce them, or annotate lb-agent.io/ip-mode: VIP",
        )
        .of(format_args!("Service {}", service.name))
        .at("spec.loadBalancerSourceRanges")
    })
}

/// Left to the balancer, in part at least, by our annotation or flag and not by the status.
fn is_left_by_us(claim: &Claim) -> bool {
    claim.kube_proxy == KubeProxy::Claims && claim.mode != Mode::VIP
}

/// The annotation that says that the balancer preserves client addresses.
fn preserving(service: &Service) -> Option<&'static str> {
    let value = |key: &str| service.annotations.get(key).map(|value| &**value);
    if value(OCI_PRESERVE) == Some("true") {
        return Some(OCI_PRESERVE);
    }
    let attribute = value(AWS_ATTRIBUTES)
        .and_then(|list| list.split(',').find_map(|item| item.trim().strip_prefix("preserve_client_ip.enabled=")));
    match attribute {
        Some("true") => return Some(AWS_ATTRIBUTES),
        Some(_) => return None,
        None => {}
    }
    // Instance targets, the default, preserve client addresses unless an attribute says otherwise.
    let is_network_balancer = matches!(value(AWS_TYPE), Some("nlb" | "external"));
    (is_network_balancer && value(AWS_TARGET_TYPE) != Some("ip")).then_some(AWS_TYPE)
}

/// Warns if a kube-proxy on this node rejects or drops traffic that only our decision leaves to the balancer. Its
/// filter rules act before NAT, so the guard cannot prevent this: IPM-30 and IPM-41 hold only if the status says Proxy.
/// `slices` are those of the Service.
pub fn filters(
    service: &Service,
    claims: &[Claim],
    header: Option<&Decision>,
    slices: &[&EndpointSlice],
    here: &Here<'_>,
) -> Vec<Warning> {
    let mut refused = BTreeSet::new();
    let mut dropped = BTreeSet::new();
    for claim in claims.iter().filter(|claim| is_left_by_us(claim)) {
        // Of some ports the header decides.
        let is_left = |port: &&ServicePort| header.is_none_or(|header| is_left_by_us(&header.of_port(*claim, port)));
        for port in service.ports.iter().filter(is_left) {
            let supply = if claim.ip.is_ipv4() {
                supply::<[u8; 4]>(port, slices, here)
            } else {
                supply::<[u8; 16]>(port, slices, here)
            };
            let is_local = service.external_policy == TrafficPolicy::Local;
            // Mode Router leaves nothing to the balancer that an endpoint here can answer.
            let has_none = if is_local && claim.mode != Mode::Router { !supply.local } else { !supply.anywhere };
            let set = if supply.anywhere { &mut dropped } else { &mut refused };
            if has_none {
                set.insert((port.port, port.proto.name()));
            }
        }
    }
    let refuses = "has no endpoint, so a kube-proxy on this node rejects connections to it at once";
    let drops = "has no endpoint on this node and the policy is Local, so a kube-proxy on this node drops connections to it, \
         and clients time out";
    let told = [(refused, refuses), (dropped, drops)].into_iter().filter(|(ports, _)| !ports.is_empty());
    // Router passes only where kube-proxy has no endpoint either, and refuses.
    let is_filtered = |claim: &Claim| is_left_by_us(claim) && claim.mode != Mode::Router;
    let is_filtered = !service.source_ranges.is_empty() && claims.iter().any(is_filtered);
    let filtered = is_filtered.then(|| filtered(service));
    told.map(|(ports, what)| unsupplied(service, &ports, what)).chain(filtered).collect()
}

fn supply<A: TableAddr>(port: &ServicePort, slices: &[&EndpointSlice], here: &Here<'_>) -> Supply {
    let candidates = ByPort::<A>::of(slices).candidates(port, here);
    usable::usable(&candidates, here, Uses { cluster: true, local: true }).supply()
}

fn unsupplied(service: &Service, ports: &BTreeSet<(u16, &str)>, what: &str) -> Warning {
    let listed: Vec<String> = ports.iter().take(PORTS_MAX).map(|(port, proto)| format!("{port}/{proto}")).collect();
    let more = ports.len().saturating_sub(PORTS_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    let problem = format!(
        "leaves {}{rest} to the balancer while the status does not say Proxy; it {what}, before the guard can act",
        listed.join(", ")
    );
    Warning::new(WarningKind::Hazard, problem, "have the status say ipMode: Proxy, or give the Service endpoints")
        .of(format_args!("Service {}", service.name))
        .at("status.loadBalancer.ingress")
}

fn preserved(service: &Service, key: &str) -> Warning {
    Warning::new(
        WarningKind::Hazard,
        "says that the balancer keeps the client's address, and the mode is Proxy: if the balancer sends a pod's \
         connection back to the pod's own node, the reply bypasses the balancer, and the client times out",
        "annotate lb-agent.io/ip-mode: VIP, or have the balancer use its own address",
    )
    .of(format_args!("Service {}", service.name))
    .at(format!("metadata.annotations[{key}]"))
}

fn local(service: &Service) -> Warning {
    Warning::new(
        WarningKind::Hazard,
        "is Local, and the status does not say Proxy: upstream leaves open what Proxy means then (kubernetes #123714), \
         and if the balancer keeps client addresses, pods of the node that it chooses get no reply",
        "make sure that the balancer uses its own address (PROXY protocol, full NAT), or annotate lb-agent.io/ip-mode: \
         VIP",
    )
    .of(format_args!("Service {}", service.name))
    .at("spec.externalTrafficPolicy")
}

fn filtered(service: &Service) -> Warning {
    Warning::new(
        WarningKind::Hazard,
        "is enforced by a kube-proxy on this node also for connections left to the balancer, as the status does not \
         say Proxy: iptables mode drops all of them, nftables mode those from outside the ranges",
        "have the status say ipMode: Proxy, or leave the ranges to the balancer's own settings",
    )
    .of(format_args!("Service {}", service.name))
    .at("spec.loadBalancerSourceRanges")
}
