//! A packet as a test describes it, and its bytes.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header,
    Ipv4Options, Ipv6Header, TcpHeader, UdpHeader,
};

use lb_common::packet::PARKED_LEN_MAX;

use super::{CLIENT_MAC, End, NODE_MAC, Transport};

/// The IP protocol number of AH.
const AUTHENTICATION: u8 = 51;

/// The identification in the fragment header of a described packet.
pub const ATOMIC_ID: u32 = 7;

/// The default sequence number of a described TCP segment.
pub const SEQ: u32 = 1000;

/// A packet from one end to another.
#[derive(Clone, Debug)]
pub struct Described {
    pub from: End,
    pub to: End,
    pub transport: Transport,
    pub payload: Vec<u8>,
    /// The sequence number of a TCP segment.
    pub seq: u32,
    /// Its acknowledgement number.
    pub ack: u32,
    /// Its options, a multiple of 4 bytes.
    pub tcp_options: Vec<u8>,
    /// Bytes of IPv4 options, or of an IPv6 extension header after its first two; a multiple of 4, for IPv6 8 n + 6.
    pub options_len: usize,
    /// The IP protocol number of that extension header.
    pub extension: u8,
    /// Fragment offset in 8-byte units and "more fragments".
    pub fragment: Option<(u16, bool)>,
    /// The extension header follows the fragment header, so only the first fragment has it.
    pub is_extension_cut: bool,
    /// The destination MAC.
    pub to_mac: [u8; 6],
    /// TTL or hop limit.
    pub hops: u8,
}

impl Described {
    pub fn new(transport: Transport, from: End, to: End) -> Self {
        Self {
            from,
            to,
            transport,
            payload: b"some payload".to_vec(),
            seq: SEQ,
            ack: 0,
            tcp_options: Vec::new(),
            options_len: 0,
            extension: 0,
            fragment: None,
            is_extension_cut: false,
            to_mac: NODE_MAC,
            hops: 64,
        }
    }

