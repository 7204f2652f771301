//! Random histories of a client, a backend, and networks that lose, repeat and reorder: whatever happens, the backend
//! reads the header exactly once and first, then the client's bytes, or nothing.
//!
//! The ends are small models of TCP (RFC 9293, RFC 5961), and the node in the middle applies the rules. Bytes say where
//! they come from.

mod ends;
mod node;
mod wire;

use std::collections::BTreeMap;

use lb_common::parse::TcpFlags;
use proptest::collection;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

use crate::ends::{Backend, Client, Connection};
use crate::node::Node;
use crate::wire::{Byte, LENGTHS, Wire};

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
    /// A router answers a segment on its way to the backend with an ICMP error.
    Complain {
        place: usize,
    },
    /// The Service wants a header of this length from now on, or none.
    Want {
        len: Option<u8>,
    },
    /// Another agent takes over, and has copied the rows.
    TakeOver,
    Copy,
}

struct History {
    client: Client,
    backend: Backend,
    node: Node,
    legs: [Vec<Wire>; 4],
    /// The acknowledgement that fits the last segment that came to the client: who forges sees it.
    seen_ack: u32,
    dials: u32,
    /// What the client has sent, by its initial sequence number: how many numbers behind that one.
    streams: BTreeMap<u32, u32>,
    /// The longest segment behind the client, and behind the node: devices cut longer ones.
    cuts: [usize; 2],
    /// Numbers of forged SYNs, or of two versions, may overlap.
    has_faults: bool,
    /// The Service wanted no header for a while.
    was_unwanted: bool,
}

/// How a history begins.
#[derive(Clone, Copy, Debug)]
struct Start {
    isn: u32,
    len: u8,
    cuts: [usize; 2],
    is_silent: bool,
    /// Whether the handshake is over, but for what the client sends after it.
    is_answered: bool,
}

fn start() -> impl Strategy<Value = Start> {
    // The numbers of the header wrap, those of the data, or where their sign changes.
    let wraps = [0, u32::MAX - 30, 1 << 31].map(|number| number..number + 30);
    let [low, high, middle] = wraps;
    // A segment with a header fits every link in use.
    let cut = || prop_oneof![Just(usize::MAX), Just(500), Just(120)];
    let isn = prop_oneof![low, high, middle, any::<u32>()];
    (isn, select(&LENGTHS[..]), cut(), cut(), any::<bool>(), any::<bool>()).prop_map(
        |(isn, len, sent, forwarded, is_silent, is_answered)| Start {
            isn,
            len,
            cuts: [sent, forwarded],
            is_silent,
            is_answered,
        },
    )
}

impl History {
    fn new(start: Start) -> Self {
        let mut history = Self {
            client: Client::default(),
            backend: Backend::default(),
            node: Node::new(start.len),
            legs: [const { Vec::new() }; 4],
            seen_ack: 0,
            dials: 0,
            streams: BTreeMap::new(),
            cuts: start.cuts,
            has_faults: false,
            was_unwanted: false,
        };
        history.client.is_silent = start.is_silent;
        history.run(&Event::Connect { step: start.isn });
        if start.is_answered {
            for leg in 0..4 {
                history.run(&Event::Deliver { leg, place: 0, keeps: false });
            }
        }
        history
    }

    fn put(&mut self, leg: Leg, segments: &[Wire]) {
        let max = match leg {
            Leg::ClientToNode => self.cuts[0],
            Leg::NodeToBackend => self.cuts[1],
            Leg::BackendToNode | Leg::NodeToClient => usize::MAX,
        };
        self.legs[leg as usize].extend(segments.iter().flat_map(|segment| segment.cut(max)));
    }

    /// What the client's stack sends.
    fn put_stream(&mut self, mut segments: Vec<Wire>) {
        let isn = self.client.isn();
        for segment in &mut segments {
            segment.stream = Some(isn);
        }
        self.streams.insert(isn, self.client.sent_all() + 1);
        self.put(Leg::ClientToNode, &segments);
    }

    /// An ICMP error quotes a number that the client has sent. Else its stack would take the error for a forged one
    /// (RFC 5927).
    fn complain(&self, place: usize) {
        let segments = &self.legs[Leg::NodeToBackend as usize];
        let Some(segment) = segments.get(place % segments.len().max(1)) else { return };
        let Some(known) = segment.stream.and_then(|isn| self.node.quoted(isn, segment.seq)) else { return };
        let is_sent = self.streams.iter().any(|(isn, len)| known.wrapping_sub(*isn) <= *len);
        assert!(is_sent || self.has_faults || segment.has(TcpFlags::RST), "{known} of {segment:?}");
    }

