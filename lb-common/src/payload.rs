//! The payload and the options of a segment, where the rules change them.

use network_types::tcp::TcpHdr;

use crate::checksum;
use crate::header::located::{CHECK, Located, adjust, word_sum};
use crate::packet::{PacketMut, Refused, Summed, ZeroSum};
use crate::parse::Parse;
use crate::work::Work;

/// The protocol number of TCP, which the pseudo header has.
const TCP: u8 = 6;

/// Puts [`Work::text`] in place of the payload of the segment in the records.
#[inline(always)]
pub fn replace_payload<A: Parse>(packet: &mut impl PacketMut, work: &Work<A>) -> Result<(), Refused> {
    let Work { located, text, text_len, .. } = work;
    let (l4, end) = located.offsets(packet);
    let l3 = packet.forget_offset(located.l3 as usize);
    let is_unfinished = located.segment.payload_len == 0 || is_unfinished(packet, l4)?;
    // In two steps: what the device summed is forgotten where a packet grows, and so is the length of its segments.
    packet.set_len(end as u32)?;
    let text_len = packet.forget_offset(*text_len as usize);
    let new_len = located.header_len + text_len as u32;
    if text_len != 0 {
        packet.set_len((end + text_len) as u32)?;
        packet.write_text(end, text, text_len)?;
    }
    A::write_len(packet, l3, (located.l4 - located.l3) as u16 + new_len as u16)?;
    if is_unfinished {
        let diff = checksum::diff(word_sum(located.len), word_sum(new_len));
        packet.adjust_l4_checksum(l4 + CHECK, diff, Summed::PseudoHeader(A::FAMILY), ZeroSum::Valid)?;
        adjust(packet, l4, 0, work.text_sum)
    } else {
        packet.write(l4 + CHECK, &[0, 0])?;
        let header_sum = packet.sum_words(l4, end).ok_or(Refused)?;
        let addresses = work.key.tuple.src.sum() + work.key.tuple.dst.sum();
        let pseudo_sum = addresses + word_sum(new_len) + u32::from(u16::from_ne_bytes([0, TCP]));
        let check = !checksum::fold(header_sum + pseudo_sum + work.text_sum);
        packet.write(l4 + CHECK, &check.to_ne_bytes())
    }
}

/// Whether the device is to finish the checksum (CHECKSUM_PARTIAL): then a change of the payload changes nothing of
/// what is stored. If it is not, the checksum is wrong afterwards, and to be summed anew.
#[inline(always)]
fn is_unfinished(packet: &mut impl PacketMut, l4: usize) -> Result<bool, Refused> {
    const PROBE: u32 = 0x1234;
    let before = packet.header::<[u8; 2]>(l4 + CHECK).ok_or(Refused)?;
    adjust(packet, l4, 0, PROBE)?;
    let after = packet.header::<[u8; 2]>(l4 + CHECK).ok_or(Refused)?;
    Ok(u16::from_ne_bytes(before) == u16::from_ne_bytes(after))
}

/// Gives the options of a SYN that would let it carry data, or numbers of another stream, a kind that no stack knows.
#[inline(always)]
pub fn clear_options(packet: &mut impl PacketMut, located: &Located) -> Result<(), Refused> {
    let (l4, end) = located.offsets(packet);
    let mut offset = packet.forget_offset(l4 + TcpHdr::LEN);
    for _ in 0..OPTIONS_MAX {
        if offset >= end {
            return Ok(());
        }
        let next = clear_option(packet, l4, offset)?;
        offset = packet.forget_offset(next);
    }
    // No stack sends so many.
    if offset >= end { Ok(()) } else { Err(Refused) }
}

/// Clears the option at `offset`, and returns the offset of the next one; far behind the end, if there is none.
#[inline(always)]
fn clear_option(packet: &mut impl PacketMut, l4: usize, offset: usize) -> Result<usize, Refused> {
    const BEHIND: usize = 4_096;
    let Some([kind]) = packet.header::<[u8; 1]>(offset) else { return Ok(BEHIND) };
    if kind == options::NOTHING {
        return Ok(offset + 1);
    }
    let Some([len]) = packet.header::<[u8; 1]>(offset + 1) else { return Ok(BEHIND) };
    if kind == options::END || len < 2 {
        return Ok(BEHIND);
    }
    let is_experiment = kind == options::EXPERIMENT
        && packet.header::<[u8; 2]>(offset + 2).is_some_and(|[e0, e1]| [e0, e1] == options::FAST_OPEN_EXPERIMENT);
    if kind == options::FAST_OPEN || kind == options::MULTIPATH || is_experiment {
        packet.write(offset, &[options::UNKNOWN])?;
        // The byte is the first or second one of its word, counted from the beginning of the header.
        let is_second = (offset - l4) & 1 != 0;
        let word = |kind: u8| u32::from(u16::from_ne_bytes(if is_second { [0, kind] } else { [kind, 0] }));
        adjust(packet, l4, word(kind), word(options::UNKNOWN))?;
    }
    Ok(offset + usize::from(len))
}

/// Most options that are read, padding included. Linux sends five, and up to three more with these extensions.
const OPTIONS_MAX: usize = 16;

/// IANA "TCP Option Kind Numbers".
mod options {
    pub const END: u8 = 0;
    pub const NOTHING: u8 = 1;
    /// RFC 8684.
    pub const MULTIPATH: u8 = 30;
    /// RFC 7413.
    pub const FAST_OPEN: u8 = 34;
    /// RFC 4727, with the identifier of Fast Open behind it (RFC 6994).
    pub const EXPERIMENT: u8 = 254;
    pub const FAST_OPEN_EXPERIMENT: [u8; 2] = [0xf9, 0x89];
    /// The other kind for experiments, without an identifier that any stack knows.
    pub const UNKNOWN: u8 = 253;
}
