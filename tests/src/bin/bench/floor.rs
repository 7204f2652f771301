//! The floors of the programs: the same packets in programs that do only the work that the real ones cannot avoid
//! (`lb-ebpf/src/bin/floors.rs`). A real program is compared with its floor, whole run with whole run: the cost of a run
//! itself belongs to both.

use anyhow::{Context, Result, ensure};
use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use lb_common::addr::Family;
use lb_common::table::maps::{FAMILY4, FAMILY6, SHARED};

use crate::figures::{Figure, Target, Unit};
use crate::packet::{Segment, datagram, packet};
use crate::program::{EGRESS, INGRESS, QUIET_SPORT, REPEATS, Round, SPORT, test_run};
use crate::ring::{FLOWS_MAX, Numbered, Ring, port};

/// What a real program may cost, as a multiple of its floor.
const NO_INTEREST: f64 = 1.3;
const ESTABLISHED: f64 = 1.5;
const NEW_FLOW: f64 = 1.3;

/// `TCX_NEXT`: the floor found its rows.
const DONE: i32 = -1;

/// The loaded floors, over the configuration tables of a ring, with flow tables of their own.
pub struct Floors(Ebpf);

/// The figures of one round, in nanoseconds per packet, the run itself included.
#[derive(Clone, Copy)]
pub struct Floor {
    /// Looks up which client ports the flows of the interface use.
    port: f64,
    /// Looks up a flow that does not exist.
    flow: f64,
    /// Looks up a frontend that does not exist.
    frontend: f64,
    request: f64,
    reply: f64,
    datagram_request: f64,
    datagram_reply: f64,
    new_flow: f64,
}

/// A figure: what it is, the bound of the ratio, what the real program adds to an empty run, and the floor.
type Row = (&'static str, f64, fn(&Round) -> f64, fn(&Floor) -> f64);

const ROWS: [Row; 10] = [
    ("no interest, request side", NO_INTEREST, |round| round.quiet_request, |floor| floor.port),
    ("no interest, reply side", NO_INTEREST, |round| round.quiet_reply, |floor| floor.port),
    ("no interest, port like a flow's, request", NO_INTEREST, |round| round.stranger_request, |floor| floor.flow),
    ("no interest, port like a flow's, reply", NO_INTEREST, |round| round.stranger_reply, |floor| floor.flow),
    ("no interest, SYN", NO_INTEREST, |round| round.stranger_syn, |floor| floor.frontend),
    ("established TCP, request", ESTABLISHED, |round| round.established_request, |floor| floor.request),
    ("established TCP, reply", ESTABLISHED, |round| round.established_reply, |floor| floor.reply),
    ("established UDP, request", ESTABLISHED, |round| round.datagram_request, |floor| floor.datagram_request),
    ("established UDP, reply", ESTABLISHED, |round| round.datagram_reply, |floor| floor.datagram_reply),
    ("new flow", NEW_FLOW, |round| round.new_flow, |floor| floor.new_flow),
];

/// The floors themselves, and the ratios to them.
pub fn figures(family: &str, rounds: &[Round], floors: &[Floor]) -> Vec<Figure> {
    let both = || rounds.iter().zip(floors);
    let floor = |(what, _, _, of): &Row| {
        let ns = both().map(|(round, floor)| of(floor) - round.empty).collect();
        Figure::new(format!("{family} floor of {what}"), Unit::NsPerPacket, Target::None, ns)
    };
    let ratio = |(what, bound, real, of): &Row| {
        let ratios = both().map(|(round, floor)| (round.empty + real(round)) / of(floor)).collect();
        Figure::new(format!("{family} {what} / floor"), Unit::Ratio, Target::AtMost(*bound), ratios)
    };
    ROWS.iter().map(floor).chain(ROWS.iter().map(ratio)).collect()
}

impl Floors {
    /// Loads the floors over the ring's tables.
    pub fn open(ring: &Ring) -> Result<Self> {
        let object = option_env!("LB_BPF_FLOORS");
        let object = object.context("the floors were not built: build without LB_BPF_OBJECT")?;
        let pins = ring.maps();
        let configuration = [
            FAMILY4.frontends.name(),
            FAMILY4.pools.name(),
            FAMILY6.frontends.name(),
            FAMILY6.pools.name(),
            SHARED.scopes.name(),
            SHARED.edges.name(),
        ];
        let mut loader = EbpfLoader::new();
        for name in configuration {
            loader.map_pin_path(name, pins.join(name));
        }
        for name in [FAMILY4.flows.name(), FAMILY6.flows.name()] {
            loader.map_max_entries(name, FLOWS_MAX);
        }
        let mut floors = loader.load_file(object).with_context(|| format!("cannot load {object}"))?;
        for (name, program) in floors.programs_mut() {
            // Those of drivers are for other measurements.
            let Program::SchedClassifier(program) = program else { continue };
            program.load().with_context(|| format!("the kernel did not load {name}"))?;
        }
        Ok(Self(floors))
    }

    /// Every floor once, on the packets of [`Round`]. The programs of the ring have just run on them.
    pub fn round<A: Numbered>(&mut self, ring: &mut Ring, index: u16) -> Result<Floor> {
        let sport = SPORT + index;
        let (client, stranger) = ((A::CLIENT, sport), (A::STRANGER, 443));
        let [hot, back] = [ring.pair(), ring.pair() + 1].map(|number| (A::frontend(number), port(number)));
        let programs = match A::FAMILY {
            Family::V4 => ["flow4", "frontend4", "request4", "reply4", "new4"],
            Family::V6 => ["flow6", "frontend6", "request6", "reply6", "new6"],
        };
        let [flow, frontend, request, reply, new_flow] = programs;

        // Both flows of the small ring.
        let (segment, answer) = (packet(client, hot, Segment::Ack), packet(back, client, Segment::Ack));
        self.run(new_flow, &packet(client, hot, Segment::Syn), 2)?;
        let (question, reaction) = (datagram(client, hot), datagram(back, client));
        self.run(new_flow, &question, 2)?;
        for (floor, program, packet) in [
            (request, INGRESS, &segment),
            (reply, EGRESS, &answer),
            (request, INGRESS, &question),
            (reply, EGRESS, &reaction),
        ] {
            let (ours, real) = (test_run(&mut self.0, floor, packet, 1)?, ring.test_run(program, packet, 1)?);
            ensure!(ours.packet == real.packet, "{floor} does not leave the packet that {program} leaves");
        }

        let quiet = packet((A::CLIENT, QUIET_SPORT), stranger, Segment::Ack);
        Ok(Floor {
            port: self.run("port", &quiet, REPEATS)?,
            flow: self.run(flow, &packet(client, stranger, Segment::Ack), REPEATS)?,
            frontend: self.run(frontend, &packet(client, stranger, Segment::Syn), REPEATS)?,
            request: self.run(request, &segment, REPEATS)?,
            reply: self.run(reply, &answer, REPEATS)?,
            datagram_request: self.run(request, &question, REPEATS)?,
            datagram_reply: self.run(reply, &reaction, REPEATS)?,
            new_flow: self.run(new_flow, &packet(client, (A::frontend(0), port(0)), Segment::Syn), ring.len)?,
        })
    }

    /// Nanoseconds that a floor takes for a packet.
    fn run(&mut self, floor: &str, packet: &[u8], repeats: u32) -> Result<f64> {
        let run = test_run(&mut self.0, floor, packet, repeats)?;
        ensure!(run.action == DONE, "{floor} did not find its rows: something else was measured");
        Ok(run.ns)
    }
}
