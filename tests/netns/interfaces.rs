//! Interfaces that come and go while the agent runs.

use std::time::{Duration, Instant};

use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::Dial;
use lb_tests::lab::{Cni, Setup};
use lb_tests::scene::{BALANCER, Scene};

/// A pod that starts after the agent takes the shortcut at once, and so does one that comes in its place.
fn late_pods_are_served(setup: Setup) {
    let mut scene = Scene::start(setup);
    scene.publish("shop", 100, "VIP", &["a"]);
    for round in 0..3 {
        scene.add_pod("late");
        let dial = Dial::from(&scene.lab.pod("late").netns);
        let started = Instant::now();
        until_true("the new interface is served", || dial.tcp(vip(FAMILIES[0], 100, 80)).who() == Some("a"));
        assert!(started.elapsed() < Duration::from_secs(2), "round {round}: it took {:?}", started.elapsed());
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
