//! Interfaces that come and go while the agent runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline::{until, until_true};
use lb_tests::dial::Dial;
use lb_tests::lab::{Cni, Setup};
use lb_tests::netns::run;
use lb_tests::scene::{BALANCER, Scene};
use serde_json::Value;

/// A pod that starts after the agent takes the shortcut at once, and so does one that comes in its place.
fn late_pods_are_served(setup: Setup) {
    let mut scene = Scene::start(setup);
    scene.publish("shop", 100, "VIP", &["a"]);
    for round in 0..3 {
        scene.add_pod("late");
        let dial = Dial::from(&scene.lab.pod("late").netns);
        // Long before the next audit, which would find it, too.
        until_true("the new interface is served", || dial.tcp(vip(FAMILIES[0], 100, 80)).who() == Some("a"));
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

/// Otherwise a connection in the moment between the two gets its answer from a stranger, and resets it.
#[test]
fn replies_are_translated_before_requests_are() {
    let mut scene = Scene::start(Setup::new("order"));
    scene.add_pod("late");
    let links = scene.agent.pin_path().join("links");
    let both = || {
        let ids = link_ids(&links);
        let halves = ids.values().flatten().count();
        // Four pods; no uplink was asked for.
        (ids.len() == 4 && halves == 8).then_some(ids)
    };
    for (interface, [egress, ingress]) in until("every interface has both programs", both) {
        assert!(egress < ingress, "{interface}: ids of links grow, and {egress:?} is to come before {ingress:?}");
    }
}

/// The ids of the pinned links at egress and at ingress of each interface.
fn link_ids(links: &Path) -> BTreeMap<String, [Option<u64>; 2]> {
    let mut ids = BTreeMap::<_, [_; 2]>::new();
    for entry in links.read_dir().expect("the agent made it") {
        let path = entry.expect("it can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("pins have plain names");
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
    let other = Dial::from(&scene.lab.pod("other").netns);
    scene.publish("shop", 101, "VIP", &["b"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 101, 80)).who(), Some("b"));
        assert_eq!(other.tcp(vip(family, 101, 80)).who(), Some(BALANCER));
    }
}
