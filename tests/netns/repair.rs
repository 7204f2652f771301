//! Connections whose flows are evicted while the flow table is full, with real sockets.

use std::time::{Duration, Instant};

use lb_tests::address::{Family, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::{Dial, Held};
use lb_tests::dump::Dump;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;

const NUMBER: u8 = 89;
/// Entries; a flow takes two. In a smaller table the free elements that CPUs hold are more than an eighth of it.
const FLOWS_MAX: &str = "4096";
/// The time-out of an idle connection.
const ESTABLISHED: Duration = Duration::from_secs(3);
/// Flows that fill the table: 7/8 of it, and some more.
const FLOOD: usize = 2_400;

fn start(test: &'static str, repair: &str) -> Scene {
    let flags = [
        ["--lb-algorithm", "maglev"],
        ["--maglev-table-size", "251"],
        ["--repair-evicted-flows", repair],
        ["--flows-max", FLOWS_MAX],
        ["--tcp-established-secs", "3"],
        ["--gc-secs", "1"],
        // One pod must be able to fill the table.
        ["--pod-flows-percent", "100"],
    ];
    let scene = Scene::with_flags(Setup::new(test), &flags.concat());
    scene.publish("shop", NUMBER, "VIP", &["a", "b"]);
    scene
}

/// The client's connections in the flow tables.
fn known(scene: &Scene) -> usize {
    let rows = scene.agent.rows("flows");
    let at = vip(Family::V4, NUMBER, 80).to_string();
    rows.iter().filter(|row| row["proto"] == "tcp" && row["address"] == at.as_str()).count()
}

/// Whether the agent has seen a full table.
fn is_evicting(scene: &Scene) -> bool {
    Dump::of(&scene.agent).map("evictions")[0]["value"]["until_jiffies"].as_u64() > Some(0)
}

/// Opens connections, fills the table with others, and returns when all flows of the first are evicted, and frontend
/// and interface are older than the time-out of an idle connection.
fn lose(scene: &Scene) -> Vec<Held> {
    let started = Instant::now();
    let to = vip(Family::V4, NUMBER, 80);
    let open: Vec<Held> = (0..12).map(|_| scene.dial().held(to)).collect();
    assert!(["a", "b"].iter().all(|pod| open.iter().any(|held| held.answer.who == *pod)), "both have connections");
    let from = &scene.lab.pod("b").netns;
    for _ in 0..FLOOD {
        // In so small a table a CPU without a free element may evict a reply entry that is still needed: then this
        // client would have to ask again.
        let _ = Dial::from(from).udp(to).who();
    }
    until_true("the agent sees that the table is full", || is_evicting(scene));
    until_true("the flows are lost", || known(scene) == 0);
    until_true("nothing is new", || started.elapsed() > 2 * ESTABLISHED);
    open
}

#[test]
fn connections_go_on_after_their_flows_were_lost() {
    let scene = start("repair", "on");
    let mut open = lose(&scene);
    let lost = open.len();
    for held in &mut open {
        held.echo("still here").expect("the flow is repaired");
    }
    let (_, metrics) = scene.agent.page("/metrics").expect("it answers");
    let counted = metrics.lines().find_map(|line| line.strip_prefix("lb_agent_packets_total{what=\"flow_repaired\"} "));
    assert!(counted.and_then(|count| count.parse::<usize>().ok()).is_some_and(|count| count >= lost), "{counted:?}");
}

/// The counterpart of the other test: without the option they break.
#[test]
fn without_the_option_they_break() {
    let scene = start("norepair", "off");
    for held in &mut lose(&scene) {
        held.echo("still here").expect_err("nobody knows where the connection went");
    }
}
