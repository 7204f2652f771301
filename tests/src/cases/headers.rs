//! PROXY headers: what becomes of each segment, to the last byte and checksum.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::table::{Counter, Direction, Scope, ScopeFlags};
use lb_common::verdict::HookAction;

use super::Case;
use super::scene::{ACK, FIN, RST, SYN, SYN_ACK, Scene};
use crate::machine::Program;
use crate::packet::{Described, End, SEQ, Transport};

pub const CASES: &[Case] = &[
    ("an_acknowledgement_becomes_the_header", an_acknowledgement_becomes_the_header),
    ("data_follows_the_header", data_follows_the_header),
    ("padding_is_no_part_of_a_segment", padding_is_no_part_of_a_segment),
    ("a_syn_loses_what_would_carry_data", a_syn_loses_what_would_carry_data),
    ("a_header_cannot_be_forged", a_header_cannot_be_forged),
    ("a_lost_row_fails_closed", a_lost_row_fails_closed),
    ("a_syn_begins_anew_without_its_row", a_syn_begins_anew_without_its_row),
    ("a_syn_in_parts_ends_no_connection", a_syn_in_parts_ends_no_connection),
    ("an_error_quotes_what_the_client_sent", an_error_quotes_what_the_client_sent),
    ("a_changed_service_harms_no_handshake", a_changed_service_harms_no_handshake),
    ("a_syn_repeated_after_a_reset_keeps_its_header", a_syn_repeated_after_a_reset_keeps_its_header),
    ("a_pod_announces_itself", a_pod_announces_itself),
    ("a_new_connection_gets_a_header_of_its_own", a_new_connection_gets_a_header_of_its_own),
];

/// A segment as its receiver reads it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    from: End,
    to: End,
    seq: u32,
    ack: u32,
    window: u16,
    /// FIN to ACK, as bits.
    flags: u8,
    payload: Vec<u8>,
}

/// Reads a segment whose lengths and checksum must be right.
fn seen(bytes: &[u8]) -> Seen {
    let packet = SlicedPacket::from_ethernet(bytes).expect("a whole packet");
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no segment") };
    let header = tcp.to_header();
    let (source, destination, sum, said_len) = match packet.net.expect("an IP packet") {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            let sum = header.calc_checksum_ipv4(&ip, tcp.payload()).expect("short");
            (ip.source.into(), ip.destination.into(), sum, 14 + usize::from(ip.total_len))
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header().to_header();
            let sum = header.calc_checksum_ipv6(&ip, tcp.payload()).expect("short");
            (ip.source.into(), ip.destination.into(), sum, 54 + usize::from(ip.payload_length))
        }
        NetSlice::Arp(arp) => panic!("{arp:?}"),
    };
    assert_eq!((header.checksum, bytes.len()), (sum, said_len), "checksum and length");
    let flags = [header.fin, header.syn, header.rst, header.psh, header.ack];
    Seen {
        from: (source, header.source_port),
        to: (destination, header.destination_port),
        seq: header.sequence_number,
        ack: header.acknowledgment_number,
        window: header.window_size,
        flags: (0..).zip(flags).map(|(bit, is_set)| u8::from(is_set) << bit).sum(),
        payload: tcp.payload().to_vec(),
    }
}

/// The header that names these ends, in the words of the specification.
fn header(from: End, to: End, flag: u8) -> Vec<u8> {
    let proto = if from.0.is_ipv4() { "TCP4" } else { "TCP6" };
    if flag == ScopeFlags::HEADER_V1 {
        return format!("PROXY {proto} {} {} {} {}\r\n", from.0, to.0, from.1, to.1).into_bytes();
    }
    let octets = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let addresses = [octets(from.0), octets(to.0)].concat();
    let (family, len) = if from.0.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
    let ports = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec(), vec![family, 0, len], addresses, ports].concat()
}

/// A Service whose backends want a header.
fn publish(scene: &mut Scene<'_>, flag: u8, backend: End) {
    let scope = scene.pool(1, &[backend]).with_flags(flag);
    scene.frontend(1, scene.net.vip(), super::proto(SYN), scope);
}

/// What becomes of a segment, which must not be dropped.
fn sent(scene: &mut Scene<'_>, program: Program, segment: &Described) -> Seen {
    let (action, bytes) = scene.machine().run(program, &segment.bytes());
    assert_ne!(action, HookAction::Drop, "{segment:?}");
    seen(&bytes)
}

