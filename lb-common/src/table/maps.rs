//! Every BPF map, declared once: [`each_map!`](crate::each_map).
//!
//! `lb-ebpf` makes its statics and accessors of the declarations; the agent makes the shapes that it adopts, the pins and
//! the sizes; the table in docs/reference/maps.md is checked against them. A new map is a line here, a reader and a writer.

use core::marker::PhantomData;

use super::{
    AddressBits, Affinity, AffinityKey, COUNTERS_MAX, CounterValue, Dialled, DropCount, DropKey, Dropped, EDGES_MAX,
    EVENTS_BYTES, EdgeAge, EdgeFlows, EdgeState, Endpoint, EndpointKey, Evictions, Flow, FlowKey, FlowTotals, Fragment,
    FragmentKey, Frontend, FrontendAge, FrontendKey, FrontendStats, HOPS_ASKED, Member, MemberKey, Monitor, Owner,
    PASSES_TOLD, PoolElement, Port, ProxyHeader, RejectBucket, SPENT_RING_LEN, SPENT_RINGS, Scopes, SocketKey,
    SocketPeer, SourceRange, SourceRangeKey, SpentRing, TableType, Told, UPLINKS_MAX, Uplink,
};

/// The kind of a map, with its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `BPF_MAP_TYPE_HASH`; rows are allocated when they are written (`BPF_F_NO_PREALLOC`).
    Sparse,
    /// `BPF_MAP_TYPE_LRU_HASH`.
    Lru,
    /// `BPF_MAP_TYPE_LPM_TRIE`; the key begins with the length of the prefix in bits.
    Trie,
    /// `BPF_MAP_TYPE_ARRAY`.
    Array,
    /// `BPF_MAP_TYPE_ARRAY` that the agent maps into its memory (`BPF_F_MMAPABLE`).
    Mapped,
    /// `BPF_MAP_TYPE_PERCPU_ARRAY`.
    PerCpu,
    /// `BPF_MAP_TYPE_SK_STORAGE`: a row for a socket, freed with the socket.
    OfSocket,
    /// `BPF_MAP_TYPE_RINGBUF`: values that the programs write and one process reads. It has no keys, and its rows are bytes.
    Ring,
}

/// What decides how many rows a map has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// `--frontends-max`.
    Frontends,
    /// IDs of frontends. There are more IDs than frontends, as a freed ID is quarantined before reuse.
    FrontendIds,
    /// `--backends-max`.
    Backends,
    /// Slots of pools, for each backend and for the pools that replace others.
    PoolElements,
    /// Words of [`AddressBits`](super::AddressBits), for frontends and backends together.
    AddressWords,
    /// `--source-ranges-max`, twice: a changed set is written beside the old one.
    SourceRanges,
    /// `--affinity-max`.
    AffinityClients,
    /// `--flows-max`.
    Flows,
    /// `--embryos-max`: a header is due while its flow is half-open, and for one round trip more.
    Headers,
    /// The share of one CPU in `--embryos-max`.
    EmbryosOfCpu,
    /// `--parked-max`.
    Parked,
    /// `--sockets-max`.
    Sockets,
    /// As many as the flow tables that are being replaced have; one if there are none.
    Previous,
    /// No setting.
    Fixed(u32),
}

impl Rows {
    /// The CLI flag that sizes the map.
    pub const fn setting(self) -> Option<&'static str> {
        match self {
            Self::Frontends | Self::FrontendIds => Some("--frontends-max"),
            Self::Backends | Self::PoolElements | Self::AddressWords => Some("--backends-max"),
            Self::SourceRanges => Some("--source-ranges-max"),
            Self::AffinityClients => Some("--affinity-max"),
            Self::Flows | Self::Previous => Some("--flows-max"),
            Self::Headers | Self::EmbryosOfCpu => Some("--embryos-max"),
            Self::Parked => Some("--parked-max"),
            Self::Sockets => Some("--sockets-max"),
            Self::Fixed(_) => None,
        }
    }
}

