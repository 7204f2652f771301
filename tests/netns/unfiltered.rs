//! Pods on a bridge whose frames between ports do not traverse netfilter: the node's conntrack never sees the replies
//! of a backend to a client on the same bridge.

use std::net::{IpAddr, SocketAddr};

use lb_tests::address::{FAMILIES, Family, add_address, vip};
use lb_tests::deadline;
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::cni::BRIDGE_NAME;
use lb_tests::lab::{Cni, Setup};
use lb_tests::scene::{Scene, TARGET};

use lb_tests::scene::outside::DROP_INVALID;

/// Counts packets that the stack forwards between the bridge's ports.
const FORWARDED: &str = "
    table inet forwarded {
        chain forward {
            type filter hook forward priority filter - 1;
            iifname cni0 oifname cni0 meta l4proto udp counter;
            iifname cni0 oifname cni0 counter;
        }
    }
";

const SWITCHES: [&str; 2] = ["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"];

fn setup(test: &'static str) -> Scene {
    let scene = Scene::without_agent(Setup::new(test).cni(Cni::Bridge), &["--audit-secs", "1"]);
    scene.lab.node.nft(DROP_INVALID);
    scene
}

fn switch(scene: &Scene, value: &str) {
    scene.lab.node.sysctl(&SWITCHES.map(|name| (name, value)));
}

/// Checks connections and datagrams of each length to an endpoint on the client's own bridge.
fn is_served(scene: &Scene) {
    for family in FAMILIES {
        let vip = vip(family, 1, 80);
        let mut held = scene.dial().held(vip);
        held.transfer(4 << 20).expect("bulk goes both ways");
        let asking = scene.dial().asking(vip);
        for len in [20, 2_000, 60_000] {
            let answer = asking.ask(&"f".repeat(len));
            assert!(matches!(&answer, Outcome::Answered(answer) if answer.who == "a"), "{len} bytes: {answer:?}");
        }
    }
}

#[test]
fn endpoints_beside_the_client_are_reached_without_netfilter() {
    let mut scene = setup("unfiltered");
    switch(&scene, "0");
    scene.agent.start();
    scene.publish("s1", 1, "VIP", &["a"]);
    scene.lab.node.nft(FORWARDED);
    is_served(&scene);
    let counted = scene.lab.node.run("nft", &["list", "chain", "inet", "forwarded", "forward"]);
    assert_eq!(counted.matches("packets 0 ").count(), 2, "fragments and datagrams go across as well: {counted}");
}

#[test]
fn the_switch_is_followed() {
    let mut scene = setup("unfilterflip");
    scene.agent.start();
    scene.publish("s1", 1, "VIP", &["a"]);
    is_served(&scene);
    let shown = |scene: &Scene| scene.agent.says(&["show", "interfaces"]);
    let warned =
        |scene: &Scene| scene.agent.says(&["show", "warnings"]).contains("between ports of cni0 bypasses netfilter");
    assert!(!warned(&scene));
    let until = |scene: &Scene, told: &str| {
        deadline::until_true(told, || shown(scene).contains(told));
        is_served(scene);
    };
    switch(&scene, "0");
    until(&scene, "IPv4 and IPv6 between ports of cni0: bypasses netfilter");
    assert!(warned(&scene));
    let checked = scene.agent.says(&["check"]);
    assert!(checked.contains("IPv4 and IPv6 between ports of cni0 bypasses netfilter"), "{checked}");
    // A bridge may enable it by itself.
    scene.lab.node.run("ip", &["link", "set", BRIDGE_NAME, "type", "bridge", "nf_call_iptables", "1"]);
    until(&scene, "; IPv6 between ports of cni0: bypasses netfilter");
    switch(&scene, "1");
    deadline::until_true("all is filtered", || !shown(&scene).contains("bypasses netfilter") && !warned(&scene));
    is_served(&scene);
}

/// A client of another prefix of the same bridge: the backend answers by its gateway, so conntrack sees both
/// directions.
#[test]
fn clients_of_another_prefix_go_by_the_node() {
    let mut scene = setup("unfilteredfar");
    switch(&scene, "0");
    scene.agent.start();
    scene.publish("s1", 1, "VIP", &["a"]);
    for (family, node, client) in
        [(Family::V4, "198.18.7.1/24", "198.18.7.5/24"), (Family::V6, "2001:db8:77::1/64", "2001:db8:77::5/64")]
    {
        scene.lab.node.ip(&[add_address(family, node, BRIDGE_NAME)]);
        scene.lab.pod("client").netns.ip(&[add_address(family, client, "eth0")]);
        let source: IpAddr = client.split('/').next().expect("an address").parse().expect("an address");
        // A lost packet of neighbour discovery delays the first answer by a second.
        deadline::until_true("the node reaches the client's new address", || {
            Dial::from(&scene.lab.node).tcp(SocketAddr::new(source, TARGET)).who() == Some("client")
        });
        let mut held = scene.dial().bound(source).held(vip(family, 1, 80));
        held.transfer(1 << 20).expect("bulk goes both ways");
        // The backend has heard the node's redirects by now.
        scene.dial().bound(source).held(vip(family, 1, 80)).transfer(1 << 20).expect("bulk goes both ways again");
    }
}
