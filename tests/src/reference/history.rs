//! Random histories of a small world, in which everything meets: packets of clients, backends and routers, changes of
//! the tables, time, and entries that are evicted.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::world::{Change, change};
use crate::cases::Net;
use crate::machine::Program;
use crate::packet::{End, Transport};
use crate::random::transport;
use lb_common::table::Direction;

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// A packet from one end to another.
    Packet {
        program: Program,
        transport: Transport,
        ends: (End, End),
        options_len: usize,
        payload_len: usize,
    },
    /// Whoever got the packet that left `back` packets ago answers it.
    /// At the other hook of the same edge, unless told otherwise.
    Answer {
        program: Option<Program>,
        transport: Transport,
        back: usize,
        payload_len: usize,
    },
    /// An ICMP error about the packet that left `back` packets ago, by its receiver or by a router.
    Error {
        program: Option<Program>,
        kind: (u8, u8),
        back: usize,
        is_by_receiver: bool,
    },
    Tables(Change),
    Wait {
        secs: u64,
    },
    Evict(Direction),
}

/// Waits: multiples of seven never come close to a time-out, so that the real time that a test takes does not matter.
const WAITS_SECS: [u64; 5] = [7, 14, 63, 126, 86_450];

/// Steps that bytes may tell of at most.
const STEPS_MAX: usize = 200;

const INGRESS: [Program; 2] = [Program::WorkloadIngress, Program::UplinkIngress];
const EGRESS: [Program; 2] = [Program::WorkloadEgress, Program::UplinkEgress];

/// Steps in the order in which they happen.
pub fn history(net: Net) -> impl Strategy<Value = Vec<Step>> {
    vec(step(net), 1..60)
}

/// A history that is told by bytes: every two of them are one step, the same each time.
pub fn history_of(net: Net, bytes: &[u8]) -> Vec<Step> {
    let step = step(net);
    let steps = bytes.chunks_exact(2).take(STEPS_MAX).map(|pair| {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(pair);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        step.new_tree(&mut runner).expect("nothing is rejected").current()
    });
    steps.collect()
}

fn step(net: Net) -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => packet(net, INGRESS, client(net), service(net)),
        3 => packet(net, INGRESS, client(net), backend(net)),
        2 => packet(net, EGRESS, backend(net), client(net)),
        1 => packet(net, [Program::WorkloadIngress, Program::UplinkEgress], backend(net), service(net)),
        12 => answer(),
        4 => error(net),
        4 => change().prop_map(Step::Tables),
        2 => select(WAITS_SECS.to_vec()).prop_map(|secs| Step::Wait { secs }),
        2 => select(vec![Direction::Request, Direction::Reply]).prop_map(Step::Evict),
    ]
}

/// The client pod is a backend as well; two ports of it, so that connections collide.
fn client(net: Net) -> impl Strategy<Value = End> {
    (select(vec![2_u8, 3]), select(vec![40_000_u16, 40_001, 8080])).prop_map(move |(host, port)| (net.host(host), port))
}

fn service(net: Net) -> impl Strategy<Value = End> {
    (select(vec![100_u8, 101]), select(vec![80_u16, 8080, 9])).prop_map(move |(host, port)| (net.host(host), port))
}

fn backend(net: Net) -> impl Strategy<Value = End> {
    (select(vec![2_u8, 20, 21]), select(vec![8080_u16, 8081, 80])).prop_map(move |(host, port)| (net.host(host), port))
}

fn packet(
    net: Net,
    programs: [Program; 2],
    from: impl Strategy<Value = End>,
    to: impl Strategy<Value = End>,
) -> impl Strategy<Value = Step> {
    (select(programs.to_vec()), transport(), from, to, 0_usize..4, 0_usize..64).prop_map(
        move |(program, transport, from, to, options, payload_len)| {
            let options_len = match (net, options) {
                (_, 0) => 0,
                (Net::V4, words) => words * 4,
                (Net::V6, units) => units * 8 - 2,
            };
            Step::Packet { program, transport, ends: (from, to), options_len, payload_len }
        },
    )
}

/// Most at the right place.
fn hook() -> impl Strategy<Value = Option<Program>> {
    prop_oneof![8 => Just(None), 1 => select([INGRESS, EGRESS].concat()).prop_map(Some)]
}

fn answer() -> impl Strategy<Value = Step> {
    (hook(), transport(), 0_usize..4, 0_usize..64).prop_map(|(program, transport, back, payload_len)| Step::Answer {
        program,
        transport,
        back,
        payload_len,
    })
}

/// Unreachable, too big, time exceeded, parameter problem, redirect, and an echo request that quotes by chance.
fn error(net: Net) -> impl Strategy<Value = Step> {
    let kinds = match net {
        Net::V4 => vec![(3, 3), (3, 4), (4, 0), (11, 0), (12, 0), (5, 1), (8, 0)],
        Net::V6 => vec![(1, 4), (2, 0), (3, 0), (4, 1), (128, 0)],
    };
    (hook(), select(kinds), 0_usize..6, any::<bool>()).prop_map(|(program, kind, back, is_by_receiver)| Step::Error {
        program,
        kind,
        back,
        is_by_receiver,
    })
}
