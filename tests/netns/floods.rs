//! A pod that floods the node with connections that it never completes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::dial::{Dial, Held, Outcome};
use lb_tests::lab::Setup;
use lb_tests::raw::{Flood, flood_during};
use lb_tests::scene::Scene;
use serde_json::Value;

/// Connections that are never completed: many times more than the agent's table holds (`--flows-max 8192`).
const TUPLES: u32 = 60_000;

/// Connections that are opened during the flood of a pod.
const DURING_FLOOD: u32 = 12;

/// Connections that are open and idle during the floods.
const IDLE: usize = 1_000;
/// Turns, each without a flood and with one.
const TURNS: usize = 5;
/// New connections in each half of a turn, and SYNs of the flood before each of them.
const NEW: u32 = 100;
const SWARM: u32 = 150;

/// Why these dials are not compared with `explain`.
const SWIFT: &str = "explaining takes longer than opening a connection";

/// A table of 4,096 flows, of which 300 are open and idle.
#[test]
fn idle_connections_withstand_a_syn_flood() {
    let scene = Scene::start(Setup::new("synflood"));
    scene.publish("s1", 1, "VIP", &["a"]);
    let to = vip(Family::V4, 1, 80);
    let mut open: Vec<Held> = (0..300).map(|_| scene.dial().held(to)).collect();
    Flood::new(&scene.lab.pod("b").netns, to).send(TUPLES);
    for held in &mut open {
        held.echo("still here").expect("an idle connection withstands the flood");
    }
    // During another flood, which lasts for as long as connections are opened: a fast machine sends all tuples at once.
    let mut flood = Flood::new(&scene.lab.pod("b").netns, to);
    let sent = AtomicU32::new(0);
    let send = || {
        flood.send(TUPLES / 100);
        sent.fetch_add(TUPLES / 100, Ordering::SeqCst);
    };
    flood_during(send, || {
        let mut answered = 0;
        while answered < DURING_FLOOD || sent.load(Ordering::SeqCst) < TUPLES {
            let mut held = scene.dial().patient().hold(to).expect("a new connection is answered");
            held.echo("new here").expect("a new connection carries data");
            answered += 1;
        }
    });
}

/// REJ-05: a pod that floods an address without endpoints gets no answers. Other pods and the network get theirs at once.
#[test]
fn who_floods_a_rejecting_address_silences_itself_only() {
    const PER_SEC: u32 = 20;
    let flags = ["--rejects-per-sec", &PER_SEC.to_string(), "--services", "all"];
    let scene = Scene::with_flags(Setup::new("rejectflood"), &flags);
    scene.publish("s1", 1, "VIP", &[]);
    let mut flood = Flood::new(&scene.lab.pod("b").netns, vip(Family::V4, 1, 80));
    let send = || {
        flood.send(SWARM);
        std::thread::sleep(Duration::from_millis(1));
    };
    flood_during(send, || {
        for _ in 0..PER_SEC / 2 {
            let to = vip(Family::V4, 1, 80);
            assert_eq!(scene.dial().tcp(to), Outcome::Refused, "{to}");
            assert_eq!(scene.dial().udp(to), Outcome::Refused, "{to}");
            assert_eq!(scene.dial_from_far().tcp(to), Outcome::Refused, "{to} from the network");
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    assert!(scene.agent.counted("drop_reject_limit") > u64::from(PER_SEC), "the flood was hardly noticed");
}

/// A pod completes as many connections as it can and keeps them, in a table of 2,048 flows: idle connections of another
/// pod stay, and that pod gets new ones. The same holds while a pod sends datagrams from thousands of ports and gets an
/// answer to each.
#[test]
fn a_pod_that_opens_many_connections_harms_itself_only() {
    let scene = Scene::with_flags(Setup::new("manyflows"), &["--flows-max", "4096", "--gc-secs", "1"]);
    scene.publish("s1", 1, "VIP", &["a"]);
    let mut idle: Vec<Held> = FAMILIES
        .into_iter()
        .flat_map(|family| (0..100).map(move |_| family))
        .map(|family| scene.dial().held(vip(family, 1, 80)))
        .collect();
    let greedy = &scene.lab.pod("b").netns;
    let mut kept = Vec::new();
    for number in 0..3_000_u16 {
        let to = vip(FAMILIES[usize::from(number % 2)], 1, 80);
        match Dial::from(greedy).hold(to) {
            Ok(held) => kept.push(held),
            Err(Outcome::Silence) => break,
            Err(other) => panic!("{number}: {other:?}"),
        }
    }
    // Walks of the agent delete this pod's idle flows, so it may open many in the end; it never has more than half of
    // what others leave.
    assert!(kept.len() >= 500, "{} connections", kept.len());
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, 1, 80)).who(), Some("a"), "others are served");
        assert!(
            (400..=SHARE_FLOWS).contains(&flows_of(&scene, "b", family)),
            "{} flows",
            flows_of(&scene, "b", family)
        );
    }
    for number in 0..4_000_u16 {
        let to = vip(FAMILIES[usize::from(number % 2)], 1, 80);
        assert_eq!(Dial::from(greedy).udp(to).who(), Some("a"), "datagram {number}");
    }
    for held in &mut idle {
        held.echo("still here").expect("an idle connection of another pod");
    }
    for family in FAMILIES {
        assert!(flows_of(&scene, "b", family) <= SHARE_FLOWS, "{} flows", flows_of(&scene, "b", family));
    }
    let interface = &scene.lab.pod("b").interface;
    let log = scene.agent.log();
    assert!(log.contains(&format!("interface {interface} has used up its share")), "{log}");
}

