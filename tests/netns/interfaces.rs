//! Interfaces that are added and removed while the agent runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline::{until, until_true};
use lb_tests::dial::Dial;
use lb_tests::lab::{Cni, Setup};
use lb_tests::netns::{Netns, run};
use lb_tests::scene::{BALANCER, FINDING_OUT, Scene};
use serde_json::Value;

/// A pod that starts after the agent takes the shortcut at once, and so does a pod that replaces it.
fn late_pods_are_served(setup: Setup) {
    let mut scene = Scene::start(setup);
    scene.publish("shop", 100, "VIP", &["a"]);
    for round in 0..3 {
        scene.add_pod("late");
        let dial = scene.dial_from("late");
        // Long before the next audit, which would find it as well.
        until_true("the new interface is served", || {
            dial.unasked(FINDING_OUT).tcp(vip(FAMILIES[0], 100, 80)).who() == Some("a")
        });
        for family in FAMILIES {
            assert_eq!(dial.tcp(vip(family, 100, 80)).who(), Some("a"), "round {round}");
            assert_eq!(dial.tcp(vip(family, 100, 443)).who(), Some(BALANCER), "round {round}");
        }
        scene.lab.remove_pod("late");
        assert_eq!(scene.dial().tcp(vip(FAMILIES[0], 100, 80)).who(), Some("a"), "the others are not disturbed");
    }
}

#[test]
fn a_late_point_to_point_pod_is_served() {
    late_pods_are_served(Setup::new("lateptp"));
}

#[test]
fn a_late_bridged_pod_is_served() {
    late_pods_are_served(Setup::new("latebr").cni(Cni::Bridge));
}

/// Otherwise a connection that starts between the two gets its answer from an unknown address, and the client resets
/// it.
#[test]
fn replies_are_translated_before_requests_are() {
    let mut scene = Scene::start(Setup::new("order"));
    scene.add_pod("late");
    let links = scene.agent.pin_path().join("links");
    let both = || {
        let ids = link_ids(&links);
        let halves = ids.values().flatten().count();
        // Four pods; no uplinks were given.
        (ids.len() == 4 && halves == 8).then_some(ids)
    };
    for (interface, [egress, ingress]) in until("every interface has both programs", both) {
        assert!(egress < ingress, "{interface}: ids of links grow, and {egress:?} is to come before {ingress:?}");
    }
}

/// The IDs of the pinned links at egress and at ingress of each interface.
fn link_ids(links: &Path) -> BTreeMap<String, [Option<u64>; 2]> {
    let mut ids = BTreeMap::<_, [_; 2]>::new();
    for entry in links.read_dir().expect("the agent made it") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("pins have plain names");
        if name.starts_with("socket-") {
            continue;
        }
        let (interface, hook) = name.rsplit_once('-').expect("pins are named CLASS-IFINDEX-HOOK");
        let shown = run(Command::new("bpftool").args(["-j", "link", "show", "pinned"]).arg(&path));
        let link: Value = serde_json::from_str(&shown).expect("bpftool prints JSON");
        ids.entry(interface.to_owned()).or_default()[usize::from(hook == "ingress")] = link["id"].as_u64();
    }
    ids
}

#[test]
fn only_interfaces_that_match_are_served() {
    let mut scene = Scene::with_flags(Setup::new("globs"), &["--workload-interfaces", "cali-[ab],cali-c*,nothing*"]);
    scene.publish("shop", 101, "VIP", &["a"]);
    scene.add_pod("other");
    assert_eq!(scene.lab.pod("other").interface, "cali-other");
    let other = scene.dial_from("other");
    scene.publish("shop", 101, "VIP", &["b"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 101, 80)).who(), Some("b"));
        assert_eq!(other.tcp(vip(family, 101, 80)).who(), Some(BALANCER));
    }
}

/// A network beside the cluster's, on a veth: the second network card of a node that is itself a container. No object
/// names its address, and it has no default route.
struct SecondCard {
    client: Netns,
    prefixes: [&'static str; 2],
}

impl SecondCard {
    const NAME: &'static str = "lan0";

    fn new(scene: &Scene) -> Self {
        let client = Netns::create(scene.lab.test, "lan");
        let (name, prefixes) = (Self::NAME, ["172.31.9.1/24", "2001:db8:31::1/64"]);
        let node = &scene.lab.node;
        node.ip(&[
            format!("link add {name} type veth peer name eth0 netns {}", client.name()),
            format!("link set {name} up"),
        ]);
        client.ip(&[
            "link set eth0 up",
            "addr add 172.31.9.2/24 dev eth0",
            "addr add 2001:db8:31::2/64 dev eth0 nodad",
        ]);
        let card = Self { client, prefixes };
        card.address(scene, "add");
        card.client.ip(&["route add default via 172.31.9.1"]);
        card.client.run("ip", &["-6", "route", "add", "default", "via", "2001:db8:31::1"]);
        card
    }

