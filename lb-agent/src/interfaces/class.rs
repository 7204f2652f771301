//! What an interface leads to: a pure function of its properties and its surroundings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Globs, InterfaceAddress, Kind, LinkFacts, Why};
use crate::dataplane::links::Class;
use crate::interfaces::facts::{Framing, Peer};

/// The interfaces that the operator chose for each class.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceRules {
    pub workload: Globs,
    pub uplink: Globs,
}

/// The state besides the link itself that decides its class.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub links: &'a BTreeMap<u32, LinkFacts>,
    pub addresses: &'a BTreeMap<u32, BTreeSet<InterfaceAddress>>,
    /// The links of the default routes.
    pub default_routes: &'a BTreeSet<u32>,
    /// The addresses of this node's Node object; empty if there is no such object.
    pub node_addresses: &'a BTreeSet<IpAddr>,
}

/// The class of a link, and the rule that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// `None` if nothing is attached.
    pub class: Option<Class>,
    pub why: Why,
}

impl Judgement {
    const fn uplink(why: Why) -> Self {
        Self { class: Some(Class::Uplink), why }
    }

    const fn workload(why: Why) -> Self {
        Self { class: Some(Class::Workload), why }
    }

    const fn left_alone(why: Why) -> Self {
        Self { class: None, why }
    }
}

/// Judges a link. A link is refused if the programs cannot read its link header.
pub fn classify(link: &LinkFacts, around: &Surroundings<'_>, rules: &InterfaceRules) -> Judgement {
    let Judgement { class, why } = class_and_reason(link, around, rules);
    match &link.framing {
        Framing::Other(device) if class.is_some() => {
            Judgement::left_alone(Why::UnknownHeader(device.clone(), Box::new(why)))
        }
        Framing::Known(_) | Framing::Other(_) => Judgement { class, why },
    }
}

/// If both classes match, uplink wins. A port has the class of its bridge, unless a glob names the port.
fn class_and_reason(link: &LinkFacts, around: &Surroundings<'_>, rules: &InterfaceRules) -> Judgement {
    if link.kind == Kind::Loopback {
        return Judgement::left_alone(Why::Loopback);
    }
    if let Some(why) = uplink(link, around, &rules.uplink) {
        return Judgement::uplink(why);
    }
    match &rules.workload {
        Globs::Names(names) if names.matches(&link.name) => return Judgement::workload(Why::NamedWorkload),
        Globs::Names(_) | Globs::None | Globs::Auto => {}
    }
    if let Some(bridge) = bridge_of(link, around).filter(|bridge| uplink(bridge, around, &rules.uplink).is_some()) {
        return Judgement::uplink(Why::PortOfUplink(bridge.name.clone()));
    }
    match rules.workload {
        Globs::Names(_) => Judgement::left_alone(Why::OthersNamed),
        Globs::None => Judgement::left_alone(Why::NoneWanted),
        // A link that faces the network is no workload, even if uplinks are not served.
        Globs::Auto => match network(link, around).map_or_else(|| pod(link, around), Err) {
            Ok(why) => Judgement::workload(why),
            Err(why) => Judgement::left_alone(why),
        },
    }
}

fn uplink(link: &LinkFacts, around: &Surroundings<'_>, rule: &Globs) -> Option<Why> {
    match rule {
        Globs::None => None,
        Globs::Names(names) => names.matches(&link.name).then_some(Why::NamedUplink),
        Globs::Auto => node_address(link, around),
    }
}

fn bridge_of<'a>(link: &LinkFacts, around: &Surroundings<'a>) -> Option<&'a LinkFacts> {
    controller_of(link, around).filter(|controller| controller.kind == Kind::Bridge)
}

fn controller_of<'a>(link: &LinkFacts, around: &Surroundings<'a>) -> Option<&'a LinkFacts> {
    around.links.get(&link.controller?)
}

