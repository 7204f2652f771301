//! The packets of the measurements by test run: Ethernet, no options, no payload.

use std::net::IpAddr;

use etherparse::{PacketBuilder, PacketBuilderStep};
use lb_tests::packet::{CLIENT_MAC, NODE_MAC};

use crate::ring::Numbered;

/// TCP flags of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    Syn,
    SynAck,
    Ack,
}

/// A TCP segment.
pub fn packet<A: Numbered>(from: (A, u16), to: (A, u16), segment: Segment) -> Vec<u8> {
    let mut tcp = addressed(from.0, to.0).tcp(from.1, to.1, 1000, 0xffff);
    if segment != Segment::Ack {
        tcp = tcp.syn();
    }
    if segment != Segment::Syn {
        tcp = tcp.ack(1);
    }
    let mut bytes = Vec::with_capacity(tcp.size(0));
    tcp.write(&mut bytes, &[]).expect("writing to a vector does not fail");
    bytes
}

/// A UDP datagram.
pub fn datagram<A: Numbered>(from: (A, u16), to: (A, u16)) -> Vec<u8> {
    let udp = addressed(from.0, to.0).udp(from.1, to.1);
    let mut bytes = Vec::with_capacity(udp.size(0));
    udp.write(&mut bytes, &[]).expect("writing to a vector does not fail");
    bytes
}

fn addressed<A: Numbered>(from: A, to: A) -> PacketBuilderStep<etherparse::IpHeaders> {
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, NODE_MAC);
    match (from.into(), to.into()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("both ends are of one family"),
    }
}
