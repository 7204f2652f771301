//! Which packets match a frontend, and what each action does to a new flow.

use lb_common::addr::Proto;
use lb_common::table::{Counter, DropKey, EDGE_UPLINK, POOL_ELEMENTS_MAX, Scope, ScopeFlags};
use lb_common::verdict::HookAction;

use super::scene::{ACK, RST, SYN, SYN_ACK, Scene, UDP};
use super::{Case, Net};
use crate::machine::{EDGE, Program};
use crate::packet::{Answer, CLIENT_MAC, Described, End, NODE_MAC, Transport};

pub const CASES: &[Case] = &[
    ("stranger_passes", stranger_passes),
    ("other_port_and_protocol_pass", other_port_and_protocol_pass),
    ("proxy_passes_and_is_counted", proxy_passes_and_is_counted),
    ("mid_flow_segment_passes", mid_flow_segment_passes),
    ("reject_is_answered", reject_is_answered),
    ("reject_quotes_options", reject_quotes_options),
    ("drop_is_silent", drop_is_silent),
    ("drops_have_an_address", drops_have_an_address),
    ("empty_slot_drops", empty_slot_drops),
    ("slot_of_another_pool_drops", slot_of_another_pool_drops),
    ("scope_is_that_of_the_client", scope_is_that_of_the_client),
    ("all_backends_are_chosen", all_backends_are_chosen),
    ("source_ranges_let_their_clients_in", source_ranges_let_their_clients_in),
    ("source_ranges_come_before_reject", source_ranges_come_before_reject),
    ("known_flows_are_not_asked_for_their_source", known_flows_are_not_asked_for_their_source),
    ("source_ranges_are_those_of_the_frontend", source_ranges_are_those_of_the_frontend),
];

fn stranger_passes(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    for program in [Program::WorkloadIngress, Program::WorkloadEgress, Program::UplinkIngress, Program::UplinkEgress] {
        for transport in [SYN, SYN_ACK, ACK, RST, UDP, Transport::Sctp] {
            scene.untouched(program, &Described::new(transport, scene.net.client(), (scene.net.host(77), 80)));
            scene.untouched(program, &Described::new(transport, scene.net.backend(), scene.net.client()));
        }
    }
    assert!(scene.counters().is_empty() && scene.machine().flows().is_empty());
}

/// IPM-11, IPM-12: the key is address, protocol and port.
fn other_port_and_protocol_pass(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    let (vip, client) = (scene.net.vip(), scene.net.client());
    scene.untouched(Program::WorkloadIngress, &Described::new(SYN, client, (vip.0, 9999)));
    scene.untouched(Program::WorkloadIngress, &Described::new(UDP, client, vip));
    scene.untouched(Program::WorkloadIngress, &Described::new(Transport::Sctp, client, vip));
}

/// IPM-03: an explicit Proxy entry leaves the packet unchanged.
fn proxy_passes_and_is_counted(scene: &mut Scene<'_>) {
    scene.frontend(1, scene.net.vip(), Proto::TCP, Scope::PASS);
    for program in [Program::WorkloadIngress, Program::UplinkIngress] {
        scene.untouched(program, &Described::new(SYN, scene.net.client(), scene.net.vip()));
    }
    assert_eq!(scene.counters().into_iter().collect::<Vec<_>>(), [(Counter::PassedProxy, 2)]);
    assert!(scene.machine().flows().is_empty());
}

/// IPM-61: a connection that is older than its frontend's VIP mode stays with the balancer.
fn mid_flow_segment_passes(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    for transport in [ACK, RST, SYN_ACK, Transport::Tcp(0x11)] {
        scene.untouched(Program::WorkloadIngress, &Described::new(transport, scene.net.client(), scene.net.vip()));
    }
    assert!(scene.counters().is_empty());
}

/// IPM-31, REJ-01, REJ-02: the sender gets a port unreachable from the address that it dialled.
fn reject_is_answered(scene: &mut Scene<'_>) {
    for (id, transport) in [(1, SYN), (2, UDP), (3, Transport::Sctp)] {
        scene.frontend(id, scene.net.vip(), super::scene::proto(transport), Scope::REJECT);
        expect_unreachable(scene, &Described::new(transport, scene.net.client(), scene.net.vip()));
    }
    assert_eq!(scene.counters().into_iter().collect::<Vec<_>>(), [(Counter::Rejected, 3)]);
    assert_eq!(scene.dropped(Counter::Rejected), Some((scene.net.client(), scene.net.vip())));
}

