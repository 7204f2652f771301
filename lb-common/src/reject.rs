//! ICMP errors in answer to a packet, made out of the packet itself: from the address that was dialled, quoting the whole
//! network header and the transport header (RFC 792, RFC 4443).

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use crate::addr::{Addr, Family, Proto};
use crate::checksum;
use crate::packet::{Packet, PacketMut, Refused, Summed, ZeroSum};
use crate::parse::{Headers, Parse};
use crate::rewrite::turn_round;
use crate::table::{Counter, RejectBucket, Tuple};
use crate::work::Work;

const TTL: u8 = 64;
/// The common header of SCTP (RFC 9260 section 3.1).
const SCTP_LEN: usize = 12;

/// An ICMP error. Two plain numbers: the verifier refuses a field that only one kind of message has, if it is passed to a
/// function ("R4 !read_ok").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    kind: Kind,
    /// The longest packet that the way takes; 0 unless too big.
    mtu_bytes: u16,
}

/// What an ICMP error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    PortUnreachable,
    HopsExceeded,
    TooBig,
}

impl Message {
    pub const PORT_UNREACHABLE: Self = Self { kind: Kind::PortUnreachable, mtu_bytes: 0 };
    /// The hop limit of a packet in transit is used up.
    pub const HOPS_EXCEEDED: Self = Self { kind: Kind::HopsExceeded, mtu_bytes: 0 };

    /// The way takes packets of this length only (RFC 1191, RFC 8201).
    #[inline(always)]
    pub const fn too_big(mtu_bytes: u16) -> Self {
        Self { kind: Kind::TooBig, mtu_bytes }
    }

    /// The counter of packets in transit that get the answer.
    #[inline(always)]
    pub(crate) const fn counter(self) -> Counter {
        match self.kind {
            Kind::PortUnreachable => Counter::Rejected,
            Kind::HopsExceeded => Counter::HopsExceeded,
            Kind::TooBig => Counter::TooLong,
        }
    }

    /// The header of the message: type, code, no checksum yet, and the rest.
    #[inline(always)]
    const fn header(self, family: Family) -> [u8; 8] {
        let (kind, code) = match (self.kind, family) {
            (Kind::PortUnreachable, Family::V4) => (3, 3),
            (Kind::PortUnreachable, Family::V6) => (1, 4),
            (Kind::HopsExceeded, Family::V4) => (11, 0),
            (Kind::HopsExceeded, Family::V6) => (3, 0),
            (Kind::TooBig, Family::V4) => (3, 4),
            (Kind::TooBig, Family::V6) => (2, 0),
        };
        let [m0, m1] = self.mtu_bytes.to_be_bytes();
        [kind, code, 0, 0, 0, 0, m0, m1]
    }
}

/// A family whose ICMP errors can be written.
pub trait Answer: Parse {
    /// The sum of the network header as quoted. None if the header is too long.
    fn header_sum(packet: &impl Packet, l4: usize) -> Option<u32>;

    /// Puts a network and an ICMP header in front of `quoted_len` bytes whose sum is `quoted_sum`. `answer` holds the
    /// addresses.
    fn prepend(
        packet: &mut impl PacketMut,
        message: Message,
        answer: &Tuple<Self>,
        quoted_len: u16,
        quoted_sum: u32,
    ) -> Result<(), Refused>;
}

/// Turns the packet into its own ICMP error, ready to be sent back out of the interface that it came in by.
///
/// A function of its own: its variables would otherwise take stack from every packet. The addresses of the answer are
/// in `work.to`.
#[inline(never)]
pub fn answer<A: Answer>(
    packet: &mut impl PacketMut,
    headers: &Headers,
    message: Message,
    work: &mut Work<A>,
) -> Result<(), Refused> {
    work.to.set_reversed(&work.key.tuple);
    let header_sum = A::header_sum(packet, headers.l4).ok_or(Refused)?;
    let (transport_len, transport_sum) = quoted_transport(packet, headers)?;
    let end = headers.l4 + transport_len;
    packet.set_len(end as u32)?;
    let quoted_len = (end - packet.l3()) as u16;
    A::prepend(packet, message, &work.to, quoted_len, header_sum + transport_sum)?;
    turn_round(packet)
}

/// Length and sum of the transport header as it will be quoted.
#[inline(always)]
fn quoted_transport(packet: &mut impl PacketMut, headers: &Headers) -> Result<(usize, u32), Refused> {
    let l4 = headers.l4;
    let (len, check) = match headers.proto {
        Proto::TCP => (TcpHdr::LEN, l4 + offset_of!(TcpHdr, check)),
        Proto::UDP => (UdpHdr::LEN, l4 + offset_of!(UdpHdr, check)),
        // The common header of RFC 9260. Its checksum is not an Internet checksum.
        Proto::SCTP => return Ok((SCTP_LEN, packet.sum_words(l4, l4 + SCTP_LEN).ok_or(Refused)?)),
    };
    let sum = packet.sum_words(l4, l4 + len).ok_or(Refused)?;
    let stored = packet.header::<[u8; 2]>(check).ok_or(Refused)?;
    // The device may still have to finish the sum (CHECKSUM_PARTIAL). If so, a payload change leaves the field alone.
    packet.adjust_l4_checksum(check, 1, Summed::Payload, ZeroSum::Valid)?;
    if packet.header::<[u8; 2]>(check).ok_or(Refused)? == stored {
        // The device replaces the seed in the field. The quoted transport header, which ends the packet, then sums to
        // the complement of the seed. If no device finishes the sum, the sum is never checked.
        return Ok((len, u32::from(!u16::from_ne_bytes(stored))));
    }
    packet.write(check, &stored)?;
    Ok((len, sum))
}

