//! ICMP errors about translated flows, from every sender (PR-02, PR-03).

use lb_common::table::Counter;
use lb_common::verdict::HookAction;

use super::scene::{SYN, SYN_ACK, Scene, UDP};
use super::{Case, Net};
use crate::machine::Program;
use crate::packet::{Answer, CLIENT_MAC, Described, NODE_MAC, Transport};

pub const CASES: &[Case] = &[
    ("router_complains_of_a_request", router_complains_of_a_request),
    ("backend_complains_of_a_request", backend_complains_of_a_request),
    ("every_kind_of_error_is_translated", every_kind_of_error_is_translated),
    ("client_complains_of_a_reply", client_complains_of_a_reply),
    ("router_beyond_the_client_complains", router_beyond_the_client_complains),
    ("error_about_a_flow_with_its_own_port", error_about_a_flow_with_its_own_port),
    ("pod_complains_of_itself", pod_complains_of_itself),
    ("redirect_of_a_translated_flow_is_dropped", redirect_of_a_translated_flow_is_dropped),
    ("icmp_of_strangers_passes", icmp_of_strangers_passes),
];

/// An MTU of 1280, in the second word as in both families.
const MTU: [u8; 4] = [0, 0, 5, 0];

/// Fragmentation needed; packet too big.
const fn too_big(net: Net) -> (u8, u8) {
    match net {
        Net::V4 => (3, 4),
        Net::V6 => (2, 0),
    }
}

const fn port_unreachable(net: Net) -> (u8, u8) {
    match net {
        Net::V4 => (3, 3),
        Net::V6 => (1, 4),
    }
}

/// PR-02: the socket receives an error about the address that it dialled, with the router's own address and MTU.
fn router_complains_of_a_request(scene: &mut Scene<'_>) {
    let (net, router) = (scene.net, scene.net.host(250));
    for transport in [SYN, UDP, Transport::Sctp] {
        scene.service(transport, &[net.backend()]);
        let (from, to) = scene.request(transport);
        let error = Described::new(transport, from, to).icmp(too_big(net), MTU, router, from.0);
        let expected = Answer::Icmp {
            kind: too_big(net),
            word: MTU,
            from: router,
            to: net.client().0,
            about: (net.client(), (net.vip().0, if transport == Transport::Sctp { to.1 } else { net.vip().1 })),
        };
        assert_eq!(scene.onward(Program::WorkloadEgress, &error), expected, "{transport:?}");
    }
}

/// PR-03: the error seems to come from the frontend.
fn backend_complains_of_a_request(scene: &mut Scene<'_>) {
    let net = scene.net;
    scene.service(UDP, &[net.backend()]);
    let (from, to) = scene.request(UDP);
    let error = Described::new(UDP, from, to).icmp(port_unreachable(net), [0; 4], to.0, from.0);
    let (kind, word) = (port_unreachable(net), [0; 4]);
    let about = (net.client(), net.vip());
    let expected = Answer::Icmp { kind, word, from: net.vip().0, to: net.client().0, about };
    assert_eq!(scene.onward(Program::WorkloadEgress, &error), expected);
    assert_eq!(scene.counters().get(&Counter::IcmpTranslated), Some(&1));
}

/// Unreachable, time exceeded, parameter problem: RFC 792, RFC 4443.
fn every_kind_of_error_is_translated(scene: &mut Scene<'_>) {
    let (net, router) = (scene.net, scene.net.host(250));
    scene.service(SYN, &[net.backend()]);
    let (from, to) = scene.request(SYN);
    let kinds = match net {
        Net::V4 => [(3, 1), (11, 0), (12, 0)],
        Net::V6 => [(1, 0), (3, 0), (4, 1)],
    };
    for kind in kinds {
        let error = Described::new(SYN, from, to).icmp(kind, [0; 4], router, from.0);
        let about = (net.client(), net.vip());
        let expected = Answer::Icmp { kind, word: [0; 4], from: router, to: net.client().0, about };
        assert_eq!(scene.onward(Program::WorkloadEgress, &error), expected);
    }
}

fn client_complains_of_a_reply(scene: &mut Scene<'_>) {
    let net = scene.net;
    for transport in [SYN, UDP] {
        scene.service(transport, &[net.backend()]);
        scene.request(transport);
        let (from, to) = scene.reply(if transport == SYN { SYN_ACK } else { UDP }, net.backend());
        let error = Described::new(transport, from, to).icmp(port_unreachable(net), [0; 4], to.0, from.0);
        let (kind, word) = (port_unreachable(net), [0; 4]);
        let about = (net.backend(), net.client());
        let expected = Answer::Icmp { kind, word, from: net.client().0, to: net.backend().0, about };
        assert_eq!(scene.onward(Program::WorkloadIngress, &error), expected);
    }
}

