//! The life of a flow: its creation, its states, its time-outs and its end.

use std::collections::BTreeSet;

use lb_common::addr::Proto;
use lb_common::table::{Counter, Direction, FlowState, Scope};
use lb_common::verdict::HookAction;

use super::Case;
use super::scene::{ACK, FIN, RST, SYN, SYN_ACK, Scene, UDP};
use crate::machine::{Flows, Program};
use crate::packet::{Answer, Described, SEQ, Transport};

pub const CASES: &[Case] = &[
    ("request_and_reply", request_and_reply),
    ("only_the_client_edge_translates", only_the_client_edge_translates),
    ("flow_outlives_its_frontend", flow_outlives_its_frontend),
    ("new_connection_follows_the_flip", new_connection_follows_the_flip),
    ("tcp_outlives_its_backend", tcp_outlives_its_backend),
    ("syn_leaves_a_dead_backend", syn_leaves_a_dead_backend),
    ("udp_leaves_a_dead_backend", udp_leaves_a_dead_backend),
    ("udp_leaves_a_backend_that_has_terminated", udp_leaves_a_backend_that_has_terminated),
    ("udp_stays_when_others_come", udp_stays_when_others_come),
    ("udp_is_rejected_without_backends", udp_is_rejected_without_backends),
    ("quiet_udp_flow_starts_anew", quiet_udp_flow_starts_anew),
    ("closed_tuple_is_free", closed_tuple_is_free),
    ("direct_connection_over_a_closed_flow", direct_connection_over_a_closed_flow),
    ("two_frontends_one_backend", two_frontends_one_backend),
    ("lost_half_is_restored", lost_half_is_restored),
    ("half_a_flow_is_in_nobodys_way", half_a_flow_is_in_nobodys_way),
    ("lost_half_is_not_taken_from_its_new_owner", lost_half_is_not_taken_from_its_new_owner),
    ("stream_one_way_keeps_both_halves", stream_one_way_keeps_both_halves),
    ("closed_flow_is_in_nobodys_way", closed_flow_is_in_nobodys_way),
    ("member_is_looked_up_once", member_is_looked_up_once),
    ("both_ends_open", both_ends_open),
    ("half_open_flow_gives_its_tuple_back", half_open_flow_gives_its_tuple_back),
    ("a_reset_flow_stays_while_it_is_busy", a_reset_flow_stays_while_it_is_busy),
    ("who_goes_on_after_a_reset_keeps_the_flow", who_goes_on_after_a_reset_keeps_the_flow),
    ("a_guessed_end_ends_nothing", a_guessed_end_ends_nothing),
    ("numbers_are_followed", numbers_are_followed),
    ("a_forged_reset_breaks_no_handshake", a_forged_reset_breaks_no_handshake),
    ("only_who_hears_an_answer_opens_a_flow", only_who_hears_an_answer_opens_a_flow),
    ("half_open_flows_go_first", half_open_flows_go_first),
];

fn request_and_reply(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    for transport in [SYN, UDP] {
        let id = if transport == SYN { 1 } else { 2 };
        let scope = scene.pool(id, &[backend]);
        scene.frontend(id, vip, super::scene::proto(transport), scope);
        assert_eq!(scene.request(transport), (client, backend));
    }
    assert_eq!(scene.reply(SYN_ACK, backend), (vip, client));
    assert_eq!(scene.request(ACK), (client, backend));
    assert_eq!(scene.reply(UDP, backend), (vip, client));
    assert_eq!(scene.machine().flows().len(), 4);
    let counted: Vec<_> = scene.counters().into_iter().collect();
    let expected = [(Counter::RequestTranslated, 3), (Counter::ReplyTranslated, 2), (Counter::FlowCreated, 2)];
    assert_eq!(counted, expected);
}

/// A reply is seen at several hooks. If another hook rewrote it, conntrack would see a reply without a request.
fn only_the_client_edge_translates(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    scene.request(SYN);
    let reply = Described::new(SYN_ACK, scene.net.backend(), scene.net.client());
    scene.untouched(Program::WorkloadIngress, &reply);
    scene.untouched(Program::UplinkEgress, &reply);
    assert_eq!(scene.reply(SYN_ACK, scene.net.backend()).0, scene.net.vip());
}

