//! Performs a verdict on the bytes of a packet: addresses, ports, checksums, and the Ethernet header of what is sent
//! back.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;

use crate::addr::Proto;
use crate::checksum;
use crate::packet::{Refused, Rewrite, Summed, ZeroSum};
use crate::parse::{Headers, Parse};
use crate::table::Tuple;

/// Rewrites a packet from the tuple `from` to the tuple `to`.
///
/// Direct writes come first: the checksum helper invalidates what the verifier knows of the packet.
#[inline(always)]
pub fn translate<A: Parse>(
    packet: &mut impl Rewrite,
    headers: &Headers,
    from: &Tuple<A>,
    to: &Tuple<A>,
) -> Result<(), Refused> {
    let l3 = packet.l3();
    A::write_addresses(packet, l3, from, to)?;
    let (check, zero) = match headers.proto {
        Proto::TCP => (offset_of!(TcpHdr, check), ZeroSum::Valid),
        Proto::UDP => (offset_of!(UdpHdr, check), ZeroSum::Absent),
        // The checksum does not cover addresses (RFC 9260 section 6.8), and the ports are kept.
        Proto::SCTP => return Ok(()),
    };
    let ports_change = from.sport != to.sport || from.dport != to.dport;
    if ports_change {
        let ([s0, s1], [d0, d1]) = (to.sport.to_be_bytes(), to.dport.to_be_bytes());
        packet.write(headers.l4, &[s0, s1, d0, d1])?;
    }
    let diff = checksum::diff(from.src.sum() + from.dst.sum(), to.src.sum() + to.dst.sum());
    packet.adjust_l4_checksum(headers.l4 + check, diff, Summed::PseudoHeader(A::FAMILY), zero)?;
    if ports_change {
        let words = |tuple: &Tuple<A>| checksum::port_word(tuple.sport) + checksum::port_word(tuple.dport);
        let diff = checksum::diff(words(from), words(to));
        packet.adjust_l4_checksum(headers.l4 + check, diff, Summed::Payload, zero)?;
    }
    Ok(())
}

/// Swaps the Ethernet addresses of a packet that is sent back. A link without a header has none.
#[inline(always)]
pub fn turn_round<P: Rewrite>(packet: &mut P) -> Result<(), Refused> {
    if P::LINK_LEN == 0 {
        return Ok(());
    }
    // Both addresses at once, in words: the compiler turns a copy of bytes into a call.
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = packet.header::<[u8; 12]>(0).ok_or(Refused)?;
    packet.write(0, &[s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5])
}
