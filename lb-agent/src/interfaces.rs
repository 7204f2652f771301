//! The network interfaces of this namespace, as netlink tells them: what is there, and what each leads to.
//!
//! State and decisions are plain values; only [`watch`] talks to the kernel. sysfs is never read: it may show another
//! namespace.

mod class;
mod facts;
mod globs;
mod netfilter;
pub mod watch;
mod why;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::addr::Family;
use lb_common::table::Port;

use crate::dataplane::links::Link;

pub use class::{InterfaceRules, Judgement, Surroundings, classify};
pub use facts::{Framing, InterfaceAddress, Kind, LinkFacts};
pub use globs::Globs;
pub use netfilter::BridgeNetfilter;
pub use why::Why;

/// One thing that netlink told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link is there, in this form.
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
    /// The links that the default routes use, all of them.
    DefaultRoutes(BTreeSet<u32>),
    /// Everything, after a start or a lost message: what is not told again is gone.
    Everything {
        links: Vec<LinkFacts>,
        addresses: Vec<(u32, InterfaceAddress)>,
        default_routes: BTreeSet<u32>,
    },
}

/// What is known of all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    links: BTreeMap<u32, LinkFacts>,
    addresses: BTreeMap<u32, BTreeSet<InterfaceAddress>>,
    default_routes: BTreeSet<u32>,
    /// That of all bridges.
    netfilter: BridgeNetfilter,
    listing: Listing,
}

