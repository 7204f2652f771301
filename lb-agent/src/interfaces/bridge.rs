//! Bridges: the rows of `ports`, and whether frames between the ports of a bridge traverse netfilter.

use std::collections::BTreeMap;
use std::fmt;

use lb_common::addr::Family;
use lb_common::table::Port;

use super::{BridgeNetfilter, InterfaceAddress, Interfaces, Judgement, Kind, LinkFacts};
use crate::dataplane::links::{Class, Mac};
use crate::interfaces::facts::Framing;

/// A bridge with pods whose frames between ports do not traverse netfilter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfiltered {
    pub bridge: String,
    families: Vec<Family>,
    way: Way,
}

/// How requests from one port reach an endpoint at another port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Across the bridge, like the replies.
    Across,
    /// Through the node's stack, whose conntrack does not see the replies. The bridge has no prefix, so neighbours
    /// cannot be recognised.
    ByTheNode,
}

impl Unfiltered {
    /// Shell commands that make the frames traverse netfilter.
    pub fn remedy(&self) -> String {
        let settings = self.families.iter().map(|family| match family {
            Family::V4 => " net.bridge.bridge-nf-call-iptables=1",
            Family::V6 => " net.bridge.bridge-nf-call-ip6tables=1",
        });
        let cure = format!("modprobe br_netfilter; sysctl{}", settings.collect::<String>());
        match self.way {
            Way::Across => format!("if policies must apply between pods of this bridge: {cure}"),
            Way::ByTheNode => format!("{cure}; or give the bridge an address with the pods' prefix"),
        }
    }
}

impl fmt::Display for Unfiltered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let families = names(&self.families);
        write!(f, "{families} between ports of {} bypasses netfilter", self.bridge)?;
        f.write_str(match self.way {
            Way::Across => {
                ": requests to endpoints on the client's own bridge bypass the rules of the node, as replies do"
            }
            Way::ByTheNode => {
                ", and the bridge has no prefix: connections to endpoints on the client's own bridge hang if rules \
                 drop packets that conntrack calls invalid"
            }
        })
    }
}

fn names(families: &[Family]) -> String {
    families.iter().map(|family| family.name()).collect::<Vec<_>>().join(" and ")
}

impl Interfaces {
    /// The bridge of each link, the destination MAC of frames for the node, and whether packets have a link header. A bridge
    /// keeps only frames for its own MAC, whatever the MACs of its ports are. Ports of other switches have MACs of their own.
    /// Without a bridge, the MAC is the link's own.
    pub fn ports(&self) -> Vec<Port> {
        let port = |link: &LinkFacts| {
            let bare = if link.framing == Framing::NOTHING { Port::BARE } else { 0 };
            let own = link.mac.filter(|_| link.framing == Framing::ETHERNET).unwrap_or_default();
            let unbridged = Port { flags: bare, mac: own, ..Port::unbridged(link.ifindex) };
            let Some(bridge) = link.controller else { return unbridged };
            match self.links.get(&bridge) {
                Some(LinkFacts { kind: Kind::Vrf, .. }) => unbridged,
                Some(LinkFacts { kind: Kind::Bridge, mac: Some(mac), netfilter, .. }) => {
                    let bits = |family| match self.unfiltered_bits(bridge, *netfilter, family) {
                        Some(bits) if !link.is_isolated => bits,
                        Some(_) | None => 0,
                    };
                    let [unfiltered_bits4, unfiltered_bits6] = Family::ALL.map(bits);
                    Port { bridge, mac: *mac, unfiltered_bits4, unfiltered_bits6, ..unbridged }
                }
                Some(LinkFacts { kind: Kind::Hardware, mac: Some(mac), .. }) => Port { bridge, mac: *mac, ..unbridged },
                Some(_) | None => Port { bridge, flags: bare | Port::ANY_MAC, mac: Mac::default(), ..unbridged },
            }
        };
        self.links.values().map(port).collect()
    }

    /// The length of the bridge's longest prefix (0: none), if frames of the family between its ports do not traverse
    /// netfilter. None if they do, or if the bridge has no address of the family.
    fn unfiltered_bits(&self, bridge: u32, own: BridgeNetfilter, family: Family) -> Option<u8> {
        if self.netfilter.or(own).has(family) {
            return None;
        }
        self.addresses_of(bridge, family).map(|address| if address.has_prefix() { address.prefix_len } else { 0 }).max()
    }

    /// The remark that requests bypass netfilter at this link, as the replies do.
    pub fn remark(&self, port: &Port) -> Option<String> {
        let families: Vec<_> = Family::ALL.into_iter().filter(|family| port.unfiltered_bits(*family) != 0).collect();
        let bridge = &self.links.get(&port.bridge)?.name;
        (!families.is_empty()).then(|| format!("{} between ports of {bridge}: bypasses netfilter", names(&families)))
    }

