//! Keys and values of the BPF maps: what the agent writes and the packet path reads.
//!
//! Every type is `repr(C)` without hidden padding (proved at compile time by [`table_type!`]), addresses are in
//! network order, everything else is in host order, so that `bpftool map dump` is readable.
//! Records that begin with an address are aligned to four, so that it is moved in words. A change of any layout
//! raises [`LAYOUT_VERSION`].

mod addresses;
mod affinity;
mod flow;
mod frontend;
mod pool;
mod port;
mod source_range;
mod stats;

pub use addresses::{AddressBit, AddressBits, Role};
pub use affinity::{Affinity, AffinityKey};
pub use flow::{
    COLLECTED_KEYS_MAX, DIRECT, Direction, EDGE_UPLINK, EmbryoBudget, Fate, Flow, FlowKey, FlowState, Fragment,
    FragmentKey, Heard, Tuple,
};
pub use frontend::{
    Action, Frontend, FrontendKey, FrontendState, Mode, Origin, Rule, Scope, ScopeFlags, Scopes, bpf_spin_lock,
};
pub use pool::{
    Backend, Endpoint, EndpointKey, Member, MemberKey, MemberSets, MemberState, POOL_ELEMENTS_MAX, PoolElement, PoolKey,
};
pub use port::Port;
pub use source_range::{SourceRange, SourceRangeKey};
pub use stats::{
    Counter, CounterValue, EDGES_MAX, EdgeAge, EdgeFlows, EdgeState, Evictions, FlowTotals, FrontendAge, FrontendStats,
    Owner, RejectBucket, SPENT_RING_LEN, SPENT_RINGS, SpentRing, edge_index, spent_ring,
};

/// Raised whenever a type of this module changes; pinned maps of another version are not adopted.
pub const LAYOUT_VERSION: u32 = 8;

/// A key or value of a map: plain bytes without padding.
///
/// Implemented by [`table_type!`] only, which proves the absence of padding.
pub trait TableType:
    Copy + Send + Sync + zerocopy::TryFromBytes + zerocopy::Immutable + zerocopy::KnownLayout + 'static
{
    /// Evaluated where the type is written to a map; fails the build when the compiler added padding.
    const NO_PADDING: ();
}

/// Declares map structs: `repr(C)`, comparable, and proved to have no hidden padding.
macro_rules! table_type {
    ($( $(#[$meta:meta])* pub struct $name:ident $(<$addr:ident>)? { $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty, )* } )*) => { $(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(zerocopy::TryFromBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        pub struct $name $(<$addr>)? { $( $(#[$fmeta])* pub $field: $ty, )* }

        impl $(<$addr: $crate::addr::Addr>)? $crate::table::TableType for $name $(<$addr>)? {
            const NO_PADDING: () = assert!(
                size_of::<Self>() == 0 $( + size_of::<$ty>() )*,
                "hidden padding in a map type: add an explicit pad field",
            );
        }
    )* };
}
use table_type;

/// Map names, at most 15 bytes each, as pinned and as `bpftool map show` prints them.
pub mod name {
    pub const FRONTENDS4: &str = "frontends4";
    pub const FRONTENDS6: &str = "frontends6";
    pub const SCOPES: &str = "scopes";
    pub const POOLS4: &str = "pools4";
    pub const POOLS6: &str = "pools6";
    pub const MEMBERS4: &str = "members4";
    pub const MEMBERS6: &str = "members6";
    pub const ENDPOINTS4: &str = "endpoints4";
    pub const ENDPOINTS6: &str = "endpoints6";
    pub const ADDRESSES4: &str = "addresses4";
    pub const ADDRESSES6: &str = "addresses6";
    pub const SOURCE_RANGES4: &str = "source_ranges4";
    pub const SOURCE_RANGES6: &str = "source_ranges6";
    pub const AFFINITY4: &str = "affinity4";
    pub const AFFINITY6: &str = "affinity6";
    pub const FLOWS4: &str = "flows4";
    pub const FLOWS6: &str = "flows6";
    pub const FRAGMENTS4: &str = "fragments4";
    pub const FRAGMENTS6: &str = "fragments6";
    pub const COUNTERS: &str = "counters";
    pub const FRONTEND_STATS: &str = "frontend_stats";
    pub const EDGES: &str = "edges";
    pub const PORTS: &str = "ports";
    pub const EDGE_AGES: &str = "edge_ages";
    pub const EDGE_FLOWS: &str = "edge_flows";
    pub const FLOW_TOTALS: &str = "flow_totals";
    pub const SPENT4: &str = "spent4";
    pub const SPENT6: &str = "spent6";
    pub const SPENT_RINGS: &str = "spent_rings";
    pub const FRONTEND_AGES: &str = "frontend_ages";
    pub const EVICTIONS: &str = "evictions";
    pub const REJECT_BUCKETS: &str = "reject_buckets";
    pub const OWNER: &str = "owner";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changing a layout without raising [`LAYOUT_VERSION`] fails here: update both.
    #[test]
    fn layout_is_that_of_the_version() {
        let sizes = [
            size_of::<FrontendKey<[u8; 4]>>(),
            size_of::<FrontendKey<[u8; 16]>>(),
            size_of::<Frontend>(),
            size_of::<Scope>(),
            size_of::<Scopes>(),
            size_of::<PoolElement<[u8; 4]>>(),
            size_of::<PoolElement<[u8; 16]>>(),
            size_of::<MemberKey<[u8; 4]>>(),
            size_of::<MemberKey<[u8; 16]>>(),
            size_of::<Member>(),
            size_of::<EndpointKey<[u8; 4]>>(),
            size_of::<EndpointKey<[u8; 16]>>(),
            size_of::<Endpoint>(),
            size_of::<AddressBits>(),
            size_of::<SourceRangeKey<[u8; 4]>>(),
            size_of::<SourceRangeKey<[u8; 16]>>(),
            size_of::<SourceRange>(),
            size_of::<AffinityKey<[u8; 4]>>(),
            size_of::<AffinityKey<[u8; 16]>>(),
            size_of::<Affinity<[u8; 4]>>(),
            size_of::<Affinity<[u8; 16]>>(),
            size_of::<FlowKey<[u8; 4]>>(),
            size_of::<FlowKey<[u8; 16]>>(),
            size_of::<Flow<[u8; 4]>>(),
            size_of::<Flow<[u8; 16]>>(),
            size_of::<FragmentKey<[u8; 4]>>(),
            size_of::<FragmentKey<[u8; 16]>>(),
            size_of::<Fragment<[u8; 4]>>(),
            size_of::<Fragment<[u8; 16]>>(),
            size_of::<EmbryoBudget>(),
            size_of::<CounterValue>(),
            size_of::<FrontendStats>(),
            size_of::<EdgeState>(),
            size_of::<Port>(),
            size_of::<EdgeFlows>(),
            size_of::<FlowTotals>(),
            size_of::<SpentRing>(),
            size_of::<EdgeAge>(),
            size_of::<FrontendAge>(),
            size_of::<Evictions>(),
            size_of::<RejectBucket>(),
            size_of::<Owner>(),
        ];
        assert_eq!(
            (LAYOUT_VERSION, sizes),
            (
                8,
                [
                    8, 20, 12, 8, 40, 12, 24, 12, 24, 4, 8, 20, 4, 8, 12, 24, 4, 8, 20, 12, 24, 20, 44, 32, 56, 20, 44,
                    24, 48, 24, 16, 40, 16, 20, 8, 16, 16, 8, 8, 8, 8, 16
                ]
            )
        );
    }
}
