//! A packet as bytes with named places. Every checksum is computed anew over all bytes: slow, and obviously right.

use std::net::IpAddr;
use std::ops::Range;

use etherparse::{
    IpNumber, Ipv6ExtensionSlice, Ipv6ExtensionsSlice, LaxNetSlice, LaxSlicedPacket, NetSlice, SlicedPacket,
};
use lb_common::addr::Proto;

use crate::packet::End;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// A well-formed packet.
#[derive(Clone, Debug)]
pub struct Wire {
    bytes: Vec<u8>,
    /// The place of the addresses.
    addresses: Range<usize>,
    /// The start of the transport or ICMP header.
    pub l4: usize,
    pub protocol: IpNumber,
    pub part: Part,
    /// A whole packet with a fragment header (an atomic fragment, RFC 6946).
    pub is_atomic_fragment: bool,
    /// The rest of this packet's datagram, which the transport checksum covers.
    beyond: Vec<u8>,
}

/// Which part of a datagram a packet is, with the datagram's identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    First(u32),
    Later(u32),
}

impl Part {
    const fn of(offset: u16, has_more: bool, id: u32) -> Self {
        match (offset, has_more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First(id),
            _ => Self::Later(id),
        }
    }

    fn of_ipv4(header: &etherparse::Ipv4HeaderSlice<'_>) -> Self {
        let id = header.identification().into();
        Self::of(header.fragments_offset().value(), header.more_fragments(), id)
    }

    /// `None` if the packet has no fragment header.
    fn of_ipv6(extensions: &Ipv6ExtensionsSlice<'_>) -> Option<Self> {
        extensions.clone().into_iter().find_map(|extension| match extension {
            Ipv6ExtensionSlice::Fragment(header) => {
                Some(Self::of(header.fragment_offset().value(), header.more_fragments(), header.identification()))
            }
            _ => None,
        })
    }
}

/// The packet that an ICMP error quotes, as places in the bytes of the error.
#[derive(Clone, Debug)]
pub struct Quoted {
    network: usize,
    addresses: Range<usize>,
    l4: usize,
    pub proto: Proto,
    pub ends: (End, End),
    pub part: Part,
    /// The quote is shorter than the packet was.
    pub is_cut_short: bool,
}

impl Wire {
    /// Finds the places; panics if the packet is not well-formed.
    pub fn read(bytes: &[u8]) -> Self {
        let packet = SlicedPacket::from_ethernet(bytes).expect("a well-formed packet");
        let (payload, part, addresses) = match packet.net.as_ref().expect("a network header") {
            NetSlice::Ipv4(ip) => (ip.payload(), Some(Part::of_ipv4(&ip.header())), ETHERNET + 12..ETHERNET + 20),
            NetSlice::Ipv6(ip) => (ip.payload(), Part::of_ipv6(ip.extensions()), ETHERNET + 8..ETHERNET + 40),
            NetSlice::Arp(arp) => panic!("neither IPv4 nor IPv6: {arp:?}"),
        };
        let (l4, protocol) = (bytes.len() - payload.payload.len(), payload.ip_number);
        let is_atomic_fragment = part == Some(Part::Whole) && addresses.len() == 32;
        let part = part.unwrap_or(Part::Whole);
        Self { bytes: bytes.to_vec(), addresses, l4, protocol, part, is_atomic_fragment, beyond: Vec::new() }
    }

    /// Adds the rest of its datagram.
    #[must_use]
    pub fn with_beyond(self, beyond: &[u8]) -> Self {
        Self { beyond: beyond.to_vec(), ..self }
    }

    /// Whether options or extension headers precede the transport header, apart from a fragment header.
    pub fn has_options(&self) -> bool {
        let is_fragment_header = usize::from(!self.is_v4() && (self.is_atomic_fragment || self.part != Part::Whole));
        self.l4 > self.addresses.end + 8 * is_fragment_header
    }

    pub fn is_udp_without_sum(&self) -> bool {
        self.protocol == IpNumber::UDP && self.bytes[self.l4 + 6..self.l4 + 8] == [0, 0]
    }