/// Half of what 100 flows of another pod leave of 7/8 of a table of 4,096 entries, two a flow.
const SHARE_FLOWS: usize = (4_096 * 7 / 8 - 200) / 2 / 2;

/// A pod's flows in the table of a family.
fn flows_of(scene: &Scene, pod: &str, family: Family) -> usize {
    let rows = scene.agent.rows("flows");
    let address = scene.lab.pod(pod).address(family);
    let is_of = |row: &&Value| {
        let client: Option<SocketAddr> = row["client"].as_str().and_then(|client| client.parse().ok());
        client.is_some_and(|client| client.ip() == address)
    };
    rows.iter().filter(is_of).count()
}

/// Opens new connections, one after the other, each after a swarm of the flood's SYNs and with data both ways. Returns
/// how many there were in a second, without the time of the swarms.
///
/// The swarms are shorter than the kernel's queue of received packets, which all tests of a machine share.
fn rate(scene: &Scene, to: SocketAddr, mut flood: Option<&mut Flood>) -> f64 {
    let mut spent = Duration::ZERO;
    for number in 0..NEW {
        if let Some(flood) = &mut flood {
            flood.send(SWARM);
        }
        let started = Instant::now();
        let dial = scene.dial().patient().unasked(SWIFT);
        let mut held = dial.hold(to).unwrap_or_else(|outcome| panic!("{number}: {outcome:?}"));
        held.echo("new here").expect("a new connection carries data");
        spent += started.elapsed();
    }
    f64::from(NEW) / spent.as_secs_f64()
}

/// Distinct SYNs without end beside new connections, and beside a thousand idle ones. The rate of new connections is
/// printed, not checked.
#[test]
fn new_connections_succeed_in_the_midst_of_a_flood() {
    // A thousand flows are 2,000 entries.
    let scene = Scene::with_flags(Setup::new("floodrate"), &["--flows-max", "16384"]);
    scene.publish("s1", 1, "VIP", &["a"]);
    let to = vip(Family::V4, 1, 80);
    let mut idle: Vec<Held> = (0..IDLE).map(|_| scene.dial().unasked(SWIFT).held(to)).collect();
    let mut flood = Flood::new(&scene.lab.pod("b").netns, to);
    let mut ratios: Vec<f64> = (0..TURNS)
        .map(|_| {
            let (calm, flooded) = (rate(&scene, to, None), rate(&scene, to, Some(&mut flood)));
            println!("new connections: {calm:.0} /s in calm, {flooded:.0} /s in a flood");
            flooded / calm
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("in a flood / in calm: {:.2} (median of {TURNS} turns)", ratios[TURNS / 2]);
    for held in &mut idle {
        held.echo("still here").expect("an idle connection withstands the flood");
    }
    let evicted = scene.agent.counted("embryo_evicted");
    assert!(evicted > u64::from(NEW * SWARM), "the flood hardly filled the table: {evicted}");
}
