//! Connections: one record each, found by searching all of them.

use lb_common::addr::Proto;

use crate::packet::End;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The client has sent a packet.
    Asked,
    /// The backend has answered; a TCP client has not acknowledged the answer yet.
    Answered,
    /// Established: both have sent packets, and a TCP client has acknowledged the answer.
    Open,
    /// The client has sent a FIN.
    ClientDone,
    /// The backend has sent a FIN.
    BackendDone,
    /// Both have sent a FIN.
    Over,
}

/// The direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToBackend,
    ToClient,
}

/// The latest sequence numbers of client and backend, in steps of 64 KiB; `None` if unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    pub client: Option<u32>,
    pub backend: Option<u32>,
}

/// The TCP fields of a packet, apart from the ports.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Bits as in RFC 9293; 0 for other protocols.
    pub flags: u8,
    /// `None` for other protocols.
    pub seq: Option<u32>,
}

/// A connection through a frontend, at the client's edge.
#[derive(Clone, Debug)]
pub struct Connection {
    pub edge: u32,
    pub proto: Proto,
    /// The client, and the address that it dialled.
    pub client: End,
    pub service: End,
    /// The backend, and the address that the backend sees as its client.
    pub backend: End,
    pub seen: End,
    pub frontend: u32,
    /// The pool in which the backend was last found.
    pub pool: u32,
    pub state: State,
    /// Client or backend has sent a RST, and neither has sent a packet since.
    pub is_reset: bool,
    /// The latest sequence numbers, in steps of 64 KiB.
    pub heard: Heard,
    pub last_packet_secs: u64,
    /// Whether the tables still hold the entry of this direction, which may be evicted.
    pub knows_request: bool,
    pub knows_reply: bool,
}

/// Time-outs of idle connections (the defaults in `lb-agent run --help`).
const ASKED_SECS: u64 = 60;
const OPEN_SECS: u64 = 86_400;
const UDP_SECS: u64 = 120;

/// How many steps of 64 KiB a sequence number is ahead of the latest one; 0xffff is one behind.
const fn steps_from(heard: u32, seq: u32) -> u32 {
    ((seq >> 16) + 0x1_0000 - heard) % 0x1_0000
}

/// How long a reply tuple may be reserved before the request entry is written.
const RESERVED_SECS: u64 = 1;

/// An entry is refreshed, together with its other half, if its last write is at least a second old.
const REFRESH_SECS: u64 = 1;

impl Connection {
    /// Whether the client dialled the endpoint itself.
    pub fn is_direct(&self) -> bool {
        self.service == self.backend
    }

    /// Whether a new packet of this connection may start a new one.
    pub fn is_over(&self, now_secs: u64) -> bool {
        let limit_secs = match (self.proto, self.state) {
            _ if self.has_ended() => return true,
            (_, State::Over) => return true,
            (Proto::UDP | Proto::SCTP, _) => UDP_SECS,
            (_, State::Asked | State::Answered) => ASKED_SECS,
            (_, State::Open | State::ClientDone | State::BackendDone) => OPEN_SECS,
        };
        now_secs - self.last_packet_secs > limit_secs
    }

    /// Whether both sides have sent a FIN, or one a RST.
    pub fn has_ended(&self) -> bool {
        self.state == State::Over || self.is_reset
    }

    /// Whether the request entry is missing, for another reason than that it is just being written.
    pub fn is_half(&self, now_secs: u64) -> bool {
        let is_new = self.state == State::Asked && !self.is_reset && now_secs - self.last_packet_secs < RESERVED_SECS;
        !self.knows_request && !is_new
    }

    /// Whether a FIN or RST is spoofed: its sequence number is more than 64 KiB behind the latest one, or at least 1
    /// MiB ahead.
    pub fn is_guessed(&self, way: Way, Segment { flags, seq }: Segment) -> bool {
        let (Some(heard), Some(seq)) = (self.heard_of(way), seq) else { return false };
        flags & 5 != 0 && (16..0xffff).contains(&steps_from(heard, seq))
    }

    const fn heard_of(&self, way: Way) -> Option<u32> {
        match way {
            Way::ToBackend => self.heard.client,
            Way::ToClient => self.heard.backend,
        }
    }

    /// Records a segment's sequence number, unless it is implausibly far ahead.
    fn hear(&mut self, way: Way, Segment { flags, seq }: Segment) {
        let Some(seq) = seq.filter(|_| flags & 4 == 0) else { return };
        let is_opening = matches!(self.state, State::Asked | State::Answered) && !self.is_reset;
        let is_near = |heard| (1..16).contains(&steps_from(heard, seq));
        let is_believed = self.heard_of(way).is_none_or(|heard| is_opening || is_near(heard));
        if is_believed {
            let heard = match way {
                Way::ToBackend => &mut self.heard.client,
                Way::ToClient => &mut self.heard.backend,
            };
            *heard = Some(seq >> 16);
        }
    }

    /// Records a packet. Returns whether an evicted half is restored.
    pub fn note(&mut self, way: Way, segment: Segment, now_secs: u64) -> bool {
        let before = (self.state, self.is_reset);
        if !self.is_guessed(way, segment) {
            self.end_or_go_on(way, segment.flags);
        }
        let after = (self.state, self.is_reset);
        (self.state, self.is_reset) = before;
        self.hear(way, segment);
        (self.state, self.is_reset) = after;
        let is_refreshed = now_secs - self.last_packet_secs >= REFRESH_SECS;
        self.last_packet_secs = now_secs;
        before != after || is_refreshed
    }

    fn end_or_go_on(&mut self, way: Way, tcp_flags: u8) {
        let [fin, syn, rst, ack] = [1, 2, 4, 0x10].map(|flag| tcp_flags & flag != 0);
        self.is_reset = rst && self.state != State::Over;
        self.state = match (self.state, way) {
            (state, _) if rst => state,
            // The address may be spoofed until the client has acknowledged an answer.
            (State::Asked, Way::ToBackend) => State::Asked,
            (State::Answered, Way::ToBackend) if !ack => State::Answered,
            // A backend that answers without a SYN knew the connection before.
            (State::Asked | State::Answered, Way::ToClient) if syn => State::Answered,
            (State::Answered | State::Open, Way::ToBackend) if fin => State::ClientDone,
            (State::Asked | State::Answered | State::Open, Way::ToClient) if fin => State::BackendDone,
            (State::ClientDone, Way::ToClient) | (State::BackendDone, Way::ToBackend) if fin => State::Over,
            (State::Asked, Way::ToClient) | (State::Answered, Way::ToBackend) => State::Open,
            (state, _) => state,
        };
    }

    /// Whether this is a packet of the connection, on its way to the backend.
    pub fn is_request(&self, edge: u32, proto: Proto, (from, to): (End, End)) -> bool {
        self.knows_request && (self.edge, self.proto, self.client, self.service) == (edge, proto, from, to)
    }

    /// Whether this is a packet of the connection, on its way to the client.
    pub fn is_reply(&self, edge: u32, proto: Proto, (from, to): (End, End)) -> bool {
        self.knows_reply && (self.edge, self.proto, self.backend, self.seen) == (edge, proto, from, to)
    }
}