/// IPM-60, IPM-64: VIP becomes Proxy, or the Service is deleted.
fn flow_outlives_its_frontend(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    for transport in [SYN, UDP] {
        scene.service(transport, &[backend]);
        scene.request(transport);
        scene.reply(if transport == SYN { SYN_ACK } else { UDP }, backend);
        scene.frontend(1, vip, super::scene::proto(transport), Scope::PASS);
        assert_eq!(scene.request(if transport == SYN { ACK } else { UDP }), (client, backend));
        assert_eq!(scene.reply(if transport == SYN { ACK } else { UDP }, backend), (vip, client));
        scene.untouched(Program::WorkloadIngress, &Described::new(transport, (client.0, 41_000), vip));
        scene.remove_frontend(vip);
    }
}

/// IPM-60: a new connection leaves the node, also from a source port whose old connection was never closed.
fn new_connection_follows_the_flip(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    scene.service(SYN, &[scene.net.backend()]);
    scene.request(SYN);
    scene.reply(SYN_ACK, scene.net.backend());
    scene.frontend(1, vip, Proto::TCP, Scope::PASS);
    scene.untouched(Program::WorkloadIngress, &Described::new(SYN, client, vip));
    assert!(scene.machine().flows().is_empty());
}

/// CT-05: the established connection is not cut.
fn tcp_outlives_its_backend(scene: &mut Scene<'_>) {
    let (client, backend, other) = (scene.net.client(), scene.net.backend(), scene.net.other_backend());
    scene.service(SYN, &[backend]);
    scene.request(SYN);
    scene.reply(SYN_ACK, backend);
    scene.service(SYN, &[other]);
    assert_eq!(scene.request(ACK), (client, backend));
    scene.frontend(1, scene.net.vip(), Proto::TCP, Scope::REJECT);
    assert_eq!(scene.request(ACK), (client, backend), "REJ-03: only new flows are rejected");
}

fn syn_leaves_a_dead_backend(scene: &mut Scene<'_>) {
    let (client, backend, other) = (scene.net.client(), scene.net.backend(), scene.net.other_backend());
    scene.service(SYN, &[backend]);
    assert_eq!(scene.request(SYN), (client, backend));
    assert_eq!(scene.request(SYN), (client, backend), "a repeated SYN goes where the first went");
    scene.service(SYN, &[other]);
    assert_eq!(scene.request(SYN), (client, other));
    assert_eq!(scene.machine().flows().len(), 2, "nothing is left of the old flow");
}

/// CT-01, CT-03.
fn udp_leaves_a_dead_backend(scene: &mut Scene<'_>) {
    let (client, backend, other) = (scene.net.client(), scene.net.backend(), scene.net.other_backend());
    scene.service(UDP, &[backend]);
    assert_eq!(scene.request(UDP), (client, backend));
    scene.reply(UDP, backend);
    scene.service(UDP, &[other]);
    assert_eq!(scene.request(UDP), (client, other));
    assert_eq!(scene.reply(UDP, other).0, scene.net.vip());
}

/// CT-01 after a rolling update: the flow keeps its backend while that terminates, and moves when the backend is
/// removed, although the pool is the same before and after.
fn udp_leaves_a_backend_that_has_terminated(scene: &mut Scene<'_>) {
    let (client, backend, other) = (scene.net.client(), scene.net.backend(), scene.net.other_backend());
    scene.service(UDP, &[backend]);
    assert_eq!(scene.request(UDP), (client, backend));
    scene.reply(UDP, backend);
    let scope = scene.pool(1, &[other]);
    scene.more_pool(1, &[backend], 0);
    scene.frontend(1, scene.net.vip(), Proto::UDP, scope);
    assert_eq!(scene.request(UDP), (client, backend));
    scene.pool(1, &[other]);
    assert_eq!(scene.request(UDP), (client, other));
}

fn udp_stays_when_others_come(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(UDP, &[backend]);
    assert_eq!(scene.request(UDP), (client, backend));
    let more: Vec<_> = (30..60).map(|host| (scene.net.host(host), 1)).chain([backend]).collect();
    scene.service(UDP, &more);
    for _ in 0..5 {
        assert_eq!(scene.request(UDP), (client, backend));
    }
}

