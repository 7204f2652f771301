//! Real packets on the kernel that this runs on, also a slow one: `cargo xtask smoke` runs it in a virtual machine.
//!
//! It panics at the first thing that is not as it should be.

use std::time::{Duration, Instant};

use lb_agent::dataplane::tcx;
use lb_tests::address::{FAMILIES, vip};
use lb_tests::control::{classifiers, has_qdisc};
use lb_tests::deadline;
use lb_tests::dial::Dial;
use lb_tests::lab::Setup;
use lb_tests::scene::{BALANCER, Scene};

/// An emulated machine verifies the programs for a minute.
const START_MAX: Duration = Duration::from_mins(5);
const INTERFACES: [&str; 5] = ["cali-client", "cali-a", "cali-b", "up0", "up1"];
/// Every dial would otherwise start `explain`, which takes most of the time on a slow machine.
const SLOW: &str = "the machine is slow";

fn main() {
    let started = Instant::now();
    let step = |text: &str| println!("{:>6.1} s  {text}", started.elapsed().as_secs_f32());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let way = if tcx::is_supported() { "tcx" } else { "clsact" };
    println!("Linux {}: {way}", release.trim());

    let mut scene = Scene::without_agent(Setup::new("smoke"), &["--uplink-interfaces", "up0,up1"]);
    expect(&scene, 80, BALANCER);
    step("without an agent, the balancer answers");
    let check = scene.agent.ask(&["check"]);
    let word = if way == "tcx" { "has tcx" } else { "by clsact" };
    assert!(check.code == Some(0) && check.stdout.contains(word), "check: {}{}", check.stdout, check.stderr);
    print!("{}", check.stdout);
    step("check finds what is needed");

    start(&mut scene);
    step("the agent is ready");
    scene.publish("shop", 1, "VIP", &["a"]);
    scene.publish("proxied", 2, "Proxy", &["a"]);
    expect(&scene, 80, "a");
    expect(&scene, 443, BALANCER);
    step("VIP: an endpoint answers pods, the network, and the node itself, TCP and UDP");
    for family in FAMILIES {
        let answer = dial(&scene).held(vip(family, 2, 80)).answer;
        assert_eq!(
            (answer.who.as_str(), answer.client.ip()),
            (BALANCER, scene.client_address(vip(family, 2, 80).ip()))
        );
    }
    step("Proxy: the balancer answers, and sees the client");
    let rows = rows(&scene);
    for interface in INTERFACES {
        let row = rows.iter().find(|row| row["name"] == interface).expect("it is listed");
        assert!(row["attached_by"] == way && row["hooks"].as_array().is_some_and(|hooks| hooks.len() == 2), "{row}");
        assert_eq!(classifiers(&scene.lab.node, interface).len(), if way == "tcx" { 0 } else { 2 }, "{interface}");
    }
    step("every interface has both programs");

    let mut held = FAMILIES.map(|family| dial(&scene).held(vip(family, 1, 80)));
    scene.agent.crash();
    for held in &mut held {
        held.transfer(1 << 16).expect("a connection survives without an agent");
    }
    expect(&scene, 80, "a");
    start(&mut scene);
    scene.publish("shop", 1, "VIP", &["b"]);
    expect(&scene, 80, "b");
    for held in &mut held {
        held.transfer(1 << 16).expect("a connection survives kill -9 and another agent");
        assert_eq!(held.answer.who, "a");
    }
    for interface in INTERFACES {
        assert_eq!(classifiers(&scene.lab.node, interface).len(), if way == "tcx" { 0 } else { 2 }, "{interface}");
    }
    step("kill -9 and a new agent: connections survive, programs are adopted");

    let log = scene.agent.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

    scene.agent.terminate();
    print!("{}", scene.agent.says(&["unload"]));
    expect(&scene, 80, BALANCER);
    for interface in INTERFACES {
        assert!(!has_qdisc(&scene.lab.node, interface), "{interface} still has a qdisc");
    }
    assert!(!scene.agent.pin_path().exists(), "pins are left");
    step("unload: nothing is left, the balancer answers");
}

fn start(scene: &mut Scene) {
    scene.agent.spawn();
    let is_ready = || scene.agent.page("/readyz").is_some_and(|(code, _)| code == 200).then_some(());
    assert!(deadline::within(START_MAX, is_ready).is_some(), "the agent is not ready:\n{}", scene.agent.log());
}

fn dial(scene: &Scene) -> Dial<'_> {
    scene.dial().unasked(SLOW)
}

/// Dials the first address from everywhere: each client is to be answered by this server.
#[track_caller]
fn expect(scene: &Scene, port: u16, who: &str) {
    for family in FAMILIES {
        let to = vip(family, 1, port);
        let clients = [
            ("a pod", dial(scene)),
            ("the network", scene.dial_from_far().unasked(SLOW)),
            ("the node", scene.dial_from_node().unasked(SLOW)),
        ];
        for (client, dial) in clients {
            assert_eq!(dial.tcp(to).who(), Some(who), "TCP from {client} to {to}");
            assert_eq!(dial.udp(to).who(), Some(who), "UDP from {client} to {to}");
        }
    }
}

fn rows(scene: &Scene) -> Vec<serde_json::Value> {
    serde_json::from_str(&scene.agent.says(&["show", "interfaces", "-o", "json"])).expect("JSON")
}