/// Whether the links that are known are all of them.
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

    /// Takes in what holds for all bridges, of which nobody tells. Whether that has changed.
    pub fn follow_netfilter(&mut self, netfilter: BridgeNetfilter) -> bool {
        std::mem::replace(&mut self.netfilter, netfilter) != netfilter
    }

    /// Whether everything was listed once.
    pub fn is_listed(&self) -> bool {
        self.listing == Listing::Complete
    }

    pub const fn links(&self) -> &BTreeMap<u32, LinkFacts> {
        &self.links
    }

    /// Every address of every interface, apart from link-local ones.
    pub fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.values().flatten().map(|address| &address.ip)
    }

    /// What each link leads to, and why. `node_addresses` are those of the Node object.
    pub fn judged(&self, rules: &InterfaceRules, node_addresses: &BTreeSet<IpAddr>) -> BTreeMap<u32, Judgement> {
        let around = Surroundings {
            links: &self.links,
            addresses: &self.addresses,
            default_routes: &self.default_routes,
            node_addresses,
        };
        self.links.values().map(|link| (link.ifindex, classify(link, &around, rules))).collect()
    }

    /// What links are ports of, and which frames are for the node because of it: a bridge keeps those for its own MAC, and
    /// no others, whatever the MACs of its ports are. Other switches have MACs of their own.
    pub fn ports(&self) -> Vec<Port> {
        let port = |link: &LinkFacts| {
            let unbridged = Port::unbridged(link.ifindex);
            let Some(bridge) = link.controller else { return unbridged };
            match self.links.get(&bridge) {
                Some(LinkFacts { kind: Kind::Vrf, .. }) => unbridged,
                Some(LinkFacts { kind: Kind::Bridge, mac: Some(mac), netfilter, .. }) => {
                    let bits =
                        |family| if link.is_isolated { 0 } else { self.unfiltered_bits(bridge, *netfilter, family) };
                    let [unfiltered_bits4, unfiltered_bits6] = [Family::V4, Family::V6].map(bits);
                    Port { bridge, mac: *mac, unfiltered_bits4, unfiltered_bits6, ..unbridged }
                }
                Some(LinkFacts { kind: Kind::Hardware, mac: Some(mac), .. }) => Port { bridge, mac: *mac, ..unbridged },
                Some(_) | None => Port { bridge, flags: Port::ANY_MAC, ..unbridged },
            }
        };
        self.links.values().map(port).collect()
    }

    /// The bits of the bridge's longest prefix, if frames of the family between its ports do not traverse netfilter; else 0.
    fn unfiltered_bits(&self, bridge: u32, own: BridgeNetfilter, family: Family) -> u8 {
        if self.netfilter.or(own).has(family) {
            return 0;
        }
        let addresses = self.addresses.get(&bridge).into_iter().flatten();
        let of_family = |address: &&InterfaceAddress| address.ip.is_ipv4() == (family == Family::V4);
        let prefixes = addresses.filter(of_family).filter(|address| address.has_prefix());
        prefixes.map(|address| address.prefix_len).max().unwrap_or(0)
    }

    /// What is to be said of a link beside its class: that requests bypass netfilter, as answers do.
    pub fn remark(&self, port: &Port) -> Option<String> {
        let families = [(Family::V4, "IPv4"), (Family::V6, "IPv6")];
        let unfiltered = families.into_iter().filter(|(family, _)| port.unfiltered_bits(*family) != 0);
        let names: Vec<_> = unfiltered.map(|(_, name)| name).collect();
        let bridge = &self.links.get(&port.bridge)?.name;
        (!names.is_empty()).then(|| format!("{} between ports of {bridge}: past netfilter", names.join(" and ")))
    }

    /// The links that the dataplane should be attached to, and as what, by how they are judged.
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

    /// A second card of a node in a container is a veth; its address comes a moment after it, and may go.
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
        // The same address without a prefix is another one.
        interfaces.apply(Event::AddressGone { ifindex: 3, addr: host });
        assert!(!is_pod(&interfaces));
        interfaces.apply(Event::AddressGone { ifindex: 3, addr: prefix });
        assert!(is_pod(&interfaces));
    }

    #[test]
    fn frames_for_the_bridge_are_for_the_node() {
        let mac = |last| Some([2, 0, 0, 0, 0, last]);
        let port = |ifindex, controller| LinkFacts { controller, mac: mac(1), ..LinkFacts::pod_veth(ifindex, "port") };
        let mut interfaces = Interfaces::default();
        let of = |interfaces: &Interfaces, ifindex| {
            interfaces.ports().into_iter().find(|port| port.ifindex == ifindex).expect("every link is told")
        };
        interfaces.apply(Event::Link(port(2, None)));
        interfaces.apply(Event::Link(port(3, Some(9))));
        let unbridged = Port::unbridged(3);
        assert_eq!(of(&interfaces, 2), Port { ifindex: 2, ..unbridged });
        // The bridge is not known yet.
        assert_eq!(of(&interfaces, 3), Port { bridge: 9, flags: Port::ANY_MAC, ..unbridged });
        for (kind, expected) in [
            (Kind::Bridge, Port { bridge: 9, mac: [2, 0, 0, 0, 0, 9], ..unbridged }),
            (Kind::Hardware, Port { bridge: 9, mac: [2, 0, 0, 0, 0, 9], ..unbridged }),
            // Open vSwitch: its internal ports have MACs of their own.
            (Kind::Other, Port { bridge: 9, flags: Port::ANY_MAC, ..unbridged }),
            (Kind::Vrf, unbridged),
        ] {
            interfaces.apply(Event::Link(LinkFacts { kind, mac: mac(9), ..LinkFacts::pod_veth(9, "cni0") }));
            assert_eq!(of(&interfaces, 3), expected, "{kind:?}");
        }
    }

    #[test]
    fn ports_of_a_prefix_are_unfiltered_where_no_setting_says_otherwise() {
        let bridge = |netfilter| LinkFacts {
            kind: Kind::Bridge,
            mac: Some([2, 0, 0, 0, 0, 9]),
            netfilter,
            ..LinkFacts::pod_veth(9, "cni0")
        };
        let (none, v4) = (BridgeNetfilter::default(), BridgeNetfilter { v4: true, v6: false });
        let mut interfaces = Interfaces::default();
        let (host4, prefix4) = (InterfaceAddress::new([10, 0, 0, 1], 32), InterfaceAddress::new([10, 0, 0, 1], 24));
        let prefix6 = InterfaceAddress::new("fd00::1".parse::<IpAddr>().expect("an address"), 64);
        let mut bits = |addresses: &[InterfaceAddress], all, own, is_isolated| {
            interfaces.apply(Event::Link(bridge(own)));
            let port = LinkFacts { controller: Some(9), is_isolated, ..LinkFacts::pod_veth(3, "port") };
            interfaces.apply(Event::Link(port));
            interfaces.follow_netfilter(all);
            for addr in addresses {
                interfaces.apply(Event::Address { ifindex: 9, addr: *addr });
            }
            let port = interfaces.ports().into_iter().find(|port| port.ifindex == 3).expect("every link is told");
            (port.unfiltered_bits4, port.unfiltered_bits6)
        };
        assert_eq!(bits(&[], none, none, false), (0, 0), "no address");
        assert_eq!(bits(&[host4], none, none, false), (0, 0), "no prefix");
        assert_eq!(bits(&[prefix4], none, none, false), (24, 0));
        assert_eq!(bits(&[prefix6], none, none, false), (24, 64));
        assert_eq!(bits(&[InterfaceAddress::new([10, 0, 0, 1], 16)], none, none, false), (24, 64), "the longest");
        assert_eq!(bits(&[], v4, none, false), (0, 64));
        assert_eq!(bits(&[], none, v4, false), (0, 64), "the bridge's own");
        assert_eq!(bits(&[], BridgeNetfilter { v4: true, v6: true }, none, false), (0, 0));
        assert_eq!(bits(&[], none, none, true), (0, 0), "an isolated port hears the node only");
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
