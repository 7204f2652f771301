//! From bytes to headers: ours, not ours, or a fragment. Never reads past the end, and never guesses an offset.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use crate::addr::{Addr, Family, Proto};
use crate::checksum;
use crate::packet::{DatagramId, Packet, PacketMut, Refused, Rewrite};
use crate::sequence::Sequence;
use crate::table::Tuple;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Extension headers that are walked in search of the transport header. RFC 8200 section 4.1 lists five in the
/// recommended order, with one of them twice.
const EXTENSION_HEADERS_MAX: u32 = 6;

/// The offset of the source address in a network header. The destination follows it.
#[inline(always)]
pub const fn addresses_offset(family: Family) -> usize {
    match family {
        Family::V4 => IPV4_ADDRESSES,
        Family::V6 => IPV6_ADDRESSES,
    }
}

/// What the path reads of a TCP header: the flags and, in the same word, the [`Sequence`]. Empty unless TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpFlags(u32);

impl TcpFlags {
    pub const FIN: u8 = 0x01;
    pub const SYN: u8 = 0x02;
    pub const RST: u8 = 0x04;
    pub const ACK: u8 = 0x10;

    /// Bits by which the sequence is shifted in the word.
    const SEQUENCE: u32 = 8;

    /// The flags in the last byte of the 16 bits that hold them (RFC 9293 section 3.1), without a sequence.
    #[inline(always)]
    pub const fn new(bits: u8) -> Self {
        Self(bits as u32)
    }

    /// The same flags with this sequence.
    #[must_use]
    #[inline(always)]
    pub const fn at(self, sequence: Sequence) -> Self {
        Self(self.0 | sequence.word() << Self::SEQUENCE)
    }

    #[inline(always)]
    pub const fn has(self, flag: u8) -> bool {
        self.0 & flag as u32 != 0
    }

    #[inline(always)]
    pub const fn sequence(self) -> Sequence {
        Sequence::from_word(self.0 >> Self::SEQUENCE)
    }

    /// The first segment of a connection: SYN without ACK or RST.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST) as u32 == Self::SYN as u32
    }
}

/// What the path needs of a packet with ports, beside its [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    pub proto: Proto,
    /// Empty unless TCP.
    pub tcp: TcpFlags,
    /// Offset of the transport header.
    pub l4: usize,
    /// False if a first fragment is too short for its ports, or its protocol has none.
    pub has_ports: bool,
    /// The datagram of which the packet is the first fragment. None if the packet is whole.
    pub first_of: Option<DatagramId>,
}

impl Headers {
    /// The headers of a first fragment without ports.
    #[inline(always)]
    pub fn without_ports(proto: Proto, first_of: Option<DatagramId>) -> Self {
        Self { proto, tcp: TcpFlags::default(), l4: 0, has_ports: false, first_of }
    }

    /// The part that a decision reads.
    #[inline(always)]
    pub const fn transport(&self) -> Transport {
        Transport { proto: self.proto, tcp: self.tcp }
    }
}

/// What a decision reads of a packet with ports, beside its [`Tuple`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    pub proto: Proto,
    /// Empty unless TCP.
    pub tcp: TcpFlags,
}

impl Transport {
    /// Whether the packet may create a flow: a SYN, or any datagram.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        match self.proto {
            Proto::TCP => self.tcp.opens(),
            Proto::UDP | Proto::SCTP => true,
        }
    }
}

/// What parsing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A packet with ports.
    Transport(Headers),
    /// An ICMP message of the packet's own family, at this offset.
    Icmp(usize),
    /// A later fragment, without ports, of the datagram with this identification.
    Fragment(Proto, u32),
    /// The packet ends before its headers do, or they are behind the linear part of an skb. For a first fragment, also
    /// protocol and identification of its datagram, as in [`Parsed::Fragment`]. In IPv6 that may be a protocol without
    /// ports.
    Short(Proto, Option<DatagramId>),
    /// Another protocol, or an invalid header.
    Other,
}

/// What a network header says about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// A packet, or a first fragment, of the IP protocol `number`, whose header is at `l4`.
    Carries {
        number: u8,
        l4: usize,
        first_of: Option<DatagramId>,
    },
    /// A later fragment.
    Fragment {
        number: u8,
        id: u32,
    },
    Short(Option<DatagramId>),
    Other,
}

/// An address family whose header can be read.
pub trait Parse: Addr {
    /// The IP protocol number of its ICMP.
    const ICMP: u8;
    /// Bytes of a network header without options and extension headers.
    const HEADER_LEN: usize;