fn reject_quotes_options(scene: &mut Scene<'_>) {
    let options_len = match scene.net {
        Net::V4 => 40,
        Net::V6 => 30,
    };
    for (id, transport) in [(1, SYN), (2, UDP)] {
        scene.frontend(id, scene.net.vip(), super::scene::proto(transport), Scope::REJECT);
        let packet = Described::new(transport, scene.net.client(), scene.net.vip()).options_len(options_len);
        expect_unreachable(scene, &packet);
    }
}

fn expect_unreachable(scene: &mut Scene<'_>, packet: &Described) {
    let (action, answer) = scene.run(Program::WorkloadIngress, packet);
    assert_eq!(action, HookAction::SendBack);
    assert_eq!((answer.source_mac, answer.destination_mac), (NODE_MAC, CLIENT_MAC));
    // RFC 792, RFC 4443.
    let kind = if scene.net == Net::V4 { (3, 3) } else { (1, 4) };
    let about = (packet.from, packet.to);
    let expected = Answer::Icmp { kind, word: [0; 4], from: packet.to.0, to: packet.from.0, about };
    assert_eq!(answer.answer, expected);
}

/// IPM-32: local traffic policy with remote endpoints only.
fn drop_is_silent(scene: &mut Scene<'_>) {
    scene.frontend(1, scene.net.vip(), Proto::TCP, Scope::DROP);
    let (action, _) = scene.run(Program::UplinkIngress, &Described::new(SYN, scene.net.client(), scene.net.vip()));
    assert_eq!(action, HookAction::Drop);
    assert_eq!(scene.counters().into_iter().collect::<Vec<_>>(), [(Counter::DropNoLocalEndpoint, 1)]);
}

/// What is refused, rejected or dropped is counted by frontend, interface and reason.
fn drops_have_an_address(scene: &mut Scene<'_>) {
    let (net, client) = (scene.net, scene.net.client());
    let (refusing, silent) = (net.vip(), net.other_vip());
    scene.frontend(1, refusing, Proto::TCP, Scope::REJECT);
    scene.frontend(2, refusing, Proto::UDP, Scope::PASS);
    scene.frontend(3, silent, Proto::TCP, Scope::DROP);
    scene.restrict(2, &[(net.host(1), if net == Net::V4 { 32 } else { 128 })]);
    let (pod, network) = (Program::WorkloadIngress, Program::UplinkIngress);
    for (program, transport, to, packets) in [
        (pod, SYN, refusing, 2),
        (network, SYN, refusing, 1),
        (pod, UDP, refusing, 3),
        (network, SYN, silent, 1),
        // Of no frontend.
        (pod, SYN, (net.host(77), 80), 1),
    ] {
        for _ in 0..packets {
            scene.run(program, &Described::new(transport, client, to));
        }
    }
    let key = |frontend, edge, reason| DropKey { frontend, edge, reason: reason as u32 };
    // Rows of no frontend may be left of other cases.
    let counts = scene.machine().drop_counts().into_iter().filter(|(key, _)| key.frontend != 0);
    assert_eq!(
        counts.collect::<Vec<_>>(),
        [
            (key(1, EDGE_UPLINK, Counter::Rejected), 1),
            (key(1, EDGE, Counter::Rejected), 2),
            (key(2, EDGE, Counter::DropSourceRange), 3),
            (key(3, EDGE_UPLINK, Counter::DropNoLocalEndpoint), 1),
        ]
    );
}

fn empty_slot_drops(scene: &mut Scene<'_>) {
    finds_no_backend(scene, Scope::balance(77, 1));
}

/// The slot is the start of another pool, which has another ID.
fn slot_of_another_pool_drops(scene: &mut Scene<'_>) {
    let there = scene.pool(1, &[scene.net.backend()]);
    finds_no_backend(scene, Scope::balance(there.pool + POOL_ELEMENTS_MAX, 1));
}

fn finds_no_backend(scene: &mut Scene<'_>, scope: Scope) {
    scene.frontend(1, scene.net.vip(), Proto::TCP, scope);
    let (action, _) = scene.run(Program::WorkloadIngress, &Described::new(SYN, scene.net.client(), scene.net.vip()));
    assert_eq!(action, HookAction::Drop);
    assert_eq!(scene.counters().into_iter().collect::<Vec<_>>(), [(Counter::DropNoBackend, 1)]);
    assert!(scene.machine().flows().is_empty());
}

/// `Split`: Proxy for connections from this node, VIP for those that the network delivers.
fn scope_is_that_of_the_client(scene: &mut Scene<'_>) {
    let balance = scene.pool(1, &[scene.net.backend()]);
    scene.frontend_scopes(1, scene.net.vip(), Proto::TCP, [Scope::PASS, Scope::PASS, balance]);
    let (client, vip) = (scene.net.client(), scene.net.vip());
    scene.untouched(Program::WorkloadIngress, &Described::new(SYN, client, vip));
    assert_eq!(scene.through(Program::UplinkIngress, SYN, client, vip), (client, scene.net.backend()));
    let reply = scene.through(Program::UplinkEgress, SYN_ACK, scene.net.backend(), client);
    assert_eq!(reply, (vip, client));
}

