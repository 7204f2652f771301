//! A client and a backend, as small models of TCP.

use std::collections::BTreeMap;

use lb_common::parse::TcpFlags;

use crate::wire::{Byte, Wire};

const SYN: u8 = TcpFlags::SYN;
const ACK: u8 = TcpFlags::ACK;
const RST: u8 = TcpFlags::RST;
const FIN: u8 = TcpFlags::FIN;

/// What an end takes beyond what it has read.
const WINDOW: u32 = 60_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Dialling,
    Open,
}

/// The client. Byte `n` of its stream is always the same byte.
#[derive(Debug, Default)]
pub struct Client {
    state: State,
    isn: u32,
    /// Bytes of the stream that were sent, and that were acknowledged.
    sent: u32,
    acknowledged: u32,
    has_finished: bool,
    /// The next byte of the backend.
    next: u32,
    /// It acknowledges nothing by itself: a process with a raw socket goes before.
    pub is_silent: bool,
}

impl Client {
    pub fn isn(&self) -> u32 {
        self.isn
    }

    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    pub fn sent_len(&self) -> u32 {
        self.sent
    }

    pub fn connect(&mut self, step: u32) -> Vec<Wire> {
        *self = Self {
            state: State::Dialling,
            isn: self.isn.wrapping_add(step),
            is_silent: self.is_silent,
            ..Self::default()
        };
        self.resend()
    }

    pub fn send(&mut self, len: u32) -> Vec<Wire> {
        if self.state != State::Open || self.has_finished {
            return Vec::new();
        }
        self.sent += len;
        vec![self.data(self.sent - len, self.sent)]
    }

    pub fn finish(&mut self) -> Vec<Wire> {
        if self.state != State::Open {
            return Vec::new();
        }
        self.has_finished = true;
        vec![self.data(self.sent, self.sent)]
    }

    /// What the retransmission timer does.
    pub fn resend(&mut self) -> Vec<Wire> {
        let is_over = self.acknowledged >= self.sent + u32::from(self.has_finished);
        match self.state {
            State::Dialling => vec![Wire::bare(SYN, self.isn, 0)],
            State::Open if !is_over => vec![self.data(self.acknowledged, self.sent)],
            State::Open | State::Closed => Vec::new(),
        }
    }

    pub fn acknowledge(&self) -> Vec<Wire> {
        if self.state == State::Open {
            vec![Wire::bare(ACK, self.number(self.sent_all()), self.next)]
        } else {
            Vec::new()
        }
    }

    pub fn reset(&mut self) -> Vec<Wire> {
        let was_open = self.state == State::Open;
        self.state = State::Closed;
        if was_open { vec![Wire::bare(RST, self.number(self.sent_all()), 0)] } else { Vec::new() }
    }

    pub fn receive(&mut self, segment: &Wire) -> Vec<Wire> {
        match self.state {
            State::Dialling => self.receive_dialling(segment),
            State::Open => self.receive_open(segment),
            State::Closed if segment.has(ACK) && !segment.has(RST) => vec![Wire::bare(RST, segment.ack, 0)],
            State::Closed => Vec::new(),
        }
    }

    fn receive_dialling(&mut self, segment: &Wire) -> Vec<Wire> {
        if !segment.has(ACK) {
            return Vec::new();
        }
        if segment.ack != self.isn.wrapping_add(1) {
            return if segment.has(RST) { Vec::new() } else { vec![Wire::bare(RST, segment.ack, 0)] };
        }
        if segment.has(RST) {
            self.state = State::Closed;
        } else if segment.has(SYN) {
            (self.state, self.next) = (State::Open, segment.seq.wrapping_add(1));
        }
        if self.is_silent { Vec::new() } else { self.acknowledge() }
    }

    fn receive_open(&mut self, segment: &Wire) -> Vec<Wire> {
        if segment.has(RST) {
            if segment.seq == self.next {
                self.state = State::Closed;
            }
            return Vec::new();
        }
        if segment.has(SYN) {
            return self.acknowledge();
        }
        let gain = segment.ack.wrapping_sub(self.number(self.acknowledged));
        if gain <= self.sent_all() - self.acknowledged {
            self.acknowledged += gain;
        }
        if segment.bytes.is_empty() {
            return Vec::new();
        }
        if segment.seq == self.next {
            self.next = self.next.wrapping_add(segment.bytes.len() as u32);
        }
        self.acknowledge()
    }

    /// All that was sent; FIN counts one.
    pub fn sent_all(&self) -> u32 {
        self.sent + u32::from(self.has_finished)
    }

    fn number(&self, place: u32) -> u32 {
        self.isn.wrapping_add(1).wrapping_add(place)
    }

    fn data(&self, from: u32, to: u32) -> Wire {
        let flags = if self.has_finished && to == self.sent { ACK | FIN } else { ACK };
        let (from, isn) = (from.min(to), self.isn);
        let bytes = (from..to).map(|place| Byte::Data(isn, place)).collect();
        // After the stream, only the FIN is left.
        Wire { flags, seq: self.number(from), ack: self.next, bytes, stream: None }
    }
}

/// A connection of the backend.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The number of the SYN.
    pub isn: u32,
    own_isn: u32,
    is_open: bool,
    pub read: Vec<Byte>,
    waiting: BTreeMap<u32, Byte>,
    /// The number of the FIN.
    pub ended_at: Option<u32>,
    has_ended: bool,
    /// Bytes of the backend that were sent, and that were acknowledged.
    sent: u32,
    acknowledged: u32,
}

