//! Node ports: at which addresses of this node they are served (docs/contract.md#node-ports). Health check node ports are
//! open at the same addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::addr::Family;
use lb_common::table::Origin;

use super::claim::Claim;
use super::endpoint::Here;
use super::policy::{NodePortAddresses, Policy};
use crate::model::{Holder, Prefix, Service, Warning, WarningKind, World};

const FLAG: &str = "--nodeport-addresses";
/// Number of addresses that a warning lists.
const ADDRESSES_MAX: usize = 8;

/// The addresses of this node that serve node ports, by family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePorts {
    v4: OfFamily,
    v6: OfFamily,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OfFamily {
    served: Vec<IpAddr>,
    listening: Vec<IpAddr>,
}

impl NodePorts {
    pub fn of(world: &World, policy: &Policy, here: &Here<'_>) -> Self {
        let of = |family| {
            let reach = Reach::of(&policy.node_ports, family);
            let served = served(&reach, world, here, family);
            OfFamily { listening: listening(&reach, &served, family), served }
        };
        Self { v4: of(Family::V4), v6: of(Family::V6) }
    }

    const fn family(&self, family: Family) -> &OfFamily {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Where clients dial node ports. Never a loopback address (NP-06).
    pub fn served(&self, family: Family) -> &[IpAddr] {
        &self.family(family).served
    }

    /// Where health check node ports are open: as `served`, or at the unspecified address.
    pub fn listening(&self, family: Family) -> &[IpAddr] {
        &self.family(family).listening
    }

    /// The claims of a Service with node ports.
    pub fn claims<'a>(&'a self, service: &Service) -> impl Iterator<Item = Claim> + use<'a> {
        let has_any = service.ports.iter().any(|port| port.node_port.is_some());
        let addresses = self.v4.served.iter().chain(&self.v6.served).filter(move |_| has_any);
        addresses.map(|ip| Claim::of_cluster(*ip, Origin::NodePort))
    }
}

/// What the setting means for one family.
enum Reach<'a> {
    Primary,
    Everywhere,
    In(Vec<&'a Prefix>),
}

impl<'a> Reach<'a> {
    fn of(wanted: &'a NodePortAddresses, family: Family) -> Self {
        let prefixes: Vec<&Prefix> = match wanted {
            NodePortAddresses::Primary => return Self::Primary,
            NodePortAddresses::All => return Self::Everywhere,
            NodePortAddresses::In(prefixes) => prefixes.iter().filter(|prefix| prefix.family() == family).collect(),
        };
        // kube-proxy: a list without a prefix of this family says nothing about this family.
        let is_everywhere = prefixes.is_empty() || prefixes.iter().any(|prefix| prefix.is_everything());
        if is_everywhere { Self::Everywhere } else { Self::In(prefixes) }
    }
}

fn served(reach: &Reach<'_>, world: &World, here: &Here<'_>, family: Family) -> Vec<IpAddr> {
    match reach {
        Reach::Primary => here.primary(family).filter(|ip| !ip.is_loopback()).into_iter().collect(),
        Reach::Everywhere => own(world, family).collect(),
        Reach::In(prefixes) => {
            own(world, family).filter(|ip| prefixes.iter().any(|prefix| prefix.contains(*ip))).collect()
        }
    }
}

/// kube-proxy listens at the unspecified address if node ports are served at all addresses. We do so as well if the Node
/// lists no address: a balancer must get an answer.
fn listening(reach: &Reach<'_>, served: &[IpAddr], family: Family) -> Vec<IpAddr> {
    match reach {
        Reach::Primary if served.is_empty() => vec![unspecified(family)],
        Reach::Everywhere => vec![unspecified(family)],
        Reach::Primary | Reach::In(_) => served.to_vec(),
    }
}

const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The node's own addresses of a family. Those that kube-proxy in ipvs mode binds are addresses of Services.
fn own(world: &World, family: Family) -> impl Iterator<Item = IpAddr> {
    let held = world.local_addresses().into_iter().flatten();
    let own = held.filter(|(_, holder)| **holder == Holder::Node).map(|(ip, _)| *ip);
    own.filter(move |ip| ip.is_ipv4() == (family == Family::V4) && !ip.is_loopback())
}

/// Warnings about the setting itself: prefixes without an address of this node, and a family of which none is listed.
pub fn warnings(world: &World, policy: &Policy) -> Vec<Warning> {
    let NodePortAddresses::In(prefixes) = &policy.node_ports else { return Vec::new() };
    if !policy.reads_interfaces() {
        return Vec::new();
    }
    let is_empty = |prefix: &&Prefix| !own(world, prefix.family()).any(|ip| prefix.contains(ip));
    let empty = prefixes.iter().filter(is_empty).map(|prefix| no_match(prefix, world));
    let is_unlisted = |family: &Family| {
        own(world, *family).next().is_some() && prefixes.iter().all(|prefix| prefix.family() != *family)
    };
    empty.chain(Family::ALL.into_iter().filter(is_unlisted).map(|family| unlisted(family, world))).collect()
}

fn no_match(prefix: &Prefix, world: &World) -> Warning {
    let problem = format!("no address of this node is in {prefix}; the node has {}", listed(world, prefix.family()));
    Warning::new(WarningKind::Hazard, problem, "name prefixes of these addresses, or write all or primary").at(FLAG)
}

fn unlisted(family: Family, world: &World) -> Warning {
    let name = family.name();
    let problem = format!(
        "lists no {name} prefix, so {name} node ports are served at all {name} addresses of this node, as by kube-proxy: {}",
        listed(world, family)
    );
    let remedy = format!("add the {name} prefixes that are to serve node ports");
    Warning::new(WarningKind::Hazard, problem, remedy).at(FLAG)
}

/// The first addresses of a family.
fn listed(world: &World, family: Family) -> String {
    let addresses: Vec<String> = own(world, family).map(|ip| ip.to_string()).collect();
    let more = addresses.len().saturating_sub(ADDRESSES_MAX);
    let first = addresses.iter().take(ADDRESSES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    match (addresses.len(), more) {
        (0, _) => format!("no {} address but loopback and link-local ones", family.name()),
        (_, 0) => first,
        (_, more) => format!("{first} and {more} more"),
    }
}

/// Warns that no node port of this family is served on this node. `None` if `warnings` says so.
pub fn no_address(policy: &Policy, family: Family) -> Option<Warning> {
    let name = family.name();
    match Reach::of(&policy.node_ports, family) {
        Reach::Primary => {
            let problem = format!("no {name} address of this node is known, so no node port of the family is served");
            let remedy =
                "give the Node an address of type InternalIP or ExternalIP, or name the right one with --node-name";
            let warning = Warning::new(WarningKind::BadField, problem, remedy);
            Some(warning.of(format_args!("Node {}", policy.node_name)).at("status.addresses"))
        }
        Reach::Everywhere => {
            let problem = format!(
                "no interface of this node has an {name} address, loopback and link-local ones apart, so no node port of the \
                 family is served"
            );
            let remedy = format!("give an interface an {name} address");
            Some(Warning::new(WarningKind::Hazard, problem, remedy).at(FLAG))
        }
        Reach::In(_) => None,
    }
}

#[cfg(test)]
mod tests;