    /// The protocol of a datagram whose later fragments carry this header number. None if it has no ports.
    fn proto_of_fragment(number: u8) -> Option<Proto>;

    /// Reads the network header at `l3` and copies its addresses to `tuple`.
    fn network(packet: &impl Packet, l3: usize, tuple: &mut Tuple<Self>) -> Network;

    /// The IP protocol number of a whole packet whose network header, at `l3`, has neither options nor extension
    /// headers.
    fn plain_network(packet: &impl Packet, l3: usize) -> Option<u8>;

    /// Overwrites the addresses in the network header at `l3` and adjusts the header's own checksum, if it has one.
    fn write_addresses(
        packet: &mut impl Rewrite,
        l3: usize,
        from: &Tuple<Self>,
        to: &Tuple<Self>,
    ) -> Result<(), Refused>;

    /// The length of the packet from its network header on, as that header says; `None` if it says nothing, because the
    /// packet was joined from many (RFC 2675, and BIG TCP of Linux for IPv4). A frame may be padded behind it.
    fn said_len(packet: &impl Packet, l3: usize) -> Option<u32>;

    /// Writes that length, of a packet without payload of its own beyond 64 KiB, and adjusts the header's own checksum.
    fn write_len(packet: &mut impl PacketMut, l3: usize, len: u16) -> Result<(), Refused>;

    /// How often the packet may still be forwarded: TTL or hop limit.
    fn hops(packet: &impl Packet, l3: usize) -> Option<u8>;

    /// Lowers the TTL or hop limit by one.
    fn spend_hop(packet: &mut impl Rewrite, l3: usize) -> Result<(), Refused>;

    /// Reads the network and transport headers. Addresses and ports are copied to `tuple`.
    #[inline(always)]
    fn parse(packet: &impl Packet, tuple: &mut Tuple<Self>) -> Parsed {
        match Self::network(packet, packet.l3(), tuple) {
            Network::Carries { number, l4, first_of } => {
                let (l4, first_of) = (packet.forget_offset(l4), packet.forget_datagram(first_of));
                if number == Self::ICMP && first_of.is_none() {
                    return Parsed::Icmp(l4);
                }
                let Some(proto) = Proto::from_number(number) else { return another(first_of, Self::FAMILY) };
                let Some(found) = transport(packet, proto, l4) else { return Parsed::Short(proto, first_of) };
                let Plain { transport: Transport { proto, tcp }, sport, dport } = found;
                (tuple.sport, tuple.dport) = (sport, dport);
                Parsed::Transport(Headers { proto, tcp, l4, has_ports: true, first_of })
            }
            Network::Fragment { number, id } => {
                Self::proto_of_fragment(number).map_or(Parsed::Other, |proto| Parsed::Fragment(proto, id))
            }
            Network::Short(first_of) => Parsed::Short(ANY_PROTO, packet.forget_datagram(first_of)),
            Network::Other => Parsed::Other,
        }
    }

    /// As [`Parse::parse`], for a whole TCP or UDP packet without options of IPv4 and without extension headers. Returns
    /// `None` for all others, and if the linear part of the skb is too short.
    #[inline(always)]
    fn parse_plain(packet: &impl Packet) -> Option<Plain> {
        let number = Self::plain_network(packet, packet.l3())?;
        match Proto::from_number(number) {
            Some(proto @ (Proto::TCP | Proto::UDP)) => transport(packet, proto, Self::plain_l4(packet)),
            Some(Proto::SCTP) | None => None,
        }
    }

    /// The offset of the transport header that [`Parse::parse_plain`] read.
    #[inline(always)]
    fn plain_l4(packet: &impl Packet) -> usize {
        packet.l3() + Self::HEADER_LEN
    }

    /// The address that a packet with a network header dials.
    #[inline(always)]
    fn destination(packet: &impl Packet) -> Option<Self> {
        packet.address(packet.l3() + addresses_offset(Self::FAMILY) + size_of::<Self>())
    }

    /// Source and destination of a packet with a network header.
    #[inline(always)]
    fn source_and_destination(packet: &impl Packet) -> Option<[Self; 2]> {
        packet.addresses(packet.l3() + addresses_offset(Self::FAMILY))
    }
}

/// The transport header of a packet, as far as the path reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    pub transport: Transport,
    pub sport: u16,
    pub dport: u16,
}

impl Plain {
    /// Three words, for a function that takes only numbers: protocol, flags, ports.
    #[inline(always)]
    pub const fn to_words(self) -> [u32; 3] {
        let Self { transport: Transport { proto, tcp }, sport, dport } = self;
        [proto as u32, tcp.0, (sport as u32) << 16 | dport as u32]
    }