    /// The bridges with pods whose frames between ports do not traverse netfilter. A bridge without an address of a
    /// family does not route that family.
    pub fn unfiltered(&self, judged: &BTreeMap<u32, Judgement>) -> Vec<Unfiltered> {
        let is_pod = |link: &&LinkFacts| {
            judged.get(&link.ifindex).is_some_and(|judgement| judgement.class == Some(Class::Workload))
        };
        let has_pods = |bridge: u32| {
            self.links.values().filter(is_pod).any(|link| link.controller == Some(bridge) && !link.is_isolated)
        };
        let bridges = self.links.values().filter(|link| link.kind == Kind::Bridge && has_pods(link.ifindex));
        let of_bridge = |link: &LinkFacts| {
            let way = |family| match self.unfiltered_bits(link.ifindex, link.netfilter, family)? {
                0 => Some(Way::ByTheNode),
                _ => Some(Way::Across),
            };
            [Way::Across, Way::ByTheNode].map(|of| {
                let families = Family::ALL.into_iter().filter(|family| way(*family) == Some(of));
                Unfiltered { bridge: link.name.clone(), families: families.collect(), way: of }
            })
        };
        bridges.flat_map(of_bridge).filter(|unfiltered| !unfiltered.families.is_empty()).collect()
    }

    fn addresses_of(&self, ifindex: u32, family: Family) -> impl Iterator<Item = &InterfaceAddress> {
        let addresses = self.addresses.get(&ifindex).into_iter().flatten();
        addresses.filter(move |address| address.ip.is_ipv4() == (family == Family::V4))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use super::*;
    use crate::interfaces::{Event, Globs, InterfaceRules};

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
        assert_eq!(of(&interfaces, 2), Port { ifindex: 2, mac: [2, 0, 0, 0, 0, 1], ..unbridged });
        // The bridge is not known yet.
        assert_eq!(of(&interfaces, 3), Port { bridge: 9, flags: Port::ANY_MAC, ..unbridged });
        for (kind, expected) in [
            (Kind::Bridge, Port { bridge: 9, mac: [2, 0, 0, 0, 0, 9], ..unbridged }),
            (Kind::Hardware, Port { bridge: 9, mac: [2, 0, 0, 0, 0, 9], ..unbridged }),
            // Open vSwitch: its internal ports have MACs of their own.
            (Kind::Other, Port { bridge: 9, flags: Port::ANY_MAC, ..unbridged }),
            (Kind::Vrf, Port { mac: [2, 0, 0, 0, 0, 1], ..unbridged }),
        ] {
            interfaces.apply(Event::Link(LinkFacts { kind, mac: mac(9), ..LinkFacts::pod_veth(9, "cni0") }));
            assert_eq!(of(&interfaces, 3), expected, "{kind:?}");
        }
    }

    #[test]
    fn links_without_a_header_are_marked() {
        let mac = Some([2, 0, 0, 0, 0, 1]);
        let bare =
            |controller| LinkFacts { framing: Framing::NOTHING, controller, mac, ..LinkFacts::pod_veth(2, "tun0") };
        for (controller, expected) in [(None, Port::BARE), (Some(9), Port::BARE | Port::ANY_MAC)] {
            let mut interfaces = Interfaces::default();
            interfaces.apply(Event::Link(bare(controller)));
            interfaces.apply(Event::Link(LinkFacts::pod_veth(3, "veth3")));
            let flags: Vec<_> = interfaces.ports().iter().map(|port| (port.ifindex, port.flags, port.mac)).collect();
            assert_eq!(flags, [(2, expected, [0; 6]), (3, 0, [0; 6])], "{controller:?}");
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
    fn bridges_past_netfilter_are_told_by_what_becomes_of_requests() {
        let bridge = LinkFacts { kind: Kind::Bridge, ..LinkFacts::pod_veth(9, "cni0") };
        let port = LinkFacts { controller: Some(9), ..LinkFacts::pod_veth(3, "veth3") };
        let mut interfaces = Interfaces::default();
        interfaces.apply(Event::Link(bridge));
        let told = |interfaces: &Interfaces| {
            let rules = InterfaceRules { workload: Globs::Auto, uplink: Globs::None };
            let unfiltered = interfaces.unfiltered(&interfaces.judged(&rules, &BTreeSet::new()));
            unfiltered.into_iter().map(|unfiltered| (unfiltered.families, unfiltered.way)).collect::<Vec<_>>()
        };
        let add = |interfaces: &mut Interfaces, ip: &str, prefix_len| {
            let addr = InterfaceAddress::new(ip.parse::<IpAddr>().expect("an address"), prefix_len);
            interfaces.apply(Event::Address { ifindex: 9, addr });
        };
        add(&mut interfaces, "10.0.0.1", 24);
        assert_eq!(told(&interfaces), [], "no port");
        interfaces.apply(Event::Link(LinkFacts { is_isolated: true, ..port.clone() }));
        assert_eq!(told(&interfaces), [], "an isolated port reaches no other");
        interfaces.apply(Event::Link(port));
        assert_eq!(told(&interfaces), [(vec![Family::V4], Way::Across)], "it routes no IPv6");
        add(&mut interfaces, "fd00::1", 128);
        let both = [(vec![Family::V4], Way::Across), (vec![Family::V6], Way::ByTheNode)];
        assert_eq!(told(&interfaces), both);
        add(&mut interfaces, "fd00::1", 64);
        assert_eq!(told(&interfaces), [(vec![Family::V4, Family::V6], Way::Across)]);
        interfaces.follow_netfilter(BridgeNetfilter { v4: true, v6: false });
        assert_eq!(told(&interfaces), [(vec![Family::V6], Way::Across)]);
        interfaces.follow_netfilter(BridgeNetfilter { v4: true, v6: true });
        assert_eq!(told(&interfaces), []);
    }
}
