//! `--nodeport-addresses`: at which addresses of the node node ports are served, while addresses come and go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_tests::address::{FAMILIES, FAR, FAR_LINK, Family, UPLINK, add_address, host_prefix};
use lb_tests::capture::{Capture, Direction, Packet};
use lb_tests::deadline::until_true;
use lb_tests::dial::Outcome;
use lb_tests::http;
use lb_tests::lab::{FAR_NAME, Setup};
use lb_tests::raw;
use lb_tests::scene::{FINDING_OUT, Probe, Scene};
use serde_json::json;

use crate::all_services::{HERE, node_port, publish};

/// Added to a Service's number: its health check node port.
const CHECKS: u16 = 31_000;
/// The interface of addresses that are reached by every other interface.
const LOOPBACK_NAME: &str = "lo";

fn flags(addresses: &str) -> [&str; 4] {
    ["--services", "all", "--nodeport-addresses", addresses]
}

/// An address on [`LOOPBACK_NAME`] that is no loopback address.
fn inner(family: Family) -> IpAddr {
    match family {
        Family::V4 => [172, 31, 9, 9].into(),
        Family::V6 => [0xfd00, 0x31, 0, 0, 0, 0, 0, 9].into(),
    }
}

const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}

fn add_inner(scene: &Scene) {
    scene.lab.node.ip(&FAMILIES.map(|family| add_address(family, &host_prefix(inner(family)), LOOPBACK_NAME)));
}

fn at(ip: IpAddr, number: u8) -> SocketAddr {
    (ip, node_port(Family::V4, number).port()).into()
}

/// A pod, the networks on both sides, and the node itself.
fn clients(scene: &Scene, family: Family) -> [(&'static str, Probe<'_>); 4] {
    [
        ("pod", scene.dial()),
        ("near", scene.dial_from_near()),
        ("far", scene.dial_from_far().bound(FAR.host(family, 9))),
        ("node", scene.dial_from_node()),
    ]
}

fn is_checked(scene: &Scene, ip: IpAddr, number: u8) -> bool {
    let to = SocketAddr::new(ip, CHECKS + u16::from(number));
    http::get(&scene.lab.external, to, "/").is_some_and(|(status, _)| status == 200)
}