fn request(scene: &Scene<'_>, transport: Transport, seq: u32, payload: &[u8]) -> Described {
    Described::new(transport, scene.net.client(), scene.net.vip()).seq(seq).ack(77).payload(payload)
}

fn answer(scene: &Scene<'_>, transport: Transport, ack: u32) -> Described {
    Described::new(transport, scene.net.backend(), scene.net.client()).seq(76).ack(ack).payload(b"")
}

/// The number of the SYN at the backend, after SYN and its answer.
fn shake_hands(scene: &mut Scene<'_>, len: u32) {
    let syn = sent(scene, Program::WorkloadIngress, &request(scene, SYN, SEQ, b""));
    assert_eq!((syn.from, syn.to, syn.seq), (scene.net.client(), scene.net.backend(), SEQ - len));
    let syn_ack = sent(scene, Program::WorkloadEgress, &answer(scene, SYN_ACK, SEQ - len + 1));
    let window = 0xffff - u16::try_from(len).expect("a short header");
    assert_eq!((syn_ack.from, syn_ack.ack, syn_ack.window), (scene.net.vip(), SEQ + 1, window));
}

const VERSIONS: [u8; 2] = [ScopeFlags::HEADER_V1, ScopeFlags::HEADER_V2];

/// The handshake, a lost header, its acknowledgement, and the connection after that.
fn an_acknowledgement_becomes_the_header(scene: &mut Scene<'_>) {
    for flag in VERSIONS {
        let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
        let expected = header(client, vip, flag);
        let len = u32::try_from(expected.len()).expect("short");
        publish(scene, flag, backend);
        shake_hands(scene, len);
        for _ in 0..2 {
            let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
            let flags = 0x18;
            let payload = expected.clone();
            let seq = SEQ + 1 - len;
            assert_eq!(first, Seen { from: client, to: backend, seq, ack: 77, window: 0xffff, flags, payload });
            let again = sent(scene, Program::WorkloadEgress, &answer(scene, ACK, SEQ + 1 - len));
            assert_eq!(again.ack, SEQ + 1, "it was lost");
        }
        let done = sent(scene, Program::WorkloadEgress, &answer(scene, ACK, SEQ + 1));
        assert_eq!((done.from, done.ack), (vip, SEQ + 1));
        for payload in [&b""[..], b"data"] {
            let next = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, payload));
            assert_eq!((next.to, next.seq, &*next.payload), (backend, SEQ + 1, payload), "as any other connection");
        }
        let counters = scene.counters();
        assert_eq!(counters[&Counter::HeaderSent] % 2, 0, "{counters:?}");
        sent(scene, Program::WorkloadIngress, &request(scene, RST, SEQ + 5, b""));
    }
    assert_eq!(scene.counters()[&Counter::HeaderAcknowledged], 2);
}

/// Data, and a FIN, become the header; a copy of them is re-injected, which the machine does not run.
fn data_follows_the_header(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    for flag in VERSIONS {
        let expected = header(client, vip, flag);
        let len = u32::try_from(expected.len()).expect("short");
        publish(scene, flag, backend);
        shake_hands(scene, len);
        for (transport, payload) in [(ACK, vec![7; 1_000]), (ACK, vec![7; 3]), (FIN, vec![7; 99]), (FIN, vec![])] {
            let first = sent(scene, Program::WorkloadIngress, &request(scene, transport, SEQ + 1, &payload));
            assert_eq!((first.to, first.seq, first.flags), (backend, SEQ + 1 - len, 0x18));
            assert_eq!(first.payload, expected, "in place of {} bytes", payload.len());
        }
        let later = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1_001, b"more"));
        assert_eq!((later.seq, &*later.payload), (SEQ + 1_001, &b"more"[..]), "not due");
        sent(scene, Program::WorkloadIngress, &request(scene, RST, SEQ + 1_005, b""));
        // The next SYN has the same number, but is no repeated one.
        scene.machine().evict_headers();
    }
    let counted = scene.counters()[&Counter::RequestTranslated];
    assert_eq!(counted, 14, "what the client sent: SYN, five times data or FIN, RST, for each version");
}

