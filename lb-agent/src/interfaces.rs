//! The network interfaces of this namespace, as netlink reports them, and what each one leads to.
//!
//! State and decisions are plain values; only [`watch`] talks to the kernel. sysfs is never read, because it may show
//! another namespace.

mod bridge;
mod class;
mod driver;
mod facts;
mod globs;
mod netfilter;
pub mod survey;
mod uplinks;
pub mod watch;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::dataplane::links::Link;
use crate::model::Holder;

pub use bridge::Unfiltered;
pub use class::{InterfaceRules, Judgement, Surroundings, classify};
pub use driver::Objection;
pub use facts::{Framing, InterfaceAddress, Kind, LinkFacts};
pub use globs::Globs;
pub use netfilter::BridgeNetfilter;
pub use why::Why;

/// The interface to which kube-proxy in ipvs mode binds the addresses of Services.
pub const IPVS_INTERFACE: &str = "kube-ipvs0";

/// An event from netlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A new or changed link.
    Link(LinkFacts),
    LinkGone(u32),
    Address {
        ifindex: u32,
        addr: InterfaceAddress,
    },
    AddressGone {
        ifindex: u32,
        addr: InterfaceAddress,
    },
    /// The links of all default routes.
    DefaultRoutes(BTreeSet<u32>),
    /// The complete state, after a start or a lost message. Anything not listed is gone.
    Everything {
        links: Vec<LinkFacts>,
        addresses: Vec<(u32, InterfaceAddress)>,
        default_routes: BTreeSet<u32>,
    },
}

/// The known state of all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    links: BTreeMap<u32, LinkFacts>,
    addresses: BTreeMap<u32, BTreeSet<InterfaceAddress>>,
    default_routes: BTreeSet<u32>,
    /// The namespace-wide setting for all bridges.
    netfilter: BridgeNetfilter,
    listing: Listing,
}

/// Whether all links are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Listing {
    #[default]
    Incomplete,
    Complete,
}

