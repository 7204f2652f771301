//! What a packet costs from its driver on: frames that the kernel makes as a driver would (live frames of
//! `BPF_PROG_TEST_RUN`), handled by the program of the driver, or by tc or nftables behind an skb.
//!
//! Each measurement begins with the same program, which writes the packet into the frame: the kernel uses frames again as
//! programs left them. Where a packet leaves, it is dropped by a device without a carrier: the cost of sending is in none.

mod balancer;
mod frames;

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Result, ensure};
use lb_common::table::Counter;
use lb_tests::netns::Netns;

use crate::figures::{Figure, Target, Unit};
use crate::forward::End;
use crate::program::QUIET_SPORT;
use crate::rules::{self, Service};
use balancer::{Balancer, By, CLIENT, ELSEWHERE, VIPS};
use frames::{FRAMES, Frames, NODE, alone, frame, node, routed};

/// Repeats of a test run that changes nothing.
const REPEATS: u32 = 1_000_000;

/// The numbers of Services in the tables that are compared.
const SERVICES: [(u32, &str); 3] = [(1, "1 Service"), (1_000, "1,000 Services"), (100_000, "100,000 Services")];

/// No Service has it.
const STRANGER: End = ([198, 51, 100, 9], 443);
/// A client whose port is like that of no flow.
const QUIET: End = (CLIENT.0, QUIET_SPORT);

/// A translated packet may cost this much of what it costs behind an skb, and one of no Service this much of what it
/// costs with a program that does nothing.
const TRANSIT: f64 = 0.6;
const NO_INTEREST: f64 = 1.3;

/// The figures, in turns.
pub fn measure(rounds: u16) -> Result<Vec<Figure>> {
    let plain = node("plain");
    let socket = |(addr, port): End| SocketAddrV4::new(Ipv4Addr::from(addr), port);
    let service = Service { vip: socket(VIPS[1]), endpoints: vec![socket(ELSEWHERE)] };
    plain.nft(&rules::ruleset(&[service], NODE.into()));
    let mut worlds = Vec::new();
    for (services, _) in SERVICES {
        worlds.push([World::open(By::Tc, services)?, World::open(By::Driver, services)?]);
    }
    let mut kernel = Frames::open()?;
    let mut rows = SERVICES.map(|_| Rows::default());
    let masqueraded = frame(CLIENT, VIPS[1]);
    for round in 0..rounds {
        for (rows, worlds) in rows.iter_mut().zip(&mut worlds) {
            rows.translated(worlds, &mut kernel)?;
            let World { node, balancer } = &mut worlds[1];
            node.inside(|| rows.left_alone(balancer, &mut kernel))?;
            rows.nftables.push(plain.inside(|| routed(FRAMES, || kernel.passed(&masqueraded)))?);
        }
        println!("  drivers: round {} of {rounds}", round + 1);
    }
    let connections = plain.run("conntrack", &["-L"]);
    ensure!(connections.contains("src=10.244.2.5 dst=192.0.3.2"), "nftables translated something else: {connections}");
    Ok(SERVICES.into_iter().zip(rows).flat_map(|((_, services), rows)| rows.figures(services)).collect())
}

/// A node whose frames are handled by tc or by the driver.
struct World {
    // In the order in which they must end.
    balancer: Balancer,
    node: Netns,
}

impl World {
    fn open(by: By, services: u32) -> Result<Self> {
        let node = node(&format!("{}{services}", by.name()));
        let balancer = node.inside(|| Balancer::open(by, services))?;
        Ok(Self { balancer, node })
    }
}

/// A packet in both worlds: behind an skb, and in the driver.
type Row = [Vec<f64>; 2];

/// Nanoseconds with one number of Services.
#[derive(Default)]
struct Rows {
    request: Row,
    back: Row,
    answer: Row,
    local: Row,
    nftables: Vec<f64>,
    empty: Vec<f64>,
    stranger: Vec<f64>,
    /// By test runs that no stack follows: the program that does nothing, and packets from a port like a flow's and from
    /// another.
    alone: [Vec<f64>; 3],
}

impl Rows {
    /// Packets of known flows.
    fn translated(&mut self, worlds: &mut [World; 2], kernel: &mut Frames) -> Result<()> {
        let [local, request, back] = VIPS.map(|vip| Some(frame(CLIENT, vip)));
        for (row, frame, counter) in [
            (&mut self.request, request, Counter::Forwarded),
            (&mut self.back, back, Counter::Forwarded),
            (&mut self.answer, None, Counter::Forwarded),
            (&mut self.local, local, Counter::RequestTranslated),
        ] {
            for (rounds, World { node, balancer }) in row.iter_mut().zip(worlds.iter_mut()) {
                let frame = frame.unwrap_or(balancer.answer);
                rounds.push(node.inside(|| balancer.known(kernel, &frame, counter))?);
            }
        }
        Ok(())
    }

    /// Packets of no Service.
    fn left_alone(&mut self, balancer: &mut Balancer, kernel: &mut Frames) -> Result<()> {
        let (stranger, quiet) = (frame(CLIENT, STRANGER), frame(QUIET, STRANGER));
        self.empty.push(balancer.left_alone(|_| kernel.passed(&stranger))?);
        self.stranger.push(balancer.left_alone(|driver| kernel.driven(driver, &stranger))?);
        let [empty, like_flow, other] = &mut self.alone;
        empty.push(alone(kernel.empty()?, &stranger, REPEATS)?.0);
        like_flow.push(alone(balancer.driver()?, &stranger, REPEATS)?.0);
        other.push(alone(balancer.driver()?, &quiet, REPEATS)?.0);
        Ok(())
    }

    fn figures(self, services: &str) -> Vec<Figure> {
        let ns = |what: &str, rounds| {
            Figure::new(format!("driver, {services}: {what}"), Unit::NsPerPacket, Target::None, rounds)
        };
        let ratio = |what: &str, target, this: &Figure, that: &Figure| {
            Figure::ratio(format!("driver, {services}: {what}"), target, this, that)
        };
        let nftables = ns("to another card, nftables", self.nftables);
        let (mut figures, mut ratios) = (Vec::new(), Vec::new());
        for (what, row, target) in [
            ("to another card", self.request, Target::AtMost(TRANSIT)),
            ("to the same card", self.back, Target::AtMost(TRANSIT)),
            ("answer", self.answer, Target::AtMost(TRANSIT)),
            ("to an endpoint here", self.local, Target::None),
        ] {
            let [tc, driver] = row;
            let (tc, driver) = (ns(&format!("{what}, tc"), tc), ns(&format!("{what}, XDP"), driver));
            ratios.push(ratio(&format!("{what}, XDP / tc"), target, &driver, &tc));
            if what == "to another card" {
                ratios.push(ratio(&format!("{what}, XDP / nftables"), Target::None, &driver, &nftables));
                ratios.push(ratio(&format!("{what}, tc / nftables"), Target::None, &tc, &nftables));
            }
            figures.extend([tc, driver]);
        }
        let (empty, stranger) = (ns("no interest, empty XDP", self.empty), ns("no interest, XDP", self.stranger));
        ratios.push(ratio("no interest, XDP / empty XDP", Target::AtMost(NO_INTEREST), &stranger, &empty));
        figures.extend([nftables, empty, stranger]);
        let alone = ["empty program alone", "no interest, alone", "no interest, other port, alone"];
        figures.extend(alone.into_iter().zip(self.alone).map(|(what, rounds)| ns(what, rounds)));
        figures.into_iter().chain(ratios).collect()
    }
}
