//! The cost of a packet in the programs themselves: `BPF_PROG_TEST_RUN`, minus the empty program.
//!
//! Each measurement is checked against the programs' own counters: one that measured something else is an error.

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::object::EMPTY_PROGRAM;
use lb_common::table::Counter;

use crate::figures::{Figure, Target, Unit};
use crate::floor::{self, Floors};
use crate::packet::{Segment, datagram, packet};
use crate::ring::{FLOWS_MAX, Numbered, Ring, port};

pub const INGRESS: &str = "workload_ingress";
pub const EGRESS: &str = "workload_egress";

/// Repeats of one test run, if the ring does not set them.
pub const REPEATS: u32 = 300_000;

/// Source port of the first round; each round has its own.
pub const SPORT: u16 = 40_000;

/// Source port of a client without flows, far from those of all flows: the programs know by this port alone that a
/// segment belongs to no flow.
pub const QUIET_SPORT: u16 = 20_000;

/// Short runs of a round, which compare tables of few Services with tables of many, and the new flows of each.
const SHORT_RUNS: u16 = 200;
const RUN_LEN: u32 = 10;

/// Source port of the first of those runs: above all of [`SPORT`]'s rounds.
const SHORT_RUNS_SPORT: u16 = 41_000;

/// Entries of a flow table in which every new flow evicts an old one.
const FULL_ENTRIES: u32 = 1 << 12;

/// The numbers of Services in the tables that are compared.
const SERVICES: [u32; 3] = [10, 10_000, 100_000];

/// The figures of one round, in nanoseconds per packet over the empty program.
#[derive(Clone, Copy)]
pub struct Round {
    /// The empty program itself.
    pub empty: f64,
    /// A segment from a port like those of flows.
    pub stranger_request: f64,
    pub stranger_reply: f64,
    /// The same from [`QUIET_SPORT`].
    pub quiet_request: f64,
    pub quiet_reply: f64,
    /// A SYN to an address that is no frontend's.
    pub stranger_syn: f64,
    pub established_request: f64,
    pub established_reply: f64,
    pub datagram_request: f64,
    pub datagram_reply: f64,
    pub new_flow: f64,
}

/// One figure of a round.
type Pick = fn(&Round) -> f64;

/// All figures of the programs.
pub fn measure(rounds: u16) -> Result<Vec<Figure>> {
    let [mut few, mut middle, mut many] = {
        let [few, middle, many] = SERVICES;
        let open = |len| Ring::open("ring", len, FLOWS_MAX);
        [open(few)?, open(middle)?, open(many)?]
    };
    let mut full = Ring::open("full", FULL_ENTRIES, FULL_ENTRIES)?;
    // Rings of their own: the same number of flows in each, whatever the number of Services.
    let mut short = SERVICES.iter().map(|len| Ring::open("short", *len, FLOWS_MAX)).collect::<Result<Vec<_>>>()?;
    let (mut any, mut one) = (vec![Vec::new(); short.len()], vec![Vec::new(); short.len()]);
    let (mut few4, mut middle4, mut middle6, mut many4) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut full4 = Vec::new();
    let mut floors = Floors::open(&middle)?;
    let (mut floors4, mut floors6) = (Vec::new(), Vec::new());
    for index in 0..rounds {
        few4.push(round::<[u8; 4]>(&mut few, index)?);
        middle4.push(round::<[u8; 4]>(&mut middle, index)?);
        floors4.push(floors.round::<[u8; 4]>(&mut middle, index)?);
        middle6.push(round::<[u8; 16]>(&mut middle, index)?);
        floors6.push(floors.round::<[u8; 16]>(&mut middle, index)?);
        many4.push(round::<[u8; 4]>(&mut many, index)?);
        full4.push(evicting(&mut full, index)?);
        for (ring, (any, one)) in short.iter_mut().zip(any.iter_mut().zip(&mut one)) {
            any.push(in_short_runs::<[u8; 4]>(ring, index, Services::All)?);
            one.push(in_short_runs::<[u8; 4]>(ring, index, Services::Two)?);
        }
        println!("  programs: round {} of {rounds}", index + 1);
    }

    let most = Target::AtMost;
    let mut figures = of_family("IPv4", &middle4, [most(30.0), most(50.0), most(110.0), Target::None, most(800.0)]);
    figures.extend(of_family("IPv6", &middle6, [Target::None; 5]));
    figures.extend(floor::figures("IPv4", &middle4, &floors4));
    figures.extend(floor::figures("IPv6", &middle6, &floors6));
    let growth = |what: &str, pick: Pick| {
        let rounds = few4.iter().zip(&many4).map(|(few, many)| pick(many) / pick(few)).collect();
        Figure::new(format!("{what}, 100,000 Services / 10"), Unit::Ratio, most(1.2), rounds)
    };
    figures.push(growth("IPv4 no interest, request side", |round| round.stranger_request));
    figures.push(growth("IPv4 established, request", |round| round.established_request));
    let to_one = one[2].iter().zip(&one[0]).map(|(many, few)| many / few).collect();
    figures.push(Figure::new("IPv4 new flow to one Service, 100,000 Services / 10", Unit::Ratio, most(1.2), to_one));
    let rate = |what: &str, ns: Vec<f64>| {
        let rounds = ns.into_iter().map(|ns| 1e9 / ns).collect();
        Figure::new(format!("IPv4 new flows, {what}"), Unit::FlowsPerSec, Target::None, rounds)
    };
    for (count, rounds) in ["10", "10,000", "100,000"].into_iter().zip(any) {
        figures.push(rate(&format!("to any of {count} Services"), rounds));
    }
    figures.push(rate("to each of 10,000 Services in turn", middle4.iter().map(|round| round.new_flow).collect()));
    figures.push(rate("each pushes another out of a full table", full4));
    Ok(figures)
}