    #[inline(always)]
    pub const fn from_words([proto, tcp, ports]: [u32; 3]) -> Self {
        let proto = if proto == Proto::TCP as u32 { Proto::TCP } else { Proto::UDP };
        Self { transport: Transport { proto, tcp: TcpFlags(tcp) }, sport: (ports >> 16) as u16, dport: ports as u16 }
    }
}

/// The protocol under which IPv6 fragments are noted: they may not name it, and the identification does not depend on
/// it (RFC 8200 section 4.5).
pub(crate) const ANY_PROTO: Proto = Proto::UDP;

/// The offset of the source address in the network header. The destination follows it.
const IPV4_ADDRESSES: usize = core::mem::offset_of!(Ipv4Hdr, src_addr);
const IPV6_ADDRESSES: usize = core::mem::offset_of!(Ipv6Hdr, src_addr);

/// Offset of the byte that holds CWR to FIN in a TCP header (RFC 9293 section 3.1).
const TCP_FLAGS: usize = core::mem::offset_of!(TcpHdr, _bitfield_1) + 1;
/// Offset of the sequence number.
const TCP_SEQUENCE: usize = core::mem::offset_of!(TcpHdr, seq);

/// The flag "more fragments" and the fragment offset of an IPv4 header (RFC 791), and the offset alone.
const IPV4_FRAGMENT_BITS: u16 = 0x3fff;
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;
/// The number of the fragment header (IANA "IPv6 Extension Header Types").
const IPV6_FRAGMENT_HEADER: u8 = 44;
/// The fragment offset in the third and fourth byte of an IPv6 fragment header (RFC 8200 section 4.5).
const IPV6_FRAGMENT_OFFSET: u16 = 0xfff8;
/// Without this flag and at offset 0, a packet is whole, and unrelated to fragments of the same identification (RFC
/// 6946).
const IPV6_MORE_FRAGMENTS: u16 = 1;

impl Parse for [u8; 4] {
    const ICMP: u8 = 1;
    const HEADER_LEN: usize = Ipv4Hdr::LEN;

    #[inline(always)]
    fn proto_of_fragment(number: u8) -> Option<Proto> {
        Proto::from_number(number)
    }

    #[inline(always)]
    fn network(packet: &impl Packet, l3: usize, tuple: &mut Tuple<Self>) -> Network {
        let Some(ip) = packet.header::<Ipv4Hdr>(l3) else { return Network::Short(None) };
        let header_len = usize::from(ip.vihl & 0x0f) * 4;
        if ip.vihl >> 4 != 4 || header_len < Ipv4Hdr::LEN {
            return Network::Other;
        }
        if packet.read_addresses(l3 + IPV4_ADDRESSES, tuple).is_none() {
            return Network::Short(None);
        }
        let (number, l4) = (ip.proto, l3 + header_len);
        let bits = u16::from_be_bytes(ip.frags) & IPV4_FRAGMENT_BITS;
        if bits == 0 {
            return Network::Carries { number, l4, first_of: None };
        }
        let id = u32::from(u16::from_be_bytes(ip.id));
        if bits & IPV4_FRAGMENT_OFFSET != 0 {
            return Network::Fragment { number, id };
        }
        Network::Carries { number, l4, first_of: Some(DatagramId::new(id)) }
    }

    #[inline(always)]
    fn plain_network(packet: &impl Packet, l3: usize) -> Option<u8> {
        const VERSION_4_LEN_20: u8 = 0x45;
        let ip = packet.header::<Ipv4Hdr>(l3)?;
        if ip.vihl != VERSION_4_LEN_20 || u16::from_be_bytes(ip.frags) & IPV4_FRAGMENT_BITS != 0 {
            return None;
        }
        Some(ip.proto)
    }

