//! Health checks of a balancer that uses the balancer's own address as their source (KEP-1860: lost with kube-proxy in
//! ipvs mode, which binds the address to the node).

use std::net::SocketAddr;

use lb_tests::address::{BALANCERS, FAMILIES, flag, vip};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::http;
use lb_tests::nodes::{Cluster, node_port};
use lb_tests::scene::BALANCER;

use crate::delivery::ALL;
use crate::publish::{CHECKS, NODE_PORTS, local, publish, service};

/// At the node port of a node with an endpoint and of one without, and at the health check node port.
#[test]
fn a_check_from_the_vip_is_answered_at_the_node_port() {
    let cluster = Cluster::start("checkport", &ALL);
    for (number, mode) in [(1, "VIP"), (2, "Proxy")] {
        publish(&cluster, &service(number, mode), &["a1"]);
        publish(&cluster, &local(number + 10, mode), &["a1"]);
        for family in FAMILIES {
            let from = |number| Dial::from(&cluster.cloud).bound(BALANCERS.host(family, number));
            let at = |node, number| node_port(node, family, NODE_PORTS + u16::from(number));
            let source = BALANCERS.host(family, number);
            for (node, seen) in [(1, source), (2, cluster.node(2).address(family))] {
                for outcome in [from(number).tcp(at(node, number)), from(number).udp(at(node, number))] {
                    let Outcome::Answered(answer) = outcome else { panic!("{mode}, node {node}: {outcome:?}") };
                    assert_eq!((answer.who.as_str(), answer.client.ip()), ("a1", seen), "{mode}, node {node}");
                }
            }
            // eTP Local: the node without an endpoint is silent, and its check says so.
            let number = number + 10;
            assert_eq!(from(number).tcp(at(1, number)).who(), Some("a1"), "{mode}");
            assert_eq!(from(number).tcp(at(2, number)), Outcome::Silence, "{mode}");
            for (node, status) in [(1, 200), (2, 503), (3, 503)] {
                let to = node_port(node, family, CHECKS + u16::from(number));
                let source = BALANCERS.host(family, number);
                let told = http::get_as(&cluster.cloud, source, to, "/").map(|(status, _)| status);
                assert_eq!(told, Some(status), "{mode}, node {node}");
            }
        }
    }
}

/// The address is the source and the destination. In mode Proxy the packet is not the node's business: it is routed, and
/// comes back to the balancer.
#[test]
fn a_check_from_the_vip_is_answered_at_the_vip() {
    let cluster = Cluster::start("checkvip", &ALL);
    send_own_packets_out(&cluster);
    for (number, mode, policy) in [(3, "VIP", "Cluster"), (4, "VIP", "Local"), (5, "Proxy", "Cluster")] {
        publish(&cluster, &if policy == "Local" { local(number, mode) } else { service(number, mode) }, &["a1"]);
        for family in FAMILIES {
            for node in [1, 2] {
                let gateway = cluster.node(node).address(family).to_string();
                let route = [flag(family), "route", "replace", "default", "via", &gateway, "table", TABLE];
                cluster.cloud.run("ip", &route);
                let to: SocketAddr = vip(family, number, 80);
                let outcome = Dial::from(&cluster.cloud).bound(to.ip()).tcp(to);
                let wanted = match (mode, policy, node) {
                    ("Proxy", ..) => Some(BALANCER),
                    (_, "Local", 2) => None,
                    _ => Some("a1"),
                };
                assert_eq!(outcome.who(), wanted, "{mode}, {policy}, by node {node}: {outcome:?}");
            }
        }
    }
}

/// The cloud's table of routes for what it sends from a balancer's address to the same address.
const TABLE: &str = "50";

/// The cloud does not deliver to itself what it sends from a balancer's address to one, but follows [`TABLE`].
fn send_own_packets_out(cluster: &Cluster) {
    cluster.cloud.sysctl(&[("net.ipv4.conf.all.accept_local", "1"), ("net.ipv4.conf.all.rp_filter", "0")]);
    for family in FAMILIES {
        let (ip, net) = (flag(family), BALANCERS.prefix(family));
        for rule in [
            &["add", "pref", "10", "lookup", "local"][..],
            &["add", "pref", "5", "iif", "lo", "from", &net, "to", &net, "lookup", TABLE],
            &["del", "pref", "0"],
        ] {
            cluster.cloud.run("ip", &[&[ip, "rule"], rule].concat());
        }
    }
}
