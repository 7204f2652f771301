//! Random histories of a small world: packets of clients, backends and routers, changes of the tables, time that
//! passes, and evicted entries.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::transit::{FEW_PORTS, NODE};
use super::world::{Change, Fixed, change, ranges};
use crate::cases::Net;
use crate::machine::Program;
use crate::packet::{
    ATOMIC_ID, BRIDGE_MAC, BROADCAST_MAC, End, FIRST_LEN, MULTICAST_MAC, NEIGHBOUR_MAC, NODE_MAC, SEQ, Transport,
};
use crate::random::transport;
use lb_common::table::Direction;

/// One step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    /// A packet from one end to another.
    Packet {
        program: Program,
        transport: Transport,
        ends: (End, End),
        shape: Shape,
    },
    /// A datagram from one end to another. One of its fragments is sent now.
    Datagram {
        program: Program,
        transport: Transport,
        ends: (End, End),
        shape: Shape,
        cut: Cut,
    },
    /// The next fragment of the datagram that was begun `back` datagrams ago, at the same hook unless `program` is
    /// given.
    Fragment {
        program: Option<Program>,
        back: usize,
        then: Then,
    },
    /// The sender of the packet that arrived `back` packets ago sends another one.
    Again {
        transport: Transport,
        back: usize,
        shape: Shape,
    },
    /// The receiver of the packet that left `back` packets ago answers, at the other hook of the same edge unless
    /// `program` is given.
    Answer {
        program: Option<Program>,
        transport: Transport,
        back: usize,
        shape: Shape,
        /// If given, the answer is cut and only one fragment is sent.
        cut: Option<Cut>,
    },
    /// The packet that left `back` packets ago is delivered to the edge that it came from.
    Home {
        transport: Transport,
        back: usize,
        shape: Shape,
    },
    /// An ICMP error about the packet that left `back` packets ago, from its receiver or from a router.
    Error {
        program: Option<Program>,
        kind: (u8, u8),
        back: usize,
        is_by_receiver: bool,
        quote: Quote,
    },
    Tables(Change),
    Wait {
        secs: u64,
    },
    /// A second passes, which is less than fragments are parked.
    Pause,
    Evict(Direction),
}

/// The properties of a packet beside its ends.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Words of IPv4 options, or units of an IPv6 extension header.
    pub options: usize,
    pub extension: u8,
    pub payload_len: usize,
    /// IPv6: a fragment header on a whole packet (RFC 6946).
    pub is_atomic: bool,
    /// The sequence number of a TCP segment.
    pub seq: u32,
    /// The destination MAC.
    pub mac: [u8; 6],
    /// TTL or hop limit.
    pub hops: u8,
}

/// How a datagram is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub id: u32,
    /// How many fragments are sent before the first one.
    pub overtaking: usize,
    /// Bytes that the first fragment of a TCP packet holds from its transport header on: perhaps too few.
    pub first_len: usize,
}

/// What is special about a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    Next,
    /// It is sent a second time later.
    Again,
    /// It is too long to be parked, unless it is the first.
    Long,
}

/// The part of a packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug)]
pub struct Quote {
    pub shape: Shape,
    /// Fragment offset and "more fragments".
    pub fragment: Option<(u16, bool)>,
    /// At most eight bytes after the network header (RFC 792).
    pub is_short: bool,
}

/// Multiples of seven. With a few pauses they never come close to a time-out, so the real time that a test takes does
/// not matter.
const WAITS_SECS: [u64; 5] = [7, 14, 63, 126, 86_450];

/// The most steps that a history from bytes may have.
const STEPS_MAX: usize = 200;

/// IPv6 extension headers: hop by hop, routing, destination options, AH.
const EXTENSIONS: [u8; 4] = [0, 43, 60, 51];

const INGRESS: [Program; 2] = [Program::WorkloadIngress, Program::UplinkIngress];
const EGRESS: [Program; 2] = [Program::WorkloadEgress, Program::UplinkEgress];

/// Steps in the order in which they happen.
pub fn history(net: Net) -> impl Strategy<Value = Vec<Step>> {
    vec(scene(net), 1..90).prop_map(|scenes| scenes.concat())
}

