//! Selection by the hash of a flow, with real sockets: every node chooses alike, also one that has lost its state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;

/// Source ports outside the ephemeral range.
const PORTS: std::ops::Range<u16> = 20_000..20_024;
const NUMBER: u8 = 88;
const FLAGS: [&str; 4] = ["--lb-algorithm", "maglev", "--maglev-table-size", "251"];

fn start(test: &'static str) -> Scene {
    let scene = Scene::with_flags(Setup::new(test), &FLAGS);
    scene.publish("shop", NUMBER, "VIP", &["a", "b"]);
    scene
}

/// The server that answers each of the client's ports.
fn answers(
    scene: &Scene,
    dials: impl Fn(&Scene, SocketAddr, SocketAddr) -> Option<String>,
) -> BTreeMap<SocketAddr, String> {
    let mut answers = BTreeMap::new();
    for family in FAMILIES {
        let to = vip(family, NUMBER, 80);
        for port in PORTS {
            let client = SocketAddr::new(scene.client_address(to.ip()), port);
            let who = dials(scene, client, to).unwrap_or_else(|| panic!("nobody answers {client} at {to}"));
            answers.insert(client, who);
        }
    }
    let all: BTreeSet<&String> = answers.values().collect();
    assert_eq!(all.len(), 2, "both pods have their share: {answers:?}");
    answers
}

fn tcp(scene: &Scene, client: SocketAddr, to: SocketAddr) -> Option<String> {
    scene.dial().bound_to(client).tcp(to).who().map(str::to_owned)
}

fn udp(scene: &Scene, client: SocketAddr, to: SocketAddr) -> Option<String> {
    scene.dial().bound_to(client).udp(to).who().map(str::to_owned)
}

/// Two nodes whose pods have the same addresses, as if one connection could arrive at either.
#[test]
fn two_agents_choose_alike() {
    let (one, other) = (start("maglevone"), start("maglevtwo"));
    assert_eq!(answers(&one, tcp), answers(&other, tcp));
    assert_eq!(answers(&one, udp), answers(&other, udp));
}

/// `unload` deletes every flow. A client that asks again from the same port reaches the same pod.
#[test]
fn what_is_forgotten_is_chosen_again() {
    let mut scene = start("maglevagain");
    let before = answers(&scene, udp);
    scene.agent.terminate();
    scene.agent.unload();
    scene.agent.start();
    assert_eq!(answers(&scene, udp), before);
}

#[test]
fn show_and_explain_name_the_selection() {
    let scene = start("maglevshow");
    let frontends = scene.agent.says(&["show", "frontends"]);
    assert!(frontends.contains("(2) maglev"), "{frontends}");
    let pools = scene.agent.says(&["show", "pools"]);
    assert!(pools.contains("of 251 (maglev)"), "{pools}");
    let to = format!("{}/tcp", vip(FAMILIES[0], NUMBER, 80));
    let explanation = scene.agent.says(&["explain", "--from", "pod", "--to", &to]);
    assert!(explanation.contains("one of 2 backends (chosen by maglev"), "{explanation}");
}
