//! Warnings about balancers' addresses that this node itself holds and that our decision leaves alone: the guard does
//! not cover these.

use std::net::IpAddr;

use lb_common::table::{Mode, Origin};

use super::claim::Claim;
use super::endpoint::Here;
use super::policy::{Policy, Services};
use super::table::KubeProxy;
use crate::model::{Service, Warning, WarningKind, World};

/// Warnings for the owner of a Service. Empty without a kube-proxy, because then nothing else claims an address.
pub fn warnings(service: &Service, claims: &[Claim], policy: &Policy, here: &Here<'_>, world: &World) -> Vec<Warning> {
    if policy.services == Services::All {
        return Vec::new();
    }
    let is_local = |ip: IpAddr| here.has(ip) || world.is_local_address(ip);
    let is_exposed = |claim: &&Claim| {
        claim.origin == Origin::LoadBalancer
            && matches!(claim.mode, Mode::Proxy | Mode::Split)
            && claim.kube_proxy == KubeProxy::Claims
            && is_local(claim.ip)
    };
    claims.iter().filter(is_exposed).map(|claim| exposed(service, claim.ip)).collect()
}

fn exposed(service: &Service, ip: IpAddr) -> Warning {
    let problem = format!(
        "{ip} is an address of this node: its hostPorts and sockets there are left alone, and so a kube-proxy on this \
         node serves the address as well, as the status does not say Proxy"
    );
    Warning::new(WarningKind::Hazard, problem, "have the status say ipMode: Proxy")
        .of(format_args!("Service {}", service.name))
        .at("status.loadBalancer.ingress")
}
