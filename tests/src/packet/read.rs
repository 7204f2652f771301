//! Reads a packet back: its fields, with every checksum verified over all bytes.

use std::net::IpAddr;

use etherparse::{Icmpv4Slice, Icmpv6Slice, IpNumber, NetSlice, SlicedPacket, TcpHeaderSlice, UdpHeaderSlice};

use super::End;

/// The fields of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub source_mac: [u8; 6],
    pub destination_mac: [u8; 6],
    pub answer: Answer,
}

/// The content after the network header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Ports, and the bytes after the ports.
    Transport { from: End, to: End, rest: Vec<u8> },
    /// An ICMP error of this type and code from `from` to `to`, with the second word of its header (the MTU, if it has
    /// one), and the ends of the packet that it quotes.
    Icmp { kind: (u8, u8), word: [u8; 4], from: IpAddr, to: IpAddr, about: (End, End) },
}

impl Read {
    /// Source and destination, if the packet has ports.
    pub const fn ends(&self) -> Option<(End, End)> {
        match self.answer {
            Answer::Transport { from, to, .. } => Some((from, to)),
            Answer::Icmp { .. } => None,
        }
    }
}

/// Reads a packet; panics with the reason if a length or checksum is wrong.
pub fn read(bytes: &[u8]) -> Read {
    let packet = SlicedPacket::from_ethernet(bytes).expect("a packet that parses");
    let ethernet = packet.link.as_ref().and_then(|link| link.to_header().and_then(etherparse::LinkHeader::ethernet2));
    let ethernet = ethernet.expect("an Ethernet header");
    let (from, to, protocol, payload) = match packet.net.as_ref().expect("a network header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "checksum of the IPv4 header");
            let (from, to) = (header.source.into(), header.destination.into());
            (from, to, ip.payload_ip_number(), ip.payload().payload)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            let (from, to) = (header.source_addr().into(), header.destination_addr().into());
            (from, to, ip.payload().ip_number, ip.payload().payload)
        }
        NetSlice::Arp(arp) => panic!("neither IPv4 nor IPv6: {arp:?}"),
    };
    let answer = match protocol {
        IpNumber::ICMP | IpNumber::IPV6_ICMP => icmp(from, to, payload),
        protocol => transport(protocol, from, to, payload),
    };
    Read { source_mac: ethernet.source, destination_mac: ethernet.destination, answer }
}

fn transport(protocol: IpNumber, from: IpAddr, to: IpAddr, payload: &[u8]) -> Answer {
    let (sport, dport) = ports(payload);
    match protocol {
        IpNumber::TCP => {
            let tcp = TcpHeaderSlice::from_slice(payload).expect("a TCP header");
            let body = &payload[tcp.slice().len()..];
            let sum = match (from, to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), body),
                (IpAddr::V6(from), IpAddr::V6(to)) => tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), body),
                _ => panic!("two families"),
            };
            assert_eq!(tcp.checksum(), sum.expect("a short payload"), "TCP checksum of {from} -> {to}");
        }
        IpNumber::UDP => {
            let udp = UdpHeaderSlice::from_slice(payload).expect("a UDP header").to_header();
            let body = &payload[8..];
            let sum = match (from, to) {
                (IpAddr::V4(_), IpAddr::V4(_)) if udp.checksum == 0 => Ok(0),
                (IpAddr::V4(from), IpAddr::V4(to)) => udp.calc_checksum_ipv4_raw(from.octets(), to.octets(), body),
                (IpAddr::V6(from), IpAddr::V6(to)) => udp.calc_checksum_ipv6_raw(from.octets(), to.octets(), body),
                _ => panic!("two families"),
            };
            assert_eq!(udp.checksum, sum.expect("a short payload"), "UDP checksum of {from} -> {to}");
        }
        _ => {}
    }
    let check = match protocol {
        IpNumber::TCP => 16..18,
        IpNumber::UDP => 6..8,
        _ => 4..4,
    };
    let rest = payload.iter().enumerate().skip(4).filter(|(index, _)| !check.contains(index)).map(|(_, byte)| *byte);
    Answer::Transport { from: (from, sport), to: (to, dport), rest: rest.collect() }
}

fn ports(transport: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([transport[0], transport[1]]), u16::from_be_bytes([transport[2], transport[3]]))
}

fn icmp(from: IpAddr, to: IpAddr, payload: &[u8]) -> Answer {
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let icmp = Icmpv4Slice::from_slice(payload).expect("an ICMP header");
            let header = icmp.header();
            assert_eq!(header.checksum, header.icmp_type.calc_checksum(icmp.payload()), "ICMP checksum");
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let icmp = Icmpv6Slice::from_slice(payload).expect("an ICMPv6 header");
            assert!(icmp.is_checksum_valid(from.octets(), to.octets()), "ICMPv6 checksum");
        }
        _ => panic!("two families"),
    }
    let (kind, word) = ((payload[0], payload[1]), [payload[4], payload[5], payload[6], payload[7]]);
    let quoted = &payload[8..];
    let (source, destination, transport) = match quoted[0] >> 4 {
        4 => {
            let header_len = usize::from(quoted[0] & 15) * 4;
            let header = etherparse::Ipv4HeaderSlice::from_slice(quoted).expect("a quoted IPv4 header").to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "checksum of the quoted IPv4 header");
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&quoted[at..at + 4]).expect("4 bytes"));
            (address(12), address(16), &quoted[header_len..])
        }
        6 => {
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&quoted[at..at + 16]).expect("16 bytes"));
            let skip = if quoted[6] == 0 { (usize::from(quoted[41]) + 1) * 8 } else { 0 };
            (address(8), address(24), &quoted[40 + skip..])
        }
        version => panic!("the quoted packet has version {version}"),
    };
    let (sport, dport) = ports(transport);
    Answer::Icmp { kind, word, from, to, about: ((source, sport), (destination, dport)) }
}
