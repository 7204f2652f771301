//! What packets look like: options, extension headers, fragments, broken ones, checksums.

use std::net::IpAddr;

use lb_common::addr::Proto;
use lb_common::table::{Counter, Scope};
use lb_common::verdict::Action;

use super::scene::{SYN, Scene, UDP};
use super::{Case, Net};
use crate::machine::Program;
use crate::packet::{Answer, Described, Transport};

pub const CASES: &[Case] = &[
    ("options_and_extension_headers", options_and_extension_headers),
    ("udp_without_checksum", udp_without_checksum),
    ("sctp_keeps_ports_and_checksum", sctp_keeps_ports_and_checksum),
    ("fragments_follow_their_first", fragments_follow_their_first),
    ("fragments_share_the_fate_of_their_first", fragments_share_the_fate_of_their_first),
    ("fragments_come_back", fragments_come_back),
    ("fragments_of_an_answer_to_itself_come_back", fragments_of_an_answer_to_itself_come_back),
    ("fragments_of_a_stranger_pass", fragments_of_a_stranger_pass),
    ("other_ethertypes_pass", other_ethertypes_pass),
    ("cut_packets_pass", cut_packets_pass),
    ("every_checksum_survives", every_checksum_survives),
];

fn options_and_extension_headers(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    // Hop-by-hop, routing, destination options, AH.
    let (lens, extensions): (&[usize], &[u8]) = match scene.net {
        Net::V4 => (&[4, 8, 40], &[0]),
        Net::V6 => (&[6, 14, 62], &[0, 43, 60, 51]),
    };
    for transport in [SYN, UDP] {
        scene.service(transport, &[backend]);
        for (len, extension) in lens.iter().flat_map(|len| extensions.iter().map(move |extension| (*len, *extension))) {
            // The fixed part of AH alone has 12 bytes.
            let len = if extension == 51 { len.max(14) } else { len };
            let packet = Described::new(transport, client, vip).options_len(len).extension(extension);
            let (action, after) = scene.run(Program::WorkloadIngress, &packet);
            let Answer::Transport { from, to, .. } = after.answer else { panic!("no ports: {after:?}") };
            assert_eq!((action, from, to), (Action::Next, client, backend), "{len} bytes of header {extension}");
        }
    }
}

/// RFC 768: zero is "no checksum" and stays so.
fn udp_without_checksum(scene: &mut Scene<'_>) {
    scene.service(UDP, &[scene.net.backend()]);
    assert_eq!(scene.request(Transport::UdpUnsummed), (scene.net.client(), scene.net.backend()));
}

/// A changed port would need a new CRC32c over the whole packet.
fn sctp_keeps_ports_and_checksum(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(Transport::Sctp, &[backend]);
    assert_eq!(scene.request(Transport::Sctp), (client, (backend.0, vip.1)));
    assert_eq!(scene.reply(Transport::Sctp, (backend.0, vip.1)), (vip, client));
}

/// What the fragment says with other addresses, and with the header checksum that belongs to them.
fn readdressed(fragment: &Described, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut bytes = fragment.bytes();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes[26..30].copy_from_slice(&from.octets());
            bytes[30..34].copy_from_slice(&to.octets());
            bytes[24..26].fill(0);
            let sum = bytes[14..34].chunks(2).map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum();
            bytes[24..26].copy_from_slice(&(!lb_common::checksum::fold(sum)).to_ne_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes[22..38].copy_from_slice(&from.octets());
            bytes[38..54].copy_from_slice(&to.octets());
        }
        _ => panic!("two families"),
    }
    bytes
}

/// PR-01: the first fragment has the ports, the others follow it; both ways.
fn fragments_follow_their_first(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let first = Described::new(UDP, client, vip).fragment(0, true);
    let Answer::Transport { from, to, .. } = scene.onward(Program::WorkloadIngress, &first.bytes()) else {
        panic!("it has ports")
    };
    assert_eq!((from, to), (client, backend));
    for (offset, more) in [(100, true), (200, false)] {
        let next = Described::new(UDP, client, vip).fragment(offset, more);
        let expected = (Action::Next, readdressed(&next, client.0, backend.0));
        assert_eq!(scene.machine().run(Program::WorkloadIngress, &next.bytes()), expected);
        scene.untouched(Program::WorkloadEgress, &next);
        scene.untouched(Program::UplinkIngress, &next);
    }
    let first = Described::new(UDP, backend, client).fragment(0, true);
    let Answer::Transport { from, to, .. } = scene.onward(Program::WorkloadEgress, &first.bytes()) else {
        panic!("it has ports")
    };
    assert_eq!((from, to), (vip, client));
    let last = Described::new(UDP, backend, client).fragment(100, false);
    let expected = (Action::Next, readdressed(&last, vip.0, client.0));
    assert_eq!(scene.machine().run(Program::WorkloadEgress, &last.bytes()), expected);
    let counters = scene.counters();
    assert_eq!((counters[&Counter::FragmentTranslated], counters[&Counter::PassedFragment]), (3, 4));
}