/// Short frames are padded on the wire (IEEE 802.3 clause 4.2.3.3): the network header says where the segment ends.
fn padding_is_no_part_of_a_segment(scene: &mut Scene<'_>) {
    for flag in VERSIONS {
        let expected = header(scene.net.client(), scene.net.vip(), flag);
        let len = u32::try_from(expected.len()).expect("short");
        publish(scene, flag, scene.net.backend());
        shake_hands(scene, len);
        for payload in [&b""[..], b"hi"] {
            let padded = [request(scene, ACK, SEQ + 1, payload).bytes(), vec![0xee; 6]].concat();
            let (action, bytes) = scene.machine().run(Program::WorkloadIngress, &padded);
            assert_ne!(action, HookAction::Drop);
            let first = seen(&bytes);
            assert_eq!((first.seq, &first.payload), (SEQ + 1 - len, &expected), "{payload:?}");
        }
        sent(scene, Program::WorkloadIngress, &request(scene, RST, SEQ + 3, b""));
        // The next SYN has the same number, but is no repeated one.
        scene.machine().evict_headers();
    }
}

/// TCP Fast Open, and Multipath TCP: both would give the backend bytes before the header.
fn a_syn_loses_what_would_carry_data(scene: &mut Scene<'_>) {
    let len = u32::try_from(header(scene.net.client(), scene.net.vip(), ScopeFlags::HEADER_V2).len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V2, scene.net.backend());
    let options = [2, 4, 5, 0xb4, 34, 6, 1, 2, 3, 4, 1, 30, 4, 1, 0, 1, 254, 4, 0xf9, 0x89, 254, 4, 1, 2];
    let cleared = [2, 4, 5, 0xb4, 253, 6, 1, 2, 3, 4, 1, 253, 4, 1, 0, 1, 253, 4, 0xf9, 0x89, 254, 4, 1, 2];
    let syn = request(scene, SYN, SEQ, b"early data").tcp_options(&options);
    let (action, bytes) = scene.machine().run(Program::WorkloadIngress, &syn.bytes());
    let after = seen(&bytes);
    assert_eq!((action, after.seq, after.payload), (HookAction::Next, SEQ - len, vec![]));
    assert_eq!(&bytes[bytes.len() - options.len()..], cleared);
    let endless = request(scene, SYN, SEQ, b"").tcp_options(&[1; 40]);
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &endless.bytes()).0, HookAction::Drop, "no stack pads so");
}

fn a_header_cannot_be_forged(scene: &mut Scene<'_>) {
    let len = u32::try_from(header(scene.net.client(), scene.net.vip(), ScopeFlags::HEADER_V2).len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V2, scene.net.backend());
    let begin = SEQ + 1 - len;
    sent(scene, Program::WorkloadIngress, &request(scene, SYN, SEQ, b""));
    let is_dropped = |scene: &mut Scene<'_>, transport, seq, payload: &[u8]| {
        let forged = request(scene, transport, seq, payload).bytes();
        assert_eq!(scene.machine().run(Program::WorkloadIngress, &forged).0, HookAction::Drop, "{seq} {payload:?}");
    };
    is_dropped(scene, ACK, SEQ + 1, b"before the answer");
    is_dropped(scene, ACK, SEQ + 1, b"");
    sent(scene, Program::WorkloadEgress, &answer(scene, SYN_ACK, begin));
    for (transport, seq, payload) in [
        (ACK, begin, &[1; 28][..]),
        (ACK, SEQ, &[1]),
        (ACK, begin - 5, &[1; 500]),
        (FIN, begin, &[]),
        (SYN_ACK, SEQ, &[]),
    ] {
        is_dropped(scene, transport, seq, payload);
    }
    assert_eq!(scene.counters()[&Counter::DropHeaderForged], 7);
    let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
    assert_eq!(first.seq, begin, "its own stack continues");
}

/// The reply entry restores the request's, mark included.
fn a_lost_row_fails_closed(scene: &mut Scene<'_>) {
    let len = u32::try_from(header(scene.net.client(), scene.net.vip(), ScopeFlags::HEADER_V2).len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V2, scene.net.backend());
    shake_hands(scene, len);
    scene.machine().evict_headers();
    let data = request(scene, ACK, SEQ + 1, b"no header").bytes();
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &data).0, HookAction::Drop);
    assert_eq!(scene.counters()[&Counter::DropHeaderLost], 1);
    shake_hands(scene, len);
    let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
    assert_eq!(first.payload.len(), len as usize, "a client that dials again gets its header");
    scene.machine().evict_headers();
    let reset = sent(scene, Program::WorkloadIngress, &request(scene, RST, SEQ + 1, b""));
    assert_eq!((reset.to, reset.seq), (scene.net.backend(), SEQ + 1), "a reset may pass");
    scene.machine().evict(Direction::Reply);
}

