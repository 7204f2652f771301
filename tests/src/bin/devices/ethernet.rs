//! Devices whose packets have an Ethernet header: a bond, and a VLAN and a macvlan beside their parent.

use lb_tests::address::{Net, vip};
use lb_tests::deadline::until_true;
use lb_tests::lab::FAR_NAME;
use lb_tests::netns::Netns;
use lb_tests::scene::Scene;
use lb_tests::side::{HERE, SLOW, Side};
use serde_json::Value;

const BOND: Net = Net::of_device(5);
const VLAN: Net = Net::of_device(6);
const MACVLAN: Net = Net::of_device(8);

/// Two ports, of which one is active. The other node bridges both of its ends.
pub fn bond(scene: &Scene) -> Side {
    let (node, far) = (&scene.lab.node, Netns::create(scene.lab.test, "bond"));
    far.ip(&["link add lan type bridge", "link set lan up"]);
    node.ip(&["link add bond0 type bond mode active-backup miimon 50"]);
    for (port, end) in [("b0", "e0"), ("b1", "e1")] {
        node.ip(&[
            format!("link add {port} type veth peer name {end} netns {}", far.name()),
            format!("link set {port} master bond0"),
        ]);
        far.ip(&[format!("link set {end} master lan up")]);
    }
    node.ip(&["link set bond0 up"]);
    Side::ethernet(scene, "bond0", far, "lan", BOND)
}

/// A VLAN on the interface towards the far network, which is an uplink itself.
pub fn vlan(scene: &Scene) -> Side {
    let (node, far) = (&scene.lab.node, Netns::create(scene.lab.test, "vlan"));
    node.ip(&[format!("link add link {FAR_NAME} name up1.7 type vlan id 7"), "link set up1.7 up".to_owned()]);
    scene.lab.far.ip(&[format!("link add link eth0 name eth0.7 netns {} type vlan id 7", far.name())]);
    far.ip(&["link set eth0.7 up"]);
    Side::ethernet(scene, "up1.7", far, "eth0.7", VLAN)
}

/// A second station on the interface towards the far network, with a MAC of its own.
pub fn macvlan(scene: &Scene) -> Side {
    let (node, far) = (&scene.lab.node, Netns::create(scene.lab.test, "macvlan"));
    node.ip(&[format!("link add link {FAR_NAME} name mac0 type macvlan mode bridge"), "link set mac0 up".to_owned()]);
    scene.lab.far.ip(&[format!("link add link eth0 name mac0 netns {} type macvlan mode bridge", far.name())]);
    far.ip(&["link set mac0 up"]);
    Side::ethernet(scene, "mac0", far, "mac0", MACVLAN)
}

/// Both ways continue by the other port.
pub fn survives_a_failure(scene: &Scene, side: &Side, behind: u8) {
    let node = &scene.lab.node;
    let active = || {
        let said = node.run("ip", &["-d", "-j", "link", "show", "dev", "bond0"]);
        let rows: Value = serde_json::from_str(&said).expect("JSON");
        rows[0]["linkinfo"]["info_data"]["active_slave"].as_str().unwrap_or_default().to_owned()
    };
    let mut held = Vec::new();
    for (family, client) in side.addresses() {
        held.push(side.dial(client).held(vip(family, HERE, 80)));
        held.push(scene.dial_from_far().unasked(SLOW).held(vip(family, behind, 80)));
    }
    assert_eq!(held[1].answer.who, side.who);
    let failed = active();
    assert!(failed.starts_with('b'), "one port is active: {failed}");
    node.ip(&[format!("link set {failed} down")]);
    until_true("the other port is active", || active().starts_with('b') && active() != failed);
    for held in &mut held {
        held.transfer(1 << 16).expect("a connection continues by the other port");
    }
    node.ip(&[format!("link set {failed} up")]);
}
