//! Agents that are killed at any instant (kill -9) and started again.

use std::time::Duration;

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::Transfer;
use lb_tests::lab::{Cni, Setup};
use lb_tests::scene::{BALANCER, Scene};

/// How often the agent is killed.
const CRASHES: usize = 3;

#[test]
fn ipm_73_a_running_transfer_survives_and_no_new_connection_fails() {
    transfers_survive(Setup::new("crash"), &[]);
}

#[test]
fn ipm_73_also_between_ports_of_a_bridge() {
    transfers_survive(Setup::new("crashbr").cni(Cni::Bridge), &[]);
}

pub fn transfers_survive(setup: Setup, flags: &[&str]) {
    // Room for all flows that the diallers leave behind, so that no idle flow is evicted.
    let mut scene = Scene::with_flags(setup, &[&["--flows-max", "262144"], flags].concat());
    scene.publish("shop", 10, "VIP", &["a", "b"]);
    let mut idle = FAMILIES.map(|family| scene.dial().held(vip(family, 10, 80)));
    let transfers = FAMILIES.map(|family| Transfer::over(scene.dial().held(vip(family, 10, 80))));
    let client = scene.lab.pod("client").netns.clone();
    let dial = lb_tests::dial::Dial::from(&client);
    let diallers = FAMILIES.map(|family| dial.repeatedly(vip(family, 10, 80)));
    for _ in 0..CRASHES {
        scene.agent.crash();
        let before: Vec<u64> = transfers.iter().map(Transfer::bytes).collect();
        until_true("the transfers go on without an agent", || {
            transfers.iter().zip(&before).all(|(transfer, before)| transfer.bytes() > before + (1 << 20))
        });
        scene.agent.start();
        // The agent works again: it applies an edit.
        scene.publish("other", 11, "VIP", &["b"]);
        scene.expect_all(vip(Family::V4, 11, 80), &["b"]);
    }
    for transfer in transfers {
        transfer.stop().expect("a transfer survives");
    }
    for held in &mut idle {
        held.echo("still here").expect("an idle connection survives");
    }
    for dialler in diallers {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty(), "{:?}", tally.failures);
        assert_eq!(tally.answered.keys().collect::<Vec<_>>(), ["a", "b"], "{tally:?}");
    }
}

#[test]
fn ipm_72_a_proxy_address_is_at_no_instant_intercepted() {
    proxy_is_left_alone(Scene::start(Setup::new("crashproxy")));
}

pub fn proxy_is_left_alone(mut scene: Scene) {
    scene.publish("shop", 12, "Proxy", &["a", "b"]);
    // Its neighbour on the same address is shortcut, before and after.
    scene.publish("near", 13, "VIP", &["a"]);
    let client = scene.lab.pod("client").netns.clone();
    let dial = lb_tests::dial::Dial::from(&client);
    let diallers = FAMILIES.map(|family| dial.repeatedly(vip(family, 12, 80)));
    let dialled = || diallers.iter().map(lb_tests::dial::Dialler::dialled).min().expect("there are some");
    for round in 0..CRASHES {
        match round {
            0 => scene.agent.crash(),
            1 => scene.agent.terminate(),
            _ => {
                scene.agent.terminate();
                scene.agent.unload();
            }
        }
        scene.agent.start();
        let seen = dialled();
        until_true("some more are dialled", || dialled() > seen + 50);
        scene.expect_all(vip(Family::V4, 13, 80), &["a"]);
    }
    for dialler in diallers {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty(), "{:?}", tally.failures);
        assert_eq!(tally.answered.keys().collect::<Vec<_>>(), [BALANCER], "{tally:?}");
    }
}

#[test]
fn killed_in_the_middle_of_edits_it_ends_where_the_folder_is() {
    let mut scene = Scene::start(Setup::new("crashedit"));
    scene.publish("shop", 14, "VIP", &["a"]);
    let client = scene.lab.pod("client").netns.clone();
    let dial = lb_tests::dial::Dial::from(&client);
    let diallers = FAMILIES.map(|family| dial.repeatedly(vip(family, 14, 80)));
    let memberships: [&[&str]; 3] = [&["b"], &["a", "b"], &["a"]];
    for round in 0..9_u64 {
        // Edits continue while it is killed, each time at another moment of its work.
        let last = memberships[round as usize % memberships.len()];
        let objects = |pods: &[&str]| {
            let entries = FAMILIES.map(|family| lb_tests::manifest::ingress(vip(family, 14, 0).ip(), "VIP"));
            let service = scene.service("shop", 14, &entries);
            [vec![service.object()], scene.slices(&service, pods)].concat()
        };
        for pods in memberships {
            scene.manifests.write("shop", &objects(pods));
        }
        scene.manifests.write("shop", &objects(last));
        std::thread::sleep(Duration::from_millis(7 * round));
        scene.agent.crash();
        scene.agent.start();
        for family in FAMILIES {
            scene.expect_all(vip(family, 14, 80), last);
        }
    }
    for dialler in diallers {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    }
}
