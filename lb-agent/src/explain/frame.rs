//! The packets of a question, as an interface would receive them, apart from their checksums: the packet path adjusts
//! checksums and never verifies them.

use lb_common::addr::{Family, Proto};
use lb_common::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Parse, TcpFlags};
use lb_common::table::Tuple;

/// The MAC of the interface that receives the packet.
pub const INTERFACE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The MAC of the neighbour that sends the packet.
const NEIGHBOUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

const HOP_LIMIT: u8 = 64;

/// A packet without payload. `tcp` are the flags of a TCP segment.
pub fn frame<A: Parse>(proto: Proto, tcp: u8, tuple: &Tuple<A>) -> Vec<u8> {
    let addresses = [tuple.src.as_bytes(), tuple.dst.as_bytes()].concat();
    let transport = transport(proto, tcp, tuple);
    let len = transport.len() as u16;
    let (ethertype, network) = match A::FAMILY {
        Family::V4 => (ETHERTYPE_IPV4, ipv4(proto as u8, len, &addresses)),
        Family::V6 => (ETHERTYPE_IPV6, ipv6(proto as u8, len, &addresses)),
    };
    [&INTERFACE_MAC[..], &NEIGHBOUR_MAC, &ethertype.to_be_bytes(), &network, &transport].concat()
}

/// An ICMP echo request.
pub fn echo<A: Parse>(src: A, dst: A) -> Vec<u8> {
    // Code, checksum, identifier and sequence number are 0 (RFC 792, RFC 4443).
    let message = |kind: u8| [kind, 0, 0, 0, 0, 0, 0, 0];
    let (number, kind, ethertype) = match A::FAMILY {
        Family::V4 => (1, 8, ETHERTYPE_IPV4),
        Family::V6 => (58, 128, ETHERTYPE_IPV6),
    };
    let (message, addresses) = (message(kind), [src.as_bytes(), dst.as_bytes()].concat());
    let network = match A::FAMILY {
        Family::V4 => ipv4(number, message.len() as u16, &addresses),
        Family::V6 => ipv6(number, message.len() as u16, &addresses),
    };
    [&INTERFACE_MAC[..], &NEIGHBOUR_MAC, &ethertype.to_be_bytes(), &network, &message].concat()
}

fn ipv4(proto: u8, payload_len: u16, addresses: &[u8]) -> Vec<u8> {
    let [len0, len1] = (20 + payload_len).to_be_bytes();
    // Don't Fragment is set.
    [&[0x45, 0, len0, len1, 0, 0, 0x40, 0, HOP_LIMIT, proto, 0xff, 0xff], addresses].concat()
}

fn ipv6(proto: u8, payload_len: u16, addresses: &[u8]) -> Vec<u8> {
    let [len0, len1] = payload_len.to_be_bytes();
    [&[0x60, 0, 0, 0, len0, len1, proto, HOP_LIMIT], addresses].concat()
}

fn transport<A>(proto: Proto, tcp: u8, tuple: &Tuple<A>) -> Vec<u8> {
    let ports = [tuple.sport.to_be_bytes(), tuple.dport.to_be_bytes()].concat();
    let rest: &[u8] = match proto {
        // Sequence number, acknowledgement number, data offset of five words, flags, window, checksum, urgent pointer
        // (RFC 9293 section 3.1).
        Proto::TCP => &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, tcp, 0xff, 0xff, 0xff, 0xff, 0, 0],
        // Length and checksum; a checksum of 0 would mean that there is none (RFC 768).
        Proto::UDP => &[0, 8, 0xff, 0xff],
        // Verification tag and CRC32c.
        Proto::SCTP => &[0, 0, 0, 1, 0, 0, 0, 0],
    };
    [&ports, rest].concat()
}

/// The flags of a segment that opens a connection, of one that accepts it, and of one in an established connection.
pub const SYN: u8 = TcpFlags::SYN;
pub const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
pub const ACK: u8 = TcpFlags::ACK;
