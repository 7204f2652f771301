//! Versions with another layout of the tables, as in an upgrade and a rollback: what `docs/upgrade.md` promises.

use std::process::Command;

use lb_agent::dataplane::pins::PinPath;
use lb_common::table::LAYOUT_VERSION;
use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::dial::Dial;
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};

/// Makes the pinned tables those of another version.
fn set_layout(scene: &Scene, layout: u32) {
    let owner = PinPath::new(scene.agent.pin_path()).owner().expect("it can be read").expect("an agent has run");
    let value = [&owner.netns_cookie.to_ne_bytes()[..], &layout.to_ne_bytes(), &owner.jiffies_per_sec.to_ne_bytes()];
    let mut command = Command::new("bpftool");
    command.args(["map", "update", "pinned"]).arg(scene.agent.maps().join("owner")).args(["key", "0", "0", "0", "0"]);
    let bytes = value.concat();
    let done = command.arg("value").args(bytes.iter().map(u8::to_string)).status();
    assert!(done.is_ok_and(|status| status.success()), "bpftool writes the owner");
}

#[test]
fn another_layout_ends_what_is_open_in_vip_mode_and_nothing_else() {
    let mut scene = Scene::start(Setup::new("layouts"));
    scene.publish("shop", 27, "VIP", &["a", "b"]);
    scene.publish("bank", 28, "Proxy", &["a"]);
    let client = scene.lab.pod("client").netns.clone();
    // From the version after this one and back, then from the one before.
    for layout in [LAYOUT_VERSION + 1, LAYOUT_VERSION - 1] {
        let mut proxied = FAMILIES.map(|family| scene.dial().held(vip(family, 28, 80)));
        let mut shortcut = scene.dial().held(vip(Family::V4, 27, 80));
        let dialler = Dial::from(&client).repeatedly(vip(Family::V4, 27, 80));
        scene.agent.terminate();
        set_layout(&scene, layout);
        shortcut.echo("no agent runs").expect("it goes on until the next agent is ready");
        scene.agent.start();
        for (family, proxied) in FAMILIES.into_iter().zip(&mut proxied) {
            proxied.echo("still here").expect("what is left to the balancer has no flow");
            scene.expect_all(vip(family, 27, 80), &["a", "b"]);
            assert_eq!(scene.dial().tcp(vip(family, 28, 80)).who(), Some(BALANCER));
        }
        let tally = dialler.stop();
        // One after the other: at most one was being opened at the moment of the change.
        assert!(tally.failures.len() <= 1 && tally.answered.values().sum::<u64>() > 20, "{tally:?}");
        assert!(!tally.answered.contains_key(BALANCER), "{tally:?}");
        shortcut.echo("unknown now").expect_err("its flow was in tables of another layout");
    }
}