    #[must_use]
    pub fn options_len(mut self, len: usize) -> Self {
        self.options_len = len;
        self
    }

    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }

    #[must_use]
    pub fn ack(mut self, ack: u32) -> Self {
        self.ack = ack;
        self
    }

    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    #[must_use]
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self
    }

    #[must_use]
    pub fn extension(mut self, number: u8) -> Self {
        self.extension = number;
        self
    }

    #[must_use]
    pub fn to_mac(mut self, mac: [u8; 6]) -> Self {
        self.to_mac = mac;
        self
    }

    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self
    }

    /// The bytes on the wire, with correct checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let ether_type = if self.from.0.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        let ethernet = Ethernet2Header { source: CLIENT_MAC, destination: self.to_mac, ether_type };
        let mut bytes = ethernet.to_bytes().to_vec();
        match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.ipv4(from.octets(), to.octets(), &mut bytes),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.ipv6(from.octets(), to.octets(), &mut bytes),
            (from, to) => panic!("{from} and {to} are of two families"),
        }
        bytes
    }

    /// An ICMP message of this type and code that quotes this packet, from one host to another.
    pub fn icmp(&self, kind: (u8, u8), word: [u8; 4], from: IpAddr, to: IpAddr) -> Vec<u8> {
        icmp_about(&self.bytes()[14..], kind, word, from, to)
    }

    /// An ICMPv6 redirect that quotes this packet (RFC 4861 section 4.5), from a router: `better` is the better next
    /// hop. Its link-layer address is in an option of `units` times eight bytes before the quote; 0: no such option.
    pub fn redirect6(&self, router: IpAddr, better: IpAddr, to: IpAddr, units: u8) -> Vec<u8> {
        let (IpAddr::V6(better), IpAddr::V6(destination)) = (better, self.to.0) else { panic!("not of IPv6") };
        let mut body = [better.octets(), destination.octets()].concat();
        if units > 0 {
            body.extend([2, units]);
            body.resize(body.len() + usize::from(units) * 8 - 2, 9);
        }
        let quoted = &self.bytes()[14..];
        let quoted = &quoted[..quoted.len() / 8 * 8];
        body.extend([4, (1 + quoted.len() / 8) as u8, 0, 0, 0, 0, 0, 0]);
        body.extend(quoted);
        icmpv6((137, 0), [0; 4], router, to, &body)
    }

    fn ipv4(&self, from: [u8; 4], to: [u8; 4], bytes: &mut Vec<u8>) {
        let mut header = Ipv4Header::new(0, self.hops, self.protocol(), from, to).expect("an empty payload fits");
        // No-operation options.
        header.options = Ipv4Options::try_from(vec![1; self.options_len].as_slice()).expect("a valid options length");
        if let Some((offset, more)) = self.fragment {
            header.more_fragments = more;
            header.fragment_offset = IpFragOffset::try_new(offset).expect("a valid fragment offset");
            header.dont_fragment = false;
        }
        let transport = match self.transport {
            Transport::Tcp(flags) => {
                let mut tcp = self.tcp(flags);
                tcp.checksum = tcp.calc_checksum_ipv4(&header, &self.payload).expect("a short payload");
                [tcp.to_bytes().to_vec(), self.payload.clone()].concat()
            }
            Transport::Udp => {
                let udp = UdpHeader::with_ipv4_checksum(self.from.1, self.to.1, &header, &self.payload);
                [udp.expect("a short payload").to_bytes().to_vec(), self.payload.clone()].concat()
            }
            Transport::UdpUnsummed => {
                let udp = UdpHeader::without_ipv4_checksum(self.from.1, self.to.1, self.payload.len());
                [udp.expect("a short payload").to_bytes().to_vec(), self.payload.clone()].concat()
            }
            Transport::Sctp => self.sctp(),
        };
        header.set_payload_len(transport.len()).expect("a short payload");
        header.header_checksum = header.calc_header_checksum();
        bytes.extend(header.to_bytes());
        bytes.extend(transport);
    }

    fn ipv6(&self, from: [u8; 16], to: [u8; 16], bytes: &mut Vec<u8>) {
        let mut header = Ipv6Header { hop_limit: self.hops, source: from, destination: to, ..Ipv6Header::default() };
        let transport = match self.transport {
            Transport::Tcp(flags) => {
                let mut tcp = self.tcp(flags);
                tcp.checksum = tcp.calc_checksum_ipv6(&header, &self.payload).expect("a short payload");
                [tcp.to_bytes().to_vec(), self.payload.clone()].concat()
            }
            Transport::Udp | Transport::UdpUnsummed => {
                let udp = UdpHeader::with_ipv6_checksum(self.from.1, self.to.1, &header, &self.payload);
                [udp.expect("a short payload").to_bytes().to_vec(), self.payload.clone()].concat()
            }
            Transport::Sctp => self.sctp(),
        };
        let mut extensions = Vec::new();
        header.next_header = self.protocol();
        if !self.is_extension_cut {
            self.prepend_fragment(&mut header.next_header, &mut extensions);
        }
        if self.options_len > 0 {
            let mut options = vec![0; self.options_len + 2];
            options[0] = header.next_header.0;
            // AH (RFC 4302) counts units of four bytes less two, the others (RFC 8200) units of eight less one.
            let len = if self.extension == AUTHENTICATION { options.len() / 4 - 2 } else { options.len() / 8 - 1 };
            options[1] = u8::try_from(len).expect("a short header");
            // PadN over all of it.
            (options[2], options[3]) = (1, u8::try_from(self.options_len - 2).expect("short options"));
            extensions = [options, extensions].concat();
            header.next_header = IpNumber(self.extension);
        }
        if self.is_extension_cut {
            self.prepend_fragment(&mut header.next_header, &mut extensions);
        }
        header.set_payload_length(extensions.len() + transport.len()).expect("a short payload");
        bytes.extend(header.to_bytes());
        bytes.extend(extensions);
        bytes.extend(transport);
    }

    /// Prepends a fragment header to these extension headers, if the packet has one.
    fn prepend_fragment(&self, next: &mut IpNumber, extensions: &mut Vec<u8>) {
        let Some((offset, more)) = self.fragment else { return };
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        let following = std::mem::replace(next, IpNumber::IPV6_FRAGMENTATION_HEADER);
        let header = [[following.0, 0, high, low], ATOMIC_ID.to_be_bytes()].concat();
        extensions.splice(0..0, header);
    }

    fn protocol(&self) -> IpNumber {
        match self.transport {
            Transport::Tcp(_) => IpNumber::TCP,
            Transport::Udp | Transport::UdpUnsummed => IpNumber::UDP,
            Transport::Sctp => IpNumber::SCTP,
        }
    }

    fn tcp(&self, flags: u8) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.from.1, self.to.1, self.seq, 0xffff);
        tcp.acknowledgment_number = self.ack;
        tcp.set_options_raw(&self.tcp_options).expect("few options");
        (tcp.fin, tcp.syn, tcp.rst, tcp.ack) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 16 != 0);
        tcp
    }

    /// The common header of RFC 9260 with an arbitrary CRC32c, which must stay unchanged.
    fn sctp(&self) -> Vec<u8> {
        let ports = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        [ports, vec![0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef], self.payload.clone()].concat()
    }
}

