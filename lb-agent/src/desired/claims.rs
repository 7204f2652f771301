//! The claims of a Service: every address that it wants to serve.

use std::net::IpAddr;

use lb_common::table::{Mode, Origin};

use super::claim::{Claim, Rank};
use super::facts::Facts;
use super::mode;
use super::policy::{Policy, Services};
use super::protected::Protected;
use super::proxy_protocol;
use super::table::KubeProxy;
use crate::model::{IngressEntry, IpMode, Service, Warning, WarningKind};

/// Every address that this agent should serve, except addresses that belong to others.
pub fn claims(service: &Service, facts: &Facts<'_>, warnings: &mut Vec<Warning>) -> Vec<Claim> {
    let Facts { policy, protected, .. } = facts;
    let mut claims = load_balancer(service, policy, protected, warnings);
    if policy.services == Services::LoadBalancers {
        return claims;
    }
    let explicit = service.cluster_ips.iter().map(|ip| Claim::of_cluster(*ip, Origin::ClusterIP));
    let external = external_ips(service, protected, warnings).into_iter();
    let external = external.map(|ip| Claim::of_cluster(ip, Origin::ExternalIP));
    for claim in explicit.chain(external) {
        match claims.iter_mut().find(|known| known.ip == claim.ip) {
            None => claims.push(claim),
            // Both claims lead to the same decision, but only the balancer's address has source ranges.
            Some(known) if known.mode == Mode::VIP => known.rank = known.rank.min(claim.rank),
            // IPM-53: an externalIP is intercepted, whatever mode the balancer asks for.
            Some(known) => *known = claim,
        }
    }
    claims.extend(facts.node_ports.claims(service));
    claims
}

/// The externalIPs that the Service may use.
fn external_ips(service: &Service, protected: &Protected<'_>, warnings: &mut Vec<Warning>) -> Vec<IpAddr> {
    let (mut allowed, mut refused) = (service.external_ips.clone(), Vec::new());
    allowed.retain(|ip| {
        let refusal = protected.refuses_external_ip(service, *ip);
        let is_allowed = refusal.is_none();
        refused.extend(refusal);
        is_allowed
    });
    refused.dedup();
    warnings.append(&mut refused);
    allowed
}

/// The load-balancer addresses. The mode is decided per entry, never per Service (IPM-05).
fn load_balancer(
    service: &Service,
    policy: &Policy,
    protected: &Protected<'_>,
    warnings: &mut Vec<Warning>,
) -> Vec<Claim> {
    if service.ingress.is_empty() {
        return Vec::new();
    }
    warnings.extend(mode::warning(service));
    warnings.extend(proxy_protocol::warnings(service, policy));
    let of_service = mode::of_service(service, policy).map(|decision| (decision.mode, decision.rule));
    let mut claims: Vec<Claim> = Vec::with_capacity(service.ingress.len());
    for entry in &service.ingress {
        if let Some(refusal) = protected.refuses_ingress(service, entry.index, entry.ip) {
            warnings.push(refusal);
            continue;
        }
        let (mode, decided_by) = of_service.unwrap_or_else(|| mode::of_entry(entry.ip_mode.as_ref(), policy));
        let kube_proxy = kube_proxy(service, entry);
        let origin = Origin::LoadBalancer;
        let claim = Claim { ip: entry.ip, origin, rank: Rank::of(origin), mode, decided_by, header: None, kube_proxy };
        match claims.iter_mut().find(|known| known.ip == entry.ip) {
            None => claims.push(claim),
            Some(known) if known.mode == mode => {
                if kube_proxy == KubeProxy::Claims {
                    known.kube_proxy = kube_proxy;
                }
            }
            Some(known) => {
                // kube-proxy serves an address if any of its entries is VIP.
                if mode == Mode::VIP {
                    *known = claim;
                }
                warnings.push(contradiction(service, entry.index, entry.ip));
            }
        }
    }
    claims
}

/// kube-proxy looks only at the mode of the entry. It serves an address that is also an externalIP in any mode
/// (IPM-53).
pub fn kube_proxy(service: &Service, entry: &IngressEntry) -> KubeProxy {
    let is_vip = matches!(entry.ip_mode, None | Some(IpMode::VIP));
    if is_vip && !service.external_ips.contains(&entry.ip) { KubeProxy::Claims } else { KubeProxy::LeavesAlone }
}

fn contradiction(service: &Service, index: u32, ip: IpAddr) -> Warning {
    Warning::new(
        WarningKind::Duplicate,
        format!("{ip} appears twice with different modes; VIP counts"),
        "keep one entry",
    )
    .of(format_args!("Service {}", service.name))
    .at(format!("status.loadBalancer.ingress[{index}]"))
}