/// CT-04: and the flow recovers when the first endpoint returns.
fn udp_is_rejected_without_backends(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    scene.request(UDP);
    scene.frontend(1, vip, Proto::UDP, Scope::REJECT);
    let (action, answer) = scene.run(Program::WorkloadIngress, &Described::new(UDP, client, vip));
    assert_eq!(action, HookAction::SendBack);
    assert!(matches!(answer.answer, Answer::Icmp { .. }));
    assert!(scene.machine().flows().is_empty());
    scene.service(UDP, &[backend]);
    assert_eq!(scene.request(UDP), (client, backend));
}

/// IPM-62: after its idle time-out a flow follows the mode.
fn quiet_udp_flow_starts_anew(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    scene.service(UDP, &[scene.net.backend()]);
    scene.request(UDP);
    scene.frontend(1, vip, Proto::UDP, Scope::PASS);
    scene.machine().age_flows(119);
    assert_eq!(scene.request(UDP), (client, scene.net.backend()));
    scene.machine().age_flows(122);
    scene.untouched(Program::WorkloadIngress, &Described::new(UDP, client, vip));
}

fn closed_tuple_is_free(scene: &mut Scene<'_>) {
    let (client, backend, other) = (scene.net.client(), scene.net.backend(), scene.net.other_backend());
    for how in [&[FIN][..], &[RST]] {
        scene.service(SYN, &[backend]);
        assert_eq!(scene.request(SYN), (client, backend));
        scene.reply(SYN_ACK, backend);
        for transport in how {
            scene.request(*transport);
            scene.reply(*transport, backend);
        }
        scene.service(SYN, &[other]);
        assert_eq!(scene.request(SYN), (client, other), "a new connection chooses anew");
        scene.request(RST);
    }
}

/// The same client port dials the backend directly after the flow through the frontend has ended.
fn direct_connection_over_a_closed_flow(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(SYN, &[backend]);
    scene.request(SYN);
    scene.reply(SYN_ACK, backend);
    scene.request(RST);
    scene.untouched(Program::WorkloadIngress, &Described::new(SYN, client, backend));
    scene.untouched(Program::WorkloadEgress, &Described::new(SYN_ACK, backend, client));
    scene.untouched(Program::WorkloadEgress, &Described::new(ACK, backend, client));
}

/// Two frontends, one backend, one client port: two reply tuples.
fn two_frontends_one_backend(scene: &mut Scene<'_>) {
    let (client, vip, other_vip, backend) =
        (scene.net.client(), scene.net.vip(), scene.net.other_vip(), scene.net.backend());
    scene.service(SYN, &[backend]);
    let scope = scene.pool(2, &[backend]);
    scene.frontend(2, other_vip, Proto::TCP, scope);
    let (first, _) = scene.through(Program::WorkloadIngress, SYN, client, vip);
    let (second, to) = scene.through(Program::WorkloadIngress, SYN, client, other_vip);
    assert_eq!((first, to), (client, backend));
    assert_eq!(second.0, client.0);
    assert_ne!(second.1, client.1, "the second flow needs a source port of its own");
    assert_eq!(scene.through(Program::WorkloadEgress, SYN_ACK, backend, first), (vip, client));
    assert_eq!(scene.through(Program::WorkloadEgress, SYN_ACK, backend, second), (other_vip, client));
}

/// A one-way flow keeps both halves: one packet after an idle time refreshes both, and restores an evicted one.
fn lost_half_is_restored(scene: &mut Scene<'_>) {
    let backend = scene.net.backend();
    for half in [Direction::Request, Direction::Reply] {
        scene.service(SYN, &[backend]);
        scene.request(SYN);
        scene.reply(SYN_ACK, backend);
        scene.machine().age_flows(6);
        scene.machine().evict(half);
        match half {
            Direction::Reply => assert_eq!(scene.request(ACK).1, backend),
            Direction::Request => assert_eq!(scene.reply(ACK, backend).0, scene.net.vip()),
        }
        assert_eq!(scene.request(ACK).1, backend);
        assert_eq!(scene.reply(ACK, backend).0, scene.net.vip());
        scene.machine().age_flows(6);
        scene.request(ACK);
        let Flows { v4, v6 } = scene.machine().flows();
        let seen = v4.values().map(|flow| flow.last_seen_jiffies).chain(v6.values().map(|flow| flow.last_seen_jiffies));
        assert_eq!(seen.collect::<BTreeSet<_>>().len(), 1, "both halves were touched");
        scene.request(RST);
    }
}