    #[inline(always)]
    fn write_addresses(
        packet: &mut impl Rewrite,
        l3: usize,
        from: &Tuple<Self>,
        to: &Tuple<Self>,
    ) -> Result<(), Refused> {
        const CHECK: usize = core::mem::offset_of!(Ipv4Hdr, check);
        let check = u16::from_ne_bytes(packet.header::<[u8; 2]>(l3 + CHECK).ok_or(Refused)?);
        let diff = checksum::diff(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
        packet.write(l3 + CHECK, &checksum::adjust(check, diff).to_ne_bytes())?;
        packet.write_addresses(l3 + IPV4_ADDRESSES, to)
    }

    #[inline(always)]
    fn said_len(packet: &impl Packet, l3: usize) -> Option<u32> {
        match u16::from_be_bytes(packet.header::<[u8; 2]>(l3 + core::mem::offset_of!(Ipv4Hdr, tot_len))?) {
            0 => None,
            len => Some(len.into()),
        }
    }

    #[inline(always)]
    fn write_len(packet: &mut impl PacketMut, l3: usize, len: u16) -> Result<(), Refused> {
        const CHECK: usize = core::mem::offset_of!(Ipv4Hdr, check);
        const LEN: usize = core::mem::offset_of!(Ipv4Hdr, tot_len);
        let old = packet.header::<[u8; 2]>(l3 + LEN).ok_or(Refused)?;
        let check = u16::from_ne_bytes(packet.header::<[u8; 2]>(l3 + CHECK).ok_or(Refused)?);
        let diff = checksum::diff(u16::from_ne_bytes(old).into(), checksum::port_word(len));
        packet.write(l3 + CHECK, &checksum::adjust(check, diff).to_ne_bytes())?;
        packet.write(l3 + LEN, &len.to_be_bytes())
    }

    #[inline(always)]
    fn hops(packet: &impl Packet, l3: usize) -> Option<u8> {
        packet.header::<[u8; 1]>(l3 + core::mem::offset_of!(Ipv4Hdr, ttl)).map(|[ttl]| ttl)
    }

    #[inline(always)]
    fn spend_hop(packet: &mut impl Rewrite, l3: usize) -> Result<(), Refused> {
        // TTL, protocol and checksum, in one word.
        let offset = l3 + core::mem::offset_of!(Ipv4Hdr, ttl);
        let [ttl, proto, c0, c1] = packet.header::<[u8; 4]>(offset).ok_or(Refused)?;
        let left = ttl.wrapping_sub(1);
        let word = |ttl: u8| u32::from(u16::from_ne_bytes([ttl, proto]));
        let check = checksum::adjust(u16::from_ne_bytes([c0, c1]), checksum::diff(word(ttl), word(left)));
        let [c0, c1] = check.to_ne_bytes();
        packet.write(offset, &[left, proto, c0, c1])
    }
}

impl Parse for [u8; 16] {
    const ICMP: u8 = 58;
    const HEADER_LEN: usize = size_of::<Ipv6Hdr>();

    #[inline(always)]
    fn said_len(packet: &impl Packet, l3: usize) -> Option<u32> {
        match u16::from_be_bytes(packet.header::<[u8; 2]>(l3 + core::mem::offset_of!(Ipv6Hdr, payload_len))?) {
            0 => None,
            len => Some(u32::from(len) + size_of::<Ipv6Hdr>() as u32),
        }
    }

    #[inline(always)]
    fn write_len(packet: &mut impl PacketMut, l3: usize, len: u16) -> Result<(), Refused> {
        let payload_len = len.wrapping_sub(size_of::<Ipv6Hdr>() as u16);
        packet.write(l3 + core::mem::offset_of!(Ipv6Hdr, payload_len), &payload_len.to_be_bytes())
    }

    #[inline(always)]
    fn hops(packet: &impl Packet, l3: usize) -> Option<u8> {
        packet.header::<[u8; 1]>(l3 + core::mem::offset_of!(Ipv6Hdr, hop_limit)).map(|[hops]| hops)
    }

    #[inline(always)]
    fn spend_hop(packet: &mut impl Rewrite, l3: usize) -> Result<(), Refused> {
        let hops = Self::hops(packet, l3).ok_or(Refused)?;
        packet.write(l3 + core::mem::offset_of!(Ipv6Hdr, hop_limit), &[hops.wrapping_sub(1)])
    }

    /// An extension header behind the fragment header is in the first fragment, with all that follows it.
    #[inline(always)]
    fn proto_of_fragment(number: u8) -> Option<Proto> {
        if extension_unit(number).is_some() { Some(ANY_PROTO) } else { Proto::from_number(number) }
    }

