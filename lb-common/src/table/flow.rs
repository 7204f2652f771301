//! Flows: the connection tracking table, which holds how packets are translated. Also the notes about fragments.

use super::row::table_enum;
use super::row::table_type;
use crate::addr::{Addr, Proto};
use crate::sequence::Sequence;

/// The edge of all uplinks. At a workload, [`FlowKey::edge`] is the interface index, which is never 0.
pub const EDGE_UPLINK: u32 = 0;

/// [`Flow::frontend`] of a direct flow: the client dialled an endpoint itself. The flow keeps its tuple or gets
/// another source port, and no frontend's flow may take that tuple.
pub const DIRECT: u32 = 0;

/// [`Flow::frontend`] of a flow that came from replaced tables, and whose frontend is gone. No row has this ID.
pub const GONE: u32 = u32::MAX;

/// Most keys that one run of the program `collect` takes.
pub const COLLECTED_KEYS_MAX: usize = 32;

table_type! {
    /// Addresses and ports of a packet, ports in host order. The addresses are adjacent, as in a network header.
    #[repr(align(4))]
    pub struct Tuple<A> {
        pub src: A,
        pub dst: A,
        pub sport: u16,
        pub dport: u16,
    }

    /// Key of `flows4` and `flows6`: a packet seen at one edge in one direction.
    ///
    /// Several interfaces may see the same reply tuple; only the client's edge may rewrite it.
    pub struct FlowKey<A> {
        /// Index of the workload's interface, or [`EDGE_UPLINK`].
        pub edge: u32,
        pub tuple: Tuple<A>,
        pub proto: Proto,
        pub direction: Direction,
        pub pad: u16,
    }

    /// Value of `flows4` and `flows6`. It is complete, so that later changes of other tables do not affect it.
    pub struct Flow<A> {
        /// The packet's new tuple.
        pub to: Tuple<A>,
        /// The frontend that made the flow, [`DIRECT`], or [`GONE`].
        pub frontend: u32,
        /// The pool in which its backend was last found.
        pub pool: u32,
        pub state: FlowState,
        /// [`FlowMarks`].
        pub marks: u8,
        /// The upper half of the sequence number that was last noted for this direction.
        pub seq_high: u16,
        /// jiffies64 of the last packet, to within a second.
        pub last_seen_jiffies: u64,
    }
}

table_type! {
    /// Value of the per-CPU arrays `embryos4` and `embryos6` (one element, not pinned): how many half-open flows this
    /// CPU may still create before it must delete older ones, and where its ring notes the next one.
    pub struct EmbryoBudget {
        pub tokens: u64,
        pub refilled_jiffies: u64,
        /// Flows noted so far.
        pub noted: u64,
    }
}

impl EmbryoBudget {
    /// Takes a token if one is left. All tokens return after the SYN timeout: by then the flows that took them are
    /// gone.
    #[inline(always)]
    pub const fn take(&mut self, now_jiffies: u64, max: u64, tcp_syn_jiffies: u64) -> bool {
        if now_jiffies.wrapping_sub(self.refilled_jiffies) >= tcp_syn_jiffies {
            self.tokens = max;
            self.refilled_jiffies = now_jiffies;
        }
        if self.tokens == 0 {
            return false;
        }
        self.tokens -= 1;
        true
    }

    /// Gives a token back: both ends of a flow have been proved.
    #[inline(always)]
    pub const fn give(&mut self, max: u64) {
        if self.tokens < max {
            self.tokens += 1;
        }
    }
}

table_type! {
    /// Key of `fragments4` and `fragments6`: the fragments of one datagram, seen at one edge in one direction.
    #[repr(align(4))]
    pub struct FragmentKey<A> {
        pub edge: u32,
        pub src: A,
        pub dst: A,
        /// The identification of the datagram.
        pub id: u32,
        /// Always UDP for IPv6: the identification does not depend on the protocol, and a later fragment may not name
        /// it.
        pub proto: Proto,
        pub direction: Direction,
        pub pad: u16,
    }

    /// Value of `fragments4` and `fragments6`: the fate of the first fragment, or the fragments that wait for it.
    /// Valid for [`FRAGMENT_SECS`](crate::fragment::FRAGMENT_SECS), because identifications are reused.
    pub struct Fragment<A> {
        /// The new addresses.
        pub src: A,
        pub dst: A,
        pub fate: Fate,
        pub pad: [u8; 3],
        /// The ticket of the fragment that was parked last; 0: none.
        pub parked: u32,
        /// jiffies64: when the first waiting fragment was parked, or when the last fragment was seen.
        pub since_jiffies: u64,
    }
}

