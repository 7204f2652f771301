//! The forms of packets: options, extension headers, malformed packets, checksums.

use lb_common::verdict::HookAction;

use super::scene::{SYN, Scene, UDP};
use super::{Case, Net};
use crate::machine::Program;
use crate::packet::{Answer, Described, Transport};

pub const CASES: &[Case] = &[
    ("options_and_extension_headers", options_and_extension_headers),
    ("udp_without_checksum", udp_without_checksum),
    ("sctp_keeps_ports_and_checksum", sctp_keeps_ports_and_checksum),
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
            assert_eq!((action, from, to), (HookAction::Next, client, backend), "{len} bytes of header {extension}");
        }
    }
}

/// RFC 768: zero means "no checksum" and stays zero.
fn udp_without_checksum(scene: &mut Scene<'_>) {
    scene.service(UDP, &[scene.net.backend()]);
    assert_eq!(scene.request(Transport::UdpUnsummed), (scene.net.client(), scene.net.backend()));
}

/// PR-04. A changed port would need a new CRC32c over the whole packet.
fn sctp_keeps_ports_and_checksum(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    scene.service(Transport::Sctp, &[backend]);
    assert_eq!(scene.request(Transport::Sctp), (client, (backend.0, vip.1)));
    assert_eq!(scene.reply(Transport::Sctp, (backend.0, vip.1)), (vip, client));
}

fn other_ethertypes_pass(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    let mut packet = Described::new(SYN, scene.net.client(), scene.net.vip()).bytes();
    // ARP.
    packet[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &packet), (HookAction::Next, packet));
}

/// Every prefix of a packet that is shorter than its headers say passes unchanged.
fn cut_packets_pass(scene: &mut Scene<'_>) {
    scene.service(SYN, &[scene.net.backend()]);
    let packet = Described::new(SYN, scene.net.client(), scene.net.vip()).bytes();
    let network_len = if scene.net == Net::V4 { 20 } else { 40 };
    for len in 14 + network_len..14 + network_len + 20 {
        let cut = packet[..len].to_vec();
        assert_eq!(scene.machine().run(Program::WorkloadIngress, &cut), (HookAction::Next, cut), "{len} bytes");
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