/// The client repeats its SYN, or dials from the same port later: neither may wait until the flow has expired.
fn a_syn_begins_anew_without_its_row(scene: &mut Scene<'_>) {
    let len = u32::try_from(header(scene.net.client(), scene.net.vip(), ScopeFlags::HEADER_V2).len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V2, scene.net.backend());
    shake_hands(scene, len);
    scene.machine().evict_headers();
    let action = |scene: &mut Scene<'_>, transport, seq, payload: &[u8]| {
        let segment = request(scene, transport, seq, payload).bytes();
        scene.machine().run(Program::WorkloadIngress, &segment).0
    };
    assert_eq!(action(scene, ACK, SEQ + 1, b""), HookAction::Drop, "the backend would not know the number");
    let syn = sent(scene, Program::WorkloadIngress, &request(scene, SYN, SEQ, b""));
    assert_eq!(syn.seq, SEQ - len);
    assert_eq!(action(scene, ACK, SEQ + 1, b"early"), HookAction::Drop, "it is no connection that continues");
    shake_hands(scene, len);
    let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
    assert_eq!((first.seq, first.payload.len()), (SEQ + 1 - len, len as usize));
    scene.machine().evict_headers();
    let vip = scene.net.vip();
    let plain = scene.pool(1, &[scene.net.backend()]);
    scene.frontend(1, vip, super::proto(SYN), plain);
    assert_eq!(action(scene, SYN, SEQ, b""), HookAction::Drop, "the backend has room for a header");
}

/// A SYN is spoofed without knowledge of the connection's numbers.
fn a_syn_in_parts_ends_no_connection(scene: &mut Scene<'_>) {
    let len = u32::try_from(header(scene.net.client(), scene.net.vip(), ScopeFlags::HEADER_V2).len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V2, scene.net.backend());
    shake_hands(scene, len);
    sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
    sent(scene, Program::WorkloadEgress, &answer(scene, ACK, SEQ + 1));
    let part = request(scene, SYN, SEQ + 9_000_000, b"").fragment(0, true).bytes();
    assert_eq!(scene.machine().run(Program::WorkloadIngress, &part).0, HookAction::Drop);
    let data = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b"data"));
    assert_eq!((data.to, data.seq, &*data.payload), (scene.net.backend(), SEQ + 1, &b"data"[..]));
}

fn an_error_quotes_what_the_client_sent(scene: &mut Scene<'_>) {
    let (client, backend) = (scene.net.client(), scene.net.backend());
    let len = u32::try_from(header(client, scene.net.vip(), ScopeFlags::HEADER_V2).len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V2, backend);
    shake_hands(scene, len);
    let kind = if client.0.is_ipv4() { (3, 1) } else { (1, 3) };
    for (quoted, expected) in [(SEQ - len, SEQ), (SEQ + 1 - len, SEQ + 1), (SEQ + 100, SEQ + 100)] {
        let sent = Described::new(ACK, client, backend).seq(quoted);
        let error = sent.icmp(kind, [0; 4], scene.net.host(9), client.0);
        let known = Described::new(ACK, client, scene.net.vip()).seq(expected);
        let expected = known.icmp(kind, [0; 4], scene.net.host(9), client.0);
        let (action, bytes) = scene.machine().run(Program::WorkloadEgress, &error);
        assert_eq!(action, HookAction::Next);
        let l3_len = if client.0.is_ipv4() { 20 } else { 40 };
        let number = |bytes: &[u8]| bytes[14 + l3_len + 8 + l3_len + 4..][..4].to_vec();
        assert_eq!(number(&bytes), number(&expected));
        let read = |bytes: &[u8]| crate::packet::read(bytes).answer;
        assert_eq!(read(&bytes), read(&expected));
    }
}