/// What was rejected must not go on in parts, and what was left alone is left alone.
fn fragments_share_the_fate_of_their_first(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let [first, last] = [(0, true), (100, false)].map(|(at, more)| Described::new(UDP, client, vip).fragment(at, more));
    scene.frontend(1, vip, Proto::UDP, Scope::PASS);
    scene.untouched(Program::WorkloadIngress, &first);
    scene.untouched(Program::WorkloadIngress, &last);
    scene.frontend(1, vip, Proto::UDP, Scope::DROP);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &first.bytes()).0, Action::Drop);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &last.bytes()).0, Action::Drop);
    assert_eq!(scene.counters()[&Counter::DropFragment], 1);
    scene.frontend(1, vip, Proto::UDP, Scope::PASS);
    scene.untouched(Program::WorkloadIngress, &first);
    scene.untouched(Program::WorkloadIngress, &last);
}

/// A pod that reaches itself.
fn fragments_come_back(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    scene.service(UDP, &[(client.0, 8080)]);
    let [first, last] = [(0, true), (100, false)].map(|(at, more)| Described::new(UDP, client, vip).fragment(at, more));
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &first.bytes()).0, Action::SendBack);
    let mut expected = readdressed(&last, vip.0, client.0);
    expected[..12].rotate_left(6);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &last.bytes()), (Action::SendBack, expected));
}

/// And its answer, of which the other hook of the same interface would know.
fn fragments_of_an_answer_to_itself_come_back(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let pod = (client.0, 8080);
    scene.service(UDP, &[pod]);
    let request = Described::new(UDP, client, vip).bytes();
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &request).0, Action::SendBack);
    let to = (vip.0, client.1);
    let [first, last] = [(0, true), (100, false)].map(|(at, more)| Described::new(UDP, pod, to).fragment(at, more));
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &first.bytes()).0, Action::SendBack);
    let mut expected = readdressed(&last, vip.0, client.0);
    expected[..12].rotate_left(6);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &last.bytes()), (Action::SendBack, expected));
}

/// A datagram to nobody, whose identification an earlier one to a frontend had; other packets come between.
fn fragments_of_a_stranger_pass(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(UDP, &[backend]);
    let fragments = |to| [(0, true), (100, false)].map(|(at, more)| Described::new(UDP, client, to).fragment(at, more));
    let [first, _] = fragments(vip);
    scene.onward(Program::WorkloadIngress, &first.bytes());
    scene.through(Program::UplinkIngress, UDP, client, vip);
    let [first, last] = fragments((vip.0, 9));
    scene.untouched(Program::WorkloadIngress, &first);
    scene.untouched(Program::WorkloadIngress, &last);
}

fn other_ethertypes_pass(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    let mut packet = Described::new(SYN, scene.net.client(), scene.net.vip()).bytes();
    // ARP.
    packet[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &packet), (Action::Next, packet));
}

/// Every prefix of a packet that is shorter than its headers say is left alone.
fn cut_packets_pass(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    let packet = Described::new(SYN, scene.net.client(), scene.net.vip()).bytes();
    let network_len = if scene.net == Net::V4 { 20 } else { 40 };
    for len in 14 + network_len..14 + network_len + 20 {
        let cut = packet[..len].to_vec();
        assert_eq!(scene.machine().run(Program::WorkloadIngress, &cut), (Action::Next, cut), "{len} bytes");
    }
}

/// Many ports and addresses, so that sums carry and fold in every way.
fn every_checksum_survives(scene: &mut Scene<'_>) {
    for (transport, step) in [(SYN, 257), (UDP, 263)] {
        let backends: Vec<_> =
            (0..50).map(|index| (scene.net.host(200 + index), 65_535 - u16::from(index) * 999)).collect();
        scene.service(transport, &backends);
        for sport in (1..60_000).step_by(step) {
            let client = (scene.net.client().0, sport);
            let (from, to) = scene.through(Program::WorkloadIngress, transport, client, scene.net.vip());
            assert!(from == client && backends.contains(&to));
            assert_eq!(scene.through(Program::WorkloadEgress, transport, to, from), (scene.net.vip(), client));
        }
    }
}
