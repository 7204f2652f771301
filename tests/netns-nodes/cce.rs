//! Huawei CCE: its table of who reaches a Service with eTP Local from where; and CCE Turbo, where pods and nodes differ.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lb_tests::address::{BALANCERS, CLUSTER, EXTERNAL_IPS, FAMILIES, vip};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::manifest::{Service, ingress};
use lb_tests::nodes::{Cluster, Node, node_port};
use lb_tests::scene::{BALANCER, TARGET};
use serde_json::json;

use crate::delivery::ALL;
use crate::publish::{NODE_PORTS, local, publish, service};

/// A client in the cluster.
fn clients(node: &Node) -> Vec<(String, Dial<'_>)> {
    let pods = ["a", "c"].map(|letter| (node.pod_name(letter), Dial::from(&node.pod(letter).netns)));
    [vec![(node.host_name(), Dial::from(&node.netns))], pods.to_vec()].concat()
}

/// The endpoint is on node 1 only. Every node and every container reaches the balancer's address, the cluster address
/// and the port of its own node, also the endpoint itself, and on a node without an endpoint. A port of another node is
/// answered by that node as to any client in the network: by the one that has the endpoint.
#[test]
fn etp_local_is_reached_from_the_nodes_and_from_containers_with_and_without_the_endpoint() {
    let cluster = Cluster::start("cce", &ALL);
    publish(&cluster, &local(1, "VIP"), &["a1"]);
    let watch = cluster.watch();
    for family in FAMILIES {
        let own = |node: u8| node_port(node, family, NODE_PORTS + 1);
        for node in cluster.nodes() {
            for (name, dial) in clients(node) {
                let addresses = [vip(family, 1, 80), at(CLUSTER.host(family, 1)), at(EXTERNAL_IPS.host(family, 1))];
                for to in addresses.into_iter().chain([own(node.number), own(1)]) {
                    let outcome = dial.tcp(to);
                    assert_eq!(outcome.who(), Some("a1"), "{name} -> {to}: {outcome:?}");
                }
                for other in [2, 3].into_iter().filter(|other| *other != node.number) {
                    assert_eq!(dial.tcp(own(other)), Outcome::Silence, "{name} -> node {other}");
                }
            }
            let wanted = (node.number == 1).then_some("a1");
            for to in [vip(family, 1, 80), own(node.number)] {
                let outcome = cluster.dial_by(node.number, family).tcp(to);
                assert_eq!(outcome.who(), wanted, "from outside to {to} by {}: {outcome:?}", node.name());
            }
        }
    }
    watch.assert_clean(&cluster.outside, &BTreeSet::new());
}

fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, 80)
}

/// Asserts who answers the pods and who the nodes, at an address in mode VIP.
fn answers(cluster: &Cluster, pods: &str, nodes: &str) {
    publish(cluster, &service(2, "VIP"), &["a2"]);
    for family in FAMILIES {
        let to = vip(family, 2, 80);
        for node in cluster.nodes() {
            // The balancer sees the node: pods are masqueraded.
            let seen = |who| if who == BALANCER { node.address(family) } else { node.pod("c").address(family) };
            let outcome = Dial::from(&node.pod("c").netns).tcp(to);
            let Outcome::Answered(answer) = outcome else { panic!("a pod of {}: {outcome:?}", node.name()) };
            assert_eq!((answer.who.as_str(), answer.client.ip()), (pods, seen(pods)), "a pod of {}", node.name());
            let outcome = Dial::from(&node.netns).tcp(to);
            assert_eq!(outcome.who(), Some(nodes), "{}: {outcome:?}", node.name());
        }
    }
}

/// CCE Turbo's default: what pods send passes through to the balancer, what nodes send is intercepted.
#[test]
fn cce_turbo_pods_pass_and_nodes_are_intercepted() {
    answers(&Cluster::start("turbopods", &["--workload-interfaces", "none"]), BALANCER, "a2");
}

#[test]
fn the_reverse_of_cce_turbo_pods_are_intercepted_and_nodes_pass() {
    answers(&Cluster::start("turbonodes", &["--socket-lb", "off"]), "a2", BALANCER);
}

/// Two Services that share one balancer's address: the vendor's annotation lets one of them pass, on every node.
#[test]
fn services_that_share_one_balancer_need_not_agree() {
    let cluster = Cluster::start("ccemixed", &["--services", "all", "--vendor-annotations", "on"]);
    publish(&cluster, &service(3, "VIP"), &["a1"]);
    let passing = Service::new("passing")
        .cluster_ips(&FAMILIES.map(|family| CLUSTER.host(family, 4)))
        .port("web", "TCP", 443, TARGET)
        .metadata("annotations", json!({"kubernetes.io/elb.pass-through": "true"}));
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, 3), "VIP"));
    publish(&cluster, &entries.into_iter().fold(passing, Service::ingress), &["a2"]);
    for family in FAMILIES {
        for node in cluster.nodes() {
            for (name, dial) in clients(node) {
                assert_eq!(dial.tcp(vip(family, 3, 80)).who(), Some("a1"), "{name}");
                assert_eq!(dial.tcp(vip(family, 3, 443)).who(), Some(BALANCER), "{name}");
            }
        }
    }
}
