//! The whole way by the balancer: which nodes it chooses, and who is let in.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb_tests::address::{BALANCERS, FAMILIES, Family, vip};
use lb_tests::capture::Carries;
use lb_tests::deadline::until_true;
use lb_tests::dial::{Dial, Outcome};
use lb_tests::haproxy::{Announce, Haproxy, Listener};
use lb_tests::http;
use lb_tests::manifest::Service;
use lb_tests::nodes::{Cluster, balancer, client, node_port};
use serde_json::json;

use crate::delivery::ALL;
use crate::publish::{CHECKS, NODE_PORTS, local, publish, service_on};

/// The port of the balancer's listeners, which the cloud's own servers do not have.
const PORT: u16 = 81;

/// A pool of all nodes for a Service, in each family.
fn pools(cluster: &Cluster, number: u8, name: [&'static str; 2]) -> Haproxy {
    let listener = |family: Family, name| Listener {
        name,
        address: vip(family, number, PORT),
        backends: [1, 2, 3].map(|node| node_port(node, family, NODE_PORTS + u16::from(number))).to_vec(),
        announce: Announce::Nothing,
    };
    let [v4, v6] = name;
    Haproxy::start(&cluster.cloud, cluster.folder(), &[listener(Family::V4, v4), listener(Family::V6, v6)])
}

/// A client outside, by way of the balancer.
fn from_outside(cluster: &Cluster, to: SocketAddr) -> Outcome {
    Dial::from(&cluster.outside).tcp(to)
}

/// In mode Proxy the ranges are the balancer's to enforce: pods are not cut off, though no range has their addresses, nor
/// is the balancer at the node ports. (In mode VIP they are: SR-02.)
#[test]
fn ipm_41_source_ranges_do_not_cut_off_pods_in_mode_proxy() {
    let cluster = Cluster::start("octranges", &ALL);
    let ranges =
        FAMILIES.map(|family| format!("{}/{}", client(9, family), if family == Family::V4 { 32 } else { 128 }));
    let shop = service_on(PORT, 1, "Proxy").spec("loadBalancerSourceRanges", json!(ranges));
    publish(&cluster, &shop, &["a1", "a2"]);
    let haproxy = pools(&cluster, 1, ["shop4", "shop6"]);
    let watch = cluster.watch();
    let mut dialled = 0;
    for family in FAMILIES {
        let to = vip(family, 1, PORT);
        for node in cluster.nodes() {
            for netns in [&node.pod("a").netns, &node.pod("c").netns, &node.netns] {
                let outcome = Dial::from(netns).tcp(to);
                assert!(matches!(outcome.who(), Some("a1" | "a2")), "{to} from {}: {outcome:?}", netns.name());
                dialled += 1;
            }
        }
        let outcome = from_outside(&cluster, to);
        assert!(matches!(outcome.who(), Some("a1" | "a2")), "{to} from outside: {outcome:?}");
        dialled += 1;
    }
    assert_eq!(haproxy.connections("shop4") + haproxy.connections("shop6"), dialled, "the balancer had all of them");
    let addresses: BTreeSet<_> = FAMILIES.map(|family| BALANCERS.host(family, 1)).into();
    watch.assert_clean(&cluster.outside, &addresses);
    // The packets of pods left with the balancer's address, and the node's as their source.
    let left = watch
        .sent(&cluster.outside)
        .into_iter()
        .filter(|(_, packet)| addresses.contains(&packet.destination.ip()) && packet.carries == Carries::Syn);
    assert_eq!(left.count(), 18, "each pod and node sent one SYN to the balancer");
    // The same ranges in mode VIP: pods are asked as others are.
    publish(&cluster, &shop_in_vip_mode(&ranges), &["a1", "a2"]);
    for family in FAMILIES {
        let dial = Dial::from(&cluster.node(1).pod("c").netns);
        assert_eq!(dial.tcp(vip(family, 1, PORT)), Outcome::Silence);
        assert!(cluster.dial_by(1, family).tcp(node_port(1, family, NODE_PORTS + 1)).who().is_some(), "SR-04");
    }
}

fn shop_in_vip_mode(ranges: &[String; 2]) -> Service {
    service_on(PORT, 1, "VIP").spec("loadBalancerSourceRanges", json!(ranges))
}

/// The balancer asks the health check node port of each node, and sends connections to those that answer 200. The
/// endpoint moves from node to node, and no connection that it sends so is lost.
#[test]
fn hc_01_hc_02_the_balancer_follows_the_endpoint_by_its_checks() {
    let cluster = Cluster::start("octchecks", &ALL);
    for mode in ["Proxy", "VIP"] {
        for (number, pod) in [(1, "a1"), (2, "a2"), (3, "a3"), (1, "b1")] {
            publish(&cluster, &local(7, mode), &[pod]);
            for family in FAMILIES {
                let healthy = || {
                    let is_healthy = |node: &u8| {
                        let to = node_port(*node, family, CHECKS + 7);
                        http::get(&cluster.cloud, to, "/").is_some_and(|(status, _)| status == 200)
                    };
                    [1, 2, 3].into_iter().filter(is_healthy).collect::<Vec<u8>>()
                };
                until_true("exactly the node with the endpoint is healthy", || healthy() == [number]);
                let outcome = Dial::from(&cluster.cloud).tcp(node_port(number, family, NODE_PORTS + 7));
                let Outcome::Answered(answer) = outcome else { panic!("{mode}, node {number}: {outcome:?}") };
                assert_eq!((answer.who.as_str(), answer.client.ip()), (pod, balancer(family)), "{mode}");
            }
        }
    }
}