    /// Adds or deletes the addresses of the node's end.
    fn address(&self, scene: &Scene, verb: &str) {
        for prefix in self.prefixes {
            scene.lab.node.run("ip", &["addr", verb, prefix, "dev", Self::NAME]);
        }
    }
}

/// Class and reason of an interface, empty if it has none, as `show interfaces` has them.
pub fn shown(scene: &Scene, name: &str) -> Option<(String, String)> {
    let rows = scene.agent.rows("interfaces");
    let row = rows.iter().find(|row| row["interface"] == name)?;
    let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
    Some((text("class"), text("why")))
}

/// Its clients are unknown hosts, whose packets are left to the routes and to kube-proxy, with endpoints here or
/// elsewhere.
#[test]
fn a_veth_with_a_prefix_of_its_own_leads_to_no_pod() {
    let scene = Scene::start(Setup::new("lannic"));
    scene.publish("shop", 102, "VIP", &["a"]);
    let card = SecondCard::new(&scene);
    let is_alone =
        || shown(&scene, SecondCard::NAME).filter(|(class, why)| class.is_empty() && why.contains("prefix of its own"));
    let (_, why) = until("the veth is left alone", is_alone);
    assert!(why.contains("172.31.9.1/24"), "{why}");
    let lan = Dial::from(&card.client);
    for family in FAMILIES {
        until_true("the balancer is reached", || lan.tcp(vip(family, 102, 443)).who() == Some(BALANCER));
        assert_eq!(lan.tcp(vip(family, 102, 80)).who(), Some(BALANCER), "the packet goes where routes lead");
        assert_eq!(scene.dial().tcp(vip(family, 102, 80)).who(), Some("a"), "pods are served");
    }
    // Addresses still decide while the agent runs. A connection of a pod is unaffected.
    let mut held = scene.dial().held(vip(FAMILIES[0], 102, 80));
    card.address(&scene, "del");
    until("the veth is a pod's", || shown(&scene, SecondCard::NAME).filter(|(class, _)| class == "workload"));
    card.address(&scene, "add");
    until("the veth is left alone again", is_alone);
    held.transfer(1 << 16).expect("the connection goes on");
    for family in FAMILIES {
        until_true("the balancer is reached", || lan.tcp(vip(family, 102, 80)).who() == Some(BALANCER));
    }
    let (class, why) = shown(&scene, &scene.lab.pod("a").interface).expect("it is there");
    assert_eq!((class.as_str(), why.as_str()), ("workload", "a veth to another namespace: a pod"));
}

/// WireGuard, tun, PPP: their packets begin with the network header, and have programs of their own.
#[test]
fn an_interface_without_an_ethernet_header_is_served_and_told() {
    let mut scene = Scene::without_agent(Setup::new("bare"), &["--uplink-interfaces", "tun*,up1"]);
    scene.lab.node.run("ip", &["tuntap", "add", "dev", "tun9", "mode", "tun"]);
    scene.agent.start();
    scene.publish("shop", 109, "VIP", &["a"]);
    for name in ["tun9", "up1"] {
        assert_eq!(shown(&scene, name), Some(("uplink".into(), "--uplink-interfaces names it".into())), "{name}");
    }
    let warnings = scene.agent.says(&["show", "warnings"]);
    assert!(!warnings.contains("tun9"), "{warnings}");
    let to = format!("{}/tcp", vip(FAMILIES[0], 109, 80));
    let explained = scene.agent.says(&["explain", "--from", "external", "--to", &to]);
    assert!(!explained.contains("left alone"), "{explained}");
    // An interface that no glob names is left alone, without a warning.
    scene.lab.node.run("ip", &["tuntap", "add", "dev", "other0", "mode", "tun"]);
    until("it is listed", || shown(&scene, "other0").filter(|(_, why)| why == "neither a veth nor a tap"));
    // One that is added while the agent runs. It may have the index and the name of an earlier veth.
    scene.lab.node.run("ip", &["tuntap", "add", "dev", "tun10", "mode", "tun"]);
    until("it is attached", || shown(&scene, "tun10").filter(|(class, _)| class == "uplink"));
    let pins = scene.agent.pin_path().join("links").read_dir().expect("the agent made it");
    let bare = pins.filter(|pin| pin.as_ref().is_ok_and(|pin| pin.file_name().to_string_lossy().ends_with("gress-l3")));
    assert_eq!(bare.count(), 4, "both hooks of tun9 and tun10");
}

/// The addresses that CNIs put on the node's end of a pod have no prefix.
#[test]
fn a_gateway_on_the_nodes_end_of_a_pod_changes_nothing() {
    let scene = Scene::start(Setup::new("gateway"));
    scene.publish("shop", 103, "VIP", &["a"]);
    let interface = &scene.lab.pod("client").interface;
    for gateway in ["10.244.1.254/32", "fd00:10:244:1::fe/128", "169.254.7.1/16", "fe80::77/64"] {
        scene.lab.node.run("ip", &["addr", "add", gateway, "dev", interface]);
    }
    assert_eq!(shown(&scene, interface).expect("it is there").0, "workload");
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 103, 80)).who(), Some("a"));
    }
}
