//! Keys and values of the BPF maps.
//!
//! Every type is `repr(C)` without hidden padding (proved at compile time by [`table_type!`]). Addresses are in
//! network order, and everything else is in host order, so that `bpftool map dump` is readable. Records that begin
//! with an address are aligned to four, so that the address is moved in words. A change of any layout raises
//! [`LAYOUT_VERSION`].

mod addresses;
mod affinity;
mod dropped;
mod flow;
mod frontend;
mod header;
pub mod maps;
mod pool;
mod port;
mod row;
mod socket;
mod source_range;
mod stats;
mod told;
mod uplink;

pub use addresses::{AddressBit, AddressBits, Role};
pub use affinity::{Affinity, AffinityKey};
pub use dropped::{DropCount, DropKey, Dropped, EDGE_SOCKETS};
pub use flow::{
    COLLECTED_KEYS_MAX, DIRECT, Direction, EDGE_UPLINK, EmbryoBudget, Fate, Flow, FlowKey, FlowMarks, FlowState,
    Fragment, FragmentKey, GONE, Tuple,
};
pub use frontend::{
    Action, Frontend, FrontendKey, FrontendState, HeaderVersion, Mode, Origin, Rule, Scope, ScopeFlags, Scopes,
    bpf_spin_lock,
};
pub use header::{HeaderFlags, ProxyHeader};
pub use pool::{
    Backend, Endpoint, EndpointKey, Member, MemberKey, MemberSets, MemberState, POOL_ELEMENTS_MAX, PoolElement, PoolKey,
};
pub use port::Port;
pub use row::TableType;
pub use socket::{Dialled, SocketCookie, SocketKey, SocketPeer};
pub use source_range::{SourceRange, SourceRangeKey};
pub use stats::{
    COUNTERS_MAX, Counter, CounterValue, EDGE_TRANSIT, EDGES_MAX, EdgeAge, EdgeFlows, EdgeState, Evictions, FlowTotals,
    FrontendAge, FrontendStats, Owner, RejectBucket, SPENT_RING_LEN, SPENT_RINGS, SpentRing, edge_index, spent_ring,
};
pub use told::{EVENTS_BYTES, Monitor, PASSES_TOLD, Told};
pub use uplink::{HOPS_ASKED, UPLINKS_MAX, Uplink};

/// Raised whenever a type of this module changes. Pinned maps of another version are not adopted: others replace them.
pub const LAYOUT_VERSION: u16 = 9;

/// Raised whenever a type changes in which connections are kept: the rows of [`CONNECTIONS`]. As long as this version
/// stays, connections outlive a change of [`LAYOUT_VERSION`]: their rows are copied from the maps that are replaced.
pub const CONNECTIONS_VERSION: u16 = 0;

/// The maps in which connections are kept.
pub const CONNECTIONS: [&str; 8] =
    ["flows4", "flows6", "headers4", "headers6", "sockets4", "sockets6", "dialled4", "dialled6"];

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// A changed layout without a new [`LAYOUT_VERSION`] fails here: change both. The numbers are bytes of key and
    /// value.
    #[test]
    fn layout_is_that_of_the_version() {
        let sizes: Vec<_> = maps::PINNED.iter().map(|map| (map.name, map.key_bytes, map.value_bytes)).collect();
        let expected = [
            ("frontends4", 8, 12),
            ("frontends6", 20, 12),
            ("pools4", 4, 12),
            ("pools6", 4, 24),
            ("members4", 12, 4),
            ("members6", 24, 4),
            ("endpoints4", 8, 4),
            ("endpoints6", 20, 4),
            ("addresses4", 4, 8),
            ("addresses6", 4, 8),
            ("source_ranges4", 12, 4),
            ("source_ranges6", 24, 4),
            ("affinity4", 8, 12),
            ("affinity6", 20, 24),
            ("flows4", 20, 32),
            ("flows6", 44, 56),
            ("headers4", 20, 20),
            ("headers6", 44, 20),
            ("fragments4", 20, 24),
            ("fragments6", 44, 48),
            ("spent4", 4, 20),
            ("spent6", 4, 44),
            ("drops4", 4, 32),
            ("drops6", 4, 56),
            ("sockets4", 16, 12),
            ("sockets6", 28, 24),
            ("dialled4", 4, 16),
            ("dialled6", 4, 40),
            ("scopes", 4, 40),
            ("counters", 4, 16),
            ("frontend_stats", 4, 40),
            ("edges", 4, 16),
            ("ports", 4, 20),
            ("uplinks", 4, 24),
            ("edge_flows", 4, 8),
            ("flow_totals", 4, 16),
            ("spent_rings", 4, 16),
            ("edge_ages", 4, 8),
            ("frontend_ages", 4, 8),
            ("evictions", 4, 8),
            ("reject_buckets", 4, 8),
            ("owner", 4, 16),
            ("drop_counts", 12, 24),
            ("monitor", 4, 40),
            ("events", 4, 80),
        ];
        assert_eq!((LAYOUT_VERSION, sizes.as_slice()), (9, &expected[..]));
    }

    /// A change here ends connections in VIP mode over an upgrade: raise [`CONNECTIONS_VERSION`], and say so in
    /// docs/upgrade.md. The numbers are bytes of key and value.
    #[test]
    fn connections_are_kept_as_in_their_version() {
        let kept = maps::PINNED.iter().filter(|map| CONNECTIONS.contains(&map.name));
        let sizes: Vec<_> = kept.map(|map| (map.name, map.key_bytes, map.value_bytes)).collect();
        let expected = [
            ("flows4", 20, 32),
            ("flows6", 44, 56),
            ("headers4", 20, 20),
            ("headers6", 44, 20),
            ("sockets4", 16, 12),
            ("sockets6", 28, 24),
            ("dialled4", 4, 16),
            ("dialled6", 4, 40),
        ];
        assert_eq!((CONNECTIONS_VERSION, sizes.as_slice()), (0, &expected[..]));
    }
}
