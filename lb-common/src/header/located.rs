//! A segment and its place in its packet: what the rules read of it, and how their edit changes its header.
//!
//! Checksums are changed by differences, for the device may still have to finish them. Direct writes come first: the
//! checksum helper invalidates what the verifier knows of the packet.

use core::mem::offset_of;

use network_types::tcp::TcpHdr;

use super::rules::{Edit, Segment};
use crate::checksum;
use crate::packet::{Packet, PacketMut, Refused, Summed, ZeroSum};
use crate::parse::{Parse, TcpFlags};

/// Offset of the checksum in a TCP header.
pub const CHECK: usize = offset_of!(TcpHdr, check);
const SEQ: usize = offset_of!(TcpHdr, seq);
/// The byte with the data offset, and the one with the flags.
const OFFSET_AND_FLAGS: usize = offset_of!(TcpHdr, _bitfield_1);
const PSH: u8 = 0x08;
const URG: u8 = 0x20;

/// A segment and its place.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Located {
    pub segment: Segment,
    /// Offset of the network header.
    pub l3: u32,
    /// Offset of the TCP header.
    pub l4: u32,
    /// The length of the TCP header.
    pub header_len: u32,
    /// The length of header and payload.
    pub len: u32,
}

impl Located {
    /// No segment.
    pub const NOWHERE: Self = Self { segment: Segment::NONE, l3: 0, l4: 0, header_len: 0, len: 0 };

    /// Reads the segment whose TCP header is at `l4`. False if the packet ends before the header does.
    #[inline(always)]
    pub fn read<A: Parse>(&mut self, packet: &impl Packet, l4: usize) -> bool {
        let Some(tcp) = packet.header::<[u8; TcpHdr::LEN]>(l4) else { return false };
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = tcp;
        let segment = &mut self.segment;
        segment.flags = flags;
        segment.seq = u32::from_be_bytes([s0, s1, s2, s3]);
        segment.ack = u32::from_be_bytes([a0, a1, a2, a3]);
        segment.window = u16::from_be_bytes([w0, w1]);
        let l3 = packet.l3();
        let network_len = A::said_len(packet, l3).unwrap_or(packet.network_len());
        (self.l3, self.l4, self.header_len) = (l3 as u32, l4 as u32, u32::from(offset >> 4) * 4);
        self.len = network_len.wrapping_sub((l4 - l3) as u32);
        segment.payload_len = self.len.wrapping_sub(self.header_len);
        self.header_len >= TcpHdr::LEN as u32 && self.len >= self.header_len && network_len <= packet.network_len()
    }

    /// Offset of the TCP header, and of the payload.
    #[inline(always)]
    pub fn offsets(&self, packet: &impl Packet) -> (usize, usize) {
        let l4 = packet.forget_offset(self.l4 as usize);
        (l4, packet.forget_offset(l4 + self.header_len as usize))
    }

    /// Gives the segment the numbers of the edit.
    #[inline(always)]
    pub fn renumber(&self, packet: &mut impl PacketMut, edit: &Edit) -> Result<(), Refused> {
        let Segment { seq, ack, window, .. } = self.segment;
        if (seq, ack, window) == (edit.seq, edit.ack, edit.window) {
            return Ok(());
        }
        let (l4, _) = self.offsets(packet);
        let old = word_sum(seq) + word_sum(ack) + checksum::port_word(window);
        let new = word_sum(edit.seq) + word_sum(edit.ack) + checksum::port_word(edit.window);
        let ([s0, s1, s2, s3], [a0, a1, a2, a3]) = (edit.seq.to_be_bytes(), edit.ack.to_be_bytes());
        packet.write(l4 + SEQ, &[s0, s1, s2, s3, a0, a1, a2, a3])?;
        packet.write(l4 + offset_of!(TcpHdr, window), &edit.window.to_be_bytes())?;
        adjust(packet, l4, old, new)
    }

    /// Turns the flags into those of data in mid-stream.
    #[inline(always)]
    pub fn make_data(&self, packet: &mut impl PacketMut) -> Result<(), Refused> {
        let (l4, _) = self.offsets(packet);
        let [offset, flags] = packet.header::<[u8; 2]>(l4 + OFFSET_AND_FLAGS).ok_or(Refused)?;
        let new = (flags | PSH) & !(TcpFlags::FIN | URG);
        packet.write(l4 + OFFSET_AND_FLAGS, &[offset, new])?;
        let word = |flags: u8| u32::from(u16::from_ne_bytes([offset, flags]));
        adjust(packet, l4, word(flags), word(new))
    }
}

/// Adjusts the checksum to words of header or payload that changed.
#[inline(always)]
pub fn adjust(packet: &mut impl PacketMut, l4: usize, old: u32, new: u32) -> Result<(), Refused> {
    packet.adjust_l4_checksum(l4 + CHECK, checksum::diff(old, new), Summed::Payload, ZeroSum::Valid)
}

/// The unfolded sum of a word in the byte order of the wire.
#[inline(always)]
pub const fn word_sum(word: u32) -> u32 {
    let [a, b, c, d] = word.to_be_bytes();
    u16::from_ne_bytes([a, b]) as u32 + u16::from_ne_bytes([c, d]) as u32
}