/// As [`history`], for a node that forwards: most packets are of the network, and some of the node itself.
pub fn forwarding_history(net: Net) -> impl Strategy<Value = Vec<Step>> {
    let scene = prop_oneof![
        4 => (scene(net), prop::bool::weighted(0.9)).prop_map(|(steps, is_outside)| {
            if is_outside { steps.into_iter().map(Step::at_uplink).collect() } else { steps }
        }),
        1 => own(net),
    ];
    vec(scene, 1..90).prop_map(|scenes| scenes.concat())
}

/// The node dials an endpoint itself, perhaps from a port that it forwards from, and is answered.
fn own(net: Net) -> impl Strategy<Value = Vec<Step>> {
    let port = prop_oneof![6 => FEW_PORTS.first..=FEW_PORTS.last, 1 => Just(40_000)];
    let answer = || (transport(), 0_usize..2, shape());
    let error = prop::option::weighted(0.3, error(net));
    (transport(), port, backend(net), shape(), vec(answer(), 0..3), error).prop_map(
        move |(transport, port, to, shape, answers, error)| {
            let ends = ((net.host(NODE), port), to);
            let packet = Step::Packet { program: Program::UplinkEgress, transport, ends, shape };
            let answers = answers.into_iter().map(|(transport, back, shape)| Step::Answer {
                program: None,
                transport,
                back,
                shape,
                cut: None,
            });
            let error = error.map(|error| about(&error, None, 0));
            [packet].into_iter().chain(error).chain(answers).collect()
        },
    )
}

impl Step {
    /// The same at the uplink.
    fn at_uplink(self) -> Self {
        let outside = |program| match program {
            Program::WorkloadIngress | Program::UplinkIngress => Program::UplinkIngress,
            Program::WorkloadEgress | Program::UplinkEgress => Program::UplinkEgress,
        };
        match self {
            Self::Packet { program, transport, ends, shape } => {
                Self::Packet { program: outside(program), transport, ends, shape }
            }
            Self::Datagram { program, transport, ends, shape, cut } => {
                Self::Datagram { program: outside(program), transport, ends, shape, cut }
            }
            Self::Fragment { program, back, then } => Self::Fragment { program: program.map(outside), back, then },
            Self::Answer { program, transport, back, shape, cut } => {
                Self::Answer { program: program.map(outside), transport, back, shape, cut }
            }
            Self::Error { program, kind, back, is_by_receiver, quote } => {
                Self::Error { program: program.map(outside), kind, back, is_by_receiver, quote }
            }
            other => other,
        }
    }
}

/// The history that the bytes describe: every two bytes give one scene, always the same.
pub fn history_of(net: Net, bytes: &[u8]) -> Vec<Step> {
    let scene = scene(net);
    let scenes = bytes.chunks_exact(2).take(STEPS_MAX).map(|pair| {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(pair);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        scene.new_tree(&mut runner).expect("nothing is rejected").current()
    });
    scenes.flatten().collect()
}

/// A step, or a few that belong together and rarely meet by chance.
fn scene(net: Net) -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        20 => step(net).prop_map(|step| vec![step]),
        1 => rolling_update(net),
        1 => restriction(net),
        1 => direct_after_frontend(net),
        1 => lost_tuple(net),
        1 => lost_request(net),
        1 => flip(net),
        2 => homecoming(net),
        1 => ending(net),
        1 => early_reset(net),
        2 => overtaking(net),
        1 => crowd(net),
        1 => refusal(net),
        1 => only_choice(net),
        1 => complaint(net),
    ]
}

/// A backend of a connection terminates and is removed.
fn rolling_update(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (opening(net), any::<prop::sample::Index>(), shape()).prop_map(|((at, transport, ends), index, shape)| {
        let again = Step::Again { transport, back: 0, shape };
        let packet = Step::Packet { program: Program::WorkloadIngress, transport, ends, shape };
        let [terminate, drained] = [Change::Terminate(at, index), Change::Drained(at)].map(Step::Tables);
        vec![packet, terminate, again.clone(), drained, again]
    })
}