/// A small MTU on the client's side of an uplink: the backend must receive the error.
fn router_beyond_the_client_complains(scene: &mut Scene<'_>) {
    let (net, router) = (scene.net, scene.net.host(250));
    scene.service(SYN, &[net.backend()]);
    scene.through(Program::UplinkIngress, SYN, net.client(), net.vip());
    let (from, to) = scene.through(Program::UplinkEgress, SYN_ACK, net.backend(), net.client());
    let error = Described::new(SYN_ACK, from, to).icmp(too_big(net), MTU, router, from.0);
    let about = (net.backend(), net.client());
    let expected = Answer::Icmp { kind: too_big(net), word: MTU, from: router, to: net.backend().0, about };
    assert_eq!(scene.onward(Program::UplinkIngress, &error), expected);
}

fn error_about_a_flow_with_its_own_port(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    scene.service(SYN, &[net.backend()]);
    let scope = scene.pool(2, &[net.backend()]);
    scene.frontend(2, net.other_vip(), lb_common::addr::Proto::TCP, scope);
    scene.through(Program::WorkloadIngress, SYN, client, net.vip());
    let (from, to) = scene.through(Program::WorkloadIngress, SYN, client, net.other_vip());
    assert_ne!(from, client);
    let error = Described::new(SYN, from, to).icmp(port_unreachable(net), [0; 4], to.0, from.0);
    let about = (client, net.other_vip());
    let (kind, word) = (port_unreachable(net), [0; 4]);
    let expected = Answer::Icmp { kind, word, from: net.other_vip().0, to: client.0, about };
    assert_eq!(scene.onward(Program::WorkloadEgress, &error), expected);
}

/// A pod that dials itself on a closed UDP port receives its own error.
fn pod_complains_of_itself(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    let itself = (client.0, 8080);
    scene.service(UDP, &[itself]);
    scene.run(Program::WorkloadIngress, &Described::new(UDP, client, net.vip()));
    let seen = Described::new(UDP, (net.vip().0, client.1), itself);
    let error = seen.icmp(port_unreachable(net), [0; 4], client.0, net.vip().0);
    let (action, bytes) = scene.machine().run(Program::WorkloadIngress, &error);
    assert_eq!(action, HookAction::SendBack);
    let answer = crate::packet::read(&bytes);
    assert_eq!((answer.source_mac, answer.destination_mac), (NODE_MAC, CLIENT_MAC), "turned round");
    let (kind, word) = (port_unreachable(net), [0; 4]);
    let expected = Answer::Icmp { kind, word, from: net.vip().0, to: client.0, about: (client, net.vip()) };
    assert_eq!(answer.answer, expected);
}

/// A bridge node redirects `cni0 -> cni0` to the backend, which the client never dialled.
fn redirect_of_a_translated_flow_is_dropped(scene: &mut Scene<'_>) {
    let (net, router) = (scene.net, scene.net.host(250));
    scene.service(SYN, &[net.backend()]);
    let (from, to) = scene.request(SYN);
    let [ours, other] = [to, (net.host(99), 1)].map(|to| Described::new(SYN, from, to));
    let messages = |about: &Described| match net {
        Net::V4 => vec![about.icmp((5, 1), [10, 180, 0, 20], router, from.0)],
        // The quoted packet is an option, after the target's link-layer address if that is known.
        Net::V6 => [0, 1, 3].map(|units| about.redirect6(router, to.0, from.0, units)).to_vec(),
    };
    for redirect in messages(&ours) {
        assert_eq!(scene.machine().run(Program::WorkloadEgress, &redirect).0, HookAction::Drop);
    }
    for redirect in messages(&other) {
        assert_eq!(scene.machine().run(Program::WorkloadEgress, &redirect), (HookAction::Next, redirect));
    }
}

fn icmp_of_strangers_passes(scene: &mut Scene<'_>) {
    let net = scene.net;
    scene.service(SYN, &[net.backend()]);
    let (from, to) = scene.request(SYN);
    let about = Described::new(SYN, from, (net.host(99), 80));
    let echo = if net == Net::V4 { (8, 0) } else { (128, 0) };
    let packets = [
        about.icmp(too_big(net), MTU, net.host(250), from.0),
        Described::new(SYN, from, to).icmp(echo, [0, 1, 0, 1], net.host(250), from.0),
    ];
    for packet in packets {
        for program in
            [Program::WorkloadIngress, Program::WorkloadEgress, Program::UplinkIngress, Program::UplinkEgress]
        {
            assert_eq!(scene.machine().run(program, &packet), (HookAction::Next, packet.clone()));
        }
    }
}
