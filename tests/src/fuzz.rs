//! The fuzz targets. `cargo xtask fuzz` runs them, and `tests/corpus.rs` repeats every input in `tests/corpus`. A
//! property that does not hold panics.

use etherparse::IpNumber;
use lb_common::verdict::HookAction;

use crate::cases::{Net, Scene};
use crate::machine::{HostMachine, Machine as _, Program};
use crate::packet::{Described, Transport};
use crate::random::{PROGRAMS, small_world};
use crate::reference::{Clock, FEW_EMBRYOS, Start, Wire, history_of, internet_sum, play};

/// A fuzz target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 3] = [("parse", parse), ("decide", decide), ("rewrite", rewrite)];

/// Any bytes as a packet: nothing is read or written past its end, and only an ICMP answer has another length.
pub fn parse(data: &[u8]) {
    let [first, packet @ ..] = data else { return };
    if packet.len() < 14 {
        return;
    }
    for net in [Net::V4, Net::V6] {
        let mut machine = HostMachine::default();
        small_world(&mut Scene::new(net, &mut machine));
        for program in [PROGRAMS[usize::from(first & 3)], PROGRAMS[usize::from(first >> 2 & 3)]] {
            let (action, after) = machine.run(program, packet);
            assert!(action == HookAction::SendBack || after.len() == packet.len(), "{program:?} changed the length");
        }
    }
}

/// Bytes as a history: the packet path agrees with the reference.
pub fn decide(data: &[u8]) {
    let [first, rest @ ..] = data else { return };
    let net = if first & 1 == 0 { Net::V4 } else { Net::V6 };
    let embryos_max = if first & 2 == 0 { FEW_EMBRYOS } else { 1_000 };
    let forwards = first & 4 != 0;
    let start = Start { has_hairpins: false, embryos_max, clock: Clock::Told, forwards };
    if let Err(difference) = play(net, &mut start.host(net), start, &history_of(net, rest)) {
        panic!("{difference}");
    }
}

/// Bytes as payload and checksum: after a packet is translated and its answer is translated back, every byte is
/// unchanged, and a wrong checksum is as wrong as before.
pub fn rewrite(data: &[u8]) {
    let [first, sum0, sum1, sport0, sport1, payload @ ..] = data else { return };
    let net = if first & 1 == 0 { Net::V4 } else { Net::V6 };
    let transport =
        [Transport::Tcp(0x02), Transport::Udp, Transport::UdpUnsummed, Transport::Sctp][usize::from(first >> 1 & 3)];
    let client = (net.client().0, u16::from_be_bytes([*sport0, *sport1]));
    let packet = Described { payload: payload.to_vec(), ..Described::new(transport, client, net.vip()) };
    let mut bytes = packet.bytes();
    let l4 = Wire::read(&bytes).l4;
    match transport {
        Transport::Tcp(_) => bytes[l4 + 16..l4 + 18].copy_from_slice(&[*sum0, *sum1]),
        Transport::Udp => bytes[l4 + 6..l4 + 8].copy_from_slice(&[*sum0, *sum1]),
        Transport::UdpUnsummed | Transport::Sctp => {}
    }
    let mut machine = HostMachine::default();
    small_world(&mut Scene::new(net, &mut machine));
    let (action, there) = machine.run(Program::WorkloadIngress, &bytes);
    assert_eq!(action, HookAction::Next);
    assert_same_sums(&bytes, &there);
    let answer = turned(&there);
    let (action, back) = machine.run(Program::WorkloadEgress, &answer);
    assert_eq!(action, HookAction::Next);
    assert_same_sums(&answer, &back);
    let again = turned(&back);
    let differences: Vec<usize> = (0..bytes.len()).filter(|at| again[*at] != bytes[*at]).collect();
    // 0 and 0xffff are the same number in one's complement.
    let is_zero = |at: &usize| matches!((bytes[*at], again[*at]), (0, 0xff) | (0xff, 0));
    assert!(differences.len() <= 2 && differences.iter().all(is_zero), "bytes {differences:?} changed");
}

/// The packet on its way back: addresses and ports are swapped, which leaves checksums valid.
fn turned(bytes: &[u8]) -> Vec<u8> {
    let wire = Wire::read(bytes);
    let mut turned = bytes.to_vec();
    let addresses = if wire.is_v4() { 26..34 } else { 22..54 };
    let half = addresses.len() / 2;
    turned[addresses.clone()].rotate_left(half);
    turned[wire.l4..wire.l4 + 4].rotate_left(2);
    turned
}

/// Panics if a checksum was right before and is wrong after, or the other way round.
fn assert_same_sums(before: &[u8], after: &[u8]) {
    let sums = |bytes: &[u8]| {
        let wire = Wire::read(bytes);
        let network = if wire.is_v4() { internet_sum(&[&bytes[14..wire.l4]]) } else { 0 };
        let addresses = if wire.is_v4() { &bytes[26..34] } else { &bytes[22..54] };
        let has_sum = match wire.protocol {
            IpNumber::TCP => true,
            IpNumber::UDP => bytes[wire.l4 + 6..wire.l4 + 8] != [0, 0],
            _ => false,
        };
        let transport = if has_sum { internet_sum(&[addresses, &bytes[wire.l4..]]) } else { 0 };
        (has_sum, network % 0xffff, transport % 0xffff)
    };
    assert_eq!(sums(before), sums(after), "{before:02x?} became {after:02x?}");
}