/// A frontend's source ranges change during a connection.
fn restriction(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (opening(net), ranges(), shape()).prop_map(|((at, transport, ends), ranges, shape)| {
        let packet = Step::Packet { program: Program::WorkloadIngress, transport, ends, shape };
        let again = Step::Again { transport, back: 0, shape };
        vec![packet, Step::Tables(Change::Ranges(at, ranges)), again]
    })
}

/// A client dials a frontend, then each endpoint directly, and ICMP errors follow.
fn direct_after_frontend(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (opening(net), shape(), vec(prop_oneof![2 => error(net), 1 => answer()], 3), 0_usize..4, error(net)).prop_map(
        move |((_, transport, ends), shape, then, back, error)| {
            let places = [(2, 8080), (20, 8080), (21, 8080), (21, 8081)].map(|(host, port)| (net.host(host), port));
            let tos = [ends.1].into_iter().chain(places);
            let dials = tos.map(|to| {
                let ends = (ends.0, to);
                Step::Packet { program: Program::WorkloadIngress, transport, ends, shape }
            });
            let answer = Step::Answer { program: None, transport, back, shape, cut: None };
            dials.chain([answer, about(&error, None, 0)]).chain(then).collect()
        },
    )
}

/// The reply entry of a connection is evicted, and another connection gets its tuple.
fn lost_tuple(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (opening(net), shape()).prop_map(move |((_, transport, (client, service)), shape)| {
        let dial = |host| {
            let ends = (client, (net.host(host), service.1));
            Step::Packet { program: Program::WorkloadIngress, transport, ends, shape }
        };
        let (wait, again) = (Step::Wait { secs: WAITS_SECS[0] }, Step::Again { transport, back: 1, shape });
        vec![dial(100), Step::Evict(Direction::Reply), dial(101), wait, again]
    })
}

/// The request entry of a connection is evicted, and another connection wants its reply tuple, at once or later.
fn lost_request(net: Net) -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![Just(None), Just(Some(Step::Pause)), Just(Some(Step::Wait { secs: WAITS_SECS[0] }))];
    (opening(net), pause, shape()).prop_map(move |((_, transport, (client, service)), pause, shape)| {
        let dial = |host| {
            let ends = (client, (net.host(host), service.1));
            Step::Packet { program: Program::WorkloadIngress, transport, ends, shape }
        };
        [dial(100), Step::Evict(Direction::Request)].into_iter().chain(pause).chain([dial(101)]).collect()
    })
}

/// A frontend changes to pass during a connection.
fn flip(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (opening(net), shape()).prop_map(|((at, transport, ends), shape)| {
        let packet = Step::Packet { program: Program::WorkloadIngress, transport, ends, shape };
        let again = Step::Again { transport, back: 0, shape };
        vec![packet, Step::Tables(Change::All(at, Fixed::Pass)), again]
    })
}

/// A pod's request is delivered to the pod itself, is answered, and the connection continues; then another of the pod's
/// addresses dials from the same port.
fn homecoming(net: Net) -> impl Strategy<Value = Vec<Step>> {
    let what_is_lost = prop_oneof![3 => Just(None), 1 => Just(Some(Step::Evict(Direction::Request)))];
    (opening(net), shape(), what_is_lost).prop_map(move |((_, transport, ends), shape, lost)| {
        let ((_, port), service) = ends;
        let dial = |host| {
            let ends = ((net.host(host), port), service);
            Step::Packet { program: Program::WorkloadIngress, transport, ends, shape }
        };
        let home = Step::Home { transport, back: 0, shape };
        let answer = Step::Answer {
            program: Some(Program::WorkloadIngress),
            transport: Transport::Tcp(0x12),
            back: 0,
            shape,
            cut: None,
        };
        let again = Step::Again { transport: Transport::Tcp(0x10), back: 2, shape };
        let first = [dial(2)].into_iter().chain(lost).chain([home.clone(), answer.clone(), again]);
        first.chain([dial(3), home, answer]).collect()
    })
}

