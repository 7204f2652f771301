//! How pods are connected to their node: the two shapes of nearly all CNIs.

use std::net::IpAddr;

use crate::address::{FAMILIES, Family, Net, add_address, flag, host_prefix};
use crate::netns::Netns;

/// The bridge whose ports are the pods' veths.
pub const BRIDGE_NAME: &str = "cni0";

const BRIDGE_MAC: &str = "02:00:00:00:00:01";

/// The gateway of a point-to-point pod. No interface has this address; the node answers for it.
const GATEWAY4: &str = "169.254.1.1";
const GATEWAY6: &str = "fe80::1";

/// The number of the node's own address on the bridge.
const BRIDGE_NUMBER: u8 = 1;

/// A pod's place in the address plan.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The network of its node's pods.
    pub pods: Net,
    /// The last part of its addresses.
    pub number: u8,
}

impl Place {
    pub fn host(self, family: Family) -> IpAddr {
        self.pods.host(family, self.number)
    }
}

/// A shape of pod network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cni {
    /// One veth per pod, a host route to each, a link-scope gateway that the node answers for (Calico, kindnet).
    PointToPoint,
    /// The pods' veths are ports of one bridge that has the gateway's address (the bridge plugin, flannel).
    Bridge,
}

impl Cni {
    /// Prepares the node for its first pod; `pods` is the network of its pods.
    pub(crate) fn prepare(self, node: &Netns, pods: Net) {
        if self == Self::PointToPoint {
            return;
        }
        // A MAC of its own, as CNIs set it. Otherwise the bridge has the MAC of a port, and pods lose their gateway
        // when that port is removed.
        let mut lines = vec![
            format!("link add {BRIDGE_NAME} address {BRIDGE_MAC} type bridge"),
            format!("link set {BRIDGE_NAME} up"),
        ];
        for family in FAMILIES {
            lines.push(add_address(family, &pods.interface(family, BRIDGE_NUMBER), BRIDGE_NAME));
        }
        node.ip(&lines);
        // As every distribution of Kubernetes sets it: bridged packets traverse the node's rules.
        node.sysctl(&[("net.bridge.bridge-nf-call-iptables", "1"), ("net.bridge.bridge-nf-call-ip6tables", "1")]);
    }

    /// Connects a pod and returns the name of the node's end.
    pub(crate) fn connect(self, node: &Netns, pod: &Netns, name: &str, at: Place) -> String {
        let interface = match self {
            Self::PointToPoint => format!("cali-{name}"),
            Self::Bridge => format!("veth-{name}"),
        };
        node.ip(&[format!("link add {interface} type veth peer name eth0 netns {}", pod.name())]);
        match self {
            Self::PointToPoint => connect_point_to_point(node, pod, at, &interface),
            Self::Bridge => connect_port(node, pod, at, &interface),
        }
        interface
    }
}

fn connect_point_to_point(node: &Netns, pod: &Netns, at: Place, interface: &str) {
    node.sysctl(&[
        (format!("net.ipv4.conf.{interface}.proxy_arp"), "1"),
        (format!("net.ipv4.neigh.{interface}.proxy_delay"), "0"),
    ]);
    node.ip(&[format!("link set {interface} up"), add_address(Family::V6, &format!("{GATEWAY6}/64"), interface)]);
    pod.ip(&[
        "link set eth0 up".to_owned(),
        add_address(Family::V4, &host_prefix(at.host(Family::V4)), "eth0"),
        add_address(Family::V6, &host_prefix(at.host(Family::V6)), "eth0"),
        format!("route add {GATEWAY4} dev eth0 scope link"),
        format!("route add default via {GATEWAY4} dev eth0"),
    ]);
    pod.run("ip", &["-6", "route", "add", "default", "via", GATEWAY6, "dev", "eth0"]);
    for family in FAMILIES {
        let address = at.host(family).to_string();
        node.run("ip", &[flag(family), "route", "add", &address, "dev", interface]);
    }
}

fn connect_port(node: &Netns, pod: &Netns, at: Place, interface: &str) {
    node.ip(&[format!("link set {interface} master {BRIDGE_NAME}"), format!("link set {interface} up")]);
    let mut lines = vec!["link set eth0 up".to_owned()];
    lines.extend(FAMILIES.map(|family| add_address(family, &at.pods.interface(family, at.number), "eth0")));
    pod.ip(&lines);
    for family in FAMILIES {
        let gateway = at.pods.host(family, BRIDGE_NUMBER).to_string();
        pod.run("ip", &[flag(family), "route", "add", "default", "via", &gateway]);
    }
}
