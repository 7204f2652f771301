//! The answers to packets that are rejected, or have used up their hops.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6Header};
use lb_common::addr::Proto;

use super::wire::{Wire, internet_sum};
use crate::packet::End;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// ICMP 3/3 (RFC 792) or ICMPv6 1/4 (RFC 4443).
pub fn port_unreachable(wire: &Wire, proto: Proto, ends: (End, End)) -> Vec<u8> {
    answer(wire, proto, ends, [(3, 3), (1, 4)])
}

/// ICMP 11/0 or ICMPv6 3/0.
pub fn hops_exceeded(wire: &Wire, proto: Proto, ends: (End, End)) -> Vec<u8> {
    answer(wire, proto, ends, [(11, 0), (3, 0)])
}

/// An ICMP error from the address that was dialled to the sender of `wire`, of this type and code in IPv4 and IPv6. It
/// quotes the network header and the transport header without options.
fn answer(wire: &Wire, proto: Proto, (from, to): (End, End), [v4, v6]: [(u8, u8); 2]) -> Vec<u8> {
    let transport_len = match proto {
        Proto::TCP => 20,
        Proto::UDP => 8,
        Proto::SCTP => 12,
    };
    let quoted = &wire.bytes()[ETHERNET..wire.l4 + transport_len];
    let len = u16::try_from(8 + quoted.len()).expect("a short packet");
    let (header, pseudo, mut icmp) = match (to.0, from.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = Ipv4Header::new(len, 64, IpNumber::ICMP, source.octets(), destination.octets())
                .expect("a short packet");
            header.dscp = 48.try_into().expect("six bits");
            header.dont_fragment = true;
            header.header_checksum = header.calc_header_checksum();
            (header.to_bytes().to_vec(), Vec::new(), vec![v4.0, v4.1, 0, 0, 0, 0, 0, 0])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let (next_header, hop_limit) = (IpNumber::IPV6_ICMP, 64);
            let payload_length = len;
            let header =
                Ipv6Header { payload_length, next_header, hop_limit, source, destination, ..Ipv6Header::default() };
            let pseudo = [&source[..], &destination, &len.to_be_bytes(), &[0, next_header.0]].concat();
            (header.to_bytes().to_vec(), pseudo, vec![v6.0, v6.1, 0, 0, 0, 0, 0, 0])
        }
        families => panic!("two families: {families:?}"),
    };
    let sum = !internet_sum(&[&pseudo, &icmp, quoted]);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let macs = wire.bytes();
    [&macs[6..12], &macs[..6], &macs[12..ETHERNET], &header, &icmp, quoted].concat()
}