/// If the request entry of a flow is missing, its reply tuple is free, and a connection that dials again keeps its
/// source port. A new flow is an exception: its other half may be about to be written.
fn half_a_flow_is_in_nobodys_way(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(SYN, &[backend]);
    for (answers, quiet_secs, is_free) in [(0, 0, false), (0, 1, true), (1, 0, true)] {
        let client = (client.0, client.1 + answers + u16::from(is_free));
        let mut dial = || scene.through(Program::WorkloadIngress, SYN, client, scene.net.vip());
        assert_eq!(dial(), (client, backend));
        for _ in 0..answers {
            scene.through(Program::WorkloadEgress, SYN_ACK, backend, client);
        }
        scene.machine().evict(Direction::Request);
        if quiet_secs > 0 {
            scene.machine().age_flows(quiet_secs);
        }
        let (from, to) = scene.through(Program::WorkloadIngress, SYN, client, scene.net.vip());
        assert_eq!((from.0, to, from.1 == client.1), (client.0, backend, is_free), "{answers} {quiet_secs}");
        assert_eq!(scene.machine().flows().len(), if is_free { 2 } else { 3 });
        for direction in [Direction::Request, Direction::Reply] {
            scene.machine().evict(direction);
        }
    }
}

/// The reply entry of a flow was evicted, and another flow has its tuple: the first flow neither changes nor removes
/// that entry.
fn lost_half_is_not_taken_from_its_new_owner(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    let (vip, other_vip) = (scene.net.vip(), scene.net.other_vip());
    scene.service(SYN, &[backend]);
    let scope = scene.pool(2, &[backend]);
    scene.frontend(2, other_vip, Proto::TCP, scope);
    scene.request(SYN);
    scene.machine().evict(Direction::Reply);
    scene.through(Program::WorkloadIngress, SYN, client, other_vip);
    // A reset ends the first flow, and a new connection on its tuple deletes it.
    for transport in [RST, SYN] {
        scene.through(Program::WorkloadIngress, transport, client, vip);
        assert_eq!(scene.reply(SYN_ACK, backend), (other_vip, client), "after {transport:?}");
    }
    let (_, flows) = (scene.through(Program::WorkloadIngress, ACK, client, other_vip), scene.machine().flows());
    let closed =
        flows.v4.values().any(|flow| flow.state.has_ended()) || flows.v6.values().any(|flow| flow.state.has_ended());
    assert!(!closed, "the reset was the other flow's: {flows:?}");
}

/// A packet every two seconds, in one direction only: the other half is neither evicted nor stale.
fn stream_one_way_keeps_both_halves(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(UDP, &[backend]);
    scene.request(UDP);
    scene.machine().evict(Direction::Reply);
    for _ in 0..4 {
        scene.machine().age_flows(2);
        scene.request(UDP);
    }
    assert_eq!(scene.reply(UDP, backend), (scene.net.vip(), client), "a lost half is restored");
    // The time-out of UDP is two minutes.
    for _ in 0..65 {
        scene.machine().age_flows(2);
        scene.reply(UDP, backend);
    }
    scene.pool(1, &[scene.net.other_backend()]);
    let flows = scene.machine().flows().len();
    assert_eq!(scene.request(UDP), (client, backend), "the flow is not over");
    assert_eq!(scene.machine().flows().len(), flows);
}

/// The reply tuple of a flow that has ended is free for another frontend, and the source port does not change.
fn closed_flow_is_in_nobodys_way(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(SYN, &[backend]);
    let scope = scene.pool(2, &[backend]);
    scene.frontend(2, scene.net.other_vip(), Proto::TCP, scope);
    scene.request(SYN);
    scene.request(RST);
    let other = scene.net.other_vip();
    assert_eq!(scene.through(Program::WorkloadIngress, SYN, client, other), (client, backend));
    assert_eq!(scene.reply(SYN_ACK, backend), (other, client));
    assert_eq!(scene.machine().flows().len(), 2);
}

