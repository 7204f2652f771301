//! What the programs tell `lb-agent monitor`, while it listens.

use super::row::table_type;
use super::stats::RejectBucket;
use crate::addr::Proto;

/// The length of the ring `events` in bytes, a power of two: some 2,900 events.
pub const EVENTS_BYTES: u32 = 1 << 18;

/// Elements of `passes_told`, a power of two.
pub const PASSES_TOLD: u32 = 1 << 10;

table_type! {
    /// Value of `monitor` (one element). Each word has one writer.
    pub struct Monitor {
        /// Until when the command listens, in nanoseconds since the boot (`CLOCK_BOOTTIME`); it writes this again and
        /// again.
        pub until_ns: u64,
        /// Events per second that the command wants.
        pub per_sec: u64,
        /// Written by the agent: [`Monitor::TELLING`] and so on.
        pub state: u64,
        /// Events that were not told: too many in a second, or no room in the ring.
        pub lost: u64,
        /// Events that may be told in this second.
        pub bucket: RejectBucket,
    }

    /// An event in the ring `events`. IPv4 addresses are in the first four bytes of their fields.
    pub struct Told {
        /// Nanoseconds since the boot (`CLOCK_BOOTTIME`).
        pub at_ns: u64,
        pub src: [u8; 16],
        pub dst: [u8; 16],
        /// The backend of a new flow; zeroes: none.
        pub backend: [u8; 16],
        pub sport: u16,
        pub dport: u16,
        pub backend_port: u16,
        pub proto: Proto,
        /// 4 or 6.
        pub version: u8,
        /// As in [`DropKey`](super::DropKey).
        pub frontend: u32,
        pub edge: u32,
        /// The number of the [`Counter`](super::Counter).
        pub reason: u32,
        /// The length of the packet; 0 for a dial.
        pub bytes: u32,
    }
}

impl Monitor {
    /// Attached programs tell nothing.
    pub const SILENT: u64 = 0;
    /// Attached programs tell what happens while the command listens.
    pub const TELLING: u64 = 1;
    /// The agent never loads programs that tell (`--monitor=off`).
    pub const REFUSED: u64 = 2;
}
