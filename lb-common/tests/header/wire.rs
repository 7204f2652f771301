//! Segments whose bytes say where they come from.

/// The length of the header.
pub const H: u8 = 28;

/// A byte of a segment, by its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Byte {
    /// A byte of the header, by its place.
    Header(u8),
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
}

impl Wire {
    pub fn bare(flags: u8, seq: u32, ack: u32) -> Self {
        Self { flags, seq, ack, bytes: Vec::new() }
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}
