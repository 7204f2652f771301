//! Agents that are stopped (SIGTERM), and the state that they find after a restart.

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::deadline::until_true;
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};

/// HZ-07, SY-01.
#[test]
fn an_ended_agent_leaves_the_dataplane_forwarding() {
    let mut scene = Scene::start(Setup::new("ended"));
    scene.publish("shop", 20, "VIP", &["a", "b"]);
    scene.publish("proxy", 21, "Proxy", &["a"]);
    let mut held = FAMILIES.map(|family| scene.dial().held(vip(family, 20, 80)));
    scene.agent.terminate();
    for (family, held) in FAMILIES.into_iter().zip(&mut held) {
        held.echo("nobody is there").expect("an open connection goes on");
        scene.expect_all(vip(family, 20, 80), &["a", "b"]);
        assert!(matches!(scene.dial().udp(vip(family, 20, 80)).who(), Some("a" | "b")));
        assert_eq!(scene.dial().tcp(vip(family, 21, 80)).who(), Some(BALANCER));
    }
    let shown = scene.agent.says(&["show", "frontends"]);
    assert!(shown.contains(&vip(Family::V4, 20, 80).to_string()), "the pins are read without an agent: {shown}");
}

#[test]
fn edits_made_while_it_was_away_are_carried_out_and_nothing_else_changes() {
    let mut scene = Scene::start(Setup::new("away"));
    scene.publish("stays", 22, "VIP", &["a"]);
    scene.publish("moves", 23, "VIP", &["a"]);
    scene.publish("goes", 24, "VIP", &["a"]);
    let mut held = scene.dial().held(vip(Family::V6, 22, 80));
    scene.agent.terminate();
    let entries = FAMILIES.map(|family| lb_tests::manifest::ingress(vip(family, 23, 0).ip(), "VIP"));
    let service = scene.service("moves", 23, &entries);
    scene.manifests.write("moves", &[vec![service.object()], scene.slices(&service, &["b"])].concat());
    scene.manifests.remove("goes");
    scene.agent.start();
    for family in FAMILIES {
        scene.expect_all(vip(family, 22, 80), &["a"]);
        scene.expect_all(vip(family, 23, 80), &["b"]);
        scene.expect_all(vip(family, 24, 80), &[BALANCER]);
    }
    held.echo("still here").expect("an open connection survives");
}

#[test]
fn tables_of_another_size_take_over_with_all_open_connections() {
    let mut scene = Scene::start(Setup::new("resize"));
    scene.publish("shop", 25, "VIP", &["a", "b"]);
    let mut held = FAMILIES.map(|family| scene.dial().held(vip(family, 25, 80)));
    let client = scene.lab.pod("client").netns.clone();
    let dialler = lb_tests::dial::Dial::from(&client).repeatedly(vip(Family::V4, 25, 80));
    scene.agent.terminate();
    scene.agent.set_flags(&["--frontends-max", "2048", "--backends-max", "2048", "--flows-max", "16384"]);
    scene.agent.start();
    scene.publish("shop", 25, "VIP", &["b"]);
    for (family, held) in FAMILIES.into_iter().zip(&mut held) {
        held.echo("still here").expect("an open connection survives");
        scene.expect_all(vip(family, 25, 80), &["b"]);
    }
    let tally = dialler.stop();
    assert!(tally.failures.is_empty(), "{:?}", tally.failures);
    assert!(!tally.answered.contains_key(BALANCER), "{tally:?}");
}

#[test]
fn files_that_are_no_objects_keep_nothing_alive() {
    let mut scene = Scene::start(Setup::new("kustom"));
    scene.publish("goes", 26, "VIP", &["a"]);
    scene.manifests.write_text("kustomization", "resources:\n- goes.yaml\n");
    scene.agent.terminate();
    scene.manifests.remove("goes");
    scene.agent.start();
    for family in FAMILIES {
        scene.expect_all(vip(family, 26, 80), &[BALANCER]);
    }
    assert!(scene.agent.says(&["show", "warnings"]).contains("kustomization.yaml"));
}

/// Continuous dialling, in either family, shows no failure while tables grow and shrink.
#[test]
fn no_dial_fails_while_tables_change_their_size() {
    let mut scene = Scene::start(Setup::new("resizing"));
    scene.publish("shop", 27, "VIP", &["a", "b"]);
    let mut held = FAMILIES.map(|family| scene.dial().held(vip(family, 27, 80)));
    let client = scene.lab.pod("client").netns.clone();
    let dialler = |family| lb_tests::dial::Dial::from(&client).repeatedly(vip(family, 27, 80));
    let diallers: Vec<_> = FAMILIES.into_iter().map(dialler).collect();
    for flows_max in ["16384", "4096"] {
        let before: u64 = diallers.iter().map(lb_tests::dial::Dialler::dialled).sum();
        scene.agent.terminate();
        scene.agent.set_flags(&["--flows-max", flows_max]);
        scene.agent.start();
        let now = || diallers.iter().map(lb_tests::dial::Dialler::dialled).sum::<u64>();
        until_true("they dial on", || now() > before + 100);
        for held in &mut held {
            held.echo("still here").expect("an open connection survives");
        }
    }
    let tallies: Vec<_> = diallers.into_iter().map(lb_tests::dial::Dialler::stop).collect();
    for tally in &tallies {
        assert!(tally.failures.is_empty(), "{} of {}: {:?}", tally.failures.len(), tally.answers(), tally.failures);
        assert!(!tally.answered.contains_key(BALANCER), "{tally:?}");
    }
    let dialled: u64 = tallies.iter().map(lb_tests::dial::Tally::answers).sum();
    println!("{dialled} dials");
}