/// A flow records the pool in which its backend was found, which saves the next packet a lookup.
fn member_is_looked_up_once(scene: &mut Scene<'_>) {
    let backend = scene.net.backend();
    scene.service(UDP, &[backend]);
    scene.request(UDP);
    scene.service(UDP, &[backend, scene.net.other_backend()]);
    scene.request(UDP);
    let Flows { v4, v6 } = scene.machine().flows();
    let requests = v4.iter().filter(|(key, _)| key.direction == Direction::Request).map(|(_, flow)| flow.pool);
    let pools =
        requests.chain(v6.iter().filter(|(key, _)| key.direction == Direction::Request).map(|(_, flow)| flow.pool));
    assert_eq!(pools.collect::<Vec<_>>(), [2]);
}

/// RFC 9293 section 3.5: the SYNs of both ends cross, and each end answers the other's. Only the client's SYN is the
/// first packet of a flow. The same holds if the backend's SYN comes just before the client's, or is repeated.
fn both_ends_open(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    for order in [
        &[(true, SYN), (false, SYN), (true, SYN_ACK), (false, SYN_ACK)][..],
        &[(true, SYN), (false, SYN), (false, SYN_ACK), (true, SYN_ACK)],
        &[(true, SYN), (false, SYN), (true, SYN_ACK), (false, ACK)],
        &[(true, SYN), (false, SYN), (false, SYN), (true, SYN), (true, SYN_ACK), (false, SYN_ACK)],
    ] {
        scene.service(SYN, &[backend]);
        for (is_request, transport) in order {
            if *is_request {
                assert_eq!(scene.request(*transport), (client, backend), "{order:?}");
            } else {
                assert_eq!(scene.reply(*transport, backend), (vip, client), "{order:?}");
            }
        }
        for _ in 0..2 {
            assert_eq!(scene.request(ACK), (client, backend), "{order:?}");
            assert_eq!(scene.reply(ACK, backend), (vip, client), "{order:?}");
        }
        let Flows { v4, v6 } = scene.machine().flows();
        let states: Vec<_> = v4.values().map(|flow| flow.state).chain(v6.values().map(|flow| flow.state)).collect();
        assert_eq!(states, [FlowState::Established; 2], "{order:?}");
        // If the flow is established, a SYN of the backend to the client still belongs to the flow: the client's stack
        // judges it.
        assert_eq!(scene.reply(SYN, backend), (vip, client), "{order:?}");
        scene.request(RST);
        // The next connection is another one, and the closed flow does not affect it.
        scene.untouched(Program::WorkloadEgress, &Described::new(SYN, backend, client));
    }
}

/// A SYN without an answer holds its reply tuple for a minute, however long established connections hold theirs.
fn half_open_flow_gives_its_tuple_back(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(SYN, &[backend]);
    let scope = scene.pool(2, &[backend]);
    scene.frontend(2, scene.net.other_vip(), Proto::TCP, scope);
    for (port, secs, keeps_port) in [(1001, 58, false), (1002, 62, true)] {
        let client = (client.0, port);
        assert_eq!(scene.through(Program::WorkloadIngress, SYN, client, scene.net.vip()), (client, backend));
        scene.machine().age_flows(secs);
        let (from, to) = scene.through(Program::WorkloadIngress, SYN, client, scene.net.other_vip());
        assert_eq!((from.0, to, from.1 == port), (client.0, backend, keeps_port), "after {secs} s");
    }
}

/// A reset may be spoofed, or ignored for its sequence number. If both ends continue, both are translated, and only a
/// SYN can give their tuple to another connection.
fn a_reset_flow_stays_while_it_is_busy(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(SYN, &[backend]);
    scene.request(SYN);
    scene.reply(SYN_ACK, backend);
    scene.request(ACK);
    scene.request(RST);
    for _ in 0..5 {
        assert_eq!(scene.request(ACK), (client, backend));
        assert_eq!(scene.reply(ACK, backend), (vip, client));
        scene.machine().age_flows(9);
    }
}