    pub fn is_v4(&self) -> bool {
        self.addresses.len() == 8
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// TCP flags: CWR to FIN.
    pub fn tcp_flags(&self) -> u8 {
        self.bytes[self.l4 + 13]
    }

    /// Sequence number of a TCP segment.
    pub fn tcp_seq(&self) -> u32 {
        u32::from_be_bytes(self.bytes[self.l4 + 4..self.l4 + 8].try_into().expect("four bytes"))
    }

    /// Type of an ICMP message.
    pub fn icmp_type(&self) -> u8 {
        self.bytes[self.l4]
    }

    /// Source and destination.
    pub fn addresses(&self) -> (IpAddr, IpAddr) {
        read_addresses(&self.bytes[self.addresses.clone()])
    }

    /// The source and destination of a packet with ports.
    pub fn ends(&self) -> (End, End) {
        ends(&self.bytes, &self.addresses, self.l4)
    }

    /// Sets source and destination, with the checksums.
    pub fn set_ends(&mut self, from: End, to: End) {
        write_ends(&mut self.bytes, &self.addresses.clone(), self.l4, (from, to));
        self.checksum_network(0);
        self.checksum_transport();
    }

    /// Sets the addresses of a packet of which only the network header is known.
    pub fn set_addresses(&mut self, from: IpAddr, to: IpAddr) {
        let addresses = self.addresses.clone();
        write_addresses(&mut self.bytes[addresses], from, to);
        self.checksum_network(0);
    }

    /// TTL or hop limit.
    pub fn hops(&self) -> u8 {
        self.bytes[self.hops_at()]
    }

    /// Takes one off the TTL or hop limit.
    pub fn spend_hop(&mut self) {
        let at = self.hops_at();
        self.bytes[at] -= 1;
        self.checksum_network(0);
    }

    fn hops_at(&self) -> usize {
        ETHERNET + if self.is_v4() { 8 } else { 7 }
    }

    /// Swaps the MACs of the Ethernet header.
    pub fn turn_back(&mut self) {
        let macs: Vec<u8> = self.bytes[..12].to_vec();
        self.bytes[..6].copy_from_slice(&macs[6..]);
        self.bytes[6..12].copy_from_slice(&macs[..6]);
    }

    /// The packet that an ICMP error quotes, if it has ports.
    pub fn quoted(&self) -> Option<Quoted> {
        let network = self.l4 + 8;
        let packet = LaxSlicedPacket::from_ip(self.bytes.get(network..)?).ok()?;
        let (payload, part, addresses) = match packet.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => (ip.payload(), Part::of_ipv4(&ip.header()), network + 12..network + 20),
            LaxNetSlice::Ipv6(ip) => {
                (ip.payload(), Part::of_ipv6(ip.extensions()).unwrap_or(Part::Whole), network + 8..network + 40)
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let proto = proto(payload.ip_number)?;
        if payload.payload.len() < 4 {
            return None;
        }
        let (l4, is_cut_short) = (self.bytes.len() - payload.payload.len(), payload.incomplete);
        let ends = ends(&self.bytes, &addresses, l4);
        Some(Quoted { network, addresses, l4, proto, ends, part, is_cut_short })
    }

    /// Sets the addresses of an ICMP error and the ends of the packet that it quotes.
    pub fn set_error(&mut self, quoted: &Quoted, about: (End, End), (from, to): (IpAddr, IpAddr)) {
        write_ends(&mut self.bytes, &quoted.addresses, quoted.l4, about);
        self.checksum_network(quoted.network - ETHERNET);
        let addresses = self.addresses.clone();
        write_addresses(&mut self.bytes[addresses], from, to);
        self.checksum_network(0);
        self.checksum_transport();
    }

    /// Writes the checksum of the IPv4 header that is `skip` bytes behind the packet's own.
    fn checksum_network(&mut self, skip: usize) {
        let start = ETHERNET + skip;
        if self.bytes[start] >> 4 == 4 {
            let header = start..start + usize::from(self.bytes[start] & 15) * 4;
            self.bytes[start + 10..start + 12].fill(0);
            let sum = !internet_sum(&[&self.bytes[header]]);
            self.bytes[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
        }
    }

    fn checksum_transport(&mut self) {
        let (at, covers_addresses) = match self.protocol {
            IpNumber::TCP => (16, true),
            IpNumber::UDP => (6, true),
            IpNumber::ICMP => (2, false),
            IpNumber::IPV6_ICMP => (2, true),
            // SCTP: no field that its CRC32c covers has changed.
            _ => return,
        };
        let at = self.l4 + at..self.l4 + at + 2;
        if self.protocol == IpNumber::UDP && self.bytes[at.clone()] == [0, 0] {
            return;
        }
        self.bytes[at.clone()].fill(0);
        let len = self.bytes.len() - self.l4 + self.beyond.len();
        let len = u32::try_from(len).expect("a short packet").to_be_bytes();
        let pseudo = [&self.bytes[self.addresses.clone()], &len, &[0, self.protocol.0]].concat();
        let pseudo = if covers_addresses { pseudo.as_slice() } else { &[] };
        let sum = match !internet_sum(&[pseudo, &self.bytes[self.l4..], &self.beyond]) {
            0 if self.protocol == IpNumber::UDP => 0xffff,
            sum => sum,
        };
        self.bytes[at].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The protocol of a Service.
pub const fn proto(number: IpNumber) -> Option<Proto> {
    match number {
        IpNumber::TCP => Some(Proto::TCP),
        IpNumber::UDP => Some(Proto::UDP),
        IpNumber::SCTP => Some(Proto::SCTP),
        _ => None,
    }
}

/// RFC 1071 over several pieces. Each but the last has an even length.
pub fn internet_sum(pieces: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u64 = pieces.iter().flat_map(|piece| piece.chunks(2)).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

fn read_addresses(bytes: &[u8]) -> (IpAddr, IpAddr) {
    let address = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(v4) => IpAddr::from(v4),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("4 or 16 bytes")),
    };
    let (source, destination) = bytes.split_at(bytes.len() / 2);
    (address(source), address(destination))
}

fn write_addresses(bytes: &mut [u8], from: IpAddr, to: IpAddr) {
    let octets = |addr| match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    bytes.copy_from_slice(&[octets(from), octets(to)].concat());
}

fn ends(bytes: &[u8], addresses: &Range<usize>, l4: usize) -> (End, End) {
    let (source, destination) = read_addresses(&bytes[addresses.clone()]);
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    ((source, port(l4)), (destination, port(l4 + 2)))
}

fn write_ends(bytes: &mut [u8], addresses: &Range<usize>, l4: usize, (from, to): (End, End)) {
    write_addresses(&mut bytes[addresses.clone()], from.0, to.0);
    bytes[l4..l4 + 2].copy_from_slice(&from.1.to_be_bytes());
    bytes[l4 + 2..l4 + 4].copy_from_slice(&to.1.to_be_bytes());
}
