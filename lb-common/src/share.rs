//! The share of the flow table that each edge may use, so that no edge fills it. In a full table the kernel evicts the
//! flow that was quiet for longest, whatever its edge.

use crate::table::EDGE_UPLINK;

/// A share of 100 percent is no bound.
pub const UNBOUNDED_PERCENT: u32 = 100;
/// The share of all clients in the network together: many are behind one edge.
const UPLINK_PERCENT: u32 = 90;
/// The share of an edge, in percent. `percent` is that of a pod.
#[inline(always)]
pub const fn percent_of_edge(edge: u32, percent: u32) -> u32 {
    if edge == EDGE_UPLINK && percent < UPLINK_PERCENT { UPLINK_PERCENT } else { percent }
}

/// How many of its `limit` entries an edge fills undisturbed. Beyond them, spent flows are deleted for new ones. If a
/// walk cuts an edge, it cuts to this number.
#[inline(always)]
pub const fn undisturbed(limit: u64) -> u64 {
    limit / 4 * 3
}

/// A walk that is older than this does not count: the agent may be gone.
pub const WALK_SECS: u64 = 600;

/// Free elements that a CPU may hold for itself while another CPU finds none and evicts (`LOCAL_FREE_TARGET` in
/// kernel/bpf/bpf_lru_list.c).
pub const FREE_OF_A_CPU: u64 = 128;

/// Entries that the table can hold before the kernel may evict any, which happens before the table is full. An eighth
/// is reserved for entries that come and go between two walks.
pub const fn usable(entries_max: u32, cpus: usize) -> u64 {
    let entries_max = entries_max as u64;
    let (most, behind) = (entries_max * 7 / 8, entries_max.saturating_sub(cpus as u64 * FREE_OF_A_CPU));
    if most < behind { most } else { behind }
}

/// Whether an edge may have one more flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Plenty,
    /// It has three quarters of its share: spent flows are deleted for new ones.
    Little,
    None,
}

/// Entries in use in a flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Entries of this edge.
    pub edge: u64,
    /// Entries of all edges.
    pub all: u64,
}

impl Occupancy {
    /// Entries that the edge may have: a share of what other edges leave. An early edge may have taken more while
    /// little was in use; the agent's next walk cuts it to this limit. So a part stays free, however many edges use
    /// their full share.
    #[inline(always)]
    pub const fn limit(self, usable: u64, percent: u32) -> u64 {
        let others = self.all.saturating_sub(self.edge);
        usable.saturating_sub(others) * percent as u64 / 100
    }

    /// Whether the edge may have one more flow, which is two entries.
    #[inline(always)]
    pub const fn room(self, usable: u64, percent: u32) -> Room {
        if percent >= UNBOUNDED_PERCENT {
            return Room::Plenty;
        }
        let (limit, wanted) = (self.limit(usable, percent), self.edge + 2);
        if wanted > limit {
            Room::None
        } else if wanted > undisturbed(limit) {
            Room::Little
        } else {
            Room::Plenty
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_evict_when_the_table_is_nearly_full() {
        for (entries_max, cpus, expected) in
            [(8_000, 2, 7_000), (8_000, 8, 6_976), (262_144, 64, 229_376), (262_144, 512, 196_608), (8_192, 64, 0)]
        {
            assert_eq!(usable(entries_max, cpus), expected, "{entries_max} entries, {cpus} CPUs");
        }
    }

    /// Each edge takes all it may, and walks cut edges that have more by now. The sum stays below the capacity of the
    /// table, and one more edge finds room.
    #[test]
    fn some_is_always_left() {
        for percent in [25, 50, UPLINK_PERCENT] {
            let (usable, mut edges) = (229_376, [0_u64; 40]);
            for _ in 0..2_000 {
                for index in 0..edges.len() {
                    let walked = Occupancy { edge: edges[index], all: edges.iter().sum() }.limit(usable, percent);
                    edges[index] = edges[index].min(walked);
                    while (Occupancy { edge: edges[index], all: edges.iter().sum() }).room(usable, percent)
                        != Room::None
                    {
                        edges[index] += 2;
                    }
                }
            }
            let all: u64 = edges.iter().sum();
            assert!(all < usable, "{percent} %: {all}");
            let room = Occupancy { edge: 0, all }.room(usable, percent);
            assert_eq!(room, Room::Plenty, "{percent} %: {all} of {usable}");
            let alone = Occupancy { edge: 0, all: 0 }.limit(usable, percent);
            assert_eq!(alone, usable * u64::from(percent) / 100);
        }
        assert_eq!(Occupancy { edge: 10, all: 10 }.room(0, UNBOUNDED_PERCENT), Room::Plenty, "the kernel evicts");
    }

    #[test]
    fn what_has_ended_goes_before_the_share_is_spent() {
        for (edge, expected) in
            [(0, Room::Plenty), (298, Room::Plenty), (299, Room::Little), (398, Room::Little), (399, Room::None)]
        {
            assert_eq!(Occupancy { edge, all: edge + 200 }.room(1_000, 50), expected, "{edge}");
        }
    }
}