    fn deliver(&mut self, leg: usize, segment: &Wire) {
        let leg = LEGS[leg];
        match leg {
            Leg::ClientToNode => {
                let out = self.node.request(segment);
                self.put(Leg::NodeToBackend, &out);
            }
            Leg::NodeToBackend => {
                let out = self.backend.receive(segment);
                self.put(Leg::BackendToNode, &out);
            }
            Leg::BackendToNode => {
                let out = self.node.reply(segment);
                self.put(Leg::NodeToClient, &out);
            }
            Leg::NodeToClient => {
                let len = segment.bytes.len() as u32 + u32::from(segment.has(TcpFlags::SYN));
                self.seen_ack = segment.seq.wrapping_add(len);
                let out = self.client.receive(segment);
                self.put_stream(out);
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
                self.has_faults |= self.dials > 1 && step.cast_signed().unsigned_abs() < 1 << 20;
                let out = self.client.connect(step);
                self.put_stream(out);
            }
            Event::Send { len } => {
                let out = self.client.send(len);
                self.put_stream(out);
            }
            Event::Resend => {
                let out = self.client.resend();
                self.put_stream(out);
            }
            Event::Acknowledge => {
                let out = self.client.acknowledge();
                self.put_stream(out);
            }
            Event::Finish => {
                let out = self.client.finish();
                self.put_stream(out);
            }
            Event::Reset => {
                let out = self.client.reset();
                self.put_stream(out);
            }
            Event::Answer => {
                let out = self.backend.answer();
                self.put(Leg::BackendToNode, &out);
            }
            Event::ResendAnswer => {
                let out = self.backend.resend();
                self.put(Leg::BackendToNode, &out);
            }
            Event::Restart => self.backend.restart(),
            Event::Wait { jiffies } => self.node.wait(jiffies),
            Event::Forge { flags, distance, len } => {
                let seq = self.client.isn().wrapping_add_signed(distance);
                let bytes = vec![Byte::Forged; len as usize];
                self.has_faults = true;
                let segment = Wire { flags, seq, ack: self.seen_ack, bytes, stream: None };
                self.put(Leg::ClientToNode, &[segment]);
            }
            Event::LoseRow => self.node.lose_row(),
            Event::LoseFlow => self.node.lose_flow(),
            Event::Complain { place } => self.complain(place),
            Event::Want { len } => {
                self.has_faults = true;
                self.was_unwanted |= len.is_none();
                self.node.want(len);
            }
            Event::TakeOver => self.node.take_over(),
            Event::Copy => self.node.copy(),
        }
    }

    /// All segments arrive, in order, until no more are on the way. Ends whose numbers are near those of an older
    /// connection may talk for ever.
    fn settle(&mut self) {
        for _ in 0..800 {
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
            let mut lens = self.node.lens(connection.isn);
            assert!(lens.any(|len| has_read(connection, len)), "{connection:?}");
        }
    }

    /// The client's connection as the backend knows it, with the length of its header.
    fn connection(&self) -> Option<(u32, u8)> {
        self.node.at_backend(self.client.isn()).find(|(isn, _)| self.backend.has(*isn))
    }
}

/// Whether the connection has read a header of this length, then the client's bytes, or a part of that.
fn has_read(connection: &Connection, len: u8) -> bool {
    let first = connection.isn.wrapping_add(1);
    let mut bytes = (0_u32..).zip(&connection.read);
    let is_right = |(place, byte): (u32, &Byte)| match place.checked_sub(len.into()) {
        None => *byte == Byte::Header(len, place as u8),
        // A process with a raw socket may write what it likes, as its own stack may.
        // Streams whose numbers overlap may mix: the number counts.
        Some(_) => match *byte {
            Byte::Data(isn, at) => isn.wrapping_add(1).wrapping_add(at) == first.wrapping_add(place),
            Byte::Forged => true,
            Byte::Header(..) | Byte::Answer => false,
        },
    };
    let ended_at = connection.ended_at.map(|number| number.wrapping_sub(first));
    bytes.all(is_right) && ended_at.is_none_or(|end| end >= u32::from(len))
}

