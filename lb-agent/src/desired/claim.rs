//! Claims: the addresses that a Service wants to answer on, each with its mode.

use std::net::IpAddr;

use lb_common::table::{Mode, Origin, Rule};

use super::mode;
use super::policy::Policy;
use crate::model::{Service, Warning, WarningKind};

/// One address of a Service; all its ports are served there (spec 1.2: `ports[]` of the entry is ignored).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub ip: IpAddr,
    pub origin: Origin,
    pub mode: Mode,
    pub decided_by: Rule,
}

impl Claim {
    /// Whether anybody is to be served here: warnings about how are of no interest otherwise.
    pub fn is_served(&self) -> bool {
        self.mode != Mode::Proxy
    }
}

/// The load-balancer addresses. The decision is per entry, never per Service (IPM-05).
pub fn claims(service: &Service, policy: &Policy, warnings: &mut Vec<Warning>) -> Vec<Claim> {
    if service.ingress.is_empty() {
        return Vec::new();
    }
    let of_service = mode::of_service(service, policy, warnings);
    let mut claims: Vec<Claim> = Vec::with_capacity(service.ingress.len());
    for entry in &service.ingress {
        let (mode, decided_by) = of_service.unwrap_or_else(|| mode::of_entry(entry.ip_mode.as_ref(), policy));
        let claim = Claim { ip: entry.ip, origin: Origin::LoadBalancer, mode, decided_by };
        match claims.iter_mut().find(|known| known.ip == entry.ip) {
            None => claims.push(claim),
            Some(known) if known.mode == mode => {}
            Some(known) => {
                // kube-proxy serves an address when any of its entries is a VIP.
                if mode == Mode::VIP {
                    *known = claim;
                }
                warnings.push(contradiction(service, entry.index, entry.ip));
            }
        }
    }
    claims
}

fn contradiction(service: &Service, index: u32, ip: IpAddr) -> Warning {
    Warning::new(
        WarningKind::Duplicate,
        format!("{ip} stands twice with different modes; VIP counts"),
        "keep one entry",
    )
    .of(format_args!("Service {}", service.name))
    .at(format!("status.loadBalancer.ingress[{index}]"))
}
