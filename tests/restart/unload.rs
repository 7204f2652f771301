//! `lb-agent unload`: nothing of the agent is left, and traffic flows as without it.

use std::path::Path;

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use lb_tests::address::{FAMILIES, vip};
use lb_tests::lab::{Lab, Setup};
use lb_tests::scene::{BALANCER, Scene};

/// Names of the programs at both hooks of an interface of the node, as the kernel lists them.
fn programs(lab: &Lab, interface: &str) -> Vec<String> {
    let list = || {
        [TcAttachType::Ingress, TcAttachType::Egress].into_iter().flat_map(|hook| {
            let (_, programs) = SchedClassifier::query_tcx(interface, hook).expect("the kernel lists programs");
            programs.into_iter().map(|program| program.name_as_str().unwrap_or("?").to_owned()).collect::<Vec<_>>()
        })
    };
    lab.node.inside(|| list().collect())
}

#[test]
fn nothing_is_left_behind() {
    let mut scene = Scene::with_flags(Setup::new("unload"), &["--uplink-interfaces", "up0,up1"]);
    scene.publish("shop", 30, "VIP", &["a"]);
    let interfaces = ["up0", "up1", "cali-client", "cali-a", "cali-b"];
    for interface in interfaces {
        assert_eq!(programs(&scene.lab, interface).len(), 2, "{interface}: one at each hook");
    }
    let refused = scene.agent.ask(&["unload"]);
    assert_eq!(refused.code, Some(1), "not under a running agent: {refused:?}");
    assert_eq!(scene.dial().tcp(vip(FAMILIES[0], 30, 80)).who(), Some("a"));

    scene.agent.terminate();
    scene.agent.unload();
    for interface in interfaces {
        assert_eq!(programs(&scene.lab, interface), [""; 0], "{interface}");
    }
    assert!(!scene.agent.pin_path().exists(), "{} is still there", scene.agent.pin_path().display());
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 30, 80)).who(), Some(BALANCER));
    }
    assert_eq!(scene.agent.ask(&["unload"]).code, Some(0), "what is not there is as good as removed");
    scene.agent.start();
    scene.publish("shop", 30, "VIP", &["b"]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 30, 80)).who(), Some("b"), "and it can begin anew");
    }
}

#[test]
fn an_interface_that_is_gone_leaves_nothing_behind() {
    let mut scene = Scene::start(Setup::new("unlink"));
    scene.add_pod("late");
    scene.publish("shop", 31, "VIP", &["a"]);
    let links = scene.agent.pin_path().join("links");
    let pinned = |path: &Path| {
        let pins = std::fs::read_dir(path).expect("the agent's own folder");
        pins.filter(|pin| pin.as_ref().is_ok_and(|pin| pin.file_name().to_string_lossy().starts_with("workload-")))
            .count()
    };
    lb_tests::deadline::until_true("four pods are served", || pinned(&links) == 8);
    scene.lab.remove_pod("late");
    lb_tests::deadline::until_true("the pins of the fourth are gone", || pinned(&links) == 6);
}