/// An ICMPv6 message; `body` follows its first eight bytes.
fn icmpv6((kind, code): (u8, u8), word: [u8; 4], from: IpAddr, to: IpAddr, body: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { panic!("{from} or {to} is not of IPv6") };
    let ethernet = Ethernet2Header { source: CLIENT_MAC, destination: NODE_MAC, ether_type: EtherType::IPV6 };
    let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: word };
    let icmp = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), body).expect("short");
    let header = Ipv6Header {
        payload_length: u16::try_from(8 + body.len()).expect("a short packet"),
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 63,
        source: from.octets(),
        destination: to.octets(),
        ..Ipv6Header::default()
    };
    [&ethernet.to_bytes()[..], &header.to_bytes(), &icmp.to_bytes(), body].concat()
}

/// An ICMP message of this type and code from one host to another. It quotes a packet from its network header on.
pub fn icmp_about(quoted: &[u8], (kind, code): (u8, u8), word: [u8; 4], from: IpAddr, to: IpAddr) -> Vec<u8> {
    let ether_type = if from.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    let ethernet = Ethernet2Header { source: CLIENT_MAC, destination: NODE_MAC, ether_type };
    let mut bytes = ethernet.to_bytes().to_vec();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let kind = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: word };
            let icmp = Icmpv4Header::with_checksum(kind, quoted).to_bytes();
            let len = u16::try_from(icmp.len() + quoted.len()).expect("a short packet");
            let mut header = Ipv4Header::new(len, 63, IpNumber::ICMP, from.octets(), to.octets()).expect("short");
            header.header_checksum = header.calc_header_checksum();
            bytes.extend(header.to_bytes());
            bytes.extend(icmp);
        }
        (IpAddr::V6(_), IpAddr::V6(_)) => return icmpv6((kind, code), word, from, to, quoted),
        (from, to) => panic!("{from} and {to} are of two families"),
    }
    bytes.extend(quoted);
    bytes
}

/// The fragments of a packet whose transport header starts at `l4`, in order. The first holds so many bytes from there
/// on, a multiple of eight.
pub fn cut(whole: &[u8], l4: usize, id: u32, first_len: usize) -> Vec<Vec<u8>> {
    let transport = &whole[l4..];
    let (first, rest) = transport.split_at(first_len.min(transport.len()));
    let mut parts = vec![first];
    parts.extend(rest.chunks(LATER_LEN));
    let (mut offset, count) = (0, parts.len());
    let mut fragments = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        let place = u16::try_from(offset / 8).expect("a short packet");
        fragments.push(fragment(&whole[..l4], part, (place, index + 1 < count, id)));
        offset += part.len();
    }
    fragments
}

/// A later fragment with so many bytes added that it is too long to be parked, and for an ordinary link.
pub fn lengthened(fragment: &[u8]) -> Vec<u8> {
    let mut bytes = fragment.to_vec();
    bytes.resize(14 + PARKED_LEN_MAX + 8, 0);
    let len = u16::try_from(bytes.len() - 14).expect("not that long");
    if bytes[14] >> 4 == 4 {
        let (mut header, _) = Ipv4Header::from_slice(&fragment[14..]).expect("an IPv4 header");
        header.total_len = len;
        header.header_checksum = header.calc_header_checksum();
        let header = header.to_bytes();
        bytes[14..14 + header.len()].copy_from_slice(&header);
    } else {
        bytes[18..20].copy_from_slice(&(len - 40).to_be_bytes());
    }
    bytes
}

/// Bytes of a first fragment, enough for any transport header, and of the later ones: multiples of eight.
pub const FIRST_LEN: usize = 24;
const LATER_LEN: usize = 16;

/// A part of a packet with these headers, at an offset in units of eight bytes.
fn fragment(headers: &[u8], part: &[u8], (offset, has_more, id): (u16, bool, u32)) -> Vec<u8> {
    let mut bytes = headers.to_vec();
    if bytes[14] >> 4 == 4 {
        let (mut header, _) = Ipv4Header::from_slice(&headers[14..]).expect("an IPv4 header");
        header.identification = u16::try_from(id).expect("a small number");
        header.more_fragments = has_more;
        header.fragment_offset = IpFragOffset::try_new(offset).expect("a short packet");
        header.dont_fragment = false;
        header.set_payload_len(part.len()).expect("a short packet");
        header.header_checksum = header.calc_header_checksum();
        bytes[14..].copy_from_slice(&header.to_bytes());
    } else {
        // The next header is named by the extension header, if the packet has one.
        let names = if headers.len() > 14 + 40 { 14 + 40 } else { 14 + 6 };
        let protocol = std::mem::replace(&mut bytes[names], IpNumber::IPV6_FRAGMENTATION_HEADER.0);
        let [high, low] = (offset << 3 | u16::from(has_more)).to_be_bytes();
        bytes.extend([protocol, 0, high, low]);
        bytes.extend(id.to_be_bytes());
        let len = u16::try_from(bytes.len() - 14 - 40 + part.len()).expect("a short packet");
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
    }
    bytes.extend(part);
    bytes
}
