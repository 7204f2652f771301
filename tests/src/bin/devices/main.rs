//! Devices other than plain Ethernet as uplinks, with real packets: a bond, a VLAN, a macvlan, a bridge, and tunnels
//! without a link header. `cargo xtask devices` runs it in a virtual machine whose kernel has them all.
//!
//! ```text
//!   bond:    node bond0 (b0, b1)   === e0, e1 bridged: another node
//!   VLAN:    node up1.7 on up1     --- eth0.7 on far's eth0: another node
//!   macvlan: node mac0 on up1      --- mac0 on far's eth0: another node
//!   bridge:  node br-up (p0)       --- eth0: another node
//!   tunnels: node tunl0, wg0, ...  === the same, over u-tun: another node
//! ```
//!
//! It panics at the first thing that is not as it should be.

mod ethernet;
mod shown;
mod tunnels;

use std::time::{Duration, Instant};

use lb_tests::address::Net;
use lb_tests::deadline;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;
use lb_tests::side::{self, FURTHER, Side};

use shown::Shown;

/// An emulated machine verifies the programs for a minute, and those without a link header for another.
const START_MAX: Duration = Duration::from_mins(5);
const BRIDGE: Net = Net::of_device(7);

/// The class of an interface, and words of the reason.
const CLASSES: [(&str, &str, &str); 13] = [
    ("bond0", "uplink", "a network card with an address"),
    ("b0", "-", "a port of bond0"),
    ("b1", "-", "a port of bond0"),
    ("up1.7", "uplink", "a network card with an address"),
    ("mac0", "uplink", "a network card with an address"),
    ("up1", "uplink", "the Node's address"),
    ("br-up", "uplink", "the Node's address"),
    ("p0", "uplink", "a port of br-up"),
    ("tunl0", "uplink", "an overlay network with an address"),
    ("ipip1", "uplink", "an overlay network with an address"),
    ("wg0", "uplink", "an overlay network with an address"),
    ("gre1", "uplink", "a default route leaves by it"),
    ("sit1", "uplink", "a default route leaves by it"),
];

fn main() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("Linux {}", release.trim());
    let started = Instant::now();
    let done = |text: &str| println!("{:>6.1} s  {text}", started.elapsed().as_secs_f32());
    let mut scene = Scene::without_agent(Setup::new("devices"), &["--uplink-interfaces", "auto"]);
    let mut sides = vec![ethernet::bond(&scene), ethernet::vlan(&scene), ethernet::macvlan(&scene)];
    sides.push(Side::bridge(&scene, BRIDGE));
    sides.extend(tunnels::all(&scene));
    done("the networks behind all devices are there");
    scene.agent.spawn();
    let is_ready = || scene.agent.page("/readyz").is_some_and(|(code, _)| code == 200).then_some(());
    assert!(deadline::within(START_MAX, is_ready).is_some(), "the agent is not ready:\n{}", scene.agent.log());
    let shown = Shown::read(&scene);
    for (name, class, why) in CLASSES {
        shown.expect(name, class, why);
    }
    done("the agent is ready: it finds the devices, and leaves the ports of a bond alone");
    side::publish(&scene, &sides);
    for (number, side) in (FURTHER..).zip(&sides) {
        side::counts_once(&scene, side, number);
        side::carries_bulk(&scene, side, number);
        side::refuses(side);
        done(&format!("{}: clients, endpoints behind it, endpoints behind others, refusals", side.device));
    }
    ethernet::survives_a_failure(&scene, &sides[0], FURTHER);
    done("a bond: connections continue when its active port fails");
    let log = scene.agent.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    scene.agent.terminate();
    scene.agent.unload();
}
