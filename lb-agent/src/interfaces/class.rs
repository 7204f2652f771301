//! What an interface leads to, as a pure function of what is known of it and its surroundings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Globs, Kind, LinkFacts};
use crate::dataplane::links::Class;
use crate::interfaces::facts::Peer;

/// Which interfaces the operator wants in which class.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceRules {
    pub workload: Globs,
    pub uplink: Globs,
}

/// What a link is judged by, apart from itself.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub links: &'a BTreeMap<u32, LinkFacts>,
    pub addresses: &'a BTreeMap<u32, BTreeSet<IpAddr>>,
    /// Links that a default route leaves by.
    pub default_routes: &'a BTreeSet<u32>,
    /// Addresses of this node's Node object; empty where there is none.
    pub node_addresses: &'a BTreeSet<IpAddr>,
}

/// The class of a link; `None`: it is left alone.
///
/// Uplink beats workload where both match. A bridge port is what its bridge is, unless it is named itself.
pub fn classify(link: &LinkFacts, around: &Surroundings<'_>, rules: &InterfaceRules) -> Option<Class> {
    if link.kind == Kind::Loopback {
        return None;
    }
    if is_uplink(link, around, &rules.uplink) {
        return Some(Class::Uplink);
    }
    if let Globs::Names(names) = &rules.workload {
        return if names.matches(&link.name) { Some(Class::Workload) } else { by_bridge(link, around, rules) };
    }
    if let Some(class) = by_bridge(link, around, rules) {
        return Some(class);
    }
    // What faces the network is no workload, whether or not uplinks are served.
    let is_auto = matches!(rules.workload, Globs::Auto);
    (is_auto && leads_to_pod(link, around) && !faces_network(link, around)).then_some(Class::Workload)
}

fn is_uplink(link: &LinkFacts, around: &Surroundings<'_>, rule: &Globs) -> bool {
    match rule {
        Globs::None => false,
        Globs::Names(names) => names.matches(&link.name),
        Globs::Auto => holds_node_address(link, around),
    }
}

/// A port of a bridge that is an uplink is one as well.
fn by_bridge(link: &LinkFacts, around: &Surroundings<'_>, rules: &InterfaceRules) -> Option<Class> {
    let bridge = bridge_of(link, around)?;
    is_uplink(bridge, around, &rules.uplink).then_some(Class::Uplink)
}

fn bridge_of<'a>(link: &LinkFacts, around: &Surroundings<'a>) -> Option<&'a LinkFacts> {
    around.links.get(&link.controller?).filter(|controller| controller.kind == Kind::Bridge)
}

/// A veth with its other end in another namespace, or a tap that no VPN uses: the ends of pods and virtual machines.
fn leads_to_pod(link: &LinkFacts, around: &Surroundings<'_>) -> bool {
    match link.kind {
        Kind::Veth => link.peer == Peer::OtherNamespace,
        // A tap with an address of its own ends here: a VPN.
        Kind::Tap => link.controller.is_some() || around.addresses.get(&link.ifindex).is_none_or(BTreeSet::is_empty),
        Kind::Loopback | Kind::Hardware | Kind::Bridge | Kind::Other => false,
    }
}

fn faces_network(link: &LinkFacts, around: &Surroundings<'_>) -> bool {
    holds_node_address(link, around) || bridge_of(link, around).is_some_and(|bridge| holds_node_address(bridge, around))
}

/// Whether an address of the node is on this link: one that the Node object names, the one that a default route
/// leaves by, or any on a network card. The gateway addresses that a CNI puts on a pod's veth or on its bridge, and
/// those on tunnels, are none.
fn holds_node_address(link: &LinkFacts, around: &Surroundings<'_>) -> bool {
    let addresses = around.addresses.get(&link.ifindex);
    let is_named = addresses.is_some_and(|addresses| !addresses.is_disjoint(around.node_addresses));
    let has_address = addresses.is_some_and(|addresses| !addresses.is_empty());
    is_named || around.default_routes.contains(&link.ifindex) || (link.kind == Kind::Hardware && has_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node: eth0 with an address and the default route, cni0 with two pods, a ptp pod with the gateway's address on
    /// its veth, a veth within the namespace, a virtual machine, a VPN, a tunnel.
    struct Machine {
        links: BTreeMap<u32, LinkFacts>,
        addresses: BTreeMap<u32, BTreeSet<IpAddr>>,
        default_routes: BTreeSet<u32>,
        node_addresses: BTreeSet<IpAddr>,
    }

    fn link(ifindex: u32, name: &str, kind: Kind) -> LinkFacts {
        LinkFacts { ifindex, name: name.into(), kind, peer: Peer::Here, controller: None }
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
            (1, "127.0.0.1"),
            (2, "192.168.0.2"),
            (10, "10.1.0.1"),
            (20, "10.2.0.1"),
            (23, "172.16.0.9"),
            (30, "10.1.0.0"),
        ];
        let addresses = addresses.map(|(ifindex, addr)| (ifindex, [addr.parse().expect("an address")].into()));
        Machine {
            links: links.into_iter().map(|link| (link.ifindex, link)).collect(),
            addresses: addresses.into(),
            default_routes: [2].into(),
            node_addresses: BTreeSet::new(),
        }
    }

    fn classes(node: &Machine, workload: &str, uplink: &str) -> (Vec<String>, Vec<String>) {
        let rules =
            InterfaceRules { workload: workload.parse().expect("globs"), uplink: uplink.parse().expect("globs") };
        let around = Surroundings {
            links: &node.links,
            addresses: &node.addresses,
            default_routes: &node.default_routes,
            node_addresses: &node.node_addresses,
        };
        let of = |class| {
            let links = node.links.values().filter(|link| classify(link, &around, &rules) == Some(class));
            links.map(|link| link.name.clone()).collect()
        };
        (of(Class::Workload), of(Class::Uplink))
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
        // Without a default route the Node object tells.
        node.default_routes.clear();
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
        // Named ports are what they are named.
        assert_eq!(classes(&node, "veth*", "auto").0, ["veth11"]);
        // Without uplinks they are still no pods of a private bridge.
        assert_eq!(classes(&node, "auto", "none"), (vec!["ptp20".into(), "tap22".into()], vec![]));
    }

    #[test]
    fn port_of_a_bond_is_not_asked() {
        let mut node = node();
        node.links.insert(40, link(40, "bond0", Kind::Hardware));
        node.addresses.insert(40, ["192.168.0.3".parse().expect("an address")].into());
        node.links.insert(3, LinkFacts { controller: Some(40), ..link(3, "eth1", Kind::Hardware) });
        assert_eq!(classes(&node, "auto", "auto").1, ["eth0", "bond0"]);
    }
}