/// Who writes the rows of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    Agent,
    Programs,
    Both,
    /// `lb-agent monitor` and the programs.
    Monitor,
}

/// A declared map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// At most 15 bytes: the pin, and what `bpftool map show` prints.
    pub name: &'static str,
    pub kind: Kind,
    pub key_bytes: u32,
    pub value_bytes: u32,
    pub rows: Rows,
    pub writer: Writer,
    /// What a row says.
    pub holds: &'static str,
}

/// A declared map that belongs to one load of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Private {
    pub name: &'static str,
    pub kind: Kind,
    pub rows: Rows,
    pub holds: &'static str,
}

/// A [`Declaration`] with the types of its rows.
pub struct Map<K, V> {
    pub declaration: Declaration,
    rows: PhantomData<fn() -> (K, V)>,
}

// Derived, they would ask for `K: Clone` and the like.
impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Map<K, V> {}

impl<K: TableType, V: TableType> Map<K, V> {
    const fn declare(name: &'static str, kind: Kind, rows: Rows, writer: Writer, holds: &'static str) -> Self {
        assert!(name.len() <= 15, "the kernel keeps 15 bytes of a name");
        let (key_bytes, value_bytes) = (size_of::<K>() as u32, size_of::<V>() as u32);
        let declaration = Declaration { name, kind, key_bytes, value_bytes, rows, writer, holds };
        Self { declaration, rows: PhantomData }
    }
}

impl<K, V> Map<K, V> {
    pub const fn name(&self) -> &'static str {
        self.declaration.name
    }
}