/// A frontend begins to reject or drop during a connection, and its source ranges change as well.
fn refusal(net: Net) -> impl Strategy<Value = Vec<Step>> {
    let fixed = select(vec![Fixed::Reject, Fixed::Drop]);
    (opening(net), fixed, ranges(), shape()).prop_map(|((at, transport, ends), fixed, ranges, shape)| {
        let packet = Step::Packet { program: Program::WorkloadIngress, transport, ends, shape };
        let [refuse, restrict] = [Change::All(at, fixed), Change::Ranges(at, ranges)].map(Step::Tables);
        let again = Step::Again { transport, back: 0, shape };
        vec![packet, refuse, again.clone(), restrict, again]
    })
}

/// A client with affinity dials again when no other backend is left.
fn only_choice(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (opening(net), any::<prop::sample::Index>(), shape()).prop_map(|((at, transport, ends), index, shape)| {
        let dial = |port| {
            let ends = ((ends.0.0, port), ends.1);
            Step::Packet { program: Program::WorkloadIngress, transport, ends, shape }
        };
        let mut steps = vec![Step::Tables(Change::Affinity(at, 103))];
        steps.extend(vec![Step::Tables(Change::Terminate(at, index)); 3]);
        steps.extend([dial(40_000), dial(40_001), dial(40_002)]);
        steps
    })
}

/// The client sends an ICMP error about a reply, and the receiver of the request sends one about the request. Both may
/// be the same pod.
fn complaint(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (opening(net), shape(), error(net), error(net)).prop_map(|((_, transport, ends), shape, one, other)| {
        let packet = Step::Packet { program: Program::WorkloadIngress, transport, ends, shape };
        let answer = Step::Answer { program: None, transport, back: 0, shape, cut: None };
        vec![packet, answer, about(&one, None, 0), about(&other, Some(Program::WorkloadIngress), 2)]
    })
}

/// The same ICMP error about another packet, at another hook.
fn about(error: &Step, program: Option<Program>, back: usize) -> Step {
    let Step::Error { kind, is_by_receiver, quote, .. } = error else { panic!("{error:?} complains of nothing") };
    Step::Error { program, kind: *kind, back, is_by_receiver: *is_by_receiver, quote: *quote }
}

/// A connection is answered, is closed by both sides, and is dialled again.
fn ending(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (opening(net), shape()).prop_map(|((_, transport, ends), shape)| {
        let packet = Step::Packet { program: Program::WorkloadIngress, transport, ends, shape };
        let answer =
            |flags| Step::Answer { program: None, transport: Transport::Tcp(flags), back: 0, shape, cut: None };
        vec![packet.clone(), answer(0x12), answer(0x11), answer(0x11), packet]
    })
}

/// A connection whose SYN is answered by a spoofed RST. The backend, or the client itself, answers all the same.
fn early_reset(net: Net) -> impl Strategy<Value = Vec<Step>> {
    let flags = select(vec![0x02, 0x10, 0x11, 0x12]);
    (opening(net), shape(), flags, 0_usize..2).prop_map(|((_, transport, ends), shape, flags, back)| {
        let packet = Step::Packet { program: Program::WorkloadIngress, transport, ends, shape };
        let answer =
            |flags, back| Step::Answer { program: None, transport: Transport::Tcp(flags), back, shape, cut: None };
        vec![packet.clone(), answer(0x14, 0), answer(flags, back), answer(0x10, 0), packet]
    })
}

/// A datagram whose first fragment is overtaken by others, some of which are sent twice, with other steps between. Some
/// are hairpin datagrams with their answers.
fn overtaking(net: Net) -> impl Strategy<Value = Vec<Step>> {
    let between = prop_oneof![
        6 => fragment().prop_map(Some),
        2 => Just(Some(Step::Pause)),
        1 => change().prop_map(|change| Some(Step::Tables(change))),
        1 => select(WAITS_SECS.to_vec()).prop_map(|secs| Some(Step::Wait { secs })),
        4 => Just(None),
    ];
    let then = prop_oneof![4 => Just(Then::Next), 1 => Just(Then::Again), 1 => Just(Then::Long)];
    (prop_oneof![2 => datagram(net, 1..4), 1 => cut_answer(1..4)], vec((then, between), 2..8)).prop_map(
        |(first, others)| {
            let others = others.into_iter().flat_map(|(then, between)| {
                between.into_iter().chain([Step::Fragment { program: None, back: 0, then }])
            });
            [first].into_iter().chain(others).collect()
        },
    )
}

