//! The rules: what becomes of a segment of a connection whose header is due.
//!
//! Names as in RFC 9293: X is the client's initial sequence number, X+1 the number of its first byte. H is the length
//! of the header, so the header has the numbers X+1-H to X.

use crate::parse::TcpFlags;
use crate::table::{HeaderFlags, ProxyHeader};

/// How far a segment may begin behind the data that was seen so far: what the network lost or delivers later. Segments of
/// older connections are nearly always farther off.
const AHEAD_MAX: u32 = 1 << 20;

/// What the rules read of a TCP segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Bits of [`TcpFlags`].
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub payload_len: u32,
    /// As it is in the segment, unscaled.
    pub window: u16,
}

/// What is done with a segment before it gets its new tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Act {
    /// It gets the numbers of the edit.
    Renumber = 0,
    /// It is a SYN: it gets the numbers of the edit, and loses data and the options that would carry data.
    Open = 1,
    /// It becomes the segment with the header, in place of what it carries.
    Carry = 2,
    /// The same, after a copy of it was re-injected, which follows it.
    Precede = 3,
    /// It gets the numbers of the edit, after a copy of it was re-injected.
    Double = 4,
    /// It is dropped.
    Drop = 5,
}

/// The outcome for a segment.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    pub act: Act,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    /// The backend has acknowledged the header: the row is to be deleted.
    pub is_acknowledged: bool,
    /// The row after the segment.
    pub row: ProxyHeader,
}

impl Segment {
    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it begins a connection.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        TcpFlags::new(self.flags).opens()
    }

    /// The first number behind the segment.
    #[inline(always)]
    const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.payload_len).wrapping_add(self.has(TcpFlags::FIN) as u32)
    }

    /// Whether it carries something that the receiver counts.
    #[inline(always)]
    const fn has_content(&self) -> bool {
        self.payload_len != 0 || self.has(TcpFlags::FIN)
    }

    /// No segment.
    pub const NONE: Self = Self { flags: 0, seq: 0, ack: 0, payload_len: 0, window: 0 };

    /// The segment as it is.
    #[inline(always)]
    pub const fn unchanged(&self, row: ProxyHeader) -> Edit {
        Edit { act: Act::Renumber, seq: self.seq, ack: self.ack, window: self.window, is_acknowledged: false, row }
    }
}

impl ProxyHeader {
    /// The row of a connection that begins. `renews`: the flow had a connection before, which may still exist.
    #[inline(always)]
    pub const fn new(len_bytes: u8, is_v2: bool, renews: bool) -> Self {
        let version = if is_v2 { HeaderFlags::V2 } else { 0 };
        let renewed = if renews { HeaderFlags::RENEWED } else { 0 };
        Self {
            len_bytes,
            flags: version | renewed,
            answered: 0,
            wanted: 0,
            isn: 0,
            next_isn: 0,
            sent_jiffies: 0,
            snd_max: 0,
        }
    }

    #[inline(always)]
    pub const fn is_v2(&self) -> bool {
        self.flags & HeaderFlags::V2 != 0
    }

    #[inline(always)]
    const fn is_sent(&self) -> bool {
        self.flags & HeaderFlags::SENT != 0
    }

    /// Whether the last SYN had this number. Repeated, it begins no other connection.
    #[inline(always)]
    pub const fn is_of_syn(&self, segment: &Segment) -> bool {
        segment.opens() && self.next_isn == segment.seq
    }

    /// What this row is after the SYN of `other`, a row in the tables of another agent that has missed the answer which
    /// this one saw. `None` if it missed none.
    pub const fn with_syn_of(&self, other: &Self) -> Option<Self> {
        let is_missed = self.answered != 0 && other.answered == 0 && other.flags & HeaderFlags::RENEWED == 0;
        if is_missed { Some(Self { next_isn: other.next_isn, ..*self }) } else { None }
    }

    /// The number of the header's first byte, if the connection begins with this number.
    #[inline(always)]
    const fn begin(&self, isn: u32) -> u32 {
        isn.wrapping_add(1).wrapping_sub(self.len_bytes as u32)
    }

    /// Whether this is a number of the header, if the connection begins with that one.
    #[inline(always)]
    const fn is_in_header(&self, isn: u32, number: u32) -> bool {
        number.wrapping_sub(self.begin(isn)) < self.len_bytes as u32
    }

    /// Data of the client that the backend could take for the header, in whole or in part.
    #[inline(always)]
    const fn overlaps_header(&self, segment: &Segment) -> bool {
        let begin = self.begin(self.isn);
        let from = segment.seq.wrapping_sub(begin).cast_signed();
        let to = segment.end().wrapping_sub(begin).cast_signed();
        from < self.len_bytes as i32 && to > 0
    }

    /// A segment of the client. The header is repeated after so many jiffies.
    #[inline(always)]
    pub const fn request(self, segment: &Segment, now_jiffies: u32, repeat_jiffies: u32) -> Edit {
        let mut edit = segment.unchanged(self);
        if segment.opens() {
            edit.act = Act::Open;
            edit.seq = segment.seq.wrapping_sub(self.len_bytes as u32);
            edit.row.next_isn = segment.seq;
            return edit;
        }
        if self.answered == 0 {
            // No client sends anything but a reset before the answer. A forger would, and so would a client whose answer
            // came before this row: its acknowledgement would open the backend's connection without the header. The
            // backend repeats its answer instead. A connection before this one may continue.
            let is_early = self.flags & HeaderFlags::RENEWED == 0 && !segment.has(TcpFlags::RST);
            edit.act = if is_early { Act::Drop } else { Act::Renumber };
            return edit;
        }
        self.request_answered(segment, edit, now_jiffies, repeat_jiffies)
    }

