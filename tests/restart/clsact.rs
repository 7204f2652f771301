//! Interfaces that are served by clsact, as on kernels without tcx: the same life, and nothing of others is touched.

use std::time::Duration;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::agent::Agent;
use lb_tests::control::{classifiers, has_qdisc, tc, tcx_programs};
use lb_tests::deadline::{self, until_true};
use lb_tests::dial::Dial;
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, FINDING_OUT, Scene};
use serde_json::Value;

const BY_CLSACT: [&str; 2] = ["--attach", "clsact"];
/// The agent tries again after half of this at the latest.
const RETRY_MAX: Duration = Duration::from_mins(1);
/// The interfaces of the pods of each scene.
const PODS: [&str; 3] = ["cali-client", "cali-a", "cali-b"];

fn scene(test: &'static str, more: &[&str]) -> Scene {
    Scene::with_flags(Setup::new(test), &[&BY_CLSACT, more].concat())
}

fn row(scene: &Scene, interface: &str) -> Value {
    let rows = scene.agent.rows("interfaces");
    rows.into_iter().find(|row| row["interface"] == interface).expect("it is listed")
}

#[test]
fn ipm_73_transfers_survive_and_no_new_connection_fails() {
    super::crash::transfers_survive(Setup::new("clscrash"), &BY_CLSACT);
}

#[test]
fn ipm_72_a_proxy_address_is_at_no_instant_intercepted() {
    let mut scene = Scene::without_agent(Setup::new("clsproxy"), &BY_CLSACT);
    // The kernel loses packets of an interface while a qdisc is added to it or removed from it.
    for interface in PODS {
        tc(&scene.lab.node, &format!("qdisc add dev {interface} clsact"));
    }
    scene.agent.start();
    super::crash::proxy_is_left_alone(scene);
}

#[test]
fn requests_and_replies_of_the_network_are_translated() {
    let scene = scene("clsuplink", &["--uplink-interfaces", "up0,up1"]);
    scene.publish("shop", 70, "VIP", &["a"]);
    for family in FAMILIES {
        assert_eq!(scene.dial_from_far().tcp(vip(family, 70, 80)).who(), Some("a"));
        assert_eq!(scene.dial_from_far().udp(vip(family, 70, 80)).who(), Some("a"));
        assert_eq!(scene.dial().udp(vip(family, 70, 80)).who(), Some("a"));
        assert_eq!(scene.dial().tcp(vip(family, 70, 443)).who(), Some(BALANCER));
    }
    let uplink = row(&scene, "up1");
    assert_eq!((&uplink["class"], &uplink["attached_by"]), (&"uplink".into(), &"clsact".into()));
    assert_eq!(uplink["hooks"], serde_json::json!(["ingress", "egress"]));
    assert_eq!(tcx_programs(&scene.lab.node, "up1"), 0);
}

#[test]
fn unload_leaves_nothing_but_what_others_have() {
    let mut scene = Scene::without_agent(Setup::new("clsunload"), &BY_CLSACT);
    // Another program's qdisc with a classifier, that matches no packet of ours, in the place that ours would take.
    tc(&scene.lab.node, "qdisc add dev cali-a clsact");
    tc(&scene.lab.node, "filter add dev cali-a ingress prio 1 protocol ip u32 match ip protocol 254 0xff classid 1:1");
    tc(&scene.lab.node, "qdisc add dev cali-b clsact");
    let foreign = classifiers(&scene.lab.node, "cali-a");
    assert!(!foreign.is_empty(), "tc prints the foreign classifier");
    scene.agent.start();
    scene.publish("shop", 71, "VIP", &["a"]);
    let ours = |interface: &str| {
        let lines = classifiers(&scene.lab.node, interface);
        lines.iter().filter(|line| line.contains(" lb-agent:workload-")).count()
    };
    assert_eq!(PODS.map(ours), [2, 2, 2]);
    for family in FAMILIES {
        assert_eq!(scene.dial_from("a").tcp(vip(family, 71, 80)).who(), Some("a"), "behind the foreign classifier");
    }
    let before: Vec<Value> = serde_json::from_value(row(&scene, "cali-a")["before_ours"].clone()).expect("a list");
    assert_eq!(before, ["ingress: classifier u32 (priority 1)"]);
    let refused = scene.agent.ask(&["unload"]);
    assert_eq!((refused.code, PODS.map(ours)), (Some(1), [2, 2, 2]), "not under a running agent: {refused:?}");

    scene.agent.terminate();
    let told = scene.agent.says(&["unload"]);
    assert!(told.contains("removed 6 classifiers"), "{told}");
    assert_eq!(classifiers(&scene.lab.node, "cali-a"), foreign);
    for (interface, is_kept) in [("cali-client", false), ("cali-a", true), ("cali-b", true)] {
        assert_eq!(
            has_qdisc(&scene.lab.node, interface),
            is_kept,
            "{interface}: the qdiscs of others stay, and only they"
        );
    }
    assert!(
        classifiers(&scene.lab.node, "cali-client").is_empty() && classifiers(&scene.lab.node, "cali-b").is_empty()
    );
    assert!(!scene.agent.pin_path().exists());
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 71, 80)).who(), Some(BALANCER));
    }
    tc(&scene.lab.node, "qdisc del dev cali-b clsact");
    scene.agent.start();
    scene.publish("shop", 71, "VIP", &["b"]);
    assert_eq!(scene.dial().tcp(vip(FAMILIES[0], 71, 80)).who(), Some("b"), "and it can begin anew");
}

