//! Flows: which packets are translated, and to what. The connection tracking table.

use super::row::table_enum;
use super::row::table_type;
use crate::addr::Proto;
use crate::sequence::Sequence;

/// The edge of all uplinks: [`FlowKey::edge`] is 0 there, and an interface index (never 0) at a workload.
pub const EDGE_UPLINK: u32 = 0;

/// [`Flow::frontend`] of a connection that a client made to an endpoint itself. It keeps the tuple that it has (or gets
/// another source port), and no flow of a frontend may take that from it.
pub const DIRECT: u32 = 0;

/// Keys of flows that may be over, that one run of the program `collect` takes.
pub const COLLECTED_KEYS_MAX: usize = 32;

table_type! {
    /// Addresses and ports of a packet, ports in host order. The addresses stand side by side as in a network header.
    #[repr(align(4))]
    pub struct Tuple<A> {
        pub src: A,
        pub dst: A,
        pub sport: u16,
        pub dport: u16,
    }

    /// Key of `flows4` and `flows6`: a packet as it is seen at one edge in one direction.
    ///
    /// The same reply tuple is seen at several interfaces; only the client's edge may touch it.
    pub struct FlowKey<A> {
        /// Index of the workload's interface, or [`EDGE_UPLINK`].
        pub edge: u32,
        pub tuple: Tuple<A>,
        pub proto: Proto,
        pub direction: Direction,
        pub pad: u16,
    }

    /// Value of `flows4` and `flows6`: complete by value, independent of later changes of any table.
    pub struct Flow<A> {
        /// What the packet becomes.
        pub to: Tuple<A>,
        /// The frontend that made the flow, or [`DIRECT`].
        pub frontend: u32,
        /// The pool that its backend was last found in.
        pub pool: u32,
        pub state: FlowState,
        pub heard: Heard,
        /// The upper half of the sequence number of the last TCP segment that went this way.
        pub seq_high: u16,
        /// jiffies64 of the last packet, a second coarse.
        pub last_seen_jiffies: u64,
    }
}

table_type! {
    /// Value of the per-CPU arrays `embryos4` and `embryos6` (one element, not pinned): how many half-open flows this CPU may still
    /// make without looking for others to delete, and where in its ring it notes the next one.
    pub struct EmbryoBudget {
        pub tokens: u64,
        pub refilled_jiffies: u64,
        /// Flows noted so far.
        pub noted: u64,
    }
}

impl EmbryoBudget {
    /// Takes a token if there is one. All come back after a SYN's time-out: by then the flows that took them are gone.
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

    /// Gives a token back: a flow has shown that both ends are there.
    #[inline(always)]
    pub const fn give(&mut self, max: u64) {
        if self.tokens < max {
            self.tokens += 1;
        }
    }
}

table_type! {
    /// Key of `fragments4` and `fragments6`: the fragments of one datagram, as they are seen at one edge in one direction.
    #[repr(align(4))]
    pub struct FragmentKey<A> {
        pub edge: u32,
        pub src: A,
        pub dst: A,
        /// The identification of the datagram.
        pub id: u32,
        /// Of IPv6 always UDP: the identification is one for all protocols, and a later fragment need not say which it is.
        pub proto: Proto,
        pub direction: Direction,
        pub pad: u16,
    }

    /// Value of `fragments4` and `fragments6`: what became of the first fragment, or who waits for it. Good for
    /// [`FRAGMENT_SECS`](crate::fragment::FRAGMENT_SECS): identifications are used again.
    pub struct Fragment<A> {
        /// The addresses that it got.
        pub src: A,
        pub dst: A,
        pub fate: Fate,
        pub pad: [u8; 3],
        /// The ticket of the fragment that was parked last; 0: none.
        pub parked: u32,
        /// jiffies64: when the first of those that wait was parked, else when the last fragment went by.
        pub since_jiffies: u64,
    }
}

table_enum! {
    /// What became of a first fragment, and becomes of those that follow.
    pub enum Fate {
        Translated = 0,
        /// Out of the interface that it came in by: a pod reaches itself.
        SentBack = 1,
        /// Rejected or dropped.
        Dropped = 2,
        /// Left alone, although one of its addresses is ours.
        Passed = 3,
        /// Not seen yet.
        Awaited = 4,
    }

    /// Which way a packet of a flow goes, named from the client.
    pub enum Direction {
        /// Client to backend.
        Request = 0,
        /// Backend to client.
        Reply = 1,
    }

    /// Whether an entry of a flow has heard a TCP segment that went its way.
    pub enum Heard {
        Nothing = 0,
        /// And `seq_high` says which.
        Segment = 1,
    }

    /// TCP state as far as the packet path needs it; UDP and SCTP know `New` and `Established` only. A flow is *half open*
    /// while it is `New` or `Answered`. One that was reset keeps what it was, and is that again when either end goes on: a
    /// reset may be forged, or too late.
    /// Both entries of a flow hold the same state.
    pub enum FlowState {
        /// Nothing has come back yet.
        New = 0,
        Established = 1,
        /// The client has sent FIN.
        ClientClosed = 2,
        /// The backend has sent FIN.
        BackendClosed = 3,
        /// FIN both ways: a SYN on this tuple is a new flow.
        Closed = 4,
        /// The backend has answered; whether the client hears it is not known yet (TCP).
        Answered = 5,
        /// RST, by either end, of a flow that was `New`, `Answered` and so on: a SYN on this tuple is a new flow.
        ResetNew = 6,
        ResetAnswered = 7,
        ResetEstablished = 8,
        ResetClientClosed = 9,
        ResetBackendClosed = 10,
    }
}

impl FlowState {
    /// After a RST.
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

    /// Before the RST.
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

    /// Nobody has acknowledged an answer yet, as far as is known.
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::New | Self::Answered)
    }
}

impl<A> Flow<A> {
    /// Where this direction stands.
    #[inline(always)]
    pub const fn sequence(&self) -> Sequence {
        match self.heard {
            Heard::Nothing => Sequence::NONE,
            Heard::Segment => Sequence::of(self.seq_high),
        }
    }

    #[inline(always)]
    pub const fn set_sequence(&mut self, sequence: Sequence) {
        self.heard = Heard::of(sequence);
        self.seq_high = sequence.high();
    }
}

impl Heard {
    #[inline(always)]
    pub const fn of(sequence: Sequence) -> Self {
        if sequence.is_known() { Self::Segment } else { Self::Nothing }
    }
}

impl<A: Copy> Tuple<A> {
    /// Becomes the same as `of`, field by field: the compiler makes a call of a larger copy, which goes byte by byte.
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

impl<A: PartialEq> Tuple<A> {
    /// Whether this is the tuple of the answer to `of`.
    #[inline(always)]
    pub fn is_reversed(&self, of: &Self) -> bool {
        self.sport == of.dport && self.dport == of.sport && self.src == of.dst && self.dst == of.src
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