/// `Ok` if the link by itself looks like that of a pod or a virtual machine; else the reason against it.
fn pod(link: &LinkFacts, around: &Surroundings<'_>) -> Result<Why, Why> {
    match link.kind {
        Kind::Veth if link.peer == Peer::OtherNamespace => Ok(Why::Pod),
        Kind::Veth => Err(Why::PeerHere),
        Kind::Tap => {
            // A tap with an address of its own is a VPN that ends on this node.
            let address = around.addresses.get(&link.ifindex).and_then(BTreeSet::first);
            let address = address.filter(|_| bridge_of(link, around).is_none());
            address.map_or(Ok(Why::VirtualMachine), |address| Err(Why::TapAddress(*address)))
        }
        Kind::Loopback | Kind::Hardware | Kind::Bridge | Kind::Vrf | Kind::Overlay | Kind::Other => Err(Why::NoPod),
    }
}

/// Whether a link faces the network, by itself or as a port or lower link of one that does.
fn network(link: &LinkFacts, around: &Surroundings<'_>) -> Option<Why> {
    if let Some(why) = node_address(link, around) {
        return Some(why);
    }
    // If the controller counts as a card, it is a bond or a team. Bridges are checked below.
    if let Some(bond) = controller_of(link, around).filter(|controller| controller.kind == Kind::Hardware) {
        return Some(Why::PortOfCard(bond.name.clone()));
    }
    if let Some(bridge) = bridge_of(link, around).filter(|bridge| node_address(bridge, around).is_some()) {
        return Some(Why::PortOfUplink(bridge.name.clone()));
    }
    let is_upper = |upper: &&LinkFacts| upper.lower == Some(link.ifindex) && node_address(upper, around).is_some();
    around.links.values().find(is_upper).map(|upper| Why::LowerOf(upper.name.clone()))
}