/// Another agent, or a program that sets a classifier at our own place.
#[test]
fn classifiers_of_others_stay_also_with_our_handle() {
    let mut scene = Scene::without_agent(Setup::new("clshandle"), &BY_CLSACT);
    tc(&scene.lab.node, "qdisc add dev cali-a clsact");
    let theirs = "bpf bytecode 1,6%0%0%4294967295, direct-action";
    let words: Vec<_> = theirs.split(' ').map(|word| word.replace('%', " ")).collect();
    for hook in ["ingress prio 1", "egress prio 65535"] {
        let place = format!("filter add dev cali-a {hook} handle 0x6c62 protocol all");
        let words: Vec<_> = place.split(' ').chain(words.iter().map(String::as_str)).collect();
        scene.lab.node.run("tc", &words);
    }
    let foreign = classifiers(&scene.lab.node, "cali-a");
    assert_eq!(foreign.len(), 2, "{foreign:?}");
    scene.agent.start();
    scene.publish("shop", 72, "VIP", &["b"]);
    scene.agent.crash();
    scene.agent.start();
    let now = classifiers(&scene.lab.node, "cali-a");
    assert_eq!(now.iter().filter(|line| line.contains(" lb-agent:")).count(), 2, "{now:?}");
    assert_eq!(now.iter().filter(|line| foreign.contains(line)).count(), 2, "{now:?}");
    for family in FAMILIES {
        assert_eq!(scene.dial_from("a").tcp(vip(family, 72, 80)).who(), Some("b"));
    }
    scene.agent.terminate();
    scene.agent.unload();
    assert_eq!(classifiers(&scene.lab.node, "cali-a"), foreign);
}

#[test]
fn what_others_remove_is_attached_again() {
    let scene = scene("clslost", &[]);
    scene.publish("shop", 74, "VIP", &["a"]);
    tc(&scene.lab.node, "qdisc del dev cali-client clsact");
    tc(&scene.lab.node, "filter del dev cali-b egress");
    assert_eq!(
        (classifiers(&scene.lab.node, "cali-client").len(), classifiers(&scene.lab.node, "cali-b").len()),
        (0, 1)
    );
    until_true("both are served again", || {
        classifiers(&scene.lab.node, "cali-client").len() == 2 && classifiers(&scene.lab.node, "cali-b").len() == 2
    });
    assert!(scene.agent.log().contains("had removed classifiers of lb-agent"));
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 74, 80)).who(), Some("a"));
    }
}

