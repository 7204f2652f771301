//! What the nodes send to the network and to each other must be translated: a watch of the cloud's switch, by which all
//! of it passes.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::on_network;
use crate::address::{BALANCERS, CLUSTER, EXTERNAL_IPS, FAR, LAST, UPLINK, family, pods_of};
use crate::capture::{Capture, Direction, Packet};
use crate::netns::Netns;
use crate::serve::TARGET;

/// A packet that left a node without its translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    pub node: u8,
    pub packet: Packet,
    /// What is wrong with it.
    pub fault: &'static str,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "node {} sent {}: {}", self.node, self.packet, self.fault)
    }
}

/// A running watch.
pub struct Watch {
    capture: Capture,
    /// By node: the index of its port of the switch.
    ports: [usize; 3],
}

impl Watch {
    pub(super) fn start(cloud: &Netns) -> Self {
        let index = |number: u8| {
            let name = format!("port{number}");
            let found = cloud.inside(|| nix::net::if_::if_nametoindex(name.as_str()));
            found.expect("each node has a port").try_into().expect("indices are small")
        };
        Self { ports: [1, 2, 3].map(index), capture: Capture::start(cloud) }
    }

    /// All packets so far. `outside` can reach the cloud.
    #[track_caller]
    pub fn packets(&self, outside: &Netns) -> Vec<Packet> {
        self.capture.all_until_now(outside)
    }

    /// The packets so far that the nodes sent, with the numbers of the nodes.
    #[track_caller]
    pub fn sent(&self, outside: &Netns) -> Vec<(u8, Packet)> {
        let node_of = |packet: &Packet| self.ports.iter().position(|port| *port == packet.interface);
        let packets = self.packets(outside).into_iter().filter(|packet| packet.direction == Direction::In);
        packets.filter_map(|packet| Some((u8::try_from(node_of(&packet)? + 1).ok()?, packet))).collect()
    }

    /// Panics if a packet has left a node untranslated. `left_alone` are the addresses that are not the nodes' business:
    /// those in mode Proxy, and those that no node serves.
    #[track_caller]
    pub fn assert_clean(&self, outside: &Netns, left_alone: &BTreeSet<IpAddr>) {
        let sent = self.sent(outside);
        assert!(!sent.is_empty(), "the nodes sent nothing, so nothing was watched");
        let leaks: Vec<String> = sent
            .iter()
            .filter_map(|(node, packet)| leak(*node, packet, left_alone))
            .map(|leak| leak.to_string())
            .collect();
        assert!(leaks.is_empty(), "{} of {} packets are wrong:\n{}", leaks.len(), sent.len(), leaks.join("\n"));
    }
}

/// What is wrong with a packet that a node sent, if anything.
fn leak(node: u8, packet: &Packet, left_alone: &BTreeSet<IpAddr>) -> Option<Leak> {
    let (from, to) = (packet.source.ip(), packet.destination.ip());
    let fault = if is_frontend(to) && !left_alone.contains(&to) {
        "the address of a Service leaves the node"
    } else if is_pod(from) && !is_pod(to) && !is_node(to) {
        "a pod's address leaves the cluster"
    } else if is_frontend(from) && is_pod(to) {
        "pods are answered on their node"
    } else if is_host_endpoint(packet.source) && FAR.contains(to) {
        "a node's own endpoint answers a client outside, which asked at another address"
    } else if FAR.contains(from) && (is_pod(to) || is_host_endpoint(packet.destination)) {
        "a client's address goes to an endpoint of another node"
    } else {
        return None;
    };
    Some(Leak { node, packet: *packet, fault })
}

fn is_pod(address: IpAddr) -> bool {
    (1..=3).any(|node| pods_of(node).contains(address))
}

fn is_node(address: IpAddr) -> bool {
    (1..=3).any(|number| UPLINK.host(family(address), on_network(number)) == address)
}

/// An endpoint with `hostNetwork`: clients outside ask at the addresses of Services.
fn is_host_endpoint(at: SocketAddr) -> bool {
    is_node(at.ip()) && at.port() == TARGET
}

fn is_frontend(address: IpAddr) -> bool {
    [BALANCERS, CLUSTER, EXTERNAL_IPS, LAST].iter().any(|net| net.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::FAMILIES;
    use crate::capture::Carries;

    fn fault(from: IpAddr, to: IpAddr, left_alone: &[IpAddr]) -> Option<&'static str> {
        fault_at(SocketAddr::new(from, 1), SocketAddr::new(to, 2), left_alone)
    }

    fn fault_at(source: SocketAddr, destination: SocketAddr, left_alone: &[IpAddr]) -> Option<&'static str> {
        let packet = Packet { interface: 1, direction: Direction::In, source, destination, carries: Carries::Tcp };
        leak(1, &packet, &left_alone.iter().copied().collect()).map(|leak| leak.fault)
    }

    #[test]
    fn each_kind_of_leak_is_seen() {
        for family in FAMILIES {
            let (pod, vip, client) = (pods_of(2).host(family, 10), BALANCERS.host(family, 7), FAR.host(family, 1));
            let (node, other) = (UPLINK.host(family, 11), pods_of(1).host(family, 10));
            for (from, to) in [(vip, client), (node, pod), (pod, other), (pod, node), (node, client)] {
                assert_eq!(fault(from, to, &[]), None, "{from} -> {to}");
            }
            assert_eq!(fault(node, vip, &[vip]), None, "in mode Proxy");
            for (from, to) in [(pod, client), (pod, UPLINK.host(family, 1)), (node, vip), (client, vip), (vip, pod)] {
                assert!(fault(from, to, &[]).is_some(), "{from} -> {to}");
            }
            let last = LAST.host(family, 250);
            for (from, to) in [(pod, last), (last, pod), (client, pod)] {
                assert!(fault(from, to, &[]).is_some(), "{from} -> {to}");
            }
            let (host, outside) = (SocketAddr::new(node, TARGET), SocketAddr::new(client, 40_000));
            let (port, other) = (SocketAddr::new(node, 30_001), SocketAddr::new(UPLINK.host(family, 12), 40_000));
            for (from, to) in [(host, outside), (outside, host)] {
                assert!(fault_at(from, to, &[]).is_some(), "{from} -> {to}");
            }
            for (from, to) in [(port, outside), (outside, port), (host, other), (other, host)] {
                assert_eq!(fault_at(from, to, &[]), None, "{from} -> {to}");
            }
        }
    }
}