impl Connection {
    fn next(&self) -> u32 {
        self.isn.wrapping_add(1).wrapping_add(self.read.len() as u32 + u32::from(self.has_ended))
    }

    fn segment(&self) -> Wire {
        Wire::bare(ACK, self.own_isn.wrapping_add(1).wrapping_add(self.sent), self.next())
    }

    fn syn_ack(&self) -> Wire {
        Wire::bare(SYN | ACK, self.own_isn, self.isn.wrapping_add(1))
    }

    fn take(&mut self, segment: &Wire) {
        for (place, byte) in segment.bytes.iter().enumerate() {
            let number = segment.seq.wrapping_add(place as u32);
            let is_behind_end = self.ended_at.is_some_and(|end| number.wrapping_sub(end).cast_signed() >= 0);
            if number.wrapping_sub(self.next()) < WINDOW && !is_behind_end {
                self.waiting.entry(number).or_insert(*byte);
            }
        }
        let end = segment.seq.wrapping_add(segment.bytes.len() as u32);
        if segment.has(FIN) && end.wrapping_sub(self.next()) < WINDOW && self.ended_at.is_none() {
            self.ended_at = Some(end);
        }
        while let Some(byte) = self.waiting.remove(&self.next()) {
            self.read.push(byte);
        }
        self.has_ended |= self.ended_at == Some(self.next());
    }
}

/// The backend, which has one port and one client.
#[derive(Debug, Default)]
pub struct Backend {
    now: Option<Connection>,
    before: Vec<Connection>,
    /// Connections so far: their numbers differ.
    count: u32,
}

impl Backend {
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.before.iter().chain(&self.now)
    }

    /// Whether it has the connection of this SYN.
    pub fn has(&self, isn: u32) -> bool {
        self.now.as_ref().is_some_and(|connection| connection.isn == isn)
    }

    /// What the connection of this SYN has read.
    pub fn read_of(&self, isn: u32) -> Option<&[Byte]> {
        self.connections().filter(|connection| connection.isn == isn).map(|connection| &connection.read[..]).last()
    }

    pub fn restart(&mut self) {
        self.before.extend(self.now.take());
    }

    pub fn answer(&mut self) -> Vec<Wire> {
        let Some(connection) = self.now.as_mut().filter(|connection| connection.is_open) else { return Vec::new() };
        let segment = Wire { bytes: vec![Byte::Answer; 10], ..connection.segment() };
        connection.sent += 10;
        vec![segment]
    }

    /// What the retransmission timer does.
    pub fn resend(&mut self) -> Vec<Wire> {
        let Some(connection) = &self.now else { return Vec::new() };
        if !connection.is_open {
            return vec![connection.syn_ack()];
        }
        let left = connection.sent - connection.acknowledged;
        if left == 0 {
            return Vec::new();
        }
        let seq = connection.own_isn.wrapping_add(1).wrapping_add(connection.acknowledged);
        vec![Wire { seq, bytes: vec![Byte::Answer; left as usize], ..connection.segment() }]
    }

    pub fn receive(&mut self, segment: &Wire) -> Vec<Wire> {
        let Some(connection) = &mut self.now else { return self.listen(segment) };
        if segment.has(RST) {
            if segment.seq == connection.next() {
                self.restart();
                return Vec::new();
            }
            return vec![connection.segment()];
        }
        if segment.has(SYN) {
            let is_repeated = !connection.is_open && segment.seq == connection.isn;
            return vec![if is_repeated { connection.syn_ack() } else { connection.segment() }];
        }
        if !segment.has(ACK) {
            return Vec::new();
        }
        let gain = segment.ack.wrapping_sub(connection.own_isn.wrapping_add(1).wrapping_add(connection.acknowledged));
        let gain = if gain <= connection.sent - connection.acknowledged {
            connection.acknowledged += gain;
            connection.is_open = true;
            0
        } else if connection.is_open {
            gain
        } else {
            return vec![Wire::bare(RST, segment.ack, 0)];
        };
        // What acknowledges what was never sent, or is too old, is not read (RFC 5961 section 5.2).
        let is_acceptable = gain == 0 || gain.wrapping_neg() <= connection.acknowledged;
        if !is_acceptable {
            return vec![connection.segment()];
        }
        connection.take(segment);
        if segment.bytes.is_empty() && !segment.has(FIN) { Vec::new() } else { vec![connection.segment()] }
    }

    fn listen(&mut self, segment: &Wire) -> Vec<Wire> {
        if segment.has(RST) {
            return Vec::new();
        }
        if segment.has(ACK) {
            return vec![Wire::bare(RST, segment.ack, 0)];
        }
        if !segment.has(SYN) {
            return Vec::new();
        }
        self.count += 1;
        let connection = Connection {
            isn: segment.seq,
            own_isn: self.count.wrapping_mul(0x9e37_79b9),
            is_open: false,
            read: Vec::new(),
            waiting: BTreeMap::new(),
            ended_at: None,
            has_ended: false,
            sent: 0,
            acknowledged: 0,
        };
        let answer = connection.syn_ack();
        self.now = Some(connection);
        vec![answer]
    }
}
