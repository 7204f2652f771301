//! What is checked for a network behind a device.

use std::net::IpAddr;

use serde_json::Value;

use super::{Counters, Side};
use crate::address::{BALANCERS, FAMILIES, Family, REMOTE_PODS, UPLINK, vip};
use crate::dial::{Dial, Outcome};
use crate::manifest::{NODE, OTHER_NODE, ingress};
use crate::scene::{BALANCER, Scene, empty_slice};

/// The endpoint is on this node.
pub const HERE: u8 = 1;
/// The endpoint is behind the first uplink.
const REMOTE: u8 = 2;
/// There is no endpoint.
const CLOSED: u8 = 3;
/// The first of those whose endpoint is behind a device.
pub const FURTHER: u8 = 10;

const BULK_BYTES: usize = 1 << 18;
/// Every dial would otherwise start `explain`, which takes most of the time on a slow machine.
pub const SLOW: &str = "the machine is slow";

/// Writes all Services at once.
pub fn publish(scene: &Scene, sides: &[Side]) {
    let mut objects = Vec::new();
    add(scene, &mut objects, HERE, NODE, |family| Some(scene.lab.pod_address("a", family)));
    add(scene, &mut objects, REMOTE, OTHER_NODE, |family| Some(REMOTE_PODS.host(family, 5)));
    add(scene, &mut objects, CLOSED, NODE, |_| None);
    for (number, side) in (FURTHER..).zip(sides) {
        add(scene, &mut objects, number, OTHER_NODE, |family| {
            side.families.contains(&family).then(|| side.net.host(family, 1))
        });
    }
    scene.apply("devices", &objects);
}

fn add(scene: &Scene, objects: &mut Vec<Value>, number: u8, node: &str, endpoint: impl Fn(Family) -> Option<IpAddr>) {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), "VIP"));
    let service = scene.service(&format!("s{number}"), number, &entries);
    objects.push(service.object());
    for family in FAMILIES {
        let slice = empty_slice(&service, family);
        let slice = match endpoint(family) {
            Some(endpoint) => slice.endpoint(endpoint, node),
            None => slice,
        };
        objects.push(slice.object());
    }
}

/// A client, the number of the address that it dials, the server that is to answer, and the client that this is to see.
type Dialled<'a> = (Dial<'a>, u8, &'static str, IpAddr);

/// The dials of one family that concern a device.
fn dials<'a>(scene: &'a Scene, side: &'a Side, family: Family, behind: u8) -> [Dialled<'a>; 4] {
    let (client, who) = (side.net.host(family, 1), side.who);
    let (far, near) = (scene.dial_from_far().unasked(SLOW), side.dial(client));
    [
        // The endpoint is on this node.
        (near, HERE, "a", client),
        // The device is the way to the endpoint, for another network and for its own.
        (far, behind, who, side.node(family)),
        (near, behind, who, side.node(family)),
        // The way leads from the device to another one.
        (near, REMOTE, BALANCER, UPLINK.host(family, 2)),
    ]
}

/// Each packet is counted once, though the lower link of a VLAN and the port of a bridge see it too.
pub fn counts_once(scene: &Scene, side: &Side, behind: u8) {
    for (family, _) in side.addresses() {
        let (before, mut expected) = (Counters::read(scene), Counters::none());
        for (dial, number, who, client) in dials(scene, side, family, behind) {
            let (to, arrived) = (vip(family, number, 80), side.received());
            expect(side, dial.udp(to), who, client);
            assert!(side.received() > arrived, "{}: {to} was not reached by it", side.device);
            expected.add_exchange(to);
            if number != HERE {
                expected.add("forwarded", 2);
            }
        }
        assert_eq!(Counters::read(scene).since(&before), expected, "{}: {family:?}", side.device);
    }
}

/// Connections with more than a window of data.
pub fn carries_bulk(scene: &Scene, side: &Side, behind: u8) {
    for (family, _) in side.addresses() {
        for (dial, number, who, client) in dials(scene, side, family, behind) {
            let to = vip(family, number, 80);
            let mut held = dial.held(to);
            assert_eq!((held.answer.who.as_str(), held.answer.client.ip()), (who, client), "{} to {to}", side.device);
            held.transfer(BULK_BYTES).unwrap_or_else(|error| panic!("{} to {to}: {error}", side.device));
        }
    }
}

/// Without an endpoint, the client gets an error at once.
pub fn refuses(side: &Side) {
    for (family, client) in side.addresses() {
        let (to, dial) = (vip(family, CLOSED, 80), side.dial(client).patient());
        assert_eq!((dial.tcp(to), dial.udp(to)), (Outcome::Refused, Outcome::Refused), "{} to {to}", side.device);
    }
}

#[track_caller]
fn expect(side: &Side, outcome: Outcome, who: &str, client: IpAddr) {
    let Outcome::Answered(answer) = outcome else { panic!("{}: {outcome:?}", side.device) };
    assert_eq!((answer.who.as_str(), answer.client.ip()), (who, client), "{}", side.device);
}
