//! Each edge's entries in the flow tables, recounted by every walk, and the surplus of edges that have used up their
//! share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::addr::{Addr, Family};
use lb_common::share::{Occupancy, UNBOUNDED_PERCENT, percent_of_edge, undisturbed, usable};
use lb_common::table::maps::SHARED;
use lb_common::table::{Direction, EdgeFlows, Flow, FlowKey, FlowTotals, edge_index};

use super::mapped::Array;
use super::{Error, Sizes};

/// Flow entries of each family, by element of `edge_flows`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounts(BTreeMap<u32, [u64; 2]>);

impl EdgeCounts {
    pub fn add(&mut self, edge: u32, family: Family) {
        self.0.entry(edge_index(edge)).or_default()[family as usize] += 1;
    }

    /// Subtracts removed entries.
    pub fn subtract(&mut self, gone: &BTreeMap<u32, u64>, family: Family) {
        for (edge, entries) in gone {
            let counted = &mut self.0.entry(*edge).or_default()[family as usize];
            *counted = counted.saturating_sub(*entries);
        }
    }

    fn all(&self, family: Family) -> u64 {
        self.0.values().map(|entries| entries[family as usize]).sum()
    }
}

/// The bound on an edge's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    usable: u64,
    /// The share of a pod; [`UNBOUNDED_PERCENT`] means no bound.
    pub percent: u32,
}

impl Bound {
    /// There is no bound if the CPUs may keep more than half of the table to themselves.
    pub const fn of(sizes: &Sizes, cpus: usize) -> Self {
        let usable = usable(sizes.flows_max, cpus);
        let is_sure = usable * 2 >= sizes.flows_max as u64;
        Self { usable, percent: if is_sure { sizes.pod_flows_percent } else { UNBOUNDED_PERCENT } }
    }

    pub const fn usable(self) -> u64 {
        self.usable
    }

    /// The edges that use more than 7/8 of their share, and how many entries each must lose. Afterwards a quarter of
    /// the share is free, so that new flows are not dropped before the next walk.
    pub fn crowded(self, counts: &EdgeCounts, family: Family) -> BTreeMap<u32, u64> {
        if self.percent >= UNBOUNDED_PERCENT {
            return BTreeMap::new();
        }
        let all = counts.all(family);
        let surplus = |(edge, entries): (&u32, &[u64; 2])| {
            let entries = entries[family as usize];
            let limit = Occupancy { edge: entries, all }.limit(self.usable, percent_of_edge(*edge, self.percent));
            (entries * 8 > limit * 7).then(|| (*edge, entries.saturating_sub(undisturbed(limit))))
        };
        counts.0.iter().filter_map(surplus).collect()
    }
}

/// The keys of flows to delete, both entries of each: first ended flows, then those that were quiet for longest.
pub fn surplus<A: Addr>(rows: &[(FlowKey<A>, Flow<A>)], crowded: &BTreeMap<u32, u64>) -> Vec<FlowKey<A>> {
    let mut keys = Vec::new();
    for (edge, entries) in crowded {
        let is_its = |key: &FlowKey<A>| edge_index(key.edge) == *edge && key.direction == Direction::Request;
        let mut flows: Vec<_> = rows.iter().filter(|(key, _)| is_its(key)).collect();
        flows.sort_by_key(|(_, flow)| (!flow.state.has_ended(), flow.last_seen_jiffies));
        let count = usize::try_from(entries.div_ceil(2)).unwrap_or(usize::MAX);
        keys.extend(flows.into_iter().take(count).flat_map(|(key, flow)| [*key, key.partner(&flow.to)]));
    }
    keys
}

/// The maps with the counts.
pub struct Shares {
    edges: Array<EdgeFlows>,
    totals: Array<FlowTotals>,
}

