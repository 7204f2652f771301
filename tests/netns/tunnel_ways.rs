//! Interfaces whose packets have no link header, as the way to endpoints of other nodes and from clients to them.

use std::net::{IpAddr, SocketAddr};

use lb_tests::address::{
    BALANCERS, DEEP_LINK, FAMILIES, Net, OVERLAY, REMOTE_PODS, UPLINK, add_address, flag, host_prefix, vip,
};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::{ReversePath, Setup};
use lb_tests::manifest::{OTHER_NODE, ingress};
use lb_tests::scene::{BALANCER, Scene, TARGET, empty_slice};
use lb_tests::serve::Server;

use crate::tunnel::{Fragments, Tunnel, both, served};
use lb_tests::scene::outside::DROP_INVALID;

/// The node's side of a tunnel.
const NEAR: &str = "tunway";
/// Why `explain` is not asked.
const REMOTE: &str = "the endpoint is behind a tunnel";

/// A node with a tunnel to another one, which has the host 2 of this network and a server there.
struct Other {
    tunnel: Tunnel,
    _servers: [Server; 2],
}

impl Other {
    fn new(scene: &Scene, name: &'static str, net: Net, who: &str) -> Self {
        let tunnel = Tunnel::new(scene.lab.test, (&scene.lab.node, name), both(net, 2), Fragments::FirstOvertaken);
        for family in FAMILIES {
            scene.lab.node.ip(&[add_address(family, &net.interface(family, 1), name)]);
        }
        let servers = [Server::tcp(&tunnel.far, who, TARGET), Server::udp(&tunnel.far, who, TARGET)];
        Self { tunnel, _servers: servers }
    }
}

fn scene(test: &'static str) -> Scene {
    let flags = ["--uplink-interfaces", "up0,up1,tun*"];
    let scene = Scene::without_agent(Setup::new(test).reverse_path(ReversePath::Strict), &flags);
    scene.lab.node.nft(DROP_INVALID);
    scene
}

/// Writes a Service with one endpoint of another node in each family.
fn publish(scene: &Scene, number: u8, endpoints: [IpAddr; 2]) {
    let name = format!("s{number}");
    let service = scene.service(&name, number, &both(BALANCERS, number).map(|to| ingress(to, "VIP")));
    let mut objects = vec![service.object()];
    for (family, endpoint) in FAMILIES.into_iter().zip(endpoints) {
        objects.push(empty_slice(&service, family).endpoint(endpoint, OTHER_NODE).object());
    }
    scene.apply(&name, &objects);
}

/// Clients of an Ethernet network, an endpoint behind a tunnel.
#[test]
fn an_endpoint_behind_a_tunnel_is_reached_from_the_network() {
    let mut scene = scene("tunway");
    let _other = Other::new(&scene, NEAR, DEEP_LINK, "other");
    scene.agent.start();
    publish(&scene, 120, both(DEEP_LINK, 2));
    served(scene.dial_from_far().unasked(REMOTE), 120, "other", both(DEEP_LINK, 1));
    assert!(scene.agent.counted("forwarded") > 0);
    scene.agent.crash();
    served(scene.dial_from_far().unasked(REMOTE), 120, "other", both(DEEP_LINK, 1));
    scene.agent.start();
    served(scene.dial_from_far().unasked(REMOTE), 120, "other", both(DEEP_LINK, 1));
}

/// Clients behind a tunnel: the endpoint is in an Ethernet network, behind another tunnel, and behind their own.
#[test]
fn clients_behind_a_tunnel_reach_endpoints_of_other_nodes() {
    let mut scene = scene("tunfrom");
    let clients = Other::new(&scene, NEAR, DEEP_LINK, "clients");
    let _other = Other::new(&scene, "tunother", OVERLAY, "other");
    scene.agent.start();
    publish(&scene, 121, both(REMOTE_PODS, 5));
    publish(&scene, 122, both(OVERLAY, 2));
    publish(&scene, 123, both(DEEP_LINK, 2));
    let dial = Dial::from(&clients.tunnel.far);
    served(dial, 121, BALANCER, both(UPLINK, 2));
    served(dial, 122, "other", both(OVERLAY, 1));
    served(dial, 123, "clients", both(DEEP_LINK, 1));
}