/// A new flow in a full table: nanoseconds over the empty program.
fn evicting(ring: &mut Ring, index: u16) -> Result<f64> {
    let of = |sport: u16| packet((<[u8; 4]>::CLIENT, sport), (<[u8; 4]>::frontend(0), port(0)), Segment::Syn);
    let empty = ring.run(EMPTY_PROGRAM, &of(SPORT), REPEATS)?;
    // Twice around the ring: the first round has filled the table before the second is measured.
    let [before, sport] = [2 * index, 2 * index + 1].map(|step| SPORT + step);
    ring.run(INGRESS, &of(before), ring.len)?;
    Ok(ring.counted(Counter::FlowCreated, INGRESS, &of(sport), ring.len)? - empty)
}

/// The Services of the new flows of short runs.
#[derive(Clone, Copy)]
enum Services {
    /// All Services: their rows are seldom in the caches.
    All,
    /// The two of the small ring.
    Two,
}

/// New flows in short runs, each from a port of its own: nanoseconds over the empty program.
fn in_short_runs<A: Numbered>(ring: &mut Ring, index: u16, services: Services) -> Result<f64> {
    let (mut new_flow, mut empty) = (0.0, 0.0);
    let len = match services {
        Services::All => RUN_LEN,
        Services::Two => 2,
    };
    let before = packets(&mut ring.dataplane, Counter::FlowCreated)?;
    for step in 0..SHORT_RUNS {
        let number = match services {
            // Coprime to the lengths of the rings: each run starts elsewhere.
            Services::All => u32::from(step) * 7_919 % ring.len,
            Services::Two => ring.pair(),
        };
        let client = (A::CLIENT, SHORT_RUNS_SPORT + index * SHORT_RUNS + step);
        let syn = packet(client, (A::frontend(number), port(number)), Segment::Syn);
        empty += ring.run(EMPTY_PROGRAM, &syn, len)?;
        new_flow += ring.run(INGRESS, &syn, len)?;
    }
    let made = packets(&mut ring.dataplane, Counter::FlowCreated)? - before;
    ensure!(made == u64::from(len) * u64::from(SHORT_RUNS), "{made} flows were made: not all were new");
    Ok((new_flow - empty) / f64::from(SHORT_RUNS))
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
fn round<A: Numbered>(ring: &mut Ring, index: u16) -> Result<Round> {
    let sport = SPORT + index;
    let (client, stranger) = ((A::CLIENT, sport), (A::STRANGER, 443));
    let [hot, back] = [ring.pair(), ring.pair() + 1].map(|number| (A::frontend(number), port(number)));
    let large = (A::frontend(0), port(0));
    let empty = ring.run(EMPTY_PROGRAM, &packet(client, stranger, Segment::Ack), REPEATS)?;

    let quiet = (A::CLIENT, QUIET_SPORT);
    let quiet_request = ring.run(INGRESS, &packet(quiet, stranger, Segment::Ack), REPEATS)?;
    let quiet_reply = ring.run(EGRESS, &packet(stranger, quiet, Segment::Ack), REPEATS)?;
    let stranger_syn = ring.run(INGRESS, &packet(client, stranger, Segment::Syn), REPEATS)?;

    // Both flows of the small ring, established.
    ring.run(INGRESS, &packet(client, hot, Segment::Syn), 2)?;
    ring.run(EGRESS, &packet(back, client, Segment::SynAck), 2)?;
    ring.run(INGRESS, &packet(client, hot, Segment::Ack), 2)?;
    let (request, reply) = (packet(client, hot, Segment::Ack), packet(back, client, Segment::Ack));
    let established_request = ring.counted(Counter::RequestTranslated, INGRESS, &request, REPEATS)?;
    let established_reply = ring.counted(Counter::ReplyTranslated, EGRESS, &reply, REPEATS)?;

    // The client has flows, so only the flow table tells that these segments belong to none.
    let stranger_request = ring.run(INGRESS, &packet(client, stranger, Segment::Ack), REPEATS)?;
    let stranger_reply = ring.run(EGRESS, &packet(stranger, client, Segment::Ack), REPEATS)?;

    let (request, reply) = (datagram(client, hot), datagram(back, client));
    ring.run(INGRESS, &request, 2)?;
    ring.run(EGRESS, &reply, 2)?;
    let datagram_request = ring.counted(Counter::RequestTranslated, INGRESS, &request, REPEATS)?;
    let datagram_reply = ring.counted(Counter::ReplyTranslated, EGRESS, &reply, REPEATS)?;

    let new_flow = ring.counted(Counter::FlowCreated, INGRESS, &packet(client, large, Segment::Syn), ring.len)?;
    Ok(Round {
        empty,
        stranger_request: stranger_request - empty,
        stranger_reply: stranger_reply - empty,
        quiet_request: quiet_request - empty,
        quiet_reply: quiet_reply - empty,
        stranger_syn: stranger_syn - empty,
        established_request: established_request - empty,
        established_reply: established_reply - empty,
        datagram_request: datagram_request - empty,
        datagram_reply: datagram_reply - empty,
        new_flow: new_flow - empty,
    })
}

impl Ring {
    fn run(&mut self, program: &'static str, packet: &[u8], repeats: u32) -> Result<f64> {
        run(&mut self.dataplane, program, packet, repeats)
    }

    pub fn test_run(&mut self, program: &str, packet: &[u8], repeats: u32) -> Result<Run> {
        test_run(self.dataplane.ebpf(), program, packet, repeats)
    }

    fn counted(&mut self, counter: Counter, program: &'static str, packet: &[u8], repeats: u32) -> Result<f64> {
        counted(&mut self.dataplane, counter, program, packet, repeats)
    }
}

/// Nanoseconds that a program takes for a packet.
pub fn run(dataplane: &mut BpfDataplane, program: &'static str, packet: &[u8], repeats: u32) -> Result<f64> {
    Ok(test_run(dataplane.ebpf(), program, packet, repeats)?.ns)
}

/// The result of a test run.
pub struct Run {
    /// Nanoseconds for each packet.
    pub ns: f64,
    /// What the program returned last.
    pub action: i32,
    /// The packet that the last repeat left.
    pub packet: Vec<u8>,
}

/// Runs a program on a packet, again and again.
pub fn test_run(ebpf: &mut Ebpf, program: &str, packet: &[u8], repeats: u32) -> Result<Run> {
    let program: &mut SchedClassifier =
        ebpf.program_mut(program).with_context(|| format!("there is no program {program}"))?.try_into()?;
    let mut left = vec![0; packet.len()];
    let mut options = TestRunOptions::default();
    (options.data_in, options.data_out, options.repeat) = (Some(packet), Some(left.as_mut_slice()), repeats);
    let run = program.test_run(options)?;
    Ok(Run { ns: run.duration.as_secs_f64() * 1e9, action: run.return_value.cast_signed(), packet: left })
}

/// As [`run`], for a packet that increments this counter each time.
pub fn counted(
    dataplane: &mut BpfDataplane,
    counter: Counter,
    program: &'static str,
    packet: &[u8],
    repeats: u32,
) -> Result<f64> {
    let before = packets(dataplane, counter)?;
    let ns = run(dataplane, program, packet, repeats)?;
    let moved = packets(dataplane, counter)? - before;
    ensure!(
        moved == u64::from(repeats),
        "{program}: {} moved by {moved} in {repeats} runs: something else was measured",
        counter.name(),
    );
    Ok(ns)
}

fn packets(dataplane: &mut BpfDataplane, counter: Counter) -> Result<u64> {
    Ok(dataplane.maps().counters()?.get(&counter).map_or(0, |value| value.packets))
}
