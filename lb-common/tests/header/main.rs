//! Random histories of a client, a backend, and networks that lose, repeat and reorder: whatever happens, the backend
//! reads the header exactly once and first, then the client's bytes, or nothing.
//!
//! The ends are small models of TCP (RFC 9293, RFC 5961), and the node in the middle applies the rules. Bytes say where
//! they come from.

mod ends;
mod node;
mod wire;

use lb_common::parse::TcpFlags;
use proptest::collection;
use proptest::prelude::*;

use crate::ends::{Backend, Client};
use crate::node::Node;
use crate::wire::{Byte, H, Wire};

/// A part of the way.
#[derive(Clone, Copy, Debug)]
enum Leg {
    ClientToNode = 0,
    NodeToBackend = 1,
    BackendToNode = 2,
    NodeToClient = 3,
}

const LEGS: [Leg; 4] = [Leg::ClientToNode, Leg::NodeToBackend, Leg::BackendToNode, Leg::NodeToClient];

#[derive(Clone, Debug)]
enum Event {
    /// Delivers a segment, and perhaps keeps it: it will be repeated, at once or in another connection.
    Deliver {
        leg: usize,
        place: usize,
        keeps: bool,
    },
    Lose {
        leg: usize,
        place: usize,
    },
    /// Dials again, with a number so far from the last one.
    Connect {
        step: u32,
    },
    Send {
        len: u32,
    },
    Resend,
    Acknowledge,
    Finish,
    Reset,
    Answer,
    ResendAnswer,
    /// The backend forgets its connection without a word.
    Restart,
    Wait {
        jiffies: u32,
    },
    /// A segment of a process with a raw socket: its number as a distance from the client's own.
    Forge {
        flags: u8,
        distance: i32,
        len: u32,
    },
    /// The table loses the row, or the flow.
    LoseRow,
    LoseFlow,
}

#[derive(Default)]
struct History {
    client: Client,
    backend: Backend,
    node: Node,
    legs: [Vec<Wire>; 4],
    /// The acknowledgement that fits the last segment that came to the client: who forges sees it.
    seen_ack: u32,
    dials: u32,
}

impl History {
    fn put(&mut self, leg: Leg, segments: Vec<Wire>) {
        self.legs[leg as usize].extend(segments);
    }

    fn deliver(&mut self, leg: usize, segment: &Wire) {
        let leg = LEGS[leg];
        match leg {
            Leg::ClientToNode => {
                let out = self.node.request(segment);
                self.put(Leg::NodeToBackend, out);
            }
            Leg::NodeToBackend => {
                let out = self.backend.receive(segment);
                self.put(Leg::BackendToNode, out);
            }
            Leg::BackendToNode => {
                let out = self.node.reply(segment);
                self.put(Leg::NodeToClient, out);
            }
            Leg::NodeToClient => {
                let len = segment.bytes.len() as u32 + u32::from(segment.has(TcpFlags::SYN));
                self.seen_ack = segment.seq.wrapping_add(len);
                let out = self.client.receive(segment);
                self.put(Leg::ClientToNode, out);
            }
        }
    }

    fn run(&mut self, event: &Event) {
        match *event {
            Event::Deliver { leg, place, keeps } => {
                let segments = &mut self.legs[leg];
                if segments.is_empty() {
                    return;
                }
                let place = place % segments.len();
                let segment = if keeps { segments[place].clone() } else { segments.remove(place) };
                self.deliver(leg, &segment);
            }
            Event::Lose { leg, place } => {
                let segments = &mut self.legs[leg];
                if !segments.is_empty() {
                    segments.remove(place % segments.len());
                }
            }
            Event::Connect { step } => {
                self.dials += 1;
                let out = self.client.connect(step);
                self.put(Leg::ClientToNode, out);
            }
            Event::Send { len } => {
                let out = self.client.send(len);
                self.put(Leg::ClientToNode, out);
            }
            Event::Resend => {
                let out = self.client.resend();
                self.put(Leg::ClientToNode, out);
            }
            Event::Acknowledge => {
                let out = self.client.acknowledge();
                self.put(Leg::ClientToNode, out);
            }
            Event::Finish => {
                let out = self.client.finish();
                self.put(Leg::ClientToNode, out);
            }
            Event::Reset => {
                let out = self.client.reset();
                self.put(Leg::ClientToNode, out);
            }
            Event::Answer => {
                let out = self.backend.answer();
                self.put(Leg::BackendToNode, out);
            }
            Event::ResendAnswer => {
                let out = self.backend.resend();
                self.put(Leg::BackendToNode, out);
            }
            Event::Restart => self.backend.restart(),
            Event::Wait { jiffies } => self.node.wait(jiffies),
            Event::Forge { flags, distance, len } => {
                let seq = self.client.isn().wrapping_add_signed(distance);
                let bytes = vec![Byte::Forged; len as usize];
                let segment = Wire { flags, seq, ack: self.seen_ack, bytes };
                self.put(Leg::ClientToNode, vec![segment]);
            }
            Event::LoseRow => self.node.lose_row(),
            Event::LoseFlow => self.node.lose_flow(),
        }
    }