/// Both ends of the connection learn that the way is narrow, where it is a tunnel's and where the client's tunnel is wide.
#[test]
fn pr_02_clients_learn_of_a_narrow_tunnel_and_of_a_narrow_network() {
    let mut scene = scene("tunmtu");
    let other = Other::new(&scene, NEAR, DEEP_LINK, "other");
    scene.lab.node.ip(&[format!("link set {NEAR} mtu 1300")]);
    scene.agent.start();
    publish(&scene, 124, both(DEEP_LINK, 2));
    served(scene.dial_from_far().unasked(REMOTE), 124, "other", both(DEEP_LINK, 1));
    let narrow = scene.agent.counted("too_long");
    assert!(narrow > 0, "the tunnel is narrow");
    scene.lab.node.ip(&[format!("link set {NEAR} mtu 1500"), "link set up0 mtu 1300".to_owned()]);
    scene.lab.external.ip(&["link set eth0 mtu 1300"]);
    for family in FAMILIES {
        // The endpoint announces the segment size of a wide link all the same.
        let node = host_prefix(UPLINK.host(family, 2));
        scene.lab.external.run("ip", &[flag(family), "route", "add", &node, "dev", "eth0", "advmss", "1440"]);
    }
    publish(&scene, 125, both(REMOTE_PODS, 5));
    served(Dial::from(&other.tunnel.far), 125, BALANCER, both(UPLINK, 2));
    assert!(scene.agent.counted("too_long") > narrow, "the network is narrow");
}

/// Connections of the node and forwarded ones to the same endpoint behind a tunnel share the ports: neither takes an
/// answer of the other, and neither waits in vain for a port.
#[test]
fn connections_of_the_node_share_the_ports_of_a_tunnel() {
    let flags = ["--uplink-interfaces", "up0,up1,tun*", "--snat-ports", "61000-61063"];
    let mut scene = Scene::without_agent(Setup::new("tunown"), &flags);
    let _other = Other::new(&scene, NEAR, DEEP_LINK, "other");
    scene.agent.start();
    publish(&scene, 127, both(DEEP_LINK, 2));
    for family in FAMILIES {
        let (own, endpoint) = (DEEP_LINK.host(family, 1), SocketAddr::new(DEEP_LINK.host(family, 2), TARGET));
        let mut held = Vec::new();
        for port in (61_000..61_064).step_by(4) {
            held.push(scene.dial_from_far().unasked(REMOTE).held(vip(family, 127, 80)));
            held.push(Dial::from(&scene.lab.node).bound_to(SocketAddr::new(own, port)).held(endpoint));
        }
        for held in &mut held {
            assert_eq!((held.answer.who.as_str(), held.answer.client.ip()), ("other", own));
            held.echo("its own").expect("no answer went astray");
        }
    }
    assert!(scene.agent.counted("direct_noted") > 0, "the node's own ports are known");
}

/// A closed port: the endpoint's own ICMP error and reset reach the socket that dialled, by either kind of link.
#[test]
fn closed_ports_behind_a_tunnel_refuse() {
    let mut scene = scene("tunclosed");
    let other = Tunnel::new(scene.lab.test, (&scene.lab.node, NEAR), both(DEEP_LINK, 2), Fragments::AsSent);
    scene.agent.start();
    publish(&scene, 126, both(DEEP_LINK, 2));
    for family in FAMILIES {
        let to = vip(family, 126, 80);
        for dial in [scene.dial_from_far().unasked(REMOTE), Dial::from(&other.far)] {
            assert_eq!(dial.patient().tcp(to), Outcome::Refused, "{to}");
            assert_eq!(dial.patient().udp(to), Outcome::Refused, "UDP to {to}");
        }
    }
}