/// Weighted, so that most connections get somewhere.
fn event(with_faults: bool) -> impl Strategy<Value = Event> {
    // Numbers that overlap are for who chooses them.
    let far = 1_u32 << 24..1 << 31;
    let near = prop_oneof![Just(1), Just(5), Just(28), Just(29), Just(u32::MAX - 4)];
    let step = if with_faults { prop_oneof![far, near].boxed() } else { far.boxed() };
    let len = select(&LENGTHS[..]);
    // Who forges would have a flow without protection, if the table lost the flow just as the Service wants no header.
    let wanted = if with_faults { len.prop_map(Some).boxed() } else { of(len).boxed() };
    let leg = || 0..4_usize;
    let usual = prop_oneof![
        30 => (leg(), prop_oneof![3 => Just(0), 1 => 0..8_usize], prop::bool::weighted(0.15))
            .prop_map(|(leg, place, keeps)| Event::Deliver { leg, place, keeps }),
        3 => (leg(), 0..8_usize).prop_map(|(leg, place)| Event::Lose { leg, place }),
        2 => step.prop_map(|step| Event::Connect { step }),
        3 => prop_oneof![9 => 1..40_u32, 1 => 200..2_000_u32].prop_map(|len| Event::Send { len }),
        4 => Just(Event::Resend),
        2 => Just(Event::Acknowledge),
        1 => Just(Event::Finish),
        1 => Just(Event::Reset),
        2 => Just(Event::Answer),
        3 => Just(Event::ResendAnswer),
        1 => Just(Event::Restart),
        2 => (0..150_u32).prop_map(|jiffies| Event::Wait { jiffies }),
        2 => (0..8_usize).prop_map(|place| Event::Complain { place }),
        1 => Just(Event::TakeOver),
        2 => Just(Event::Copy),
        1 => wanted.prop_map(|len| Event::Want { len }),
    ];
    let flags = prop_oneof![
        4 => Just(TcpFlags::ACK),
        1 => Just(TcpFlags::ACK | TcpFlags::FIN),
        2 => Just(TcpFlags::SYN),
        1 => Just(TcpFlags::RST),
        1 => any::<u8>(),
    ];
    let fault = prop_oneof![
        8 => (flags, prop_oneof![Just(-27), Just(0), Just(1), -120..40_i32], prop_oneof![Just(0), 1..60_u32])
            .prop_map(|(flags, distance, len)| Event::Forge { flags, distance, len }),
        1 => Just(Event::LoseRow),
        1 => Just(Event::LoseFlow),
    ];
    if with_faults { prop_oneof![56 => usual, 20 => fault].boxed() } else { usual.boxed() }
}

fn deliver(leg: Leg, keeps: bool) -> Event {
    Event::Deliver { leg: leg as usize, place: 0, keeps }
}

/// Runs a history without faults, and asserts that the stream arrives.
fn assert_arrives(start: Start, events: &[Event]) {
    let mut history = History::new(start);
    for event in events {
        history.run(event);
        history.assert_header_is_first();
    }
    history.node.copy();
    history.settle_with_timers();
    assert!(history.client.is_open(), "{events:?}");
    let (isn, len) = history.connection().expect("a connection of the backend");
    let read_len = |history: &History| history.backend.read_of(isn).map_or(0, <[Byte]>::len) as u32;
    assert!(read_len(&history) >= u32::from(len), "the backend waits: {events:?}");
    history.run(&Event::Send { len: 50 });
    history.settle_with_timers();
    history.assert_header_is_first();
    assert_eq!(read_len(&history), u32::from(len) + 50, "{events:?}");
}

const QUIET: Start = Start { isn: 0, len: 28, cuts: [usize::MAX; 2], is_silent: false, is_answered: false };

/// Another agent takes over while the client's SYN is repeated: its row knows nothing of the backend's answer.
#[test]
fn a_repeated_syn_after_a_takeover_does_not_open_the_backend() {
    use Leg::{BackendToNode, ClientToNode, NodeToBackend, NodeToClient};
    let answered = [
        deliver(ClientToNode, true),
        deliver(NodeToBackend, false),
        deliver(BackendToNode, false),
        Event::TakeOver,
        deliver(ClientToNode, false),
        deliver(NodeToClient, false),
        deliver(ClientToNode, false),
    ];
    assert_arrives(QUIET, &answered);
    // The client's acknowledgement reaches the backend before the repeated SYN.
    assert_arrives(QUIET, &[&answered[..], &[Event::Deliver { leg: 1, place: 1, keeps: false }]].concat());
}