/// The states of all flow entries.
fn states(scene: &mut Scene<'_>) -> Vec<FlowState> {
    let Flows { v4, v6 } = scene.machine().flows();
    v4.values().map(|flow| flow.state).chain(v6.values().map(|flow| flow.state)).collect()
}

/// An established connection, with the default sequence numbers.
fn open(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    scene.request(SYN);
    scene.reply(SYN_ACK, scene.net.backend());
    scene.request(ACK);
    assert_eq!(states(scene), [FlowState::Established; 2]);
}

/// A segment with the given sequence number. It is translated in any case.
fn numbered(scene: &mut Scene<'_>, program: Program, transport: Transport, seq: u32) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    let ((from, to), expected) = match program {
        Program::WorkloadIngress => ((client, vip), (client, backend)),
        _ => ((backend, client), (vip, client)),
    };
    let (action, after) = scene.run(program, &Described::new(transport, from, to).seq(seq));
    let Answer::Transport { from, to, .. } = after.answer else { panic!("no ports: {after:?}") };
    assert_eq!((action, (from, to)), (HookAction::Next, expected), "{program:?} {transport:?} {seq}");
}

const BOTH: [Program; 2] = [Program::WorkloadIngress, Program::WorkloadEgress];

/// RFC 5961: a receiver that does not accept a reset sends an ACK, and the flow returns to its former state, also if
/// one end had sent a FIN.
fn who_goes_on_after_a_reset_keeps_the_flow(scene: &mut Scene<'_>) {
    open(scene);
    let ends = [(ACK, FlowState::Established, FlowState::ResetEstablished)];
    for (transport, open, reset) in
        ends.into_iter().chain([(FIN, FlowState::ClientClosed, FlowState::ResetClientClosed)])
    {
        numbered(scene, Program::WorkloadIngress, transport, SEQ);
        for by in BOTH {
            for goes_on in BOTH {
                numbered(scene, by, RST, SEQ);
                assert_eq!(states(scene), [reset; 2], "{by:?}");
                numbered(scene, goes_on, ACK, SEQ);
                assert_eq!(states(scene), [open; 2], "{by:?}, then {goes_on:?}");
            }
        }
    }
}

/// A guessed sequence number neither resets nor closes a connection, from either side, however often it is tried and
/// whatever is sent before.
fn a_guessed_end_ends_nothing(scene: &mut Scene<'_>) {
    const RST_ACK: Transport = Transport::Tcp(0x14);
    open(scene);
    for guess in [SEQ.wrapping_add(0x8000_0000), SEQ + 0x20_0000, SEQ.wrapping_sub(0x2_0000)] {
        for by in BOTH {
            for forged in [RST, RST_ACK, FIN, SYN_ACK, ACK, RST] {
                numbered(scene, by, forged, guess);
                assert_eq!(states(scene), [FlowState::Established; 2], "{by:?} {forged:?} {guess}");
            }
        }
    }
    // The FINs of the real ends still close it.
    numbered(scene, Program::WorkloadEgress, FIN, SEQ);
    numbered(scene, Program::WorkloadIngress, FIN, SEQ);
    assert_eq!(states(scene), [FlowState::Closed; 2]);
}

/// A connection that has sent much, past the wrap of its sequence numbers, and has lost packets: its own FIN is
/// accepted.
fn numbers_are_followed(scene: &mut Scene<'_>) {
    open(scene);
    let mut seq = SEQ;
    // More than 4 GiB.
    for step in 0..8_192 {
        seq = seq.wrapping_add(if step % 4 == 0 { 0xf_0000 } else { 0x1_0000 });
        numbered(scene, Program::WorkloadEgress, ACK, seq);
    }
    numbered(scene, Program::WorkloadEgress, RST, seq.wrapping_sub(0x80_0000));
    assert_eq!(states(scene), [FlowState::Established; 2], "a number of long ago");
    numbered(scene, Program::WorkloadEgress, RST, seq.wrapping_add(1_400));
    assert_eq!(states(scene), [FlowState::ResetEstablished; 2]);
    // The sequence number of a half that was evicted is unknown until a packet goes that way.
    numbered(scene, Program::WorkloadIngress, ACK, SEQ);
    scene.machine().evict(Direction::Reply);
    scene.machine().age_flows(6);
    numbered(scene, Program::WorkloadIngress, ACK, SEQ);
    numbered(scene, Program::WorkloadEgress, ACK, seq);
    numbered(scene, Program::WorkloadEgress, RST, SEQ.wrapping_add(0x8000_0000));
    assert_eq!(states(scene), [FlowState::Established; 2]);
}

