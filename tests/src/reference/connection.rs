//! Connections: one record each, found by looking at all of them.

use lb_common::addr::Proto;

use crate::packet::End;

/// What has been seen of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The client has spoken.
    Asked,
    /// The backend has answered; the client of a TCP connection has not gone on yet.
    Answered,
    /// Both have.
    Open,
    /// The client has said that it will say no more.
    ClientDone,
    /// The backend has.
    BackendDone,
    /// Both have.
    Over,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToBackend,
    ToClient,
}

/// How far client and backend have come, in steps of 64 KiB; none where that is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    pub client: Option<u32>,
    pub backend: Option<u32>,
}

/// What TCP says of a packet beside its ports.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Bits as in RFC 9293; none for other protocols.
    pub flags: u8,
    /// None for other protocols.
    pub seq: Option<u32>,
}

/// A connection through a frontend, at the client's edge.
#[derive(Clone, Debug)]
pub struct Connection {
    pub edge: u32,
    pub proto: Proto,
    /// Who dials, and what was dialled.
    pub client: End,
    pub service: End,
    /// Who answers, and who it sees.
    pub backend: End,
    pub seen: End,
    pub frontend: u32,
    /// The pool that the backend was last known to be in.
    pub pool: u32,
    pub state: State,
    /// One of them has broken it off, and neither has spoken since.
    pub is_reset: bool,
    /// The last segment of client and backend, by the 64 KiB of its sequence number.
    pub heard: Heard,
    pub last_packet_secs: u64,
    /// Whether the tables can still translate this way: an entry may be evicted.
    pub knows_request: bool,
    pub knows_reply: bool,
}

/// How long a connection may be quiet (`lb-agent run --help`, defaults).
const ASKED_SECS: u64 = 60;
const OPEN_SECS: u64 = 86_400;
const UDP_SECS: u64 = 120;

/// How many steps of 64 KiB a sequence number is ahead of what was heard; 0xffff: one behind.
const fn steps_from(heard: u32, seq: u32) -> u32 {
    ((seq >> 16) + 0x1_0000 - heard) % 0x1_0000
}

/// A reply tuple may be reserved for so long before the rest is noted.
const RESERVED_SECS: u64 = 1;

/// An entry is written a second after it was last, and its other half with it.
const REFRESH_SECS: u64 = 1;

impl Connection {
    /// Whether the client dialled the endpoint itself.
    pub fn is_direct(&self) -> bool {
        self.service == self.backend
    }

    /// A new packet of this connection may start a new one.
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

    /// Closed by both, or broken off by one.
    pub fn has_ended(&self) -> bool {
        self.state == State::Over || self.is_reset
    }

    /// Nothing is known of what the client sends, and that is not because it is being noted just now.
    pub fn is_half(&self, now_secs: u64) -> bool {
        let is_new = self.state == State::Asked && !self.is_reset && now_secs - self.last_packet_secs < RESERVED_SECS;
        !self.knows_request && !is_new
    }

    /// Whether a segment that ends something is of somebody who does not know the connection: more than 64 KiB behind the
    /// last one that was heard, or 1 MiB ahead.
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

    /// Notes how far a segment's sender has come, unless it is too far to be believed.
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

    /// Takes note of a packet; whether a half that was evicted is put back.
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
            // Anybody can say this in anybody's name, until an answer is acknowledged.
            (State::Asked, Way::ToBackend) => State::Asked,
            (State::Answered, Way::ToBackend) if !ack => State::Answered,
            // Who answers without a SYN knew the connection before.
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

    /// Whether this is a packet of the connection, on its way from the backend.
    pub fn is_reply(&self, edge: u32, proto: Proto, (from, to): (End, End)) -> bool {
        self.knows_reply && (self.edge, self.proto, self.backend, self.seen) == (edge, proto, from, to)
    }
}
