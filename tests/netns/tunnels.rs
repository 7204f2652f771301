//! Interfaces whose packets have no link header, as uplinks and with pods behind them.

use std::net::IpAddr;

use lb_tests::address::{BALANCERS, CLUSTER, DEEP_LINK, FAMILIES, PODS, add_address, vip};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, Service, ingress};
use lb_tests::scene::{BALANCER, OTHER_TARGET, Scene, TARGET, empty_slice};
use lb_tests::serve::Server;

use crate::interfaces::shown;
use crate::tunnel::{Fragments, Tunnel, both, served};

/// A node with a tunnel of this name, before its agent starts.
fn scene(
    setup: Setup,
    name: &'static str,
    flags: &[&str],
    addresses: [IpAddr; 2],
    order: Fragments,
) -> (Tunnel, Scene) {
    let test = setup.test();
    let scene = Scene::without_agent(setup, flags);
    let tunnel = Tunnel::new(test, (&scene.lab.node, name), addresses, order);
    (tunnel, scene)
}

/// Checks that no endpoint serves it, and that the client gets an error at once.
#[track_caller]
fn refused(dial: Dial<'_>, number: u8) {
    for family in FAMILIES {
        let to = vip(family, number, 80);
        assert_eq!(dial.patient().tcp(to), Outcome::Refused, "{to}");
        assert_eq!(dial.udp(to), Outcome::Refused, "UDP to {to}");
    }
}

/// A Service whose endpoint is a port of a pod on which no server listens.
fn publish_closed(scene: &Scene, number: u8, pod: &str) {
    const CLOSED: u16 = 9;
    let service = Service::new("closed").cluster_ips(&both(CLUSTER, number)).port("own", "UDP", 80, CLOSED);
    let service = both(BALANCERS, number).into_iter().fold(service, |service, to| service.ingress(ingress(to, "VIP")));
    let mut objects = vec![service.object()];
    for (family, suffix) in FAMILIES.into_iter().zip(["v4", "v6"]) {
        let slice = service.slice(suffix).address_type(family).port("own", "UDP", CLOSED);
        objects.push(slice.endpoint(scene.lab.pod_address(pod, family), NODE).object());
    }
    scene.apply("closed", &objects);
}

fn clients_behind_an_uplink_are_served(setup: Setup, order: Fragments) {
    let clients = both(DEEP_LINK, 2);
    let (tunnel, mut scene) = scene(setup, "tunup", &["--uplink-interfaces", "up0,tun*"], clients, order);
    scene.agent.start();
    scene.publish("shop", 110, "VIP", &["a"]);
    scene.publish("nobody", 111, "VIP", &[]);
    publish_closed(&scene, 112, "a");
    assert_eq!(shown(&scene, "tunup"), Some(("uplink".into(), "--uplink-interfaces names it".into())));
    let dial = Dial::from(&tunnel.far);
    served(dial, 110, "a", clients);
    refused(dial, 111);
    for family in FAMILIES {
        assert_eq!(dial.udp(vip(family, 112, 80)), Outcome::Refused, "the pod's own answer, translated: {family:?}");
        assert_eq!(dial.tcp(vip(family, 110, 443)).who(), Some(BALANCER), "another port is nobody's");
    }
    let mut held = FAMILIES.map(|family| dial.held(vip(family, 110, 80)));
    scene.agent.terminate();
    for held in &mut held {
        held.transfer(1 << 16).expect("it goes on without an agent");
    }
    scene.agent.start();
    scene.publish("shop", 110, "VIP", &["b"]);
    for held in &mut held {
        held.transfer(1 << 16).expect("it goes on under a new agent");
    }
    served(dial, 110, "b", clients);
    assert!(scene.agent.says(&["show", "warnings"]).lines().all(|line| !line.contains("tunup")));
}

#[test]
fn clients_behind_an_uplink_without_a_link_header_are_served() {
    clients_behind_an_uplink_are_served(Setup::new("tunup"), Fragments::AsSent);
}

#[test]
fn fragments_wait_for_their_first_one_without_a_link_header() {
    clients_behind_an_uplink_are_served(Setup::new("tunfrag"), Fragments::FirstOvertaken);
}

/// The number of the pod behind the tunnel.
const OWN: u8 = 99;

#[test]
fn a_pod_behind_a_tunnel_is_served_and_serves() {
    let (own, flags) = (both(PODS, OWN), ["--workload-interfaces", "cali-*,tun*"]);
    let (tunnel, mut scene) = scene(Setup::new("tunpod"), "tunpod", &flags, own, Fragments::FirstOvertaken);
    let _servers = [TARGET, OTHER_TARGET]
        .map(|port| [Server::tcp(&tunnel.far, "own", port), Server::udp(&tunnel.far, "own", port)]);
    scene.agent.start();
    scene.publish("shop", 113, "VIP", &["a"]);
    scene.publish("nobody", 114, "VIP", &[]);
    let service = scene.service("own", 115, &both(BALANCERS, 115).map(|to| ingress(to, "VIP")));
    let mut objects = vec![service.object()];
    for (family, own) in FAMILIES.into_iter().zip(own) {
        objects.push(empty_slice(&service, family).endpoint(own, NODE).object());
    }
    scene.apply("own", &objects);
    publish_closed(&scene, 116, "a");
    let dial = Dial::from(&tunnel.far);
    served(dial, 113, "a", own);
    refused(dial, 114);
    let client = FAMILIES.map(|family| scene.lab.pod_address("client", family));
    let from_pod = scene.dial().unasked("a process of the node answers, which is no pod of the scene");
    served(from_pod, 115, "own", client);
    // Back by the interface on which it arrived, and the answer likewise.
    served(dial, 115, "own", both(BALANCERS, 115));
    for family in FAMILIES {
        assert_eq!(dial.udp(vip(family, 116, 80)), Outcome::Refused, "the pod's own answer, translated: {family:?}");
    }
}

/// The default route of a node that uses a VPN for all outside traffic.
#[test]
fn a_tunnel_with_the_default_route_is_an_uplink() {
    let clients = both(DEEP_LINK, 2);
    let (tunnel, mut scene) =
        scene(Setup::new("tunauto"), "tunup", &["--uplink-interfaces", "auto"], clients, Fragments::AsSent);
    let node = &scene.lab.node;
    for family in FAMILIES {
        node.ip(&[add_address(family, &DEEP_LINK.interface(family, 1), "tunup")]);
        let route = [lb_tests::address::flag(family), "route", "replace", "default", "dev", "tunup"];
        node.run("ip", &route);
    }
    scene.agent.start();
    scene.publish("shop", 117, "VIP", &["a"]);
    let (class, why) = shown(&scene, "tunup").expect("it is there");
    assert!(class == "uplink" && why.contains("default route"), "{class}: {why}");
    served(Dial::from(&tunnel.far), 117, "a", clients);
}