/// NP-06 and IPM-52 as well: an address of a balancer that the node has is one of all.
#[test]
fn all_addresses_of_the_node_serve_node_ports_and_no_loopback_address() {
    let scene = Scene::with_flags(Setup::new("npall"), &flags("all"));
    add_inner(&scene);
    publish(&scene, 30, &json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": CHECKS + 30}), HERE);
    for family in FAMILIES {
        for ip in [UPLINK.host(family, 2), FAR_LINK.host(family, 2), inner(family)] {
            let to = at(ip, 30);
            for (client, dial) in clients(&scene, family) {
                let outcome = dial.tcp(to);
                assert_eq!(outcome.who(), Some("a"), "{client} at {to}: {outcome:?}");
            }
            assert_eq!(scene.dial_from_far().udp(to).who(), Some("a"), "UDP at {to}");
            until_true("health checks to be answered at the address", || is_checked(&scene, ip, 30));
        }
        let outcome = scene.dial_from_node().tcp(at(loopback(family), 30));
        assert_eq!(outcome, Outcome::Refused, "nobody listens at {}", loopback(family));
    }
}

/// A neighbour can send such packets, no program of its kernel's does. The kernel drops them, and no frontend is there.
#[test]
fn np_07_a_packet_from_the_network_to_a_loopback_address_goes_nowhere() {
    const SYN: u8 = 2;
    const PORT: u16 = 40_000;
    let scene = Scene::with_flags(Setup::new("npmartian"), &flags("all"));
    publish(&scene, 33, &json!({}), HERE);
    let neighbour = &scene.lab.external;
    let captures = [Capture::start(&scene.lab.pod("a").netns), Capture::start(neighbour)];
    for family in FAMILIES {
        let (from, node) = (UPLINK.host(family, 1), UPLINK.host(family, 2));
        let segment = |port, ip| raw::segment((from, port).into(), at(ip, 33), SYN, 1);
        raw::send(neighbour, node, &[segment(PORT, loopback(family)), segment(PORT + 1, node)]);
        let is_sent = |packet: &Packet| packet.destination.ip() == loopback(family);
        captures[1].wait_for("the SYN to the loopback address", is_sent);
        let is_after = |packet: &Packet| packet.source.ip() == from && packet.source.port() == PORT + 1;
        captures[0].wait_for("the SYN to the node's own address", is_after);
    }
    for packet in captures.iter().flat_map(Capture::seen) {
        let is_answer = packet.direction == Direction::In && packet.destination.port() == PORT;
        assert!(!is_answer && (packet.direction == Direction::Out || packet.source.port() != PORT), "{packet}");
    }
}

/// HC-10 as well. An address in a listed prefix is served as soon as an interface has it. When it goes, connections
/// that were opened at it go on, and no new one is served.
#[test]
fn np_04_np_11_listed_prefixes_are_followed_without_a_restart() {
    let prefixes = FAMILIES.map(|family| FAR_LINK.prefix(family)).join(",");
    let scene = Scene::with_flags(Setup::new("nplist"), &flags(&prefixes));
    publish(&scene, 31, &json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": CHECKS + 31}), HERE);
    let mut held = Vec::new();
    for family in FAMILIES {
        let (listed, other, new) = (FAR_LINK.host(family, 2), UPLINK.host(family, 2), FAR_LINK.host(family, 7));
        for (client, dial) in clients(&scene, family) {
            assert_eq!(dial.tcp(at(other, 31)), Outcome::Refused, "{client}: nobody listens at {other}");
            held.push(dial.held(at(listed, 31)));
        }
        until_true("health checks at the listed address", || is_checked(&scene, listed, 31));
        assert!(!is_checked(&scene, other, 31), "{other} is not listed");

        let line = add_address(family, &FAR_LINK.interface(family, 7), FAR_NAME);
        scene.lab.node.ip(&[&line]);
        let is_served = || scene.dial().unasked(FINDING_OUT).tcp(at(new, 31)).who() == Some("a");
        until_true("the new address to be served", is_served);
        until_true("health checks at the new address", || is_checked(&scene, new, 31));
        held.extend(clients(&scene, family).map(|(_, dial)| dial.held(at(new, 31))));
        scene.lab.node.ip(&[format!("addr del {} dev {FAR_NAME}", FAR_LINK.interface(family, 7))]);
        until_true("the address to be served no more", || !is_served());
        for held in &mut held {
            held.echo("after the address has gone").unwrap_or_else(|error| panic!("{:?}: {error}", held.peer()));
        }
        scene.lab.node.ip(&[line]);
        until_true("the address to be served again", is_served);
    }
    for held in &mut held {
        held.echo("at the end").unwrap_or_else(|error| panic!("{:?}: {error}", held.peer()));
    }
}

/// The warnings name the flag and the addresses that exist, and last as long as the mistake.
#[test]
fn ranges_that_do_not_fit_the_node_are_told() {
    let scene = Scene::with_flags(Setup::new("npodd"), &flags("192.0.2.0/24,172.31.0.0/16"));
    publish(&scene, 32, &json!({}), HERE);
    let warnings = || scene.agent.says(&["show", "warnings"]);
    let told = warnings();
    for words in
        ["--nodeport-addresses", "no address of this node is in 172.31.0.0/16; the node has 192.0.2.2, 192.0.3.2"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    // As kube-proxy: no prefix of a family means all of its addresses.
    assert!(told.contains("lists no IPv6 prefix") && told.contains("2001:db8:3::2"), "{told}");
    assert_eq!(scene.dial().tcp(at(FAR_LINK.host(Family::V4, 2), 32)), Outcome::Refused);
    assert_eq!(scene.dial().tcp(at(FAR_LINK.host(Family::V6, 2), 32)).who(), Some("a"));
    add_inner(&scene);
    until_true("the warning to go", || !warnings().contains("172.31.0.0/16"));
    assert_eq!(scene.dial().tcp(at(inner(Family::V4), 32)).who(), Some("a"));
}
