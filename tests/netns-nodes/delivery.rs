//! The network delivers packets for a balancer's address to any node.

use std::collections::BTreeSet;

use lb_tests::address::{BALANCERS, FAMILIES, Family, flag, pods_of, vip};
use lb_tests::capture::{Carries, Packet};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::nodes::{Cluster, UPLINK_NAME, client};

use crate::publish::{publish, service};

/// The flags of an agent that serves the network as well.
pub const ALL: [&str; 2] = ["--services", "all"];
/// The hop limit with which clients send.
const HOPS: usize = 64;

/// Beside kube-proxy and in its place: a node without an endpoint forwards to the one that has it, once.
#[test]
fn mq_01_a_vip_is_served_by_each_node_whichever_has_the_endpoint() {
    for (test, flags) in [("vipall", &ALL[..]), ("viplb", &["--uplink-interfaces", "auto"])] {
        let cluster = Cluster::start(test, flags);
        publish(&cluster, &service(1, "VIP"), &["a2"]);
        let watch = cluster.watch();
        for family in FAMILIES {
            let to = vip(family, 1, 80);
            for node in cluster.nodes() {
                let forwards = node.number != 2;
                let seen = if forwards { node.address(family) } else { client(node.number, family) };
                let outside = cluster.dial_by(node.number, family);
                for outcome in [outside.tcp(to), outside.udp(to)] {
                    let Outcome::Answered(answer) = outcome else { panic!("{to} by {}: {outcome:?}", node.name()) };
                    assert_eq!((answer.who.as_str(), answer.client.ip()), ("a2", seen), "by {}", node.name());
                }
                outside.held(to).transfer(1 << 20).expect("bulk goes both ways");
                for (dial, seen) in [
                    (Dial::from(&node.pod("c").netns), node.pod("c").address(family)),
                    (Dial::from(&node.netns), node.address(family)),
                ] {
                    let Outcome::Answered(answer) = dial.tcp(to) else { panic!("{to} on {}", node.name()) };
                    assert_eq!((answer.who.as_str(), answer.client.ip()), ("a2", seen), "on {}", node.name());
                }
            }
        }
        watch.assert_clean(&cluster.outside, &BTreeSet::new());
        // Forwarded once: nothing but the requests themselves goes to the endpoint from other nodes' addresses.
        for (node, packet) in watch.sent(&cluster.outside) {
            let is_returned = node == 2 && pods_of(2).contains(packet.destination.ip());
            assert!(!is_returned, "node 2 has the endpoint, and sent {packet}");
        }
    }
}

/// The nodes disagree about where the endpoint's node is: each sends its packets to the other.
#[test]
fn a_loop_of_routes_between_two_nodes_ends_with_the_hop_limit() {
    let cluster = Cluster::start("loopfwd", &ALL);
    // Else IPv4 drops it when it returns: its source is an address of the node.
    for node in [1, 2].map(|number| cluster.node(number)) {
        let interfaces = ["all", "default", UPLINK_NAME];
        let loose = interfaces.map(|name| (format!("net.ipv4.conf.{name}.rp_filter"), "0"));
        let local = interfaces.map(|name| (format!("net.ipv4.conf.{name}.accept_local"), "1"));
        for (name, value) in loose.iter().chain(&local) {
            node.netns.sysctl(&[(name, value)]);
        }
    }
    publish(&cluster, &service(2, "VIP"), &["a3"]);
    for family in FAMILIES {
        turn(&cluster, &pods_of(3).prefix(family), family);
        let (to, watch) = (vip(family, 2, 80), cluster.watch());
        let outcome = cluster.dial_by(1, family).tcp(to);
        assert_eq!(outcome.who(), None, "{outcome:?}");
        let endpoint = cluster.node(3).pod("a").address(family);
        let sent = watch.sent(&cluster.outside);
        let hops = sent.iter().filter(|(_, packet)| packet.destination.ip() == endpoint).count();
        assert!((1..HOPS).contains(&hops), "{family:?}: {hops} hops");
        watch.assert_clean(&cluster.outside, &BTreeSet::new());
        assert!(hops > 2, "the two nodes did send it to each other: {hops} hops");
        let is_told = |(_, packet): &(u8, Packet)| {
            is_time_exceeded(packet, family) && packet.destination.ip() == client(1, family)
        };
        assert!(sent.iter().any(is_told), "the client is told that time was exceeded: {sent:?}");
    }
}

/// Without forwarding, a node without an endpoint leaves the packet to its routes, and these lead to another such node.
#[test]
fn a_vip_that_two_nodes_route_to_each_other_ends_with_time_exceeded() {
    let cluster = Cluster::start("loopvip", &["--services", "all", "--forwarding", "off"]);
    publish(&cluster, &service(3, "VIP"), &["a3"]);
    for family in FAMILIES {
        turn(&cluster, &BALANCERS.prefix(family), family);
        let (to, watch) = (vip(family, 3, 80), cluster.watch());
        let outcome = cluster.dial_by(1, family).tcp(to);
        assert_eq!(outcome.who(), None, "{outcome:?}");
        let sent = watch.sent(&cluster.outside);
        let hops = sent.iter().filter(|(_, packet)| packet.destination == to).count();
        assert!((2..HOPS).contains(&hops), "{family:?}: {hops} hops");
        let exceeded = |(_, packet): &&(u8, _)| is_time_exceeded(packet, family);
        assert_eq!(sent.iter().filter(exceeded).count(), 1, "{family:?}: one node ends it: {sent:?}");
        assert_eq!(cluster.dial_by(3, family).tcp(to).who(), Some("a3"), "the node with the endpoint serves");
    }
}

/// Nodes 1 and 2 route a prefix to each other.
fn turn(cluster: &Cluster, prefix: &str, family: Family) {
    for (node, other) in [(1, 2), (2, 1)] {
        let gateway = cluster.node(other).address(family).to_string();
        cluster.node(node).netns.run("ip", &[flag(family), "route", "replace", prefix, "via", &gateway]);
    }
}

fn is_time_exceeded(packet: &Packet, family: Family) -> bool {
    packet.carries == Carries::Icmp(if family == Family::V4 { 11 } else { 3 })
}