/// The same, after the backend has got the header.
#[test]
fn a_repeated_syn_after_a_takeover_forgets_no_header() {
    use Leg::{BackendToNode, ClientToNode, NodeToBackend, NodeToClient};
    let sent = [
        deliver(ClientToNode, true),
        deliver(NodeToBackend, false),
        deliver(BackendToNode, false),
        deliver(NodeToClient, false),
        Event::Deliver { leg: 0, place: 1, keeps: false },
    ];
    let taken_over = [Event::TakeOver, deliver(ClientToNode, false)];
    assert_arrives(QUIET, &[&sent[..], &taken_over].concat());
    // The backend reads the header before, and its acknowledgement comes after.
    assert_arrives(QUIET, &[&sent[..], &[deliver(NodeToBackend, false)], &taken_over].concat());
    // It comes before: the flow has no mark any more, and the SYN is that of a new connection.
    let read = [deliver(NodeToBackend, false), deliver(BackendToNode, false)];
    assert_arrives(QUIET, &[&sent[..], &read, &taken_over].concat());
    // A SYN of the connection before comes late.
    let later = [Event::Connect { step: 1 << 24 }, Event::Deliver { leg: 0, place: 1, keeps: false }];
    assert_arrives(QUIET, &[&later[..], &read, &taken_over].concat());
}

/// A late reset ends the flow after the backend has accepted the next connection, whose SYN is then repeated, and the
/// Service wants another header meanwhile.
#[test]
fn a_syn_that_is_repeated_after_a_late_reset_keeps_its_header() {
    use Leg::{BackendToNode, ClientToNode, NodeToBackend, NodeToClient};
    let events = [
        deliver(ClientToNode, false),
        Event::Want { len: Some(52) },
        deliver(NodeToBackend, false),
        Event::Acknowledge,
        deliver(ClientToNode, false),
        deliver(NodeToBackend, false),
        Event::Restart,
        Event::Connect { step: 1 << 24 },
        deliver(BackendToNode, false),
        deliver(ClientToNode, false),
        Event::Want { len: Some(28) },
        deliver(NodeToClient, false),
        Event::Resend,
        deliver(NodeToBackend, false),
        deliver(ClientToNode, true),
        deliver(NodeToBackend, false),
        deliver(BackendToNode, false),
    ];
    assert_arrives(Start { is_answered: true, ..QUIET }, &events);
}

/// The backend accepts a forged SYN whose header overlaps that of the client.
#[test]
fn a_forged_syn_nearby_cuts_no_header() {
    let mut history = History::new(Start { is_answered: true, ..QUIET });
    for event in [
        Event::Forge { flags: TcpFlags::SYN, distance: 1, len: 0 },
        Event::Connect { step: u32::MAX - 4 },
        Event::Restart,
        Event::Connect { step: 5 },
    ] {
        history.run(&event);
    }
    history.settle_with_timers();
    history.assert_header_is_first();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// With forged segments, tables that lose rows, and a Service that changes: the header is first, or nothing is read.
    #[test]
    fn the_header_is_read_once_and_first(
        start in start(),
        is_silent: bool,
        events in collection::vec(event(true), 1..120),
    ) {
        let mut history = History::new(start);
        for event in &events {
            history.run(event);
            history.assert_header_is_first();
        }
        history.settle_with_timers();
        history.assert_header_is_first();
    }

    /// Without these, a connection that neither end gave up arrives whole, also if the backend speaks first. If SYNs and
    /// answers of more than two connections of one port overtake each other, or the Service
    /// wants no header any more, the last one may have to be dialled again.
    #[test]
    fn what_is_sent_arrives(
        start in start().prop_map(|start| Start { is_silent: false, ..start }),
        events in collection::vec(event(false), 1..120),
    ) {
        let mut history = History::new(start);
        for event in &events {
            history.run(event);
            history.assert_header_is_first();
        }
        history.node.copy();
        history.settle_with_timers();
        if history.dials > 2 || history.was_unwanted || !history.client.is_open() {
            return Ok(());
        }
        let Some((isn, len)) = history.connection() else { return Ok(()) };
        let header = history.backend.read_of(isn);
        prop_assert!(header.is_some_and(|read| read.len() >= usize::from(len)), "the backend waits: {header:?}");
        history.run(&Event::Send { len: 50 });
        history.run(&Event::Finish);
        history.settle_with_timers();
        history.assert_header_is_first();
        let read = history.backend.read_of(isn).map_or(0, <[Byte]>::len);
        prop_assert_eq!(read as u32, u32::from(len) + history.client.sent_len(), "all of the stream");
        prop_assert!(history.node.is_done(), "no flow costs more for ever");
    }
}
