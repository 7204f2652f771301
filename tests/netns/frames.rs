//! Frames that are not for the node: their packets are not for a frontend, whatever the addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;

use lb_tests::address::{FAMILIES, Family, flag, vip};
use lb_tests::deadline::until_true;
use lb_tests::lab::cni::BRIDGE_NAME;
use lb_tests::lab::{Cni, Setup};
use lb_tests::netns::run;
use lb_tests::scene::Scene;
use serde_json::Value;

use crate::tap::{ETHERNET_LEN, Frame, Tap};

/// An unknown MAC, broadcast and a group.
const OTHERS: [[u8; 6]; 3] = [[2, 0, 0, 0, 9, 9], [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]];

/// The destination address of a packet.
fn destination(frame: &[u8], family: Family) -> Option<IpAddr> {
    let ip = frame.get(ETHERNET_LEN..)?;
    match family {
        Family::V4 => Some(IpAddr::from(<[u8; 4]>::try_from(ip.get(16..20)?).ok()?)),
        Family::V6 => Some(IpAddr::from(<[u8; 16]>::try_from(ip.get(24..40)?).ok()?)),
    }
}

/// The programs' counters.
fn counters(scene: &Scene) -> BTreeMap<String, u64> {
    let rows = scene.agent.rows("counters");
    let counter = |row: &Value| Some((row["counter"].as_str()?.to_owned(), row["packets"].as_u64()?));
    // A bridge's node sends redirects about packets between pods of one bridge that pass through it.
    rows.iter().filter_map(counter).filter(|(name, _)| name != "drop_redirect").collect()
}

/// The frame of the client's datagram to a frontend.
fn frame_to(scene: &Scene, tap: &Tap, family: Family, number: u8) -> Frame {
    let to = vip(family, number, 80);
    scene.dial().udp(to);
    tap.wait_for("the datagram", |bytes| destination(bytes, family) == Some(to.ip()))
}

fn frames_for_others_are_left_alone(setup: Setup) {
    let scene = Scene::start(setup);
    scene.publish("shop", 106, "VIP", &["a"]);
    scene.publish("empty", 107, "VIP", &[]);
    let tap = Tap::open(&scene.lab.pod("client").netns);
    for family in FAMILIES {
        let frames = [106, 107].map(|number| frame_to(&scene, &tap, family, number));
        let before = counters(&scene);
        for frame in &frames {
            for mac in OTHERS {
                let mut bytes = frame.bytes.clone();
                bytes[..6].copy_from_slice(&mac);
                tap.send(&bytes, frame);
                // From another port, which has no flow.
                let port = ETHERNET_LEN + if family == Family::V4 { 20 } else { 40 };
                bytes[port] ^= 1;
                tap.send(&bytes, frame);
            }
        }
        // After them on the same link.
        let answered = scene.dial().udp(vip(family, 106, 80));
        assert_eq!(answered.who(), Some("a"));
        let mut expected = before.clone();
        for counter in ["flow_created", "request_translated", "reply_translated"] {
            *expected.get_mut(counter).expect("a dial was counted") += 1;
        }
        assert_eq!(counters(&scene), expected, "{family:?}");
    }
}

#[test]
fn frames_for_others_are_left_alone_on_a_point_to_point_veth() {
    frames_for_others_are_left_alone(Setup::new("frames"));
}

#[test]
fn frames_for_others_are_left_alone_on_a_port_of_a_bridge() {
    frames_for_others_are_left_alone(Setup::new("framesbr").cni(Cni::Bridge));
}

/// The bridge's MAC in the tables, for a bridge port.
fn known_mac(scene: &Scene, interface: &str) -> String {
    let rows = scene.agent.rows("interfaces");
    let row = rows.iter().find(|row| row["interface"] == interface).expect("it is there");
    let ifindex = row["ifindex"].as_u64().expect("a number").to_le_bytes().map(|byte| byte.to_string());
    let mut command = Command::new("bpftool");
    command.args(["-j", "map", "lookup", "pinned"]).arg(scene.agent.pin_path().join("maps/ports")).arg("key");
    let shown: Value = serde_json::from_str(&run(command.args(&ifindex[..4]))).expect("JSON");
    let bytes = shown["formatted"]["value"]["mac"].as_array().expect("six bytes");
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{:02x}", byte.as_u64().expect("a byte"))).collect();
    bytes.join(":")
}

/// A bridge that gets another MAC: its pods are served as soon as they know it.
#[test]
fn pods_follow_their_bridge_to_another_mac() {
    let scene = Scene::start(Setup::new("bridgemac").cni(Cni::Bridge));
    scene.publish("shop", 108, "VIP", &["a"]);
    let port = &scene.lab.pod("client").interface;
    let mut held = FAMILIES.map(|family| scene.dial().held(vip(family, 108, 80)));
    let later = "02:00:00:00:00:77";
    scene.lab.node.ip(&[format!("link set {BRIDGE_NAME} address {later}")]);
    until_true("the new MAC is in the table", || known_mac(&scene, port) == later);
    for (family, held) in FAMILIES.into_iter().zip(&mut held) {
        scene.lab.pod("client").netns.run("ip", &[flag(family), "neigh", "flush", "dev", "eth0"]);
        held.transfer(1 << 16).unwrap_or_else(|error| panic!("{family:?}: {error}"));
        assert_eq!(scene.dial().tcp(vip(family, 108, 80)).who(), Some("a"));
    }
    let known = scene.lab.pod("client").netns.run("ip", &["neigh"]);
    assert!(known.contains(later), "{known}");
}
