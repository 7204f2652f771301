//! Packets that a test builds itself, fragments of datagrams among them, and sends in any order.

mod flood;
mod tap;

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, TcpHeader, UdpHeader};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::{Family, family};
use crate::netns::Netns;

pub use flood::{Flood, flood_during};
pub use tap::{Segment, Tap};

/// Bytes of a datagram in each fragment: a multiple of eight, and less than a link with an MTU of 1,500 takes.
const PART_LEN: usize = 1_400;

/// The fragments of a UDP datagram, in order, from the network header on.
pub fn datagram(from: SocketAddr, to: SocketAddr, id: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let whole = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let ip = Ipv4Header::new(0, 64, IpNumber::UDP, source, destination).expect("an empty payload fits");
            UdpHeader::with_ipv4_checksum(from.port(), to.port(), &ip, payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let ip = Ipv6Header { source, destination, ..Ipv6Header::default() };
            UdpHeader::with_ipv6_checksum(from.port(), to.port(), &ip, payload)
        }
        (from, to) => panic!("{from} and {to} are of two families"),
    };
    let bytes = [&whole.expect("it is short enough").to_bytes()[..], payload].concat();
    let count = bytes.chunks(PART_LEN).len();
    let parts = bytes.chunks(PART_LEN).enumerate();
    parts.map(|(index, part)| fragment((from.ip(), to.ip()), id, (index, index + 1 < count), part)).collect()
}

/// A TCP segment without data, from the network header on. Its source may be spoofed.
pub fn segment(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32) -> Vec<u8> {
    answer(&Segment { from, to, flags, seq, ack: 0 })
}

/// As [`segment`], with an acknowledgement.
pub fn answer(segment: &Segment) -> Vec<u8> {
    let Segment { from, to, flags, seq, ack } = *segment;
    let mut tcp = TcpHeader::new(from.port(), to.port(), seq, 1024);
    tcp.acknowledgment_number = ack;
    (tcp.fin, tcp.syn, tcp.rst, tcp.ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
    let mut bytes = Vec::new();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = tcp.header_len_u16();
            let ip = Ipv4Header::new(len, 64, IpNumber::TCP, source.octets(), destination.octets());
            let mut ip = ip.expect("no payload");
            ip.header_checksum = ip.calc_header_checksum();
            tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[]).expect("no payload");
            bytes.extend(ip.to_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = Ipv6Header {
                payload_length: tcp.header_len_u16(),
                next_header: IpNumber::TCP,
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            tcp.checksum = tcp.calc_checksum_ipv6(&ip, &[]).expect("no payload");
            bytes.extend(ip.to_bytes());
        }
        (from, to) => panic!("{from} and {to} are of two families"),
    }
    bytes.extend(tcp.to_bytes());
    bytes
}

fn fragment(ends: (IpAddr, IpAddr), id: u16, (index, more): (usize, bool), part: &[u8]) -> Vec<u8> {
    let offset = u16::try_from(index * PART_LEN / 8).expect("within 64 KiB");
    let offset = IpFragOffset::try_new(offset).expect("within 64 KiB");
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = u16::try_from(part.len()).expect("a short part");
            let header = Ipv4Header::new(len, 64, IpNumber::UDP, source.octets(), destination.octets());
            let mut header = header.expect("a short part");
            (header.identification, header.dont_fragment) = (id, false);
            (header.more_fragments, header.fragment_offset) = (more, offset);
            header.header_checksum = header.calc_header_checksum();
            [&header.to_bytes()[..], part].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, id.into());
            let header = Ipv6Header {
                payload_length: u16::try_from(8 + part.len()).expect("a short part"),
                next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            [&header.to_bytes()[..], &fragment.to_bytes()[..], part].concat()
        }
        _ => panic!("two families"),
    }
}

/// Sends packets unchanged, in this order, by the route to `to`.
pub fn send(netns: &Netns, to: IpAddr, packets: &[Vec<u8>]) {
    let sender = Sender::open(netns, family(to));
    for packet in packets {
        sender.send(to, packet);
    }
}

/// Sends packets unchanged.
pub struct Sender(Socket);

impl Sender {
    pub fn open(netns: &Netns, family: Family) -> Self {
        let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
        // IPPROTO_RAW: the written bytes include the headers.
        let socket = netns.inside(|| Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW))));
        Self(socket.expect("root may open a raw socket"))
    }

    /// Routes are chosen as for packets from this address, whatever they say themselves.
    #[must_use]
    pub fn routed_as(self, source: IpAddr) -> Self {
        self.0.bind(&SockAddr::from(SocketAddr::new(source, 0))).expect("the address is local, or any may be bound");
        self
    }

    /// By the route to `to`.
    pub fn send(&self, to: IpAddr, packet: &[u8]) {
        self.0.send_to(packet, &SockAddr::from(SocketAddr::new(to, 0))).expect("it fits the link");
    }
}