table_enum! {
    /// The fate of a first fragment, which the later ones share.
    pub enum Fate {
        Translated = 0,
        /// Sent back out of the interface that it came in by: a pod reaches itself.
        SentBack = 1,
        /// Rejected or dropped.
        Dropped = 2,
        /// Left alone, although one of its addresses may be a Service's.
        Passed = 3,
        /// Not decided yet.
        Awaited = 4,
        /// Forwarded to an endpoint of another node, or from there to its client.
        Forwarded = 5,
    }

    /// The direction of a packet of a flow, as the client sees it.
    pub enum Direction {
        /// Client to backend.
        Request = 0,
        /// Backend to client.
        Reply = 1,
    }

    /// The TCP state as far as the packet path needs it; UDP and SCTP have only `New` and `Established`. A flow is
    /// *half-open* while it is `New` or `Answered`. A reset flow remembers its former state and returns to it if
    /// either end continues: a reset may be forged or late. Both entries of a flow hold the same state.
    pub enum FlowState {
        /// The backend has not answered yet.
        New = 0,
        Established = 1,
        /// The client has sent FIN.
        ClientClosed = 2,
        /// The backend has sent FIN.
        BackendClosed = 3,
        /// FIN both ways: a SYN on this tuple starts a new flow.
        Closed = 4,
        /// The backend has answered; the client has not acknowledged that yet (TCP).
        Answered = 5,
        /// RST by either end of a flow that was `New`, `Answered` and so on: a SYN on this tuple starts a new flow.
        ResetNew = 6,
        ResetAnswered = 7,
        ResetEstablished = 8,
        ResetClientClosed = 9,
        ResetBackendClosed = 10,
    }
}

impl FlowState {
    /// The state after a RST.
    #[must_use]
    #[inline(always)]
    pub const fn reset(self) -> Self {
        match self {
            Self::New => Self::ResetNew,
            Self::Answered => Self::ResetAnswered,
            Self::Established => Self::ResetEstablished,
            Self::ClientClosed => Self::ResetClientClosed,
            Self::BackendClosed => Self::ResetBackendClosed,
            ended => ended,
        }
    }

    /// The state before the RST.
    #[must_use]
    #[inline(always)]
    pub const fn before_reset(self) -> Self {
        match self {
            Self::ResetNew => Self::New,
            Self::ResetAnswered => Self::Answered,
            Self::ResetEstablished => Self::Established,
            Self::ResetClientClosed => Self::ClientClosed,
            Self::ResetBackendClosed => Self::BackendClosed,
            state => state,
        }
    }

    /// Closed by both ends, or reset by one.
    #[inline(always)]
    pub const fn has_ended(self) -> bool {
        match self {
            Self::New | Self::Answered | Self::Established | Self::ClientClosed | Self::BackendClosed => false,
            Self::Closed
            | Self::ResetNew
            | Self::ResetAnswered
            | Self::ResetEstablished
            | Self::ResetClientClosed
            | Self::ResetBackendClosed => true,
        }
    }

    /// No answer has been acknowledged yet, as far as is known.
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::New | Self::Answered)
    }
}

/// Bits of [`Flow::marks`].
pub struct FlowMarks;

impl FlowMarks {
    /// `seq_high` holds a TCP sequence number.
    pub const HEARD: u8 = 1;
    /// The backend has not acknowledged its PROXY header: see [`ProxyHeader`](super::ProxyHeader). Both entries of a flow
    /// have the mark.
    pub const HEADER: u8 = 2;

    /// The marks after a sequence number was noted, or forgotten.
    #[inline(always)]
    pub const fn heard(marks: u8, sequence: Sequence) -> u8 {
        if sequence.is_known() { marks | Self::HEARD } else { marks & !Self::HEARD }
    }