    /// A segment of the client after the backend's answer.
    #[inline(always)]
    const fn request_answered(self, segment: &Segment, mut edit: Edit, now_jiffies: u32, repeat_jiffies: u32) -> Edit {
        let first = self.isn.wrapping_add(1);
        // A keep-alive repeats the number before. A backend that has got nothing else takes it for the end of the
        // handshake, and does not repeat its answer any more.
        let is_probe = segment.seq == self.isn && !segment.has_content() && !segment.has(TcpFlags::RST);
        let offset = if is_probe { 0 } else { segment.seq.wrapping_sub(first) };
        let seen = self.snd_max.wrapping_sub(first);
        if segment.has(TcpFlags::RST) {
            // Whether the backend has the header is unknown here, and a reset must fit exactly (RFC 5961).
            if offset <= seen {
                edit.act = Act::Double;
                edit.seq = self.begin(self.isn);
            }
            return edit;
        }
        if segment.has(TcpFlags::SYN) || (segment.has_content() && self.overlaps_header(segment)) {
            edit.act = Act::Drop;
            return edit;
        }
        // Of an older connection, or what no backend accepts.
        if offset > seen.wrapping_add(AHEAD_MAX) || !segment.has(TcpFlags::ACK) {
            return edit;
        }
        if segment.end().wrapping_sub(self.snd_max).cast_signed() > 0 {
            edit.row.snd_max = segment.end();
        }
        // Before every segment with the client's first byte: a backend that sent a SYN cookie knows the connection by the
        // number of the first segment alone, and a lost header holds up all that follows it.
        let is_late = now_jiffies.wrapping_sub(self.sent_jiffies) > repeat_jiffies;
        if offset == 0 || !self.is_sent() || self.wanted != 0 || is_late {
            edit.act = if segment.has_content() { Act::Precede } else { Act::Carry };
            edit.seq = self.begin(self.isn);
            edit.row.flags |= HeaderFlags::SENT;
            edit.row.wanted = 0;
            edit.row.sent_jiffies = now_jiffies;
        }
        edit
    }

    /// A segment of the backend.
    #[inline(always)]
    pub const fn reply(self, segment: &Segment) -> Edit {
        let mut edit = segment.unchanged(self);
        if !segment.has(TcpFlags::ACK) {
            return edit;
        }
        let is_new = self.answered == 0 || self.next_isn != self.isn;
        // Exactly: the number may be near that of the connection before, whose answers are repeated.
        if is_new && segment.ack == self.begin(self.next_isn) {
            if segment.has(TcpFlags::SYN) {
                edit.row.answer();
            } else if !segment.has(TcpFlags::RST) {
                // Of an older connection: nothing else answers a SYN.
                return edit;
            }
            edit.renumber_answer(self.next_isn, segment, self.len_bytes);
            return edit;
        }
        if self.answered == 0 {
            return edit;
        }
        // The backend accepts a SYN with the number before the header. Another number in the header is that of another SYN.
        let is_of_other_syn = segment.has(TcpFlags::SYN) && segment.ack != self.begin(self.isn);
        if self.is_in_header(self.isn, segment.ack) && !is_of_other_syn {
            edit.row.wanted = if self.is_sent() { 1 } else { 0 };
            edit.renumber_answer(self.isn, segment, self.len_bytes);
            return edit;
        }
        // An acknowledgement beyond the client's data is of an older connection.
        let first = self.isn.wrapping_add(1);
        let is_of_connection = segment.ack.wrapping_sub(first) <= self.snd_max.wrapping_sub(first);
        edit.is_acknowledged = is_of_connection && self.is_sent();
        edit
    }

    /// The backend accepted the connection of the last SYN.
    #[inline(always)]
    const fn answer(&mut self) {
        self.isn = self.next_isn;
        self.snd_max = self.next_isn.wrapping_add(1);
        self.flags &= !(HeaderFlags::SENT | HeaderFlags::RENEWED);
        self.wanted = 0;
        self.answered = 1;
    }

    /// The sequence number that the client knows, for one that an ICMP error quotes: of the SYN, or of the segment with
    /// the header.
    #[inline(always)]
    pub const fn quoted(&self, seq: u32) -> u32 {
        let last = self.quoted_of(self.next_isn, seq);
        if last == seq && self.answered != 0 { self.quoted_of(self.isn, seq) } else { last }
    }

    #[inline(always)]
    const fn quoted_of(&self, isn: u32, seq: u32) -> u32 {
        if seq == isn.wrapping_sub(self.len_bytes as u32) {
            isn
        } else if self.is_in_header(isn, seq) {
            isn.wrapping_add(1)
        } else {
            seq
        }
    }
}

impl Edit {
    /// An acknowledgement before the client's first byte becomes that of its SYN.
    #[inline(always)]
    const fn renumber_answer(&mut self, isn: u32, segment: &Segment, len_bytes: u8) {
        self.ack = isn.wrapping_add(1);
        // The window of a SYN-ACK is not scaled (RFC 7323): its right edge stays where it is.
        if segment.has(TcpFlags::SYN) && segment.window > len_bytes as u16 {
            self.window = segment.window - len_bytes as u16;
        }
    }
}

#[cfg(test)]
mod tests;
