//! The time-outs of flows.

use std::net::SocketAddr;
use std::time::Duration;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::Held;
use lb_tests::lab::Setup;
use lb_tests::raw;
use lb_tests::scene::{Scene, TARGET};
use serde_json::Value;

/// Flows of the client in `show flows`, by protocol.
fn known(scene: &Scene, proto: &str, port: u16) -> usize {
    let rows = scene.agent.rows("flows");
    let dialled = format!(":{port}");
    let is_it = |row: &&Value| {
        row["proto"] == proto && row["address"].as_str().is_some_and(|dialled_at| dialled_at.ends_with(&dialled))
    };
    rows.iter().filter(is_it).count()
}

/// Idle flows time out by themselves; established ones stay.
#[test]
fn flows_go_when_their_time_is_over() {
    let flags = ["--gc-secs", "1", "--udp-secs", "1", "--tcp-closing-secs", "1"];
    let scene = Scene::with_flags(Setup::new("garbage"), &flags);
    scene.publish("s1", 1, "VIP", &["a"]);
    let mut open: Vec<Held> = FAMILIES.map(|family| scene.dial().held(vip(family, 1, 80))).into();
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 1, 80)).who(), Some("a"));
        assert_eq!(scene.dial().udp(vip(family, 1, 80)).who(), Some("a"));
    }
    assert_eq!(known(&scene, "udp", 80), 2);
    until_true("all but the open flows are gone", || {
        (known(&scene, "udp", 80), known(&scene, "tcp", 80)) == (0, open.len())
    });
    for held in &mut open {
        held.echo("still here").expect("the open connection goes on");
    }
    let (_, metrics) = scene.agent.page("/metrics").expect("it answers");
    let collected =
        metrics.lines().find_map(|line| line.strip_prefix("lb_agent_packets_total{what=\"flow_collected\"} "));
    assert!(collected.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 4), "{collected:?}");
}

/// Another pod sends spoofed resets with guessed sequence numbers to idle connections: they continue, however short the
/// time-out after a reset is. A reset from the real end counts.
#[test]
fn a_guessed_reset_costs_an_idle_connection_nothing() {
    let flags = ["--gc-secs", "1", "--tcp-closing-secs", "1"];
    let scene = Scene::with_flags(Setup::new("blindrst"), &flags);
    scene.publish("s1", 1, "VIP", &["a"]);
    let mut open: Vec<Held> = FAMILIES.map(|family| scene.dial().held(vip(family, 1, 80))).into();
    let broken = FAMILIES.map(|family| scene.dial().held(vip(family, 1, 80)));
    assert_eq!(known(&scene, "tcp", 80), 4);
    for (held, family) in open.iter().zip(FAMILIES) {
        let client = held.local().expect("it is connected");
        let backend = SocketAddr::new(scene.lab.pod_address("a", family), TARGET);
        let forged = [0x04, 0x14].map(|flags| raw::segment(backend, client, flags, 12_345));
        raw::send(&scene.lab.pod("b").netns, client.ip(), &forged);
    }
    for held in broken {
        held.abort().expect("it can be broken off");
    }
    until_true("the connections that were broken off are gone", || known(&scene, "tcp", 80) <= open.len());
    std::thread::sleep(Duration::from_secs(4));
    for held in &mut open {
        held.echo("still here").expect("nobody but its ends ends a connection");
    }
    assert_eq!(known(&scene, "tcp", 80), open.len());
}
