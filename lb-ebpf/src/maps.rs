//! The maps as statics, generated from the declarations in `lb_common::table::maps`. The agent sets their sizes at
//! load.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::forward::Work;
use lb_common::fragment::Parked;
use lb_common::packet::ETHERNET_LEN;
use lb_common::reject::Unreachable;
use lb_common::table::maps::Rows;
use lb_common::table::{
    AddressBits, Affinity, AffinityKey, COUNTERS_MAX, CounterValue, EDGES_MAX, EdgeAge, EdgeFlows, EdgeState,
    EmbryoBudget, Endpoint, EndpointKey, Evictions, Flow, FlowKey, FlowTotals, Fragment, FragmentKey, Frontend,
    FrontendAge, FrontendKey, FrontendStats, Member, MemberKey, Owner, PoolElement, Port, RejectBucket, SPENT_RING_LEN,
    SPENT_RINGS, Scopes, SourceRange, SourceRangeKey, SpentRing,
};
use lb_common::{each_map, family_address};

use crate::skb::Skb;

/// The maps, and what the path asks or counts of the current packet beside its headers.
pub struct Maps {
    pub packet_len: u32,
    /// Typed as if it had a link header: functions that programs share do not ask for its length.
    pub skb: Skb<ETHERNET_LEN>,
}

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

macro_rules! map_type {
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
}

macro_rules! new_map {
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
    ($array:ident) => {
        Array::new()
    };
}

/// Statics for all maps, and accessors for those of a family.
macro_rules! declare {
    (
        family { $( $(#[doc = $holds:literal])+ $name:ident($v4:ident, $v6:ident):
            $kind:ident, $key:ident $(<$key_a:ident>)? => $value:ident $(<$value_a:ident>)?, $rows:expr, $writer:ident; )* }
        shared { $( $(#[doc = $shared_holds:literal])+ $shared:ident:
            $shared_kind:ident, $shared_key:ident => $shared_value:ident, $shared_rows:expr, $shared_writer:ident; )* }
        family_private { $( $(#[doc = $own_holds:literal])+ $own:ident($own4:ident, $own6:ident):
            $own_kind:ident, $own_key:ident $(<$own_key_a:ident>)? => $own_value:ident $(<$own_value_a:ident>)?, $own_rows:expr; )* }
        private { $( $(#[doc = $private_holds:literal])+ $private:ident:
            $private_kind:ident, $private_key:ident => $private_value:ident, $private_rows:expr; )* }
    ) => {
        declare! { families
            $( $(#[doc = $holds])+ $name($v4, $v6): $kind, $key $(<$key_a>)? => $value $(<$value_a>)?, $rows; )*
            $( $(#[doc = $own_holds])+ $own($own4, $own6): $own_kind, $own_key $(<$own_key_a>)? => $own_value $(<$own_value_a>)?, $own_rows; )*
        }
        $(
            $(#[doc = $shared_holds])+
            #[btf_map]
            pub static $shared: map_type!($shared_kind, $shared_key, $shared_value, $shared_rows) = new_map!($shared_kind);
        )*
        $(
            $(#[doc = $private_holds])+
            #[btf_map]
            pub static $private: map_type!($private_kind, $private_key, $private_value, $private_rows) =
                new_map!($private_kind);
        )*
    };
    (families $( $(#[doc = $holds:literal])+ $name:ident($v4:ident, $v6:ident):
        $kind:ident, $key:ident $(<$key_a:ident>)? => $value:ident $(<$value_a:ident>)?, $rows:expr; )* ) => {
        $(
            $(#[doc = $holds])+
            #[btf_map]
            static $v4: map_type!(
                $kind, $key $(<family_address!($key_a, [u8; 4])>)?, $value $(<family_address!($value_a, [u8; 4])>)?, $rows
            ) = new_map!($kind);
            $(#[doc = $holds])+
            #[btf_map]
            static $v6: map_type!(
                $kind, $key $(<family_address!($key_a, [u8; 16])>)?, $value $(<family_address!($value_a, [u8; 16])>)?, $rows
            ) = new_map!($kind);
        )*

        /// The maps of one family.
        pub trait FamilyMaps: Unreachable {
            $(
                $(#[doc = $holds])+
                fn $name() -> &'static map_type!(
                    $kind, $key $(<family_address!($key_a, Self)>)?, $value $(<family_address!($value_a, Self)>)?, $rows
                );
            )*
        }

        declare! { accessors [u8; 4] $( $name $v4: $kind, $key $(<$key_a>)? => $value $(<$value_a>)?, $rows; )* }
        declare! { accessors [u8; 16] $( $name $v6: $kind, $key $(<$key_a>)? => $value $(<$value_a>)?, $rows; )* }
    };
    (accessors $addr:tt $( $name:ident $map:ident:
        $kind:ident, $key:ident $(<$key_a:ident>)? => $value:ident $(<$value_a:ident>)?, $rows:expr; )* ) => {
        impl FamilyMaps for $addr {
            $(
                #[inline(always)]
                fn $name() -> &'static map_type!(
                    $kind, $key $(<family_address!($key_a, $addr)>)?, $value $(<family_address!($value_a, $addr)>)?, $rows
                ) {
                    &$map
                }
            )*
        }
    };
}
each_map!(declare);
