//! Frames that the node's stack would not receive: for another MAC, for a group, and broadcast.

use lb_common::table::{Counter, Port, Scope};
use lb_common::verdict::HookAction;

use super::Case;
use super::scene::{ACK, SYN, Scene, UDP, proto};
use crate::machine::{BRIDGED, Program, UNBRIDGED};
use crate::packet::{BRIDGE_MAC, BROADCAST_MAC, Described, End, MULTICAST_MAC, NEIGHBOUR_MAC, Transport, read};

pub const CASES: &[Case] = &[
    ("frames for others open no flow and get no answer", frames_for_others_are_left_alone),
    ("frames for others are of no known flow", frames_for_others_are_of_no_flow),
    ("frames for others leave fragments alone", fragments_for_others_are_left_alone),
    ("frames for a bridge are for the node", frames_for_a_bridge_are_for_the_node),
    ("frames for a neighbour keep their own tuple", frames_for_a_neighbour_keep_their_own_tuple),
    ("frames for others get no answer of the pod itself", no_answer_to_itself),
];

const GROUPS: [[u8; 6]; 2] = [BROADCAST_MAC, MULTICAST_MAC];
const INGRESS: [Program; 2] = [Program::WorkloadIngress, Program::UplinkIngress];

/// Runs `look` at a link that is no port and at a bridge port, with each MAC that is not the node's there.
fn at_others(scene: &mut Scene<'_>, look: impl Fn(&mut Scene<'_>, [u8; 6])) {
    for (port, macs) in [(UNBRIDGED, [BRIDGE_MAC, NEIGHBOUR_MAC].as_slice()), (BRIDGED, [NEIGHBOUR_MAC].as_slice())] {
        scene.machine().set_port(port);
        for mac in macs.iter().chain(&GROUPS) {
            look(scene, *mac);
        }
    }
}

fn frames_for_others_are_left_alone(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    let rejecting = (net.host(102), 80);
    for (at, transport) in (0..).zip([SYN, UDP, Transport::Sctp]) {
        let scope = scene.pool(2 * at + 1, &[net.backend()]);
        scene.frontend(2 * at + 1, net.vip(), proto(transport), scope);
        scene.frontend(2 * at + 2, rejecting, proto(transport), Scope::REJECT);
    }
    at_others(scene, |scene, mac| {
        for to in [net.vip(), rejecting] {
            for (transport, program) in
                [SYN, UDP, Transport::Sctp].into_iter().flat_map(|one| INGRESS.map(|at| (one, at)))
            {
                scene.untouched(program, &Described::new(transport, client, to).to_mac(mac));
            }
        }
    });
    assert!(scene.machine().flows().is_empty());
    assert_eq!(scene.counters(), [].into());
}

fn frames_for_others_are_of_no_flow(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    for (id, transport) in [(1, SYN), (2, UDP)] {
        let scope = scene.pool(id, &[net.backend()]);
        scene.frontend(id, net.vip(), proto(transport), scope);
        scene.request(transport);
    }
    let error = Described::new(UDP, net.backend(), client).icmp(port_unreachable(scene), [0; 4], client.0, net.vip().0);
    at_others(scene, |scene, mac| {
        for transport in [SYN, ACK, UDP] {
            scene.untouched(Program::WorkloadIngress, &Described::new(transport, client, net.vip()).to_mac(mac));
        }
        let mut error = error.clone();
        error[..6].copy_from_slice(&mac);
        assert_eq!(scene.machine().run(Program::WorkloadIngress, &error), (HookAction::Next, error));
    });
    // A packet for the node is translated.
    assert_eq!(scene.request(ACK).1, net.backend());
}

const fn port_unreachable(scene: &Scene<'_>) -> (u8, u8) {
    match scene.net {
        super::Net::V4 => (3, 3),
        super::Net::V6 => (1, 4),
    }
}