/// More fragments, of one datagram or of two, than can be parked.
fn crowd(net: Net) -> impl Strategy<Value = Vec<Step>> {
    (datagram(net, 2..3), datagram(net, 2..3), 10_usize..20, any::<bool>()).prop_map(|(one, other, count, is_its)| {
        let again = |back| Step::Fragment { program: None, back, then: Then::Again };
        let next = |back| Step::Fragment { program: None, back, then: Then::Next };
        let mut steps = vec![one, next(0), other];
        steps.extend(vec![again(usize::from(is_its)); count]);
        steps.extend([next(1), next(1), next(0), next(0)]);
        steps
    })
}

/// A packet that opens a connection to the first place, and the index of its frontend, which equals that of its Service
/// port.
fn opening(net: Net) -> impl Strategy<Value = (usize, Transport, (End, End))> {
    let transport = select(vec![(0, Transport::Tcp(2)), (1, Transport::Udp), (2, Transport::Sctp)]);
    let service = select(vec![(0, 80_u16), (3, 8080)]);
    (transport, client(net), service).prop_map(move |((proto, transport), client, (place, port))| {
        (place + proto, transport, (client, (net.host(100), port)))
    })
}

fn step(net: Net) -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => packet(INGRESS, client(net), service(net)),
        3 => packet(INGRESS, client(net), backend(net)),
        2 => packet(EGRESS, backend(net), client(net)),
        1 => packet([Program::WorkloadIngress, Program::UplinkEgress], backend(net), service(net)),
        4 => datagram(net, 0..2),
        6 => fragment(),
        1 => Just(Step::Pause),
        10 => (transport(), 0_usize..8, shape()).prop_map(|(transport, back, shape)| Step::Again { transport, back, shape }),
        12 => answer(),
        4 => error(net),
        4 => change().prop_map(Step::Tables),
        2 => select(WAITS_SECS.to_vec()).prop_map(|secs| Step::Wait { secs }),
        2 => select(vec![Direction::Request, Direction::Reply]).prop_map(Step::Evict),
    ]
}

/// The client pod is a backend as well. It has few ports, so that connections collide.
fn client(net: Net) -> impl Strategy<Value = End> {
    let port = prop_oneof![4 => Just(40_000_u16), 1 => Just(40_001), 2 => Just(8080)];
    (prop_oneof![3 => Just(2_u8), 1 => Just(3)], port).prop_map(move |(host, port)| (net.host(host), port))
}

fn service(net: Net) -> impl Strategy<Value = End> {
    let host = prop_oneof![3 => Just(100_u8), 1 => Just(101)];
    let port = prop_oneof![5 => Just(80_u16), 2 => Just(8080), 1 => Just(9)];
    (host, port).prop_map(move |(host, port)| (net.host(host), port))
}

fn backend(net: Net) -> impl Strategy<Value = End> {
    (select(vec![2_u8, 20, 21]), select(vec![8080_u16, 8081, 80])).prop_map(move |(host, port)| (net.host(host), port))
}

/// Pods send more packets than the network.
fn program([workload, uplink]: [Program; 2]) -> impl Strategy<Value = Program> {
    prop_oneof![3 => Just(workload), 1 => Just(uplink)]
}

fn packet(
    programs: [Program; 2],
    from: impl Strategy<Value = End>,
    to: impl Strategy<Value = End>,
) -> impl Strategy<Value = Step> {
    (program(programs), transport(), from, to, shape()).prop_map(|(program, transport, from, to, shape)| Step::Packet {
        program,
        transport,
        ends: (from, to),
        shape,
    })
}

/// A datagram, and how many of its fragments overtake the first one.
fn datagram(net: Net, overtaking: Range<usize>) -> impl Strategy<Value = Step> {
    let to = prop_oneof![4 => service(net), 1 => backend(net)];
    (program(INGRESS), transport(), client(net), to, shape(), cuts(overtaking)).prop_map(
        |(program, transport, from, to, shape, cut)| Step::Datagram {
            program,
            transport,
            ends: (from, to),
            shape,
            cut,
        },
    )
}