/// A reset from the backend's address, spoofed or genuine, overtakes the backend's answer.
fn a_forged_reset_breaks_no_handshake(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(SYN, &[backend]);
    scene.request(SYN);
    scene.reply(RST, backend);
    assert_eq!(states(scene), [FlowState::ResetNew; 2]);
    assert_eq!(scene.reply(SYN_ACK, backend), (vip, client));
    assert_eq!(scene.request(ACK), (client, backend));
    assert_eq!(states(scene), [FlowState::Established; 2]);
}

/// A client that has not received the answer can neither establish its flow nor close it: its address may be spoofed.
/// Before the backend answers, no packet counts; after that, only one that acknowledges the answer.
fn only_who_hears_an_answer_opens_a_flow(scene: &mut Scene<'_>) {
    const SYN_FIN: Transport = Transport::Tcp(0x03);
    const FIN_ALONE: Transport = Transport::Tcp(0x01);
    const NULL: Transport = Transport::Tcp(0x00);
    let backend = scene.net.backend();
    scene.service(SYN, &[backend]);
    scene.request(SYN);
    for unheard in [SYN_FIN, FIN, FIN_ALONE, ACK, NULL, SYN] {
        scene.request(unheard);
        assert_eq!(states(scene), [FlowState::New; 2], "{unheard:?}");
    }
    scene.reply(SYN_ACK, backend);
    for unheard in [SYN_FIN, FIN_ALONE, NULL, SYN] {
        scene.request(unheard);
        assert_eq!(states(scene), [FlowState::Answered; 2], "{unheard:?}");
    }
    scene.request(FIN);
    assert_eq!(states(scene), [FlowState::ClientClosed; 2], "it has heard, and closes at once");
    scene.request(RST);
}

/// More than the machines' rings of half-open flows hold: 2,048 on each of two CPUs.
const MANY: u16 = 4_500;

/// While new flows are established, as many as there are places evict no other flow. Half-open flows evict half-open
/// flows.
fn half_open_flows_go_first(scene: &mut Scene<'_>) {
    let (net, vip, backend) = (scene.net, scene.net.vip(), scene.net.backend());
    scene.service(SYN, &[backend]);
    let mut send = |program, transport, host, port| {
        let client = (net.host(host), port);
        let (from, to) = if program == Program::WorkloadIngress { (client, vip) } else { (backend, client) };
        let after = scene.through(program, transport, from, to);
        after == if program == Program::WorkloadIngress { (client, backend) } else { (vip, client) }
    };
    let (request, reply) = (Program::WorkloadIngress, Program::WorkloadEgress);
    // Its answer takes long.
    assert!(send(request, SYN, 2, 1));
    for port in 1..=MANY {
        // The first half are closed at once: a FIN that acknowledges the answer establishes a flow as well.
        let last = if port <= MANY / 2 { FIN } else { ACK };
        assert!(send(request, SYN, 3, port) && send(reply, SYN_ACK, 3, port) && send(request, last, 3, port));
    }
    assert!(send(reply, SYN_ACK, 2, 1), "it was pushed out by flows that have opened");
    for port in 1..=2 * MANY {
        assert!(send(request, SYN, 4, port) && send(reply, SYN_ACK, 4, port));
    }
    let open = (1..=MANY).filter(|port| send(reply, ACK, 3, *port)).count();
    assert_eq!(open, usize::from(MANY), "open connections were pushed out");
    let entries = scene.machine().flows().len();
    assert!(entries <= 2 * (usize::from(MANY) + 1 + 4_096 + 2), "{entries} entries: half-open flows stayed");
}