/// The version is fixed by the SYN, whatever becomes of the Service.
fn a_changed_service_harms_no_handshake(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    let expected = header(client, vip, ScopeFlags::HEADER_V1);
    publish(scene, ScopeFlags::HEADER_V1, backend);
    shake_hands(scene, u32::try_from(expected.len()).expect("short"));
    publish(scene, ScopeFlags::HEADER_V2, backend);
    let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
    assert_eq!(first.payload, expected);
    scene.frontend(1, vip, super::proto(SYN), Scope::PASS);
    let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
    assert_eq!(first.payload, expected);
}

/// A late reset ends the flow. The backend may have answered the SYN before it is repeated.
fn a_syn_repeated_after_a_reset_keeps_its_header(scene: &mut Scene<'_>) {
    let (client, vip, backend) = (scene.net.client(), scene.net.vip(), scene.net.backend());
    let expected = header(client, vip, ScopeFlags::HEADER_V1);
    let len = u32::try_from(expected.len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V1, backend);
    shake_hands(scene, len);
    let late = sent(scene, Program::WorkloadIngress, &request(scene, RST, SEQ + 9_000_000, b""));
    assert_eq!(late.to, backend);
    publish(scene, ScopeFlags::HEADER_V2, backend);
    let syn = sent(scene, Program::WorkloadIngress, &request(scene, SYN, SEQ, b""));
    assert_eq!((syn.to, syn.seq), (backend, SEQ - len));
    let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
    assert_eq!((first.seq, first.payload), (SEQ + 1 - len, expected));
    sent(scene, Program::WorkloadIngress, &request(scene, RST, SEQ + 1, b""));
    let next = SEQ + 9_000_000;
    let v2_len = u32::try_from(header(client, vip, ScopeFlags::HEADER_V2).len()).expect("short");
    let syn = sent(scene, Program::WorkloadIngress, &request(scene, SYN, next, b""));
    assert_eq!(syn.seq, next - v2_len, "the header that the Service wants now");
}

/// A hairpin: both directions enter by the pod's own interface.
fn a_pod_announces_itself(scene: &mut Scene<'_>) {
    let (client, vip) = (scene.net.client(), scene.net.vip());
    let expected = header(client, vip, ScopeFlags::HEADER_V2);
    let len = u32::try_from(expected.len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V2, (client.0, 8080));
    let syn = sent(scene, Program::WorkloadIngress, &request(scene, SYN, SEQ, b""));
    assert_eq!((syn.from, syn.to, syn.seq), ((vip.0, client.1), (client.0, 8080), SEQ - len));
    let back = |transport, ack| Described::new(transport, (client.0, 8080), (vip.0, client.1)).ack(ack).payload(b"");
    let syn_ack = sent(scene, Program::WorkloadIngress, &back(SYN_ACK, SEQ - len + 1));
    assert_eq!((syn_ack.from, syn_ack.to, syn_ack.ack), (vip, client, SEQ + 1));
    let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b"data"));
    assert_eq!((first.to, first.payload), ((client.0, 8080), expected));
    let done = sent(scene, Program::WorkloadIngress, &back(ACK, SEQ + 5));
    assert_eq!((done.to, done.ack), (client, SEQ + 5));
    assert_eq!(scene.counters()[&Counter::HeaderAcknowledged], 1);
}

/// A client that restarts dials from the same port. The connection before continues until the backend answers.
fn a_new_connection_gets_a_header_of_its_own(scene: &mut Scene<'_>) {
    let len = u32::try_from(header(scene.net.client(), scene.net.vip(), ScopeFlags::HEADER_V2).len()).expect("short");
    publish(scene, ScopeFlags::HEADER_V2, scene.net.backend());
    shake_hands(scene, len);
    sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b""));
    sent(scene, Program::WorkloadEgress, &answer(scene, ACK, SEQ + 1));
    let next = SEQ + 9_000_000;
    let syn = sent(scene, Program::WorkloadIngress, &request(scene, SYN, next, b""));
    assert_eq!(syn.seq, next - len);
    let before = sent(scene, Program::WorkloadIngress, &request(scene, ACK, SEQ + 1, b"data"));
    assert_eq!((before.seq, &*before.payload), (SEQ + 1, &b"data"[..]));
    let syn_ack = sent(scene, Program::WorkloadEgress, &answer(scene, SYN_ACK, next - len + 1));
    assert_eq!(syn_ack.ack, next + 1);
    let first = sent(scene, Program::WorkloadIngress, &request(scene, ACK, next + 1, b""));
    assert_eq!((first.seq, first.payload.len()), (next + 1 - len, len as usize));
}