impl Interfaces {
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Link(link) => drop(self.links.insert(link.ifindex, link)),
            Event::LinkGone(ifindex) => {
                self.links.remove(&ifindex);
                self.addresses.remove(&ifindex);
                self.default_routes.remove(&ifindex);
            }
            Event::Address { ifindex, addr } => drop(self.addresses.entry(ifindex).or_default().insert(addr)),
            Event::AddressGone { ifindex, addr } => {
                if let Some(addresses) = self.addresses.get_mut(&ifindex) {
                    addresses.remove(&addr);
                }
            }
            Event::DefaultRoutes(links) => self.default_routes = links,
            Event::Everything { links, addresses, default_routes } => {
                let netfilter = self.netfilter;
                *self = Self { default_routes, netfilter, listing: Listing::Complete, ..Self::default() };
                self.links.extend(links.into_iter().map(|link| (link.ifindex, link)));
                for (ifindex, addr) in addresses {
                    self.addresses.entry(ifindex).or_default().insert(addr);
                }
            }
        }
    }

    /// Stores the namespace-wide setting, for which there are no events. Returns whether it changed.
    pub fn follow_netfilter(&mut self, netfilter: BridgeNetfilter) -> bool {
        std::mem::replace(&mut self.netfilter, netfilter) != netfilter
    }

    /// Whether a complete listing has been received.
    pub fn is_listed(&self) -> bool {
        self.listing == Listing::Complete
    }

    pub const fn links(&self) -> &BTreeMap<u32, LinkFacts> {
        &self.links
    }

    /// Every address of every interface, except link-local ones.
    pub fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.values().flatten().map(|address| &address.ip)
    }

    /// The same addresses, each once, with what it is for.
    pub fn held_addresses(&self) -> BTreeMap<IpAddr, Holder> {
        let mut held = BTreeMap::new();
        for (ifindex, addresses) in &self.addresses {
            let is_ipvs = self.links.get(ifindex).is_some_and(|link| link.name == IPVS_INTERFACE);
            let holder = if is_ipvs { Holder::KubeProxy } else { Holder::Node };
            for address in addresses {
                held.entry(address.ip).and_modify(|known: &mut Holder| *known = holder.min(*known)).or_insert(holder);
            }
        }
        held
    }

    /// The class of each link, and the reason. `node_addresses` are the addresses of the Node object.
    pub fn judged(&self, rules: &InterfaceRules, node_addresses: &BTreeSet<IpAddr>) -> BTreeMap<u32, Judgement> {
        let around = Surroundings {
            links: &self.links,
            addresses: &self.addresses,
            default_routes: &self.default_routes,
            node_addresses,
        };
        self.links.values().map(|link| (link.ifindex, classify(link, &around, rules))).collect()
    }

    /// The links to attach, with their class, according to `judged`.
    pub fn wanted(&self, judged: &BTreeMap<u32, Judgement>) -> BTreeMap<u32, Link> {
        let class = |link: &LinkFacts| {
            let class = judged.get(&link.ifindex)?.class?;
            let Framing::Known(header) = link.framing else { return None };
            Some((link.ifindex, Link { ifindex: link.ifindex, name: link.name.clone(), class, header }))
        };
        self.links.values().filter_map(class).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::links::Class;

    fn rules() -> InterfaceRules {
        InterfaceRules { workload: Globs::Auto, uplink: Globs::Auto }
    }

    fn names(interfaces: &Interfaces) -> Vec<(String, Class)> {
        let judged = interfaces.judged(&rules(), &BTreeSet::new());
        interfaces.wanted(&judged).into_values().map(|link| (link.name, link.class)).collect()
    }

    #[test]
    fn follows_events() {
        let mut interfaces = Interfaces::default();
        interfaces.apply(Event::Link(LinkFacts::pod_veth(2, "veth0")));
        assert_eq!(names(&interfaces), [("veth0".into(), Class::Workload)]);
        interfaces.apply(Event::Link(LinkFacts::pod_veth(2, "renamed")));
        assert_eq!(names(&interfaces), [("renamed".into(), Class::Workload)]);
        interfaces.apply(Event::DefaultRoutes([2].into()));
        assert_eq!(names(&interfaces), [("renamed".into(), Class::Uplink)]);
        interfaces.apply(Event::LinkGone(2));
        assert_eq!(interfaces, Interfaces::default());
    }

    #[test]
    fn addresses_come_and_go() {
        let mut interfaces = Interfaces::default();
        let addr = InterfaceAddress::new([192, 0, 2, 1], 24);
        interfaces.apply(Event::Link(LinkFacts { kind: Kind::Hardware, ..LinkFacts::pod_veth(3, "eth0") }));
        assert_eq!(names(&interfaces), []);
        interfaces.apply(Event::Address { ifindex: 3, addr });
        assert_eq!(names(&interfaces), [("eth0".into(), Class::Uplink)]);
        interfaces.apply(Event::AddressGone { ifindex: 3, addr });
        assert_eq!(names(&interfaces), []);
    }

    /// A second card of a node in a container is a veth. Its address appears a moment later and may be removed.
    #[test]
    fn a_prefix_makes_a_card_of_a_veth_for_as_long_as_it_is_there() {
        let rules = InterfaceRules { uplink: Globs::None, ..rules() };
        let mut interfaces = Interfaces::default();
        interfaces.apply(Event::Link(LinkFacts::pod_veth(3, "lan0")));
        let is_pod = |interfaces: &Interfaces| interfaces.judged(&rules, &BTreeSet::new())[&3].class.is_some();
        assert!(is_pod(&interfaces));
        let (prefix, host) = (InterfaceAddress::new([172, 31, 0, 1], 24), InterfaceAddress::new([172, 31, 0, 1], 32));
        interfaces.apply(Event::Address { ifindex: 3, addr: host });
        assert!(is_pod(&interfaces));
        interfaces.apply(Event::Address { ifindex: 3, addr: prefix });
        assert!(!is_pod(&interfaces));
        // The same address with /32 is a different entry.
        interfaces.apply(Event::AddressGone { ifindex: 3, addr: host });
        assert!(!is_pod(&interfaces));
        interfaces.apply(Event::AddressGone { ifindex: 3, addr: prefix });
        assert!(is_pod(&interfaces));
    }

    #[test]
    fn addresses_of_services_are_told_from_those_of_the_node() {
        let mut interfaces = Interfaces::default();
        let link = |ifindex, name: &str| LinkFacts { kind: Kind::Other, ..LinkFacts::pod_veth(ifindex, name) };
        let address = |ifindex, last| (ifindex, InterfaceAddress::new([192, 0, 2, last], 32));
        interfaces.apply(Event::Everything {
            links: vec![link(2, IPVS_INTERFACE), link(3, "dummy0")],
            addresses: vec![address(2, 1), address(2, 2), address(3, 2), address(3, 3)],
            default_routes: BTreeSet::new(),
        });
        let held = interfaces.held_addresses();
        let holders: Vec<Holder> = held.into_values().collect();
        assert_eq!(holders, [Holder::KubeProxy, Holder::Node, Holder::Node]);
    }

    #[test]
    fn everything_replaces_everything() {
        let mut interfaces = Interfaces::default();
        interfaces.apply(Event::Link(LinkFacts::pod_veth(2, "old")));
        interfaces.apply(Event::Everything {
            links: vec![LinkFacts::pod_veth(3, "new")],
            addresses: Vec::new(),
            default_routes: BTreeSet::new(),
        });
        assert_eq!(names(&interfaces), [("new".into(), Class::Workload)]);
    }
}