impl Answer for [u8; 4] {
    /// A valid IPv4 header sums to zero, options included. So nothing has to be read.
    #[inline(always)]
    fn header_sum(_: &impl Packet, _: usize) -> Option<u32> {
        Some(0)
    }

    #[inline(always)]
    fn prepend(
        packet: &mut impl PacketMut,
        message: Message,
        answer: &Tuple<Self>,
        quoted_len: u16,
        quoted_sum: u32,
    ) -> Result<(), Refused> {
        const LEN: usize = Ipv4Hdr::LEN + 8;
        packet.insert_before_network::<LEN>()?;
        let [len0, len1] = (LEN as u16 + quoted_len).to_be_bytes();
        // Precedence "internetwork control" (0xc0), as in the kernel's own errors; do not fragment.
        let mut header = [0x45, 0xc0, len0, len1, 0, 0, 0x40, 0, TTL, 1, 0, 0];
        let sum = checksum::sum(&header) + answer.src.sum() + answer.dst.sum();
        [header[10], header[11]] = (!checksum::fold(sum)).to_ne_bytes();
        packet.write(packet.l3(), &header)?;
        packet.write_addresses(packet.l3() + offset_of!(Ipv4Hdr, src_addr), answer)?;
        let mut icmp = message.header(Self::FAMILY);
        [icmp[2], icmp[3]] = (!checksum::fold(checksum::sum(&icmp) + quoted_sum)).to_ne_bytes();
        packet.write(packet.l3() + Ipv4Hdr::LEN, &icmp)
    }
}

impl Answer for [u8; 16] {
    #[inline(always)]
    fn header_sum(packet: &impl Packet, l4: usize) -> Option<u32> {
        packet.sum_words(packet.l3(), l4)
    }

    #[inline(always)]
    fn prepend(
        packet: &mut impl PacketMut,
        message: Message,
        answer: &Tuple<Self>,
        quoted_len: u16,
        quoted_sum: u32,
    ) -> Result<(), Refused> {
        const IP_LEN: usize = size_of::<Ipv6Hdr>();
        const NEXT_ICMPV6: u8 = 58;
        packet.insert_before_network::<{ IP_LEN + 8 }>()?;
        let payload_len = 8 + quoted_len;
        let [len0, len1] = payload_len.to_be_bytes();
        packet.write(packet.l3(), &[0x60, 0, 0, 0, len0, len1, NEXT_ICMPV6, TTL])?;
        packet.write_addresses(packet.l3() + offset_of!(Ipv6Hdr, src_addr), answer)?;
        let pseudo = answer.src.sum() + answer.dst.sum() + checksum::port_word(payload_len);
        let next = checksum::port_word(u16::from(NEXT_ICMPV6));
        let mut icmp = message.header(Self::FAMILY);
        let sum = checksum::sum(&icmp) + pseudo + next + quoted_sum;
        [icmp[2], icmp[3]] = (!checksum::fold(sum)).to_ne_bytes();
        packet.write(packet.l3() + IP_LEN, &icmp)
    }
}

impl RejectBucket {
    /// Takes a token if one is left. After a second the bucket is refilled to `per_sec`.
    ///
    /// Two CPUs may take the same token: an edge may answer slightly more often.
    #[inline(always)]
    pub const fn take(&mut self, now_jiffies: u64, per_sec: u32, second_jiffies: u64) -> bool {
        let now_jiffies = now_jiffies as u32;
        let elapsed_jiffies = now_jiffies.wrapping_sub(self.refilled_jiffies).cast_signed();
        let mut tokens = self.tokens;
        // Negative if another CPU's clock is ahead (by one tick: tolerated), or if no token was taken for weeks.
        if elapsed_jiffies < -1 || elapsed_jiffies as i64 >= second_jiffies.cast_signed() {
            tokens = per_sec;
            self.refilled_jiffies = now_jiffies;
        }
        self.tokens = tokens.saturating_sub(1);
        tokens > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_gives_a_seconds_worth_of_tokens() {
        let mut bucket = RejectBucket { tokens: 0, refilled_jiffies: 0 };
        let mut taken = |now| (0..50).filter(|_| bucket.take(now, 10, 100)).count();
        assert_eq!([taken(1000), taken(1050), taken(1100), taken(9000)], [10, 0, 10, 10]);
        assert_eq!([taken(8_999), taken(9_000)], [0, 0], "a clock that is a tick behind gives nothing");
        assert_eq!([taken(9_000 + (1 << 31)), taken((1 << 32) + 90)], [10, 10], "after weeks");
    }
}