    #[inline(always)]
    pub const fn header(marks: u8, is_due: bool) -> u8 {
        if is_due { marks | Self::HEADER } else { marks & !Self::HEADER }
    }
}

impl<A> Flow<A> {
    /// The sequence number noted for this direction.
    #[inline(always)]
    pub const fn sequence(&self) -> Sequence {
        if self.marks & FlowMarks::HEARD == 0 { Sequence::NONE } else { Sequence::of(self.seq_high) }
    }

    #[inline(always)]
    pub const fn set_sequence(&mut self, sequence: Sequence) {
        self.marks = FlowMarks::heard(self.marks, sequence);
        self.seq_high = sequence.high();
    }

    /// Whether its PROXY header is due.
    #[inline(always)]
    pub const fn has_header(&self) -> bool {
        self.marks & FlowMarks::HEADER != 0
    }

    #[inline(always)]
    pub const fn set_header(&mut self, is_due: bool) {
        self.marks = FlowMarks::header(self.marks, is_due);
    }
}

impl<A: Copy> Tuple<A> {
    /// Copies `of` field by field. The compiler turns a larger copy into a call that copies byte by byte.
    #[inline(always)]
    pub const fn set(&mut self, of: &Self) {
        self.src = of.src;
        self.dst = of.dst;
        self.sport = of.sport;
        self.dport = of.dport;
    }

    /// The tuple of the answer.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }
}

impl<A: Copy> Tuple<A> {
    /// Becomes the tuple of the answer to `of`.
    #[inline(always)]
    pub const fn set_reversed(&mut self, of: &Self) {
        self.src = of.dst;
        self.dst = of.src;
        self.sport = of.dport;
        self.dport = of.sport;
    }
}

impl<A> Tuple<A> {
    /// Whether both ports are those of `other`.
    #[inline(always)]
    pub const fn has_ports_of(&self, other: &Self) -> bool {
        self.sport == other.sport && self.dport == other.dport
    }
}

impl<A: Addr> Tuple<A> {
    /// Whether this is the tuple of the answer to `of`.
    #[inline(always)]
    pub fn is_reversed(&self, of: &Self) -> bool {
        self.sport == of.dport && self.dport == of.sport && self.src.is(&of.dst) && self.dst.is(&of.src)
    }
}

impl Direction {
    /// The other way.
    #[must_use]
    #[inline(always)]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Request => Self::Reply,
            Self::Reply => Self::Request,
        }
    }
}

impl<A: Copy> FlowKey<A> {
    #[inline(always)]
    pub const fn new(edge: u32, direction: Direction, proto: Proto, tuple: Tuple<A>) -> Self {
        Self { edge, tuple, proto, direction, pad: 0 }
    }

    /// The key of the other entry of a flow whose packets become `to`.
    #[must_use]
    pub const fn partner(&self, to: &Tuple<A>) -> Self {
        Self::new(self.edge, self.direction.opposite(), self.proto, to.reversed())
    }

    /// Copies `of` field by field: see [`Tuple::set`].
    #[inline(always)]
    pub const fn set(&mut self, of: &Self) {
        (self.edge, self.proto, self.direction, self.pad) = (of.edge, of.proto, of.direction, 0);
        self.tuple.set(&of.tuple);
    }

    /// Becomes the partner of `key`, field by field: the packet path has no stack for a copy.
    #[inline(always)]
    pub const fn set_partner(&mut self, key: &Self, to: &Tuple<A>) {
        self.edge = key.edge;
        self.direction = key.direction.opposite();
        self.proto = key.proto;
        self.pad = 0;
        self.tuple.set_reversed(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_spent_given_back_and_refilled() {
        let mut budget = EmbryoBudget { tokens: 0, refilled_jiffies: 0, noted: 0 };
        let mut take = |now, times: u32| (0..times).filter(|_| budget.take(now, 10, 600)).count();
        assert_eq!([take(1_000, 15), take(1_599, 1), take(1_600, 15)], [10, 0, 10]);
        for _ in 0..15 {
            budget.give(10);
        }
        assert_eq!(budget.tokens, 10);
    }
}