fn fragments_for_others_are_left_alone(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    scene.service(UDP, &[net.backend()]);
    let fragment = |offset, more| Described::new(UDP, client, net.vip()).fragment(offset, more);
    at_others(scene, |scene, mac| {
        // The later fragment is not parked, and the first one is not recorded.
        scene.untouched(Program::WorkloadIngress, &fragment(100, false).to_mac(mac));
        scene.untouched(Program::WorkloadIngress, &fragment(0, true).to_mac(mac));
    });
    assert_eq!(scene.counters(), [].into());
    // A datagram for the node with the same identification.
    for fragment in [fragment(0, true), fragment(100, false)] {
        let (action, bytes) = scene.machine().run(Program::WorkloadIngress, &fragment.bytes());
        assert!(action == HookAction::Next && bytes != fragment.bytes());
    }
    at_others(scene, |scene, mac| {
        scene.untouched(Program::WorkloadIngress, &fragment(100, false).to_mac(mac));
    });
}

/// The MAC of the port is the loopback's here. Frames for the bridge's MAC reach the node as well. If the agent does
/// not know the MACs, any MAC may be the node's.
fn frames_for_a_bridge_are_for_the_node(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    scene.service(UDP, &[net.backend()]);
    let rejecting = (net.host(102), 80);
    scene.frontend(2, rejecting, proto(UDP), Scope::REJECT);
    let unknown = Port { flags: Port::ANY_MAC, ..BRIDGED };
    for (port, mac) in [(BRIDGED, BRIDGE_MAC), (unknown, NEIGHBOUR_MAC)] {
        scene.machine().set_port(port);
        let (action, after) = scene.run(Program::WorkloadIngress, &Described::new(UDP, client, net.vip()).to_mac(mac));
        assert_eq!(action, HookAction::Next);
        assert_eq!(goes_to(&after.answer), net.backend());
        let (action, after) = scene.run(Program::WorkloadIngress, &Described::new(UDP, client, rejecting).to_mac(mac));
        assert_eq!((action, after.source_mac), (HookAction::SendBack, mac));
    }
}

fn goes_to(answer: &crate::packet::Answer) -> End {
    match answer {
        crate::packet::Answer::Transport { to, .. } => *to,
        other @ crate::packet::Answer::Icmp { .. } => panic!("{other:?} has no ports"),
    }
}

/// A pod dials an endpoint behind the same bridge from the port that its flow through a frontend uses there.
fn frames_for_a_neighbour_keep_their_own_tuple(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    scene.service(UDP, &[net.backend()]);
    scene.machine().set_port(BRIDGED);
    scene.request(UDP);
    let direct = Described::new(UDP, client, net.backend());
    let (action, bytes) = scene.machine().run(Program::WorkloadIngress, &direct.clone().to_mac(NEIGHBOUR_MAC).bytes());
    let after = read(&bytes);
    assert_eq!((action, goes_to(&after.answer)), (HookAction::Next, net.backend()));
    assert_eq!(after.destination_mac, NEIGHBOUR_MAC);
    let crate::packet::Answer::Transport { from, .. } = after.answer else { panic!("it has ports") };
    assert!(from.0 == client.0 && from.1 != client.1, "another source port: {from:?}");
    assert_eq!(scene.through(Program::WorkloadEgress, UDP, net.backend(), from), (net.backend(), client));
    // At an interface that is no bridge port, the stack drops the frame, and no flow is recorded.
    scene.machine().set_port(UNBRIDGED);
    let before = scene.machine().flows().len();
    let other = (client.0, 40_009);
    scene.untouched(Program::WorkloadIngress, &Described::new(UDP, other, net.backend()).to_mac(NEIGHBOUR_MAC));
    assert_eq!(scene.machine().flows().len(), before);
}

/// A hairpin flow: its answer is for the node as well.
fn no_answer_to_itself(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    let itself = (client.0, 8080);
    scene.service(UDP, &[itself]);
    let (action, _) = scene.run(Program::WorkloadIngress, &Described::new(UDP, client, net.vip()));
    assert_eq!(action, HookAction::SendBack);
    let answer = Described::new(UDP, itself, (net.vip().0, client.1));
    at_others(scene, |scene, mac| scene.untouched(Program::WorkloadIngress, &answer.clone().to_mac(mac)));
    assert_eq!(scene.counters().get(&Counter::ReplyTranslated), None);
    assert_eq!(scene.run(Program::WorkloadIngress, &answer).0, HookAction::SendBack);
}