fn fragment() -> impl Strategy<Value = Step> {
    let then = prop_oneof![8 => Just(Then::Next), 1 => Just(Then::Again), 1 => Just(Then::Long)];
    (hook(), 0_usize..3, then).prop_map(|(program, back, then)| Step::Fragment { program, back, then })
}

/// Few, so that datagrams share them. One of them is the identification of atomic fragments.
fn ids() -> impl Strategy<Value = u32> {
    select(vec![1_u32, 2, ATOMIC_ID])
}

fn cuts(overtaking: Range<usize>) -> impl Strategy<Value = Cut> {
    let first_len = prop_oneof![8 => Just(FIRST_LEN), 1 => Just(8), 1 => Just(16)];
    (ids(), overtaking, first_len).prop_map(|(id, overtaking, first_len)| Cut { id, overtaking, first_len })
}

/// Most are as simple as possible.
fn shape() -> impl Strategy<Value = Shape> {
    let options = prop_oneof![2 => Just(0), 1 => 1_usize..4];
    let extension = select(EXTENSIONS.to_vec());
    let is_atomic = prop_oneof![9 => Just(false), 1 => Just(true)];
    // Most are those of a new connection. The others are slightly ahead, at the plausible limits, just beyond them, and
    // anywhere.
    let seq = prop_oneof![
        12 => Just(SEQ),
        2 => select(vec![SEQ + 0x1_0000, SEQ + 0xf_0000, SEQ + 0x10_0000, SEQ.wrapping_sub(0x1_0000)]),
        2 => any::<u32>(),
    ];
    let hops = prop_oneof![12 => Just(64), 1 => 1_u8..3];
    let whole = (options, extension, 0_usize..64, is_atomic, seq, mac(), hops);
    whole.prop_map(|(options, extension, payload_len, is_atomic, seq, mac, hops)| Shape {
        options,
        extension,
        payload_len,
        is_atomic,
        seq,
        mac,
        hops,
    })
}

/// Most frames are for the node.
fn mac() -> impl Strategy<Value = [u8; 6]> {
    prop_oneof![
        24 => Just(NODE_MAC),
        5 => Just(BRIDGE_MAC),
        3 => Just(NEIGHBOUR_MAC),
        1 => select(vec![BROADCAST_MAC, MULTICAST_MAC]),
    ]
}

/// Most packets are at the right hook.
fn hook() -> impl Strategy<Value = Option<Program>> {
    prop_oneof![8 => Just(None), 1 => select([INGRESS, EGRESS].concat()).prop_map(Some)]
}

fn answer() -> impl Strategy<Value = Step> {
    prop_oneof![8 => whole_answer(), 1 => cut_answer(0..2)]
}

fn whole_answer() -> impl Strategy<Value = Step> {
    (hook(), transport(), 0_usize..4, shape()).prop_map(|(program, transport, back, shape)| Step::Answer {
        program,
        transport,
        back,
        shape,
        cut: None,
    })
}

fn cut_answer(overtaking: Range<usize>) -> impl Strategy<Value = Step> {
    (hook(), transport(), 0_usize..4, shape(), cuts(overtaking)).prop_map(|(program, transport, back, shape, cut)| {
        Step::Answer { program, transport, back, shape, cut: Some(cut) }
    })
}

/// Unreachable, too big, time exceeded, parameter problem, redirect, neighbour discovery, and an echo request whose
/// payload looks like a quote.
fn error(net: Net) -> impl Strategy<Value = Step> {
    let kinds = match net {
        Net::V4 => vec![(3, 3), (3, 4), (4, 0), (11, 0), (12, 0), (5, 1), (8, 0)],
        Net::V6 => vec![(1, 4), (2, 0), (3, 0), (4, 1), (128, 0), (135, 0), (137, 0)],
    };
    let fragment = prop_oneof![4 => Just(None), 1 => Just(Some((0, true))), 1 => Just(Some((3, true)))];
    let quote =
        (shape(), fragment, any::<bool>()).prop_map(|(shape, fragment, is_short)| Quote { shape, fragment, is_short });
    (hook(), select(kinds), 0_usize..6, any::<bool>(), quote).prop_map(
        |(program, kind, back, is_by_receiver, quote)| Step::Error { program, kind, back, is_by_receiver, quote },
    )
}
