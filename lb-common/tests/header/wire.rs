//! Segments whose bytes say where they come from.

use lb_common::parse::TcpFlags;

/// Lengths of headers: version 2 of both families, and texts of version 1, the longest among them.
pub const LENGTHS: [u8; 4] = [28, 52, 43, 107];

/// A byte of a segment, by its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Byte {
    /// A byte of a header, by the length of the header and its place.
    Header(u8, u8),
    /// A byte of the client's stream: the client's initial sequence number, and the place.
    Data(u32, u32),
    /// What a process with a raw socket put on the wire.
    Forged,
    /// The backend's.
    Answer,
}

/// A segment on its way.
#[derive(Clone, Debug)]
pub struct Wire {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub bytes: Vec<Byte>,
    /// The client's initial sequence number, if its stack sent the segment.
    pub stream: Option<u32>,
}

impl Wire {
    pub fn bare(flags: u8, seq: u32, ack: u32) -> Self {
        Self { flags, seq, ack, bytes: Vec::new(), stream: None }
    }

    /// What a device makes of a long segment: segments of at most `len` bytes.
    pub fn cut(&self, len: usize) -> Vec<Self> {
        let whole = self.bytes.len();
        if whole <= len {
            return vec![self.clone()];
        }
        let piece = |from: usize| {
            let to = (from + len).min(whole);
            let flags = if to == whole { self.flags } else { self.flags & !TcpFlags::FIN };
            let seq = self.seq.wrapping_add(from as u32);
            Self { flags, seq, bytes: self.bytes[from..to].to_vec(), ..self.clone() }
        };
        (0..whole).step_by(len).map(piece).collect()
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}