/// Declares every BPF map, in the order of docs/reference/maps.md. Expands to `$callback! { family {..} shared {..} family_private {..}
/// private {..} }`.
///
/// A map is `[kind, key => value, rows]`, one token tree for the callback. `family` maps exist twice, as `name(v4, v6)`,
/// and `A` in their types is the address of the family. Maps of the first two groups are pinned and survive a restart
/// of the agent; private maps belong to one load of the programs.
#[macro_export]
macro_rules! each_map {
    ($callback:ident) => {
        $callback! {
            family {
                /// The ID of the frontend at an address, port and protocol; its mode; the rule that decided the mode.
                frontends(frontends4, frontends6): [Sparse, FrontendKey<A> => Frontend, Rows::Frontends], Agent;
                /// Backends. The slots of a pool are consecutive; with Maglev a backend has many slots. A pool never changes: a new membership is a new pool.
                pools(pools4, pools6): [Mapped, u32 => PoolElement<A>, Rows::PoolElements], Agent;
                /// The backends of a Service port.
                members(members4, members6): [Sparse, MemberKey<A> => Member, Rows::Backends], Agent;
                /// The endpoints of all Services. If a pod dials one directly, the flow is noted, and no other flow takes its tuple.
                endpoints(endpoints4, endpoints6): [Sparse, EndpointKey<A> => Endpoint, Rows::Backends], Agent;
                /// Bits, by hash, of the addresses of frontends and endpoints. Fragments, which have no ports, are looked up here.
                addresses(addresses4, addresses6): [Mapped, u32 => AddressBits, Rows::AddressWords], Agent;
                /// The prefixes from which frontends may be dialled. Frontends with equal ranges share a set. New flows are looked up.
                source_ranges(source_ranges4, source_ranges6): [Trie, SourceRangeKey<A> => SourceRange, Rows::SourceRanges], Agent;
                /// The backend that a client used last, by Service port.
                affinity(affinity4, affinity6): [Lru, AffinityKey<A> => Affinity<A>, Rows::AffinityClients], Programs;
                /// How to rewrite a packet, by client interface, tuple and direction. Half-open flows get a small part of the table.
                flows(flows4, flows6): [Lru, FlowKey<A> => Flow<A>, Rows::Flows], Both;
                /// PROXY headers that a backend has not acknowledged yet, by the flow of the requests.
                headers(headers4, headers6): [Lru, FlowKey<A> => ProxyHeader, Rows::Headers], Programs;
                /// Where the first fragment of a datagram went, or which fragments wait for it.
                fragments(fragments4, fragments6): [Lru, FragmentKey<A> => Fragment<A>, Rows::Fixed(1 << 13)], Programs;
                /// Rings of flows that ended or were answered. They are deleted first if their interface has used up its share.
                spent(spent4, spent6): [Array, u32 => FlowKey<A>, Rows::Fixed(SPENT_RINGS * SPENT_RING_LEN)], Programs;
                /// By counter: the last packet that was refused, rejected or dropped, for this reason.
                drops(drops4, drops6): [PerCpu, u32 => Dropped<A>, Rows::Fixed(COUNTERS_MAX)], Programs;
                /// For UDP sockets that are connected, and those that send to several addresses, from the second address on: the backend by address, and the address by backend.
                sockets(sockets4, sockets6): [Lru, SocketKey<A> => SocketPeer<A>, Rows::Sockets], Programs;
                /// By socket: the address that it dialled, and the backend that it got. For UDP, the first address of several.
                dialled(dialled4, dialled6): [OfSocket, u32 => Dialled<A>, Rows::Fixed(0)], Programs;
            }
            shared {
                /// By frontend ID, for pods of this node, sockets of the node, and the network: Balance, Pass, Reject or Drop, and the pool.
                scopes: [Mapped, u32 => Scopes, Rows::FrontendIds], Agent;
                /// Packets and bytes by reason.
                counters: [PerCpu, u32 => CounterValue, Rows::Fixed(COUNTERS_MAX)], Programs;
                /// Flows, packets and bytes by frontend ID, and what was left to the balancer.
                frontend_stats: [PerCpu, u32 => FrontendStats, Rows::FrontendIds], Programs;
                /// By interface: which client ports its flows use, and whether it may have hairpin flows; for the uplinks, which ports of the node forwarded flows use.
                edges: [Array, u32 => EdgeState, Rows::Fixed(EDGES_MAX)], Both;
                /// By interface: the bridge that it is a port of, the MAC of the bridge, and whether packets have a link header.
                ports: [Array, u32 => Port, Rows::Fixed(EDGES_MAX)], Agent;
                /// By interface towards the network: the address of this node for what it forwards by it.
                uplinks: [Sparse, u32 => Uplink, Rows::Fixed(UPLINKS_MAX)], Agent;
                /// By interface: its entries in the flow tables.
                edge_flows: [Mapped, u32 => EdgeFlows, Rows::Fixed(EDGES_MAX)], Both;
                /// All entries in the flow tables.
                flow_totals: [Mapped, u32 => FlowTotals, Rows::Fixed(1)], Both;
                /// By ring: where `spent4` and `spent6` are written next.
                spent_rings: [Array, u32 => SpentRing, Rows::Fixed(SPENT_RINGS)], Programs;
                /// By interface: since when it is attached, in jiffies.
                edge_ages: [Array, u32 => EdgeAge, Rows::Fixed(EDGES_MAX)], Agent;
                /// By frontend ID: since when it balances, in jiffies.
                frontend_ages: [Array, u32 => FrontendAge, Rows::FrontendIds], Agent;
                /// By family: until when flows may be missing because the kernel evicted them, in jiffies.
                evictions: [Array, u32 => Evictions, Rows::Fixed(2)], Agent;
                /// By interface, and for all that is forwarded: the ICMP answers that are left in this second.
                reject_buckets: [Array, u32 => RejectBucket, Rows::Fixed(EDGES_MAX)], Programs;
                /// The network namespace and the versions that the maps belong to.
                owner: [Array, u32 => Owner, Rows::Fixed(1)], Agent;
                /// By frontend ID, interface and reason: packets that were refused, rejected or dropped. Rows of frontends that are gone are deleted.
                drop_counts: [Lru, DropKey => DropCount, Rows::Fixed(1 << 14)], Programs;
                /// Until when `lb-agent monitor` listens, and how many events a second it wants.
                monitor: [Mapped, u32 => Monitor, Rows::Fixed(1)], Monitor;
                /// What `lb-agent monitor` prints: drops, rejects, new flows, and connections that were left alone.
                events: [Ring, u32 => Told, Rows::Fixed(EVENTS_BYTES)], Programs;
            }
            family_private {
                /// The flow tables of another size that are being replaced.
                previous(previous4, previous6): [Lru, FlowKey<A> => Flow<A>, Rows::Previous];
                /// The half-open flows that a CPU may still make.
                embryos(embryos4, embryos6): [PerCpu, u32 => EmbryoBudget, Rows::Fixed(1)];
                /// Ring of the latest new flows of a CPU.
                embryo_ring(embryo_ring4, embryo_ring6): [PerCpu, u32 => FlowKey<A>, Rows::EmbryosOfCpu];
                /// The records of a program run. No run interrupts another on the same CPU: bottom halves are off.
                work(work4, work6): [PerCpu, u32 => Work<A>, Rows::Fixed(1)];
            }
            private {
                /// Ring of fragments that overtook the first one of their datagram, kept for two seconds at most.
                parked: [Array, u32 => Parked, Rows::Parked];
                /// By hash of the client: the last datagram that was left alone and told `lb-agent monitor`.
                passes_told: [Array, u32 => u64, Rows::Fixed(PASSES_TOLD)];
                /// By hash of the next hop: when a driver last left a packet to tc, so that the kernel asks for the hop's MAC.
                hops_asked: [Array, u32 => u64, Rows::Fixed(HOPS_ASKED)];
                /// Tickets drawn for `parked`.
                parked_tickets: [Array, u32 => u32, Rows::Fixed(1)];
            }
        }
    };
}