impl Shares {
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let (edges, totals) = (Array::open(directory, SHARED.edge_flows)?, Array::open(directory, SHARED.flow_totals)?);
        Ok(Self { edges, totals })
    }

    /// The entries of both families.
    pub fn entries(&self) -> Result<[u64; 2], Error> {
        let totals = self.totals.all()?;
        let entries = totals.load(0).map(|totals| totals.entries);
        Ok([Family::V4, Family::V6].map(|family| entries.map_or(0, |entries| entries.entries(family))))
    }

    /// Flows by element: two entries are one. Elements without flows are left out.
    pub fn flows(&self) -> Result<BTreeMap<u32, u64>, Error> {
        let entries = self.edges.all()?.used().into_iter();
        let flows = |edge: EdgeFlows| edge.entries(Family::V4).div_ceil(2) + edge.entries(Family::V6).div_ceil(2);
        Ok(entries.map(|(index, edge)| (index, flows(edge))).collect())
    }

    /// jiffies64 of the last completed walk; 0: none.
    pub fn walked_jiffies(&self) -> Result<u64, Error> {
        let totals = self.totals.all()?;
        Ok(totals.load(0).map_or(0, |totals| totals.walked_jiffies))
    }

    /// Writes the counts of a walk. Flows that came or went during the walk are wrong until the next one.
    pub fn recount(&self, counts: &EdgeCounts, now_jiffies: u64) -> Result<(), Error> {
        let edges = self.edges.all()?;
        for index in edges.indexes() {
            let [entries4, entries6] = counts.0.get(&index).copied().unwrap_or_default();
            if let Some(word) = edges.word(index) {
                store(word, [entries4, entries6]);
            }
        }
        let totals = self.totals.all()?;
        if let Some([entries, walked]) = totals.words(0) {
            store(entries, [counts.all(Family::V4), counts.all(Family::V6)]);
            walked.store(now_jiffies, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Stores two counts that share a word, which programs change too. A word that is right already is not written.
fn store(word: &AtomicU64, entries: [u64; 2]) {
    let [low, high] = entries.map(|entries| i32::try_from(entries).unwrap_or(i32::MAX).to_ne_bytes());
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&low);
    bytes[4..].copy_from_slice(&high);
    let wanted = u64::from_ne_bytes(bytes);
    if word.load(Ordering::Relaxed) != wanted {
        word.store(wanted, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use lb_common::addr::Proto;
    use lb_common::table::{EDGE_UPLINK, FlowState, Tuple};

    use super::*;

    fn counts(entries: &[(u32, u64)]) -> EdgeCounts {
        EdgeCounts(entries.iter().map(|(edge, entries)| (*edge, [*entries, 0])).collect())
    }

    #[test]
    fn who_has_nearly_all_that_it_may_is_crowded() {
        let sizes = Sizes { flows_max: 16_000, pod_flows_percent: 50, ..Sizes::default() };
        let bound = Bound::of(&sizes, 2);
        assert_eq!(bound, Bound { usable: 14_000, percent: 50 });
        for (entries, expected) in [
            (&[(7, 6_000), (8, 1_000)][..], &[(7, 6_000 - 4_875)][..]),
            (&[(7, 5_000), (8, 1_000)], &[]),
            (&[(7, 4_500), (8, 4_500)], &[(7, 4_500 - 3_561), (8, 4_500 - 3_561)]),
            // All clients in the network are one edge.
            (&[(EDGE_UPLINK, 10_000)], &[]),
            (&[(EDGE_UPLINK, 12_000)], &[(EDGE_UPLINK, 12_000 - 9_450)]),
        ] {
            let crowded: Vec<_> = bound.crowded(&counts(entries), Family::V4).into_iter().collect();
            assert_eq!(crowded, expected, "{entries:?}");
            assert!(bound.crowded(&counts(entries), Family::V6).is_empty(), "of the other family");
        }
        let unbounded = Bound::of(&Sizes { pod_flows_percent: 100, ..sizes }, 2);
        assert!(unbounded.crowded(&counts(&[(7, 14_000)]), Family::V4).is_empty());
        assert_eq!(Bound::of(&Sizes { flows_max: 1_024, ..sizes }, 64).percent, UNBOUNDED_PERCENT);
    }

    #[test]
    fn what_has_ended_goes_first_then_the_oldest() {
        let row = |edge, port, state, last_seen_jiffies| {
            let tuple = Tuple { src: [10, 0, 0, 1], dst: [10, 0, 0, 2], sport: port, dport: 80 };
            let to = Tuple { dst: [10, 0, 0, 3], ..tuple };
            let flow = Flow { to, frontend: 1, pool: 1, state, marks: 0, seq_high: 0, last_seen_jiffies };
            (FlowKey::new(edge, Direction::Request, Proto::TCP, tuple), flow)
        };
        let rows = [
            row(7, 1, FlowState::Established, 50),
            row(7, 2, FlowState::Closed, 90),
            row(7, 3, FlowState::Established, 40),
            row(7, 4, FlowState::ResetEstablished, 80),
            row(8, 5, FlowState::Closed, 1),
        ];
        let gone = |entries| {
            let keys = surplus(&rows, &[(7, entries)].into());
            let requests = keys.iter().filter(|key| key.direction == Direction::Request);
            let ports: Vec<_> = requests.map(|key| key.tuple.sport).collect();
            assert_eq!(keys.len(), 2 * ports.len(), "both halves");
            ports
        };
        assert_eq!(gone(3), [4, 2]);
        assert_eq!(gone(6), [4, 2, 3]);
        assert_eq!(gone(100), [4, 2, 3, 1]);
    }
}