/// Unlike links, classifiers outlive their pins, and belong to one network namespace.
#[test]
fn classifiers_without_pins_are_found_again() {
    let mut scene = scene("clspins", &[]);
    scene.publish("shop", 77, "VIP", &["a"]);
    let count = |scene: &Scene| PODS.map(|interface| classifiers(&scene.lab.node, interface).len());
    let pins = scene.agent.pin_path().to_owned();
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let elsewhere = Agent::new(&scene.lab.far, folder.path(), scene.manifests.path()).pins(&pins);

    scene.agent.crash();
    std::fs::remove_dir_all(&pins).expect("root may");
    assert_eq!(count(&scene), [2, 2, 2]);
    scene.agent.start();
    scene.publish("shop", 77, "VIP", &["b"]);
    assert_eq!(count(&scene), [2, 2, 2], "adopted by their names, in the same places");
    assert_eq!(scene.dial().tcp(vip(FAMILIES[0], 77, 80)).who(), Some("b"));

    scene.agent.crash();
    let told = elsewhere.says(&["unload"]);
    assert!(told.contains("another network namespace") && !pins.exists(), "{told}");
    assert_eq!(count(&scene), [2, 2, 2]);
    let told = scene.agent.says(&["unload"]);
    assert!(told.contains("removed 6 classifiers"), "{told}");
    assert_eq!(count(&scene), [0, 0, 0]);
}

/// The qdisc ingress has no hook for replies. Nothing may be attached to its one hook, which takes both directions.
#[test]
fn an_interface_with_the_older_qdisc_is_refused_and_told() {
    let mut scene = Scene::without_agent(Setup::new("clsolder"), &BY_CLSACT);
    tc(&scene.lab.node, "qdisc add dev cali-b ingress");
    scene.agent.start();
    scene.publish("shop", 75, "VIP", &["a"]);
    let log = scene.agent.log();
    assert!(log.contains("cali-b") && log.contains("qdisc ingress of others"), "{log}");
    let told = scene.agent.says(&["show", "warnings"]);
    assert!(told.contains("interface cali-b") && told.contains("let its owner use clsact"), "{told}");
    assert_eq!(row(&scene, "cali-b")["class"], Value::Null);
    assert_eq!(classifiers(&scene.lab.node, "cali-b"), [""; 0]);
    assert!(tc(&scene.lab.node, "qdisc show dev cali-b").contains("qdisc ingress"));
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 75, 80)).who(), Some("a"), "other pods are served");
        let other = scene.dial_from("b");
        assert_eq!(other.tcp(vip(family, 75, 80)).who(), Some(BALANCER));
    }
    // Its owner makes room.
    tc(&scene.lab.node, "qdisc del dev cali-b ingress");
    let client = scene.lab.pod("b").netns.clone();
    deadline::within(RETRY_MAX, || {
        (Dial::from(&client).tcp(vip(FAMILIES[0], 75, 80)).who() == Some("a")).then_some(())
    })
    .expect("it is served");
    assert!(!scene.agent.says(&["show", "warnings"]).contains("cali-b"));
}

/// A program there would act on the packets of all interfaces that share the block.
#[test]
fn a_block_that_interfaces_share_is_left_alone() {
    let mut scene = Scene::without_agent(Setup::new("clsblock"), &BY_CLSACT);
    for interface in ["cali-a", "up1"] {
        tc(&scene.lab.node, &format!("qdisc add dev {interface} ingress_block 7 egress_block 8 clsact"));
    }
    scene.agent.start();
    scene.publish("shop", 78, "VIP", &["a"]);
    let told = scene.agent.says(&["show", "warnings"]);
    assert!(told.contains("interface cali-a") && told.contains("block that interfaces share"), "{told}");
    let in_blocks = ["7", "8"].map(|block| tc(&scene.lab.node, &format!("filter show block {block}")));
    assert_eq!((in_blocks, row(&scene, "cali-a")["class"].as_str()), ([String::new(), String::new()], None));
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 78, 80)).who(), Some("a"), "other pods are served");
    }
}

#[test]
fn late_pods_are_served_and_leave_nothing() {
    let mut scene = scene("clslate", &[]);
    scene.publish("shop", 76, "VIP", &["a"]);
    for round in 0..3 {
        scene.add_pod("late");
        let late = scene.dial_from("late").unasked(FINDING_OUT);
        until_true("the new interface is served", || late.tcp(vip(FAMILIES[0], 76, 80)).who() == Some("a"));
        for family in FAMILIES {
            assert_eq!(scene.dial_from("late").tcp(vip(family, 76, 80)).who(), Some("a"), "round {round}");
        }
        scene.lab.remove_pod("late");
    }
    let log = scene.agent.log();
    assert!(!log.contains("WARN"), "{log}");
}
