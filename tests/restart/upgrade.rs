//! Versions with another layout of the tables, as in an upgrade and a rollback: what `docs/upgrade.md` promises.

use std::process::Command;

use lb_agent::dataplane::pins::PinPath;
use lb_common::table::{CONNECTIONS_VERSION, LAYOUT_VERSION};
use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::dial::Dial;
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};

/// Makes the pinned tables those of another version.
fn set_versions(scene: &Scene, layout: u16, connections: u16) {
    let owner = PinPath::new(scene.agent.pin_path()).owner().expect("it can be read").expect("an agent has run");
    let versions = [layout.to_ne_bytes(), connections.to_ne_bytes()].concat();
    let value = [&owner.netns_cookie.to_ne_bytes()[..], &versions, &owner.jiffies_per_sec.to_ne_bytes()].concat();
    bpftool(scene, "owner", &value);
}

fn bpftool(scene: &Scene, map: &str, value: &[u8]) {
    let mut command = Command::new("bpftool");
    command.args(["map", "update", "pinned"]).arg(scene.agent.maps().join(map)).args(["key", "0", "0", "0", "0"]);
    let done = command.arg("value").args(value.iter().map(u8::to_string)).status();
    assert!(done.is_ok_and(|status| status.success()), "bpftool writes {map}");
}

/// Puts a map of another shape in the place of a pinned one, as another layout would have it.
fn reshape(scene: &Scene, map: &str) {
    let path = scene.agent.maps().join(map);
    std::fs::remove_file(&path).expect("removing a pin");
    let mut command = Command::new("bpftool");
    command.args(["map", "create"]).arg(&path).args(["type", "hash", "key", "8", "value", "20", "entries", "64"]);
    let done = command.args(["name", map, "flags", "1"]).status();
    assert!(done.is_ok_and(|status| status.success()), "bpftool makes {map}");
}

/// The Services change their order, and so their IDs, over the exchange: a flow is counted for the address that it dialled.
#[test]
fn another_layout_keeps_all_connections() {
    let mut scene = Scene::start(Setup::new("layouts"));
    scene.publish("shop", 27, "VIP", &["a", "b"]);
    scene.publish("bank", 28, "VIP", &["a"]);
    let client = scene.lab.pod("client").netns.clone();
    let diallers = FAMILIES.map(|family| Dial::from(&client).repeatedly(vip(family, 27, 80)));
    let mut held: Vec<_> =
        [27, 28].into_iter().flat_map(|port| FAMILIES.map(|family| scene.dial().held(vip(family, port, 80)))).collect();
    // From the version after this one and back, then from the one before. The tables of frontends differ.
    for layout in [LAYOUT_VERSION + 1, LAYOUT_VERSION - 1] {
        scene.agent.terminate();
        set_versions(&scene, layout, CONNECTIONS_VERSION);
        reshape(&scene, "frontends4");
        scene.agent.start();
        for held in &mut held {
            held.echo("still here").expect("its flow is copied");
        }
        for family in FAMILIES {
            scene.expect_all(vip(family, 27, 80), &["a", "b"]);
        }
        for (service, number) in [("default/shop:web ", 27), ("default/bank:web ", 28)] {
            let flows = scene.agent.says(&["show", "flows", "--address", &vip(Family::V4, number, 80).to_string()]);
            let mut rows = flows.lines().skip(1).peekable();
            assert!(rows.peek().is_some() && rows.all(|row| row.starts_with(service)), "{flows}");
        }
    }
    for dialler in diallers {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty() && tally.answered.values().sum::<u64>() > 20, "{tally:?}");
        assert!(!tally.answered.contains_key(BALANCER), "{tally:?}");
    }
}

#[test]
fn connections_of_another_version_end_in_vip_mode_and_nothing_else() {
    let mut scene = Scene::start(Setup::new("connections"));
    scene.publish("shop", 27, "VIP", &["a", "b"]);
    scene.publish("bank", 28, "Proxy", &["a"]);
    let client = scene.lab.pod("client").netns.clone();
    let mut proxied = FAMILIES.map(|family| scene.dial().held(vip(family, 28, 80)));
    let mut shortcut = scene.dial().held(vip(Family::V4, 27, 80));
    let dialler = Dial::from(&client).repeatedly(vip(Family::V4, 27, 80));
    scene.agent.terminate();
    set_versions(&scene, LAYOUT_VERSION + 1, CONNECTIONS_VERSION + 1);
    shortcut.echo("no agent runs").expect("it lasts until the next agent is ready");
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
    shortcut.echo("unknown now").expect_err("its flow was kept in another way");
}