/// The type of a family's address in place of `A`.
#[macro_export]
macro_rules! family_address {
    (A, $addr:ty) => {
        $addr
    };
}

/// A part of a declared map.
macro_rules! part {
    (type [$kind:ident, $key:ty => $value:ty, $rows:expr]) => {
        Map<$key, $value>
    };
    (kind [$kind:ident, $key:ty => $value:ty, $rows:expr]) => {
        Kind::$kind
    };
    (rows [$kind:ident, $key:ty => $value:ty, $rows:expr]) => {
        $rows
    };
}

macro_rules! declare {
    (
        family { $( $(#[doc = $holds:literal])+ $name:ident($v4:ident, $v6:ident): $map:tt, $writer:ident; )* }
        shared { $( $(#[doc = $shared_holds:literal])+ $shared:ident: $shared_map:tt, $shared_writer:ident; )* }
        family_private { $( $(#[doc = $own_holds:literal])+ $own:ident($own4:ident, $own6:ident): $own_map:tt; )* }
        private { $( $(#[doc = $private_holds:literal])+ $private:ident: $private_map:tt; )* }
    ) => {
        /// The pinned maps of one family.
        pub struct FamilyMaps<A> {
            $( $(#[doc = $holds])+ pub $name: part!(type $map), )*
        }

        /// The pinned maps that both families share.
        pub struct SharedMaps {
            $( $(#[doc = $shared_holds])+ pub $shared: part!(type $shared_map), )*
        }

        pub const FAMILY4: FamilyMaps<[u8; 4]> = FamilyMaps {
            $( $name: Map::declare(stringify!($v4), part!(kind $map), part!(rows $map), Writer::$writer, concat!($($holds),+)), )*
        };

        pub const FAMILY6: FamilyMaps<[u8; 16]> = FamilyMaps {
            $( $name: Map::declare(stringify!($v6), part!(kind $map), part!(rows $map), Writer::$writer, concat!($($holds),+)), )*
        };

        pub const SHARED: SharedMaps = SharedMaps {
            $( $shared: Map::declare(
                stringify!($shared), part!(kind $shared_map), part!(rows $shared_map), Writer::$shared_writer, concat!($($shared_holds),+),
            ), )*
        };

        /// Every pinned map.
        pub const PINNED: &[Declaration] = &[
            $( FAMILY4.$name.declaration, FAMILY6.$name.declaration, )*
            $( SHARED.$shared.declaration, )*
        ];

        /// The names of the private maps of one family.
        #[derive(Clone, Copy, Debug)]
        pub struct PrivateNames {
            $( $(#[doc = $own_holds])+ pub $own: &'static str, )*
        }

        pub const PRIVATE4: PrivateNames = PrivateNames { $( $own: stringify!($own4), )* };
        pub const PRIVATE6: PrivateNames = PrivateNames { $( $own: stringify!($own6), )* };

        /// Every private map.
        pub const PRIVATE: &[Private] = &[
            $( Private { name: PRIVATE4.$own, kind: part!(kind $own_map), rows: part!(rows $own_map), holds: concat!($($own_holds),+) },
               Private { name: PRIVATE6.$own, kind: part!(kind $own_map), rows: part!(rows $own_map), holds: concat!($($own_holds),+) }, )*
            $( Private { name: stringify!($private), kind: part!(kind $private_map), rows: part!(rows $private_map), holds: concat!($($private_holds),+) }, )*
        ];
    };
}
crate::each_map!(declare);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::borrow::ToOwned as _;
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    /// The table of docs/reference/maps.md between these lines.
    const BEGIN: &str = "<!-- maps: written by lb-common/src/table/maps.rs -->\n";
    const END: &str = "<!-- end of maps -->\n";

    fn reference_table() -> String {
        let mut table = "| map | kind | written by | holds |\n|---|---|---|---|\n".to_owned();
        let pinned = PINNED.iter().map(|map| (map.name, map.kind, map.writer, map.holds));
        let private = PRIVATE.iter().map(|map| (map.name, map.kind, Writer::Programs, map.holds));
        let maps: Vec<_> = pinned.chain(private).collect();
        for families in maps.chunk_by(|a, b| a.3 == b.3) {
            let names: Vec<_> = families.iter().map(|(name, ..)| format!("`{name}`")).collect();
            let (_, kind, writer, holds) = families[0];
            let kind = match kind {
                Kind::Sparse => "hash",
                Kind::Lru => "LRU hash",
                Kind::Trie => "LPM trie",
                Kind::Array | Kind::Mapped => "array",
                Kind::PerCpu => "array per CPU",
                Kind::OfSocket => "socket storage",
                Kind::Ring => "ring buffer",
            };
            let writer = match writer {
                Writer::Agent => "agent",
                Writer::Programs => "programs",
                Writer::Both => "both",
                Writer::Monitor => "`lb-agent monitor`, programs",
            };
            writeln!(table, "| {} | {kind} | {writer} | {} |", names.join(", "), holds.trim()).expect("a string");
        }
        table
    }

    #[test]
    fn the_reference_lists_every_map() {
        let page = include_str!("../../../docs/reference/maps.md");
        let (before, rest) = page.split_once(BEGIN).expect("it has the first line");
        let (table, after) = rest.split_once(END).expect("it has the last line");
        let expected = reference_table();
        if table != expected && std::env::var_os("LB_REWRITE").is_some() {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("docs/reference/maps.md");
            let text = format!("{before}{BEGIN}{expected}{END}{after}");
            return std::fs::write(path, text).expect("the page is writable");
        }
        assert!(table == expected, "LB_REWRITE=1 cargo test -p lb-common -- maps writes this:\n{expected}");
    }

    #[test]
    fn names_are_unique() {
        let names = || PINNED.iter().map(|map| map.name).chain(PRIVATE.iter().map(|map| map.name));
        let all: BTreeSet<_> = names().collect();
        assert_eq!(all.len(), names().count());
    }
}