fn all_backends_are_chosen(scene: &mut Scene<'_>) {
    let backends: Vec<_> = (20..24).map(|host| (scene.net.host(host), 8080)).collect();
    scene.service(SYN, &backends);
    let mut chosen = std::collections::BTreeSet::new();
    for sport in 1000..1200 {
        let client = (scene.net.client().0, sport);
        let (from, to) = scene.through(Program::WorkloadIngress, SYN, client, scene.net.vip());
        assert_eq!(from, client);
        chosen.insert(to);
    }
    // 200 even draws out of four miss one with a probability below 1e-24.
    assert_eq!(chosen, backends.into_iter().collect());
}

/// Expects that a packet is dropped for its source address.
fn dropped(scene: &mut Scene<'_>, program: Program, transport: Transport, from: End) {
    let (action, _) = scene.run(program, &Described::new(transport, from, scene.net.vip()));
    assert_eq!(action, HookAction::Drop, "{transport:?} of {from:?}");
    assert_eq!(scene.dropped(Counter::DropSourceRange), Some((from, scene.net.vip())));
}

/// SR-01, SR-02: the ranges apply to all clients, pods included. Admitted connections are balanced as usual.
fn source_ranges_let_their_clients_in(scene: &mut Scene<'_>) {
    for transport in [SYN, UDP, Transport::Sctp] {
        // Hosts 0 to 7 and host 9.
        let whole = scene.net.bits();
        let backend = if transport == Transport::Sctp { (scene.net.host(20), 80) } else { scene.net.backend() };
        scene.service(transport, &[backend]);
        scene.restrict(1, &[(scene.net.host(0), whole - 3), (scene.net.host(9), whole)]);
        for program in [Program::WorkloadIngress, Program::UplinkIngress] {
            for (host, is_in) in [(2, true), (7, true), (8, false), (9, true), (10, false), (200, false)] {
                let client = (scene.net.host(host), 40_000 + u16::from(host));
                if is_in {
                    assert_eq!(scene.through(program, transport, client, scene.net.vip()), (client, backend));
                } else {
                    dropped(scene, program, transport, client);
                }
            }
        }
    }
    assert_eq!(scene.counters()[&Counter::DropSourceRange], 3 * 2 * 3);
}

/// As with netfilter, a client outside the ranges gets no answer.
fn source_ranges_come_before_reject(scene: &mut Scene<'_>) {
    for scope in [Scope::REJECT, Scope::DROP] {
        scene.frontend(1, scene.net.vip(), Proto::TCP, scope.with_flags(ScopeFlags::SOURCE_RANGES));
        scene.restrict(1, &[(scene.net.host(9), scene.net.bits())]);
        dropped(scene, Program::WorkloadIngress, SYN, scene.net.client());
    }
    assert_eq!(scene.counters().into_iter().collect::<Vec<_>>(), [(Counter::DropSourceRange, 2)]);
}

/// The ranges apply to new connections only: when a range is removed, established connections continue in both
/// directions.
fn known_flows_are_not_asked_for_their_source(scene: &mut Scene<'_>) {
    let backend = scene.net.backend();
    scene.service(SYN, &[backend]);
    scene.request(SYN);
    scene.restrict(1, &[(scene.net.host(9), scene.net.bits())]);
    assert_eq!(scene.request(ACK), (scene.net.client(), backend));
    assert_eq!(scene.reply(SYN_ACK, backend), (scene.net.vip(), scene.net.client()));
    let other = (scene.net.client().0, 40_001);
    dropped(scene, Program::WorkloadIngress, SYN, other);
}

/// The ranges of one frontend do not affect another.
fn source_ranges_are_those_of_the_frontend(scene: &mut Scene<'_>) {
    let balance = scene.pool(1, &[scene.net.backend()]);
    let (vip, other) = (scene.net.vip(), scene.net.other_vip());
    scene.frontend(1, vip, Proto::TCP, balance);
    scene.frontend(2, other, Proto::TCP, balance);
    scene.restrict(1, &[(scene.net.client().0, scene.net.bits())]);
    scene.restrict(2, &[]);
    scene.request(SYN);
    let packet = Described::new(SYN, scene.net.client(), other);
    assert_eq!(scene.run(Program::WorkloadIngress, &packet).0, HookAction::Drop);
}