    #[inline(always)]
    fn network(packet: &impl Packet, l3: usize, tuple: &mut Tuple<Self>) -> Network {
        // The bytes in front of the addresses.
        let Some(ip) = packet.header::<[u8; IPV6_ADDRESSES]>(l3) else { return Network::Short(None) };
        if ip[0] >> 4 != 6 {
            return Network::Other;
        }
        if packet.read_addresses(l3 + IPV6_ADDRESSES, tuple).is_none() {
            return Network::Short(None);
        }
        let (mut next, mut offset) = (ip[core::mem::offset_of!(Ipv6Hdr, next_hdr)], l3 + size_of::<Ipv6Hdr>());
        let mut first_of = None;
        for _ in 0..EXTENSION_HEADERS_MAX {
            let unit = match extension_unit(next) {
                Some(unit) => unit,
                None if next == IPV6_FRAGMENT_HEADER => {
                    let Some(header) = packet.header::<[u8; 8]>(offset) else { return Network::Short(first_of) };
                    let [following, _, o0, o1, i0, i1, i2, i3] = header;
                    let id = u32::from_be_bytes([i0, i1, i2, i3]);
                    let bits = u16::from_be_bytes([o0, o1]);
                    if bits & IPV6_FRAGMENT_OFFSET != 0 {
                        return Network::Fragment { number: following, id };
                    }
                    if bits & IPV6_MORE_FRAGMENTS != 0 {
                        first_of = Some(DatagramId::new(id));
                    }
                    (next, offset) = (following, offset + 8);
                    continue;
                }
                None => return Network::Carries { number: next, l4: offset, first_of },
            };
            let Some([following, len]) = packet.header::<[u8; 2]>(offset) else { return Network::Short(first_of) };
            next = following;
            // AH (RFC 4302) counts 4-byte units less two, the others (RFC 8200) 8-byte units less one.
            offset += if unit == 4 { (usize::from(len) + 2) * 4 } else { (usize::from(len) + 1) * 8 };
        }
        Network::Carries { number: next, l4: offset, first_of }
    }

    #[inline(always)]
    fn plain_network(packet: &impl Packet, l3: usize) -> Option<u8> {
        let ip = packet.header::<[u8; IPV6_ADDRESSES]>(l3)?;
        if ip[0] >> 4 != 6 {
            return None;
        }
        Some(ip[core::mem::offset_of!(Ipv6Hdr, next_hdr)])
    }

    #[inline(always)]
    fn write_addresses(packet: &mut impl Rewrite, l3: usize, _: &Tuple<Self>, to: &Tuple<Self>) -> Result<(), Refused> {
        packet.write_addresses(l3 + IPV6_ADDRESSES, to)
    }
}

/// The unit, in bytes, of the length field of an extension header that names the next header. None for other numbers
/// (IANA "IPv6 Extension Header Types"); the fragment header has no length field.
#[inline(always)]
const fn extension_unit(number: u8) -> Option<usize> {
    match number {
        0 | 43 | 60 => Some(8),
        51 => Some(4),
        _ => None,
    }
}

/// A packet without ports. For IPv6, later fragments may name only an extension header and would wait for a first
/// fragment with ports. This one shows that there are none.
#[inline(always)]
fn another(first_of: Option<DatagramId>, family: Family) -> Parsed {
    match family {
        Family::V6 if first_of.is_some() => Parsed::Short(ANY_PROTO, first_of),
        Family::V4 | Family::V6 => Parsed::Other,
    }
}

/// The transport header at `l4`. None if the packet ends before that.
#[inline(always)]
fn transport(packet: &impl Packet, proto: Proto, l4: usize) -> Option<Plain> {
    let mut tcp = TcpFlags::default();
    // The transport protocols of Services begin with source port and destination port.
    let [s0, s1, d0, d1] = if proto == Proto::TCP {
        let header = packet.header::<[u8; TcpHdr::LEN]>(l4)?;
        let high = u16::from_be_bytes([header[TCP_SEQUENCE], header[TCP_SEQUENCE + 1]]);
        tcp = TcpFlags::new(header[TCP_FLAGS]).at(Sequence::of(high));
        [header[0], header[1], header[2], header[3]]
    } else {
        let [s0, s1, d0, d1, ..] = packet.header::<[u8; UdpHdr::LEN]>(l4)?;
        [s0, s1, d0, d1]
    };
    let (sport, dport) = (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]));
    Some(Plain { transport: Transport { proto, tcp }, sport, dport })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_headers_survive_the_words() {
        let segment = TcpFlags::new(TcpFlags::SYN | TcpFlags::ACK).at(Sequence::of(0xabcd));
        for (proto, tcp) in [(Proto::TCP, segment), (Proto::TCP, TcpFlags::new(0)), (Proto::UDP, TcpFlags::default())] {
            let plain = Plain { transport: Transport { proto, tcp }, sport: 0xfffe, dport: 0x8001 };
            assert_eq!(Plain::from_words(plain.to_words()), plain);
        }
    }
}
