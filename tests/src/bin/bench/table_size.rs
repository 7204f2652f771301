//! The cost of a packet of an established flow as the flow table grows: with one flow, which stays in the caches, and
//! with another flow for each packet, which does not.
//!
//! As in [`ring`](crate::ring) a run leaves the packet addressed to the next flow of a ring. The order of the ring is
//! random, so that neighbours in it are not neighbours in memory.

use anyhow::Result;
use lb_agent::dataplane::Sizes;
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::object::EMPTY_PROGRAM;
use lb_common::addr::Proto;
use lb_common::table::{Counter, Direction, Flow, FlowKey, FlowState, Tuple};
use lb_tests::machine::EDGE;

use crate::figures::{Figure, Target, Unit};
use crate::packet::{Segment, packet};
use crate::program::{INGRESS, REPEATS, counted, run};
use crate::ring::{Numbered as _, PinFolder, port};

/// Sizes of the table, in entries, as powers of two.
const SIZES_LOG2: [u32; 4] = [10, 14, 17, 20];

/// Source port of the flows.
const SPORT: u16 = 40_000;

/// Every packet of a measurement is younger than this, so that none is the first after an idle second.
const NEVER_QUIET: u64 = u64::MAX / 2;

/// Figures of each size of the table.
pub fn measure(rounds: u16) -> Result<Vec<Figure>> {
    let mut tables = SIZES_LOG2.into_iter().map(FlowRing::open).collect::<Result<Vec<_>>>()?;
    let mut costs = vec![(Vec::new(), Vec::new()); tables.len()];
    for round in 0..rounds {
        for (table, (hot, random)) in tables.iter_mut().zip(&mut costs) {
            let (hot_ns, random_ns) = table.round()?;
            hot.push(hot_ns);
            random.push(random_ns);
        }
        println!("  flow tables: round {} of {rounds}", round + 1);
    }
    let figure = |kind: &str, log2: u32, rounds: Vec<f64>| {
        let what = format!("IPv4 established, {kind}, {} flow entries", thousands(1 << log2));
        Figure::new(what, Unit::NsPerPacket, Target::None, rounds)
    };
    let (hot, random): (Vec<_>, Vec<_>) = costs.into_iter().unzip();
    let hot = SIZES_LOG2.into_iter().zip(hot).map(|(log2, rounds)| figure("one flow", log2, rounds));
    let random = SIZES_LOG2.into_iter().zip(random).map(|(log2, rounds)| figure("random flows", log2, rounds));
    Ok(hot.chain(random).collect())
}

/// A number with commas.
fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

/// The programs with a table that is half full of flows. Dropping it removes the pins.
struct FlowRing {
    dataplane: BpfDataplane,
    /// Numbers of the flows' addresses, in the order of the ring.
    order: Vec<u32>,
    _pins: PinFolder,
}

impl FlowRing {
    fn open(log2: u32) -> Result<Self> {
        let pins = PinFolder::new(&format!("flows{log2}"));
        let sizes = Sizes { flows_max: 1 << log2, pod_flows_percent: 100, ..Sizes::default() };
        let dataplane = pins.open(sizes)?;
        // Two entries for each flow; the last two flows are a ring of their own.
        let order = shuffled((1 << log2) / 4);
        let (large, small) = order.split_at(order.len() - 2);
        let mut rows = Vec::with_capacity(2 * order.len());
        for ring in [large, small] {
            for place in 0..ring.len() {
                let next = (place + 1) % ring.len();
                rows.extend(flow((ring[place], place), (ring[next], next)));
            }
        }
        // In the order of the numbers: the table's elements are allocated in the order of the inserts.
        rows.sort_unstable();
        // These flows were not opened at their edge, which must be counted all the same.
        if let Some((key, _)) = rows.first() {
            dataplane.maps().expect_flows(key.edge)?;
        }
        dataplane.maps().v4.flows.upsert(&rows, 0)?;
        Ok(Self { dataplane, order, _pins: pins })
    }

    /// Nanoseconds over the empty program: one flow, and random ones.
    fn round(&mut self) -> Result<(f64, f64)> {
        let (large, small) = self.order.split_at(self.order.len() - 2);
        let [hot, random] = [small[0], large[0]]
            .map(|number| packet((<[u8; 4]>::CLIENT, SPORT), (<[u8; 4]>::frontend(number), port(0)), Segment::Ack));
        let empty = run(&mut self.dataplane, EMPTY_PROGRAM, &hot, REPEATS)?;
        let moved = Counter::RequestTranslated;
        let hot = counted(&mut self.dataplane, moved, INGRESS, &hot, REPEATS)?;
        let random = counted(&mut self.dataplane, moved, INGRESS, &random, REPEATS)?;
        Ok((hot - empty, random - empty))
    }
}

/// An entry of the flow table.
type Entry = (FlowKey<[u8; 4]>, Flow<[u8; 4]>);

/// Both entries of the flow at a place of the ring. Its packets become those of the next flow. Ports alternate around
/// the ring, so that each packet gets another port.
fn flow((number, place): (u32, usize), (next, next_place): (u32, usize)) -> [Entry; 2] {
    let tuple = |number, place: usize| Tuple {
        src: <[u8; 4]>::CLIENT,
        dst: <[u8; 4]>::frontend(number),
        sport: SPORT,
        dport: port(place as u32),
    };
    let (from, to) = (tuple(number, place), tuple(next, next_place));
    let key = FlowKey::new(EDGE, Direction::Request, Proto::TCP, from);
    let entry = |to| Flow {
        to,
        frontend: 1,
        pool: 1,
        state: FlowState::Established,
        marks: 0,
        seq_high: 0,
        last_seen_jiffies: NEVER_QUIET,
    };
    [(key, entry(to)), (key.partner(&to), entry(from.reversed()))]
}

/// The numbers below an even `count`, in an order that is the same in each run: Fisher and Yates, driven by a linear
/// congruential generator (Knuth's MMIX).
fn shuffled(count: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count).collect();
    let mut state: u64 = 1;
    for last in (1..numbers.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chosen = ((state >> 33) * (last as u64 + 1)) >> 31;
        numbers.swap(last, chosen as usize);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_stands_in_the_ring_once() {
        let mut numbers = shuffled(1 << 10);
        assert_ne!(numbers[..4], [0, 1, 2, 3]);
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..1 << 10));
    }

    #[test]
    fn numbers_have_commas() {
        assert_eq!([512, 1_024, 1 << 20].map(thousands), ["512", "1,024", "1,048,576"]);
    }
}
