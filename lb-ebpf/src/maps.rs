//! The maps as statics, generated from the declarations in `lb_common::table::maps`. The agent sets their sizes at
//! load.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage};
use aya_ebpf::macros::btf_map;
use lb_common::forward::Work;
use lb_common::fragment::Parked;
use lb_common::reject::Answer;
use lb_common::spell::Spelled;
use lb_common::table::maps::Rows;
use lb_common::table::{
    AddressBits, Affinity, AffinityKey, COUNTERS_MAX, CounterValue, Dialled, DropCount, DropKey, Dropped, EDGES_MAX,
    EVENTS_BYTES, EdgeAge, EdgeFlows, EdgeState, EmbryoBudget, Endpoint, EndpointKey, Evictions, Flow, FlowKey,
    FlowTotals, Fragment, FragmentKey, Frontend, FrontendAge, FrontendKey, FrontendStats, HOPS_ASKED, Member,
    MemberKey, Monitor, Owner, PASSES_TOLD, PoolElement, Port, ProxyHeader, RejectBucket, SPENT_RING_LEN, SPENT_RINGS,
    Scopes, SocketKey, SocketPeer, SourceRange, SourceRangeKey, SpentRing, Told, UPLINKS_MAX, Uplink,
};
use lb_common::way::OnUplink;
use lb_common::{each_map, family_address};

/// The rows of a map in the object file: one, if a setting of the agent decides.
const fn rows_in_object(rows: Rows) -> usize {
    match rows {
        Rows::Fixed(rows) => rows as usize,
        _ => 1,
    }
}

/// The key of a trie without the prefix length, which `aya_ebpf` adds.
pub trait TrieKey {
    type Data;
}

/// [`SourceRangeKey`] without its length.
#[repr(C)]
pub struct Source<A> {
    pub set: u32,
    pub addr: A,
}

impl<A> TrieKey for SourceRangeKey<A> {
    type Data = Source<A>;
}

/// The type of a declared map, with `$addr` in place of `A`.
macro_rules! map_type {
    ($addr:ty, [$kind:ident, $key:ident $(<$key_a:ident>)? => $value:ident $(<$value_a:ident>)?, $rows:expr]) => {
        map_type!(
            $kind, $key $(<family_address!($key_a, $addr)>)?, $value $(<family_address!($value_a, $addr)>)?, $rows
        )
    };
    (Sparse, $key:ty, $value:ty, $rows:expr) => {
        HashMap<$key, $value, { rows_in_object($rows) }, { BPF_F_NO_PREALLOC as usize }>
    };
    (Lru, $key:ty, $value:ty, $rows:expr) => {
        LruHashMap<$key, $value, { rows_in_object($rows) }>
    };
    (Trie, $key:ty, $value:ty, $rows:expr) => {
        LpmTrie<<$key as TrieKey>::Data, $value, { rows_in_object($rows) }>
    };
    (Array, $key:ty, $value:ty, $rows:expr) => {
        Array<$value, { rows_in_object($rows) }>
    };
    (Mapped, $key:ty, $value:ty, $rows:expr) => {
        Array<$value, { rows_in_object($rows) }, { BPF_F_MMAPABLE as usize }>
    };
    (PerCpu, $key:ty, $value:ty, $rows:expr) => {
        PerCpuArray<$value, { rows_in_object($rows) }>
    };
    (OfSocket, $key:ty, $value:ty, $rows:expr) => {
        SkStorage<$value>
    };
    (Ring, $key:ty, $value:ty, $rows:expr) => {
        RingBuf<$value, { rows_in_object($rows) }>
    };
}

macro_rules! new_map {
    ([$kind:ident, $($rest:tt)*]) => {
        new_map!($kind)
    };
    (Sparse) => {
        HashMap::new()
    };
    (Lru) => {
        LruHashMap::new()
    };
    (Trie) => {
        LpmTrie::new()
    };
    (PerCpu) => {
        PerCpuArray::new()
    };
    (OfSocket) => {
        SkStorage::new()
    };
    (Ring) => {
        RingBuf::new()
    };
    ($array:ident) => {
        Array::new()
    };
}

/// Statics for all maps, and accessors for those of a family.
macro_rules! declare {
    (
        family { $( $(#[doc = $holds:literal])+ $name:ident($v4:ident, $v6:ident): $map:tt, $writer:ident; )* }
        shared { $( $(#[doc = $shared_holds:literal])+ $shared:ident: $shared_map:tt, $shared_writer:ident; )* }
        family_private { $( $(#[doc = $own_holds:literal])+ $own:ident($own4:ident, $own6:ident): $own_map:tt; )* }
        private { $( $(#[doc = $private_holds:literal])+ $private:ident: $private_map:tt; )* }
    ) => {
        declare! { statics
            $( $(#[doc = $shared_holds])+ pub $shared: (), $shared_map; )*
            $( $(#[doc = $private_holds])+ pub $private: (), $private_map; )*
            $( $(#[doc = $holds])+ $v4: [u8; 4], $map; )*
            $( $(#[doc = $holds])+ $v6: [u8; 16], $map; )*
            $( $(#[doc = $own_holds])+ $own4: [u8; 4], $own_map; )*
            $( $(#[doc = $own_holds])+ $own6: [u8; 16], $own_map; )*
        }

        /// The maps of one family.
        pub trait FamilyMaps: Answer + OnUplink + Spelled {
            $( $(#[doc = $holds])+ fn $name() -> &'static map_type!(Self, $map); )*
            $( $(#[doc = $own_holds])+ fn $own() -> &'static map_type!(Self, $own_map); )*
        }

        declare! { accessors [u8; 4] $( $name $v4 $map )* $( $own $own4 $own_map )* }
        declare! { accessors [u8; 16] $( $name $v6 $map )* $( $own $own6 $own_map )* }
    };
    (statics $( $(#[doc = $holds:literal])+ $visible:vis $name:ident: $addr:ty, $map:tt; )* ) => {
        $(
            $(#[doc = $holds])+
            #[btf_map]
            $visible static $name: map_type!($addr, $map) = new_map!($map);
        )*
    };
    (accessors $addr:tt $( $name:ident $static:ident $map:tt )* ) => {
        impl FamilyMaps for $addr {
            $(
                #[inline(always)]
                fn $name() -> &'static map_type!($addr, $map) {
                    &$static
                }
            )*
        }
    };
}
each_map!(declare);
