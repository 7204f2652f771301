//! A pod that dials an endpoint directly, before, after and while it has a flow to it through a frontend: the two never
//! collide.

use lb_common::table::Counter;

use super::Case;
use super::scene::{ACK, FIN, RST, SYN, SYN_ACK, Scene, UDP};
use crate::machine::Program;
use crate::packet::{Described, Transport};

pub const CASES: &[Case] = &[
    ("direct_connection_first", direct_connection_first),
    ("direct_connection_second", direct_connection_second),
    ("direct_connection_that_has_ended", direct_connection_that_has_ended),
    ("direct_connections_to_others_are_not_noted", direct_connections_to_others_are_not_noted),
    ("sctp_keeps_its_port_when_all_is_taken", sctp_keeps_its_port_when_all_is_taken),
    ("icmp_error_about_a_direct_connection", icmp_error_about_a_direct_connection),
];

/// The first packet, its answer, and the next packet.
const PAIRS: [(Transport, Transport, Transport); 2] = [(SYN, SYN_ACK, ACK), (UDP, UDP, UDP)];

fn direct_connection_first(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    for (opening, answer, rest) in PAIRS {
        scene.service(opening, &[backend]);
        scene.untouched(Program::WorkloadIngress, &Described::new(opening, client, backend));
        let (seen_as, to) = scene.request(opening);
        assert_eq!((seen_as.0, to), (client.0, backend));
        assert_ne!(seen_as.1, client.1, "the tuple belongs to the direct connection");
        for _ in 0..2 {
            scene.untouched(Program::WorkloadEgress, &Described::new(answer, backend, client));
            scene.untouched(Program::WorkloadIngress, &Described::new(rest, client, backend));
            assert_eq!(scene.through(Program::WorkloadEgress, answer, backend, seen_as), (vip, client));
            assert_eq!(scene.request(rest), (seen_as, backend));
        }
    }
    let counted = scene.counters();
    assert_eq!((counted[&Counter::DirectNoted], counted[&Counter::FlowCreated]), (2, 2));
    // Two answers each. Those of the direct connections are not counted.
    assert_eq!(counted[&Counter::ReplyTranslated], 4);
}

fn direct_connection_second(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    for (opening, answer, rest) in PAIRS {
        scene.service(opening, &[backend]);
        assert_eq!(scene.request(opening), (client, backend));
        scene.reply(answer, backend);
        let (seen_as, to) = scene.through(Program::WorkloadIngress, opening, client, backend);
        assert_eq!((seen_as.0, to), (client.0, backend));
        assert_ne!(seen_as.1, client.1, "the tuple belongs to the flow of the frontend");
        for _ in 0..2 {
            assert_eq!(scene.through(Program::WorkloadEgress, answer, backend, seen_as), (backend, client));
            assert_eq!(scene.through(Program::WorkloadIngress, rest, client, backend), (seen_as, backend));
            assert_eq!(scene.reply(answer, backend), (vip, client));
            assert_eq!(scene.request(rest), (client, backend));
        }
    }
}

/// The tuple of a direct connection that has ended is free again.
fn direct_connection_that_has_ended(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(SYN, &[backend]);
    for how in [&[FIN][..], &[RST]] {
        scene.untouched(Program::WorkloadIngress, &Described::new(SYN, client, backend));
        scene.untouched(Program::WorkloadEgress, &Described::new(SYN_ACK, backend, client));
        for transport in how {
            scene.untouched(Program::WorkloadIngress, &Described::new(*transport, client, backend));
            scene.untouched(Program::WorkloadEgress, &Described::new(*transport, backend, client));
        }
        assert_eq!(scene.request(SYN), (client, backend));
        scene.request(RST);
    }
}

/// Only connections to endpoints need a flow entry, and here only those of pods, which share their tuples with
/// frontends.
fn direct_connections_to_others_are_not_noted(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(SYN, &[backend]);
    for to in [scene.net.other_backend(), (backend.0, 9)] {
        scene.untouched(Program::WorkloadIngress, &Described::new(SYN, client, to));
        scene.untouched(Program::WorkloadIngress, &Described::new(UDP, client, to));
    }
    scene.untouched(Program::UplinkIngress, &Described::new(SYN, client, backend));
    scene.untouched(Program::WorkloadIngress, &Described::new(ACK, client, backend));
    assert!(scene.machine().flows().is_empty());
}

/// A changed port would need a new CRC32c, so the port stays. Nothing is dropped.
fn sctp_keeps_its_port_when_all_is_taken(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let backend = (scene.net.backend().0, vip.1);
    scene.service(Transport::Sctp, &[backend]);
    assert_eq!(scene.request(Transport::Sctp), (client, backend));
    scene.untouched(Program::WorkloadIngress, &Described::new(Transport::Sctp, client, backend));
}

fn icmp_error_about_a_direct_connection(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let request = Described::new(UDP, client, backend);
    scene.untouched(Program::WorkloadIngress, &request);
    let kind = if client.0.is_ipv4() { (3, 3) } else { (1, 4) };
    let error = request.icmp(kind, [0; 4], backend.0, client.0);
    assert_eq!(scene.machine().run(Program::WorkloadEgress, &error), (lb_common::verdict::HookAction::Next, error));
    assert_eq!(scene.counters().get(&Counter::IcmpTranslated), None);
}