/// Whether this link has an address of the node: one that the Node object names, the link of a default route, or any
/// address on a network card or on an overlay network. Gateway addresses that a CNI puts on a pod's veth or on its
/// bridge do not count, nor do addresses of other tunnels.
fn node_address(link: &LinkFacts, around: &Surroundings<'_>) -> Option<Why> {
    let none = BTreeSet::new();
    let addresses = around.addresses.get(&link.ifindex).unwrap_or(&none);
    if let Some(named) = addresses.iter().find(|address| around.node_addresses.contains(&address.ip)) {
        return Some(Why::NodeAddress(named.ip));
    }
    if around.default_routes.contains(&link.ifindex) {
        return Some(Why::DefaultRoute);
    }
    match link.kind {
        Kind::Hardware if !addresses.is_empty() => Some(Why::Card),
        // If the node is a container, its network cards are veths. The node's end of a pod's veth has no address, or
        // the gateway's (/32 or /128), whose prefix no other host shares.
        Kind::Veth if link.peer == Peer::OtherNamespace && bridge_of(link, around).is_none() => {
            addresses.iter().find(|address| address.has_prefix()).map(|prefix| Why::Prefix(*prefix))
        }
        // Packets for pods of other nodes leave by it.
        Kind::Overlay => addresses.first().map(|address| Why::Overlay(*address)),
        Kind::Loopback | Kind::Hardware | Kind::Veth | Kind::Tap | Kind::Bridge | Kind::Vrf | Kind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interfaces::BridgeNetfilter;

    /// A node: eth0 with an address and the default route, cni0 with two pods, a ptp pod with the gateway's address on
    /// its veth, a veth within the namespace, a virtual machine, a VPN, a tunnel.
    struct Machine {
        links: BTreeMap<u32, LinkFacts>,
        addresses: BTreeMap<u32, BTreeSet<InterfaceAddress>>,
        default_routes: BTreeSet<u32>,
        node_addresses: BTreeSet<IpAddr>,
    }

    fn link(ifindex: u32, name: &str, kind: Kind) -> LinkFacts {
        LinkFacts {
            ifindex,
            name: name.into(),
            kind,
            framing: Framing::ETHERNET,
            peer: Peer::Here,
            controller: None,
            lower: None,
            is_vlan: false,
            netfilter: BridgeNetfilter::default(),
            is_isolated: false,
            mac: None,
        }
    }

    fn address(text: &str) -> InterfaceAddress {
        let (ip, prefix_len) = text.split_once('/').expect("an address with its length");
        let ip: IpAddr = ip.parse().expect("an address");
        InterfaceAddress::new(ip, prefix_len.parse().expect("a length"))
    }

    fn node() -> Machine {
        let port = |link: LinkFacts| LinkFacts { controller: Some(10), ..link };
        let links = [
            link(1, "lo", Kind::Loopback),
            link(2, "eth0", Kind::Hardware),
            link(3, "eth1", Kind::Hardware),
            link(10, "cni0", Kind::Bridge),
            port(LinkFacts::pod_veth(11, "veth11")),
            port(link(12, "tap12", Kind::Tap)),
            LinkFacts::pod_veth(20, "ptp20"),
            link(21, "inner21", Kind::Veth),
            link(22, "tap22", Kind::Tap),
            link(23, "vpn23", Kind::Tap),
            link(30, "vxlan30", Kind::Other),
        ];
        let addresses = [
            (1, "127.0.0.1/8"),
            (2, "192.168.0.2/24"),
            (10, "10.1.0.1/24"),
            (20, "10.2.0.1/32"),
            (23, "172.16.0.9/24"),
            (30, "10.1.0.0/32"),
        ];
        let addresses = addresses.map(|(ifindex, addr)| (ifindex, [address(addr)].into()));
        Machine {
            links: links.into_iter().map(|link| (link.ifindex, link)).collect(),
            addresses: addresses.into(),
            default_routes: [2].into(),
            node_addresses: BTreeSet::new(),
        }
    }

    fn classes(node: &Machine, workload: &str, uplink: &str) -> (Vec<String>, Vec<String>) {
        let judged = judged(node, workload, uplink);
        let of = |class| {
            let links = node.links.values().filter(|link| judged[&link.ifindex].class == Some(class));
            links.map(|link| link.name.clone()).collect()
        };
        (of(Class::Workload), of(Class::Uplink))
    }

    fn judged(node: &Machine, workload: &str, uplink: &str) -> BTreeMap<u32, Judgement> {
        let rules =
            InterfaceRules { workload: workload.parse().expect("globs"), uplink: uplink.parse().expect("globs") };
        let around = Surroundings {
            links: &node.links,
            addresses: &node.addresses,
            default_routes: &node.default_routes,
            node_addresses: &node.node_addresses,
        };
        node.links.values().map(|link| (link.ifindex, classify(link, &around, &rules))).collect()
    }

    /// The judgement of one link with `auto`, in one line.
    fn told(node: &Machine, ifindex: u32) -> String {
        let judged = judged(node, "auto", "none");
        let Judgement { class, why } = &judged[&ifindex];
        format!("{}: {why}", class.map_or("-", Class::name))
    }

    #[test]
    fn auto_finds_pods_and_the_network() {
        let (workloads, uplinks) = classes(&node(), "auto", "auto");
        assert_eq!(workloads, ["veth11", "tap12", "ptp20", "tap22"]);
        assert_eq!(uplinks, ["eth0"]);
    }

    #[test]
    fn none_is_none() {
        assert_eq!(classes(&node(), "none", "none"), (vec![], vec![]));
    }

    #[test]
    fn names_decide() {
        let (workloads, uplinks) = classes(&node(), "inner*,ptp*,lo", "eth1");
        assert_eq!((workloads, uplinks), (vec!["ptp20".into(), "inner21".into()], vec!["eth1".into()]));
    }

    #[test]
    fn uplink_beats_workload() {
        let (workloads, uplinks) = classes(&node(), "*", "auto");
        assert_eq!(uplinks, ["eth0"]);
        assert!(!workloads.contains(&"eth0".into()) && workloads.contains(&"eth1".into()));
        let (workloads, uplinks) = classes(&node(), "ptp20", "ptp*");
        assert_eq!((workloads, uplinks), (vec![], vec!["ptp20".into()]));
    }

    /// A node in a container: its eth0 is a veth whose peer is in another namespace.
    #[test]
    fn veth_to_the_network_is_no_workload() {
        let mut node = node();
        node.links.insert(2, LinkFacts::pod_veth(2, "eth0"));
        for uplink in ["auto", "none"] {
            let (workloads, uplinks) = classes(&node, "auto", uplink);
            assert!(!workloads.contains(&"eth0".into()), "--uplink-interfaces={uplink}");
            assert_eq!(uplinks.contains(&"eth0".into()), uplink == "auto");
        }
        // Without a default route and a prefix, only the Node object's address identifies the uplink.
        node.default_routes.clear();
        node.addresses.insert(2, [address("192.168.0.2/32")].into());
        assert!(classes(&node, "auto", "auto").0.contains(&"eth0".into()));
        node.node_addresses = ["192.168.0.2".parse().expect("an address")].into();
        assert!(classes(&node, "auto", "auto").1.contains(&"eth0".into()));
    }

    #[test]
    fn port_is_what_its_bridge_is() {
        let mut node = node();
        // The node's address is on the bridge; eth0 is a port of it, as are the pods.
        node.default_routes = [10].into();
        node.addresses.remove(&2);
        node.links.insert(2, LinkFacts { controller: Some(10), ..link(2, "eth0", Kind::Hardware) });
        let (workloads, uplinks) = classes(&node, "auto", "auto");
        assert_eq!(uplinks, ["eth0", "cni0", "veth11", "tap12"]);
        assert_eq!(workloads, ["ptp20", "tap22"]);
        // A glob that names a port decides.
        assert_eq!(classes(&node, "veth*", "auto").0, ["veth11"]);
        // Without uplinks, the ports still do not count as pods of a private bridge.
        assert_eq!(classes(&node, "auto", "none"), (vec!["ptp20".into(), "tap22".into()], vec![]));
    }

    /// flannel.1, vxlan.calico: the way to the pods of other nodes.
    #[test]
    fn an_overlay_with_an_address_is_an_uplink() {
        let mut node = node();
        node.links.insert(31, link(31, "flannel.1", Kind::Overlay));
        assert_eq!(classes(&node, "auto", "auto").1, ["eth0"], "without an address, only its owner knows its use");
        node.addresses.insert(31, [address("10.244.1.0/32")].into());
        assert_eq!(classes(&node, "auto", "auto").1, ["eth0", "flannel.1"]);
        assert_eq!(told(&node, 31), "-: an overlay network with an address, 10.244.1.0/32: the network");
    }

    #[test]
    fn port_of_a_bond_is_not_asked() {
        let mut node = node();
        node.links.insert(40, link(40, "bond0", Kind::Hardware));
        node.addresses.insert(40, [address("192.168.0.3/24")].into());
        node.links.insert(3, LinkFacts { controller: Some(40), ..link(3, "eth1", Kind::Hardware) });
        assert_eq!(classes(&node, "auto", "auto").1, ["eth0", "bond0"]);
    }

    /// A second card of a node that is a container: no default route, and the Node object does not name it.
    #[test]
    fn veth_with_a_prefix_of_its_own_is_no_workload() {
        for (addresses, is_pod) in [
            (vec![], true),
            (vec!["10.244.0.1/32"], true),
            (vec!["fd44::1/128", "10.244.0.1/32"], true),
            (vec!["172.31.0.1/24"], false),
            (vec!["172.31.0.1/31"], false),
            (vec!["2001:db8::1/64"], false),
            (vec!["10.244.0.1/32", "fd44::1/127"], false),
        ] {
            let mut node = node();
            node.addresses.insert(20, addresses.iter().map(|text| address(text)).collect());
            let (workloads, uplinks) = classes(&node, "auto", "auto");
            let found = (workloads.contains(&"ptp20".into()), uplinks.contains(&"ptp20".into()));
            assert_eq!(found, (is_pod, !is_pod), "{addresses:?}");
            assert_eq!(classes(&node, "auto", "none").0.contains(&"ptp20".into()), is_pod, "{addresses:?}");
            // The operator's flag wins.
            assert!(classes(&node, "ptp*", "none").0.contains(&"ptp20".into()));
        }
    }

    /// Addresses of a port do not count: the class of the bridge does.
    #[test]
    fn a_prefix_on_a_port_of_a_bridge_says_nothing() {
        let mut node = node();
        node.addresses.insert(11, [address("10.1.0.9/24")].into());
        node.addresses.insert(12, [address("10.1.0.9/24")].into());
        assert_eq!(classes(&node, "auto", "auto").0, ["veth11", "tap12", "ptp20", "tap22"]);
        // A VRF is no bridge.
        node.links.insert(10, link(10, "vrf10", Kind::Vrf));
        assert_eq!(classes(&node, "auto", "none").0, ["ptp20", "tap22"]);
    }

    /// If the node is a container, the ports of a bond and the lower links of VLANs are veths as well, without an
    /// address.
    #[test]
    fn veth_under_a_card_is_no_workload() {
        let mut node = node();
        node.links.insert(40, link(40, "bond0", Kind::Hardware));
        node.links.insert(41, LinkFacts { controller: Some(40), ..LinkFacts::pod_veth(41, "eth41") });
        node.links.insert(42, LinkFacts::pod_veth(42, "eth42"));
        node.links.insert(43, LinkFacts { lower: Some(42), ..link(43, "eth42.5", Kind::Hardware) });
        assert_eq!(told(&node, 41), "-: a port of bond0: a network card, no pod");
        assert_eq!(told(&node, 42), "workload: a veth to another namespace: a pod");
        node.addresses.insert(43, [address("172.31.0.1/24")].into());
        assert_eq!(told(&node, 42), "-: eth42.5 is made on it: a network card, no pod");
    }

    #[test]
    fn every_judgement_says_why() {
        let mut node = node();
        node.addresses.insert(20, [address("10.2.0.1/24")].into());
        for (ifindex, expected) in [
            (1, "-: the loopback"),
            (2, "-: a default route leaves by it: the network"),
            (3, "-: neither a veth nor a tap"),
            (11, "workload: a veth to another namespace: a pod"),
            (20, "-: it has a prefix of its own, 10.2.0.1/24: a network, no pod"),
            (21, "-: a veth with both ends here"),
            (22, "workload: a tap without an address: a virtual machine"),
            (23, "-: a tap with an address, 172.16.0.9/24: a VPN, no pod"),
        ] {
            assert_eq!(told(&node, ifindex), expected);
        }
        node.node_addresses = ["10.1.0.1".parse().expect("an address")].into();
        assert_eq!(told(&node, 11), "-: a port of cni0, which leads to the network");
        let named = judged(&node, "ptp*", "eth0");
        assert_eq!([&named[&20].why, &named[&2].why], [&Why::NamedWorkload, &Why::NamedUplink]);
        assert_eq!(named[&22].why, Why::OthersNamed);
        assert_eq!(judged(&node, "none", "none")[&11].why, Why::NoneWanted);
    }

    /// WireGuard, tun, PPP: an uplink by default route or by the Node's address, and a workload if a glob names it.
    #[test]
    fn what_has_no_link_header_is_judged_like_others() {
        let mut node = node();
        node.links.insert(50, LinkFacts { framing: Framing::NOTHING, ..link(50, "wg0", Kind::Other) });
        assert_eq!(told(&node, 50), "-: neither a veth nor a tap");
        assert_eq!(judged(&node, "wg*", "none")[&50], Judgement::workload(Why::NamedWorkload));
        assert_eq!(judged(&node, "auto", "wg0")[&50], Judgement::uplink(Why::NamedUplink));
        node.default_routes = [50].into();
        assert_eq!(judged(&node, "auto", "auto")[&50], Judgement::uplink(Why::DefaultRoute));
        node.default_routes.clear();
        node.addresses.insert(50, [address("100.64.0.1/32")].into());
        node.node_addresses = ["100.64.0.1".parse().expect("an address")].into();
        assert!(matches!(judged(&node, "auto", "auto")[&50].why, Why::NodeAddress(_)));
    }

    /// InfiniBand, GRE without a remote address: the programs would read the wrong offsets.
    #[test]
    fn what_has_another_link_header_is_refused_wherever_it_is_wanted() {
        let mut node = node();
        let tunnel = LinkFacts { framing: Framing::Other("INFINIBAND".into()), ..link(50, "ib0", Kind::Other) };
        node.links.insert(50, tunnel);
        let why = |node: &Machine, workload, uplink| judged(node, workload, uplink)[&50].clone();
        // No flag asks for the link.
        assert_eq!(why(&node, "auto", "auto"), Judgement::left_alone(Why::NoPod));
        for (workload, uplink, reason) in [("ib*", "none", Why::NamedWorkload), ("auto", "ib0", Why::NamedUplink)] {
            let refused = why(&node, workload, uplink);
            assert_eq!(refused, Judgement::left_alone(Why::UnknownHeader("INFINIBAND".into(), Box::new(reason))));
            assert!(refused.why.is_refusal());
        }
        node.default_routes = [50].into();
        assert!(why(&node, "auto", "auto").why.is_refusal());
        assert_eq!(why(&node, "auto", "none").why, Why::DefaultRoute);
    }
}