    /// All segments arrive, in order, until no more are on the way. Ends whose numbers are near those of an older
    /// connection may talk for ever.
    fn settle(&mut self) {
        for _ in 0..400 {
            let Some(leg) = (0..4).find(|leg| !self.legs[*leg].is_empty()) else { return };
            let segment = self.legs[leg].remove(0);
            self.deliver(leg, &segment);
        }
    }

    /// A network without faults, and what timers do.
    fn settle_with_timers(&mut self) {
        for _ in 0..6 {
            self.settle();
            self.node.wait(1_000);
            self.run(&Event::Resend);
            self.settle();
            self.run(&Event::ResendAnswer);
        }
        self.settle();
    }

    /// What every connection of the backend has read.
    fn assert_header_is_first(&self) {
        for connection in self.backend.connections() {
            for (place, byte) in connection.read.iter().enumerate() {
                let place = u32::try_from(place).expect("a short stream");
                let header_len = u32::from(H);
                if place < header_len {
                    assert_eq!(*byte, Byte::Header(place as u8), "{connection:?}");
                } else if *byte != Byte::Forged {
                    let isn = connection.isn.wrapping_add(header_len);
                    assert_eq!(*byte, Byte::Data(isn, place - header_len), "{connection:?}");
                }
            }
            let ended_at = connection.ended_at.map(|number| number.wrapping_sub(connection.isn.wrapping_add(1)));
            assert!(ended_at.is_none_or(|len| len >= u32::from(H)), "an end in place of the header: {connection:?}");
        }
    }
}

/// Weighted, so that most connections get somewhere.
fn event(with_faults: bool) -> impl Strategy<Value = Event> {
    // Numbers that overlap are for who chooses them.
    let far = 1_u32 << 24..1 << 31;
    let near = prop_oneof![Just(1), Just(5), Just(28), Just(29), Just(u32::MAX - 4)];
    let step = if with_faults { prop_oneof![far, near].boxed() } else { far.boxed() };
    let leg = || 0..4_usize;
    let usual = prop_oneof![
        30 => (leg(), prop_oneof![3 => Just(0), 1 => 0..8_usize], prop::bool::weighted(0.15))
            .prop_map(|(leg, place, keeps)| Event::Deliver { leg, place, keeps }),
        3 => (leg(), 0..8_usize).prop_map(|(leg, place)| Event::Lose { leg, place }),
        2 => step.prop_map(|step| Event::Connect { step }),
        3 => (1..40_u32).prop_map(|len| Event::Send { len }),
        4 => Just(Event::Resend),
        2 => Just(Event::Acknowledge),
        1 => Just(Event::Finish),
        1 => Just(Event::Reset),
        2 => Just(Event::Answer),
        3 => Just(Event::ResendAnswer),
        1 => Just(Event::Restart),
        2 => (0..150_u32).prop_map(|jiffies| Event::Wait { jiffies }),
    ];
    let flags = prop_oneof![
        4 => Just(TcpFlags::ACK),
        1 => Just(TcpFlags::ACK | TcpFlags::FIN),
        2 => Just(TcpFlags::SYN),
        1 => Just(TcpFlags::RST),
        1 => any::<u8>(),
    ];
    let fault = prop_oneof![
        8 => (flags, prop_oneof![Just(-27), Just(0), Just(1), -40..40_i32], prop_oneof![Just(0), 1..60_u32])
            .prop_map(|(flags, distance, len)| Event::Forge { flags, distance, len }),
        1 => Just(Event::LoseRow),
        1 => Just(Event::LoseFlow),
    ];
    if with_faults { prop_oneof![56 => usual, 20 => fault].boxed() } else { usual.boxed() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// With forged segments, and tables that lose rows: the header is first, or nothing is read.
    #[test]
    fn the_header_is_read_once_and_first(is_silent: bool, events in collection::vec(event(true), 1..120)) {
        let mut history = History::default();
        history.client.is_silent = is_silent;
        history.run(&Event::Connect { step: 1 });
        for event in &events {
            history.run(event);
            history.assert_header_is_first();
        }
        history.settle_with_timers();
        history.assert_header_is_first();
    }

    /// Without these, a connection that neither end gave up arrives whole, also if the backend speaks first. If SYNs and
    /// answers of more than two connections of one port overtake each other, the last one may have to be dialled again.
    #[test]
    fn what_is_sent_arrives(events in collection::vec(event(false), 1..120)) {
        let mut history = History::default();
        history.run(&Event::Connect { step: 1 });
        for event in &events {
            history.run(event);
            history.assert_header_is_first();
        }
        history.settle_with_timers();
        if history.dials > 2 || !history.client.is_open() || !history.backend.has(history.client.isn()) {
            return Ok(());
        }
        let header = history.backend.read_of(history.client.isn());
        prop_assert!(header.is_some_and(|read| read.len() >= usize::from(H)), "the backend waits: {header:?}");
        history.run(&Event::Send { len: 50 });
        history.run(&Event::Finish);
        history.settle_with_timers();
        history.assert_header_is_first();
        let read = history.backend.read_of(history.client.isn()).map_or(0, <[Byte]>::len);
        prop_assert_eq!(read as u32, u32::from(H) + history.client.sent_len(), "all of the stream");
        prop_assert!(history.node.is_done(), "no flow costs more for ever");
    }
}
