//! What a packet costs in the programs themselves: `BPF_PROG_TEST_RUN`, minus the program that does nothing.
//!
//! Each measurement is checked against the programs' own counters: one that measured something else is an error.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use etherparse::PacketBuilder;
use lb_agent::dataplane::object::EMPTY_PROGRAM;
use lb_common::table::Counter;

use crate::figures::{Figure, Target, Unit};
use crate::ring::{Numbered, Ring, port};

const INGRESS: &str = "workload_ingress";
const EGRESS: &str = "workload_egress";

/// Repeats of one test-run, where the ring does not set them.
const REPEATS: u32 = 300_000;

/// Source port of the first round; each round has its own.
const SPORT: u16 = 40_000;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// How many Services the tables hold, in the rings that are compared.
const SERVICES: [u32; 3] = [10, 10_000, 100_000];

/// The figures of one round, in nanoseconds per packet over the empty program.
#[derive(Clone, Copy)]
struct Round {
    stranger_request: f64,
    stranger_reply: f64,
    established_request: f64,
    established_reply: f64,
    new_flow: f64,
}

/// One figure of a round.
type Pick = fn(&Round) -> f64;

/// TCP flags of a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    Syn,
    SynAck,
    Ack,
}

/// All figures of the programs.
pub fn measure(rounds: u16) -> Result<Vec<Figure>> {
    let [mut few, mut middle, mut many] = {
        let [few, middle, many] = SERVICES;
        [Ring::open(few)?, Ring::open(middle)?, Ring::open(many)?]
    };
    let (mut few4, mut middle4, mut middle6, mut many4) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for sport in (SPORT..).take(usize::from(rounds)) {
        few4.push(round::<[u8; 4]>(&mut few, sport)?);
        middle4.push(round::<[u8; 4]>(&mut middle, sport)?);
        middle6.push(round::<[u8; 16]>(&mut middle, sport)?);
        many4.push(round::<[u8; 4]>(&mut many, sport)?);
    }

    let most = Target::AtMost;
    let mut figures = of_family("IPv4", &middle4, [most(30.0), most(50.0), most(110.0), Target::None, most(800.0)]);
    figures.extend(of_family("IPv6", &middle6, [Target::None; 5]));
    let growth = |what: &str, pick: Pick| {
        let rounds = few4.iter().zip(&many4).map(|(few, many)| pick(many) / pick(few)).collect();
        Figure::new(format!("{what}, 100,000 Services / 10"), Unit::Ratio, most(1.2), rounds)
    };
    figures.push(growth("IPv4 no interest, request side", |round| round.stranger_request));
    figures.push(growth("IPv4 established, request", |round| round.established_request));
    Ok(figures)
}

fn of_family(family: &str, rounds: &[Round], targets: [Target; 5]) -> Vec<Figure> {
    let rows: [(&str, Pick); 5] = [
        ("no interest, request side", |round| round.stranger_request),
        ("no interest, reply side", |round| round.stranger_reply),
        ("established, request", |round| round.established_request),
        ("established, reply", |round| round.established_reply),
        ("new flow, both entries", |round| round.new_flow),
    ];
    let figure = |((what, pick), target): ((&str, Pick), Target)| {
        Figure::new(format!("{family} {what}"), Unit::NsPerPacket, target, rounds.iter().map(pick).collect())
    };
    rows.into_iter().zip(targets).map(figure).collect()
}

/// Every figure once.
fn round<A: Numbered>(ring: &mut Ring, sport: u16) -> Result<Round> {
    let (client, stranger) = ((A::CLIENT, sport), (A::STRANGER, 443));
    let [hot, back] = [ring.pair(), ring.pair() + 1].map(|number| (A::frontend(number), port(number)));
    let large = (A::frontend(0), port(0));
    let empty = ring.run(EMPTY_PROGRAM, &packet(client, stranger, Segment::Ack), REPEATS)?;

    let stranger_request = ring.run(INGRESS, &packet(client, stranger, Segment::Ack), REPEATS)?;
    let stranger_reply = ring.run(EGRESS, &packet(stranger, client, Segment::Ack), REPEATS)?;

    // Both flows of the small ring, established.
    ring.run(INGRESS, &packet(client, hot, Segment::Syn), 2)?;
    ring.run(EGRESS, &packet(back, client, Segment::SynAck), 2)?;
    ring.run(INGRESS, &packet(client, hot, Segment::Ack), 2)?;
    let (request, reply) = (packet(client, hot, Segment::Ack), packet(back, client, Segment::Ack));
    let established_request = ring.counted(Counter::RequestTranslated, INGRESS, &request, REPEATS)?;
    let established_reply = ring.counted(Counter::ReplyTranslated, EGRESS, &reply, REPEATS)?;

    let new_flow = ring.counted(Counter::FlowCreated, INGRESS, &packet(client, large, Segment::Syn), ring.len)?;
    Ok(Round {
        stranger_request: stranger_request - empty,
        stranger_reply: stranger_reply - empty,
        established_request: established_request - empty,
        established_reply: established_reply - empty,
        new_flow: new_flow - empty,
    })
}

impl Ring {
    /// Nanoseconds that a program takes for a packet.
    fn run(&mut self, program: &'static str, packet: &[u8], repeats: u32) -> Result<f64> {
        let program: &mut SchedClassifier = self
            .dataplane
            .ebpf()
            .program_mut(program)
            .with_context(|| format!("there is no program {program}"))?
            .try_into()?;
        let mut options = TestRunOptions::default();
        (options.data_in, options.repeat) = (Some(packet), repeats);
        let run = program.test_run(options)?;
        Ok(run.duration.as_secs_f64() * 1e9)
    }

    /// The same, for a packet that moves this counter each time.
    fn counted(&mut self, counter: Counter, program: &'static str, packet: &[u8], repeats: u32) -> Result<f64> {
        let before = self.counter(counter)?;
        let ns = self.run(program, packet, repeats)?;
        let moved = self.counter(counter)? - before;
        ensure!(
            moved == u64::from(repeats),
            "{program}: {} moved by {moved} in {repeats} runs: something else was measured",
            counter.name(),
        );
        Ok(ns)
    }

    fn counter(&self, counter: Counter) -> Result<u64> {
        Ok(self.dataplane.maps().counters()?.get(&counter).map_or(0, |value| value.packets))
    }
}

/// A TCP segment without payload.
fn packet<A: Numbered>(from: (A, u16), to: (A, u16), segment: Segment) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(MAC, MAC);
    let ip = match (from.0.into(), to.0.into()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), 64),
        _ => unreachable!("both ends are of one family"),
    };
    let mut tcp = ip.tcp(from.1, to.1, 1000, 0xffff);
    if segment != Segment::Ack {
        tcp = tcp.syn();
    }
    if segment != Segment::Syn {
        tcp = tcp.ack(1);
    }
    let mut bytes = Vec::with_capacity(tcp.size(0));
    tcp.write(&mut bytes, &[]).expect("writing to a vector does not fail");
    bytes
}
