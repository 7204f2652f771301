//! Tunnels whose packets have no link header, between the node and another one over Ethernet.

use std::fs;

use lb_tests::address::{FAMILIES, Family, Net, add_address, flag, host_prefix};
use lb_tests::netns::Netns;
use lb_tests::scene::{Scene, TARGET};
use lb_tests::serve::Server;
use lb_tests::side::Side;

/// The server of the other node.
const WHO: &str = "other";

/// The node's end of the Ethernet link.
const UNDERLAY_NAME: &str = "u-tun";
const UNDERLAY: Net = Net::of_device(9);
/// Hosts of [`UNDERLAY`] for the tunnel with one remote address: the kernel prefers that tunnel for packets between
/// these addresses.
const FAR_END: u8 = 3;
const NEAR_END: u8 = 4;

const IPV4: &[Family] = &[Family::V4];
const IPV6: &[Family] = &[Family::V6];
const WIREGUARD_PORT: &str = "51820";

/// A device, its families, and its network.
type Plan = (&'static str, &'static [Family], Net);
/// As Calico has it: the other end is the gateway of each route.
const TUNL0: Plan = ("tunl0", IPV4, Net::of_device(10));
const IPIP: Plan = ("ipip1", IPV4, Net::of_device(11));
const WIREGUARD: Plan = ("wg0", &FAMILIES, Net::of_device(12));
const GRE: Plan = ("gre1", &FAMILIES, Net::of_device(13));
const SIT: Plan = ("sit1", IPV6, Net::of_device(14));
const PLANS: [Plan; 5] = [TUNL0, IPIP, WIREGUARD, GRE, SIT];

/// All of them lead to one other node.
pub fn all(scene: &Scene) -> Vec<Side> {
    let far = Netns::create(scene.lab.test, "tunnels");
    connect(scene, &far);
    let mut servers = vec![Server::tcp(&far, WHO, TARGET), Server::udp(&far, WHO, TARGET)];
    let side = |(device, families, net)| Side::tunnel(device, far.clone(), (families, net), WHO, servers.split_off(0));
    PLANS.into_iter().map(side).collect()
}

fn connect(scene: &Scene, far: &Netns) {
    let node = &scene.lab.node;
    node.ip(&[
        format!("link add {UNDERLAY_NAME} type veth peer name eth0 netns {}", far.name()),
        format!("link set {UNDERLAY_NAME} up"),
    ]);
    far.ip(&["link set eth0 up"]);
    for (netns, device, hosts, ends) in
        [(node, UNDERLAY_NAME, [2, NEAR_END], [NEAR_END, FAR_END]), (far, "eth0", [1, FAR_END], [FAR_END, NEAR_END])]
    {
        for host in hosts {
            netns.ip(&[add_address(Family::V4, &UNDERLAY.interface(Family::V4, host), device)]);
        }
        let [local, remote] = ends.map(|end| UNDERLAY.host(Family::V4, end));
        netns.ip(&[
            "link set tunl0 up".to_owned(),
            format!("link add ipip1 type ipip local {local} remote {remote}"),
            "link set ipip1 up".to_owned(),
            format!("link add gre1 type gre local {local} remote {remote}"),
            "link set gre1 up".to_owned(),
            format!("link add sit1 type sit local {local} remote {remote}"),
            "link set sit1 up".to_owned(),
            "link add wg0 type wireguard".to_owned(),
            "link set wg0 up".to_owned(),
        ]);
    }
    // By it alone, auto knows what these tunnels are for.
    for (family, device) in [(Family::V4, "gre1"), (Family::V6, "sit1")] {
        node.run("ip", &[flag(family), "route", "add", "default", "dev", device, "metric", "5000"]);
    }
    wireguard(scene, far);
    for (table, (device, families, net)) in (100..).zip(PLANS) {
        for family in families {
            route(node, far, (device, *family, net), table);
        }
    }
}

/// The node has a route to the other one's address; the other one answers by the device to which its address belongs.
fn route(node: &Netns, far: &Netns, (device, family, net): (&'static str, Family, Net), table: u32) {
    let gateway = |host| match device {
        "tunl0" => format!("via {} dev tunl0 onlink", UNDERLAY.host(family, host)),
        _ => format!("dev {device}"),
    };
    let table = table.to_string();
    for (netns, own, other) in [(node, 2, 1), (far, 1, 2)] {
        netns.ip(&[add_address(family, &host_prefix(net.host(family, own)), device)]);
        let run =
            |words: &str| netns.run("ip", &[&[flag(family)], words.split(' ').collect::<Vec<_>>().as_slice()].concat());
        run(&format!("route add {} {}", host_prefix(net.host(family, other)), gateway(other)));
        if own == 1 {
            run(&format!("route add default {} table {table}", gateway(other)));
            run(&format!("rule add from {} table {table}", net.host(family, own)));
        }
    }
}

/// Each end accepts everything from the other one.
fn wireguard(scene: &Scene, far: &Netns) {
    let ends = [(&scene.lab.node, 2, 1), (far, 1, 2)];
    let public = ends.map(|(netns, own, _)| {
        let file = scene.lab.folder().join(format!("wireguard-{own}"));
        fs::write(&file, netns.run("wg", &["genkey"])).expect("the temporary folder is writable");
        let file = file.to_str().expect("plain names");
        netns.run("wg", &["set", "wg0", "private-key", file, "listen-port", WIREGUARD_PORT]);
        netns.run("wg", &["show", "wg0", "public-key"])
    });
    for ((netns, _, other), peer) in ends.into_iter().zip(public.iter().rev()) {
        let endpoint = format!("{}:{WIREGUARD_PORT}", UNDERLAY.host(Family::V4, other));
        let words = ["set", "wg0", "peer", peer.trim(), "endpoint", &endpoint, "allowed-ips", "0.0.0.0/0,::/0"];
        netns.run("wg", &words);
    }
}
