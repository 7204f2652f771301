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
    /// Both have, or one has broken it off.
    Over,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToBackend,
    ToClient,
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
    pub last_packet_secs: u64,
    /// Whether the tables can still translate this way: an entry may be evicted.
    pub knows_request: bool,
    pub knows_reply: bool,
}

/// How long a connection may be quiet (`lb-agent run --help`, defaults).
const ASKED_SECS: u64 = 60;
const OPEN_SECS: u64 = 86_400;
const UDP_SECS: u64 = 120;

/// A reply tuple may be reserved for so long before the rest is noted.
const RESERVED_SECS: u64 = 1;

/// An entry is written a second after it was last, and its other half with it.
const REFRESH_SECS: u64 = 1;

impl Connection {
    /// A new packet of this connection may start a new one.
    pub fn is_over(&self, now_secs: u64) -> bool {
        let limit_secs = match (self.proto, self.state) {
            (_, State::Over) => return true,
            (Proto::UDP | Proto::SCTP, _) => UDP_SECS,
            (_, State::Asked | State::Answered) => ASKED_SECS,
            (_, State::Open | State::ClientDone | State::BackendDone) => OPEN_SECS,
        };
        now_secs - self.last_packet_secs > limit_secs
    }

    /// Nothing is known of what the client sends, and that is not because it is being noted just now.
    pub fn is_half(&self, now_secs: u64) -> bool {
        let is_new = self.state == State::Asked && now_secs - self.last_packet_secs < RESERVED_SECS;
        !self.knows_request && !is_new
    }

    /// Takes note of a packet; whether a half that was evicted is put back. Bits of `tcp_flags` as in RFC 9293; none for
    /// other protocols.
    pub fn note(&mut self, way: Way, tcp_flags: u8, now_secs: u64) -> bool {
        let before = self.state;
        let [fin, syn, rst, ack] = [1, 2, 4, 0x10].map(|flag| tcp_flags & flag != 0);
        self.state = match (before, way) {
            _ if rst => State::Over,
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
        let is_refreshed = now_secs - self.last_packet_secs >= REFRESH_SECS;
        self.last_packet_secs = now_secs;
        self.state != before || is_refreshed
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
