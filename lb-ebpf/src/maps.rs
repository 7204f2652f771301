//! Every map, with its type and default size; the agent sets the real sizes at load.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::forward::Work;
use lb_common::fragment::Parked;
use lb_common::reject::Unreachable;
use lb_common::table::{
    AddressBits, Affinity, AffinityKey, CounterValue, EDGES_MAX, EdgeAge, EdgeFlows, EdgeState, EmbryoBudget, Endpoint,
    EndpointKey, Evictions, Flow, FlowKey, FlowTotals, Fragment, FragmentKey, Frontend, FrontendAge, FrontendKey,
    FrontendStats, Member, MemberKey, Owner, PoolElement, Port, RejectBucket, SPENT_RING_LEN, SPENT_RINGS, Scopes,
    SourceRange, SpentRing,
};

use crate::tables::Parts;

/// Elements of `counters`, with room for those to come.
const COUNTERS_MAX: usize = 64;
const FRONTENDS_MAX: usize = 1 << 16;
const BACKENDS_MAX: usize = 1 << 18;
const ADDRESS_WORDS: usize = 1 << 17;
const AFFINITY_MAX: usize = 1 << 16;
const SOURCE_RANGES_MAX: usize = 1 << 16;
const FLOWS_MAX: usize = 1 << 18;
const EMBRYOS_MAX: usize = 1 << 14;
const FRAGMENTS_MAX: usize = 1 << 13;
const PARKED_MAX: usize = 1 << 10;

type Sparse<K, V, const N: usize> = HashMap<K, V, N, { BPF_F_NO_PREALLOC as usize }>;
pub type Frontends<A> = Sparse<FrontendKey<A>, Frontend, FRONTENDS_MAX>;
pub type Pools<A> = Array<PoolElement<A>, BACKENDS_MAX, { BPF_F_MMAPABLE as usize }>;
pub type Members<A> = Sparse<MemberKey<A>, Member, BACKENDS_MAX>;
pub type Endpoints<A> = Sparse<EndpointKey<A>, Endpoint, BACKENDS_MAX>;
pub type Addresses = Array<AddressBits, ADDRESS_WORDS, { BPF_F_MMAPABLE as usize }>;
/// What a prefix of `source_ranges` is made of: a [`lb_common::table::SourceRangeKey`] without its length.
#[repr(C)]
pub struct Source<A> {
    pub set: u32,
    pub addr: A,
}
pub type SourceRanges<A> = LpmTrie<Source<A>, SourceRange, SOURCE_RANGES_MAX>;
pub type Affinities<A> = LruHashMap<AffinityKey<A>, Affinity<A>, AFFINITY_MAX>;
pub type Flows<A> = LruHashMap<FlowKey<A>, Flow<A>, FLOWS_MAX>;

pub type Fragments<A> = LruHashMap<FragmentKey<A>, Fragment<A>, FRAGMENTS_MAX>;
pub type Spent<A> = Array<FlowKey<A>, { (SPENT_RINGS * SPENT_RING_LEN) as usize }>;
pub type Ring<A> = PerCpuArray<FlowKey<A>, EMBRYOS_MAX>;

type V4 = [u8; 4];
type V6 = [u8; 16];

/// What clients dial.
#[btf_map]
static frontends4: Frontends<V4> = HashMap::new();
#[btf_map]
static frontends6: Frontends<V6> = HashMap::new();

/// What each kind of client gets at a frontend.
#[btf_map]
pub static scopes: Array<Scopes, FRONTENDS_MAX, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Backends, the slots of a pool one after the other.
#[btf_map]
static pools4: Pools<V4> = Array::new();
#[btf_map]
static pools6: Pools<V6> = Array::new();

/// Which backends a Service port has.
#[btf_map]
static members4: Members<V4> = HashMap::new();
#[btf_map]
static members6: Members<V6> = HashMap::new();

/// What is an endpoint of any Service.
#[btf_map]
static endpoints4: Endpoints<V4> = HashMap::new();
#[btf_map]
static endpoints6: Endpoints<V6> = HashMap::new();

/// Which addresses frontends and endpoints have, as bits.
#[btf_map]
static addresses4: Addresses = Array::new();
#[btf_map]
static addresses6: Addresses = Array::new();

/// From where frontends may be dialled.
#[btf_map]
static source_ranges4: SourceRanges<V4> = LpmTrie::new();
#[btf_map]
static source_ranges6: SourceRanges<V6> = LpmTrie::new();

/// Which backend a client had last.
#[btf_map]
static affinity4: Affinities<V4> = LruHashMap::new();
#[btf_map]
static affinity6: Affinities<V6> = LruHashMap::new();

/// Connection tracking: two entries a flow.
#[btf_map]
static flows4: Flows<V4> = LruHashMap::new();
#[btf_map]
static flows6: Flows<V6> = LruHashMap::new();

/// The flow tables of another size that programs use which are about to be replaced: looked at where `looks_back` says so.
#[btf_map]
static previous4: Flows<V4> = LruHashMap::new();
#[btf_map]
static previous6: Flows<V6> = LruHashMap::new();

/// Where the first fragments of datagrams went.
#[btf_map]
static fragments4: Fragments<V4> = LruHashMap::new();
#[btf_map]
static fragments6: Fragments<V6> = LruHashMap::new();

/// Fragments that wait for the first one of their datagram: a ring.
#[btf_map]
pub static parked: Array<Parked, PARKED_MAX> = Array::new();
/// Tickets drawn for it.
#[btf_map]
pub static parked_tickets: Array<u32, 1> = Array::new();

/// How many half-open flows there may be.
#[btf_map]
static embryos4: PerCpuArray<EmbryoBudget, 1> = PerCpuArray::new();
#[btf_map]
static embryos6: PerCpuArray<EmbryoBudget, 1> = PerCpuArray::new();

/// The latest new flows of each CPU: a ring.
#[btf_map]
static embryo_ring4: Ring<V4> = PerCpuArray::new();
#[btf_map]
static embryo_ring6: Ring<V6> = PerCpuArray::new();

/// Packets and bytes by reason.
#[btf_map]
pub static counters: PerCpuArray<CounterValue, COUNTERS_MAX> = PerCpuArray::new();

/// Flows, packets and bytes by frontend id.
#[btf_map]
pub static frontend_stats: PerCpuArray<FrontendStats, FRONTENDS_MAX> = PerCpuArray::new();

/// What is known of an interface.
#[btf_map]
pub static edges: Array<EdgeState, { EDGES_MAX as usize }> = Array::new();

/// What interfaces are ports of.
#[btf_map]
pub static ports: Array<Port, { EDGES_MAX as usize }> = Array::new();

/// How many flows an interface has, and all together.
#[btf_map]
pub static edge_flows: Array<EdgeFlows, { EDGES_MAX as usize }, { BPF_F_MMAPABLE as usize }> = Array::new();
#[btf_map]
pub static flow_totals: Array<FlowTotals, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Flows that may go when their edge has too many: rings that edges share.
#[btf_map]
static spent4: Spent<V4> = Array::new();
#[btf_map]
static spent6: Spent<V6> = Array::new();
#[btf_map]
pub static spent_rings: Array<SpentRing, { SPENT_RINGS as usize }> = Array::new();

/// Since when interfaces are attached.
#[btf_map]
pub static edge_ages: Array<EdgeAge, { EDGES_MAX as usize }> = Array::new();

/// Since when frontends balance.
#[btf_map]
pub static frontend_ages: Array<FrontendAge, FRONTENDS_MAX> = Array::new();

/// Whether flows have been evicted, by family.
#[btf_map]
pub static evictions: Array<Evictions, 2> = Array::new();

/// The rate limits of ICMP answers.
#[btf_map]
pub static reject_buckets: Array<RejectBucket, { EDGES_MAX as usize }> = Array::new();

/// Whose dataplane this is; for the agent and for whoever reads a dump.
#[btf_map]
pub static owner: Array<Owner, 1> = Array::new();

/// The records that a program run works on; no run interrupts another on the same CPU (bottom halves are off).
#[btf_map]
static work4: PerCpuArray<Work<V4>, 1> = PerCpuArray::new();
#[btf_map]
static work6: PerCpuArray<Work<V6>, 1> = PerCpuArray::new();

/// The maps of one family, and its functions for parts of the decision.
pub trait FamilyMaps: Unreachable + Parts {
    fn frontends() -> &'static Frontends<Self>;
    fn pools() -> &'static Pools<Self>;
    fn members() -> &'static Members<Self>;
    fn endpoints() -> &'static Endpoints<Self>;
    fn addresses() -> &'static Addresses;
    fn source_ranges() -> &'static SourceRanges<Self>;
    fn affinity() -> &'static Affinities<Self>;
    fn flows() -> &'static Flows<Self>;
    fn previous() -> &'static Flows<Self>;
    fn fragments() -> &'static Fragments<Self>;
    fn spent() -> &'static Spent<Self>;
    fn embryos() -> &'static PerCpuArray<EmbryoBudget, 1>;
    fn embryo_ring() -> &'static Ring<Self>;
    fn work() -> &'static PerCpuArray<Work<Self>, 1>;
}

macro_rules! family_maps {
    ($addr:ty: $frontends:ident, $pools:ident, $members:ident, $endpoints:ident, $addresses:ident, $source_ranges:ident, $affinity:ident, $flows:ident, $previous:ident, $fragments:ident, $spent:ident, $embryos:ident, $ring:ident, $work:ident) => {
        impl FamilyMaps for $addr {
            #[inline(always)]
            fn frontends() -> &'static Frontends<Self> {
                &$frontends
            }
            #[inline(always)]
            fn pools() -> &'static Pools<Self> {
                &$pools
            }
            #[inline(always)]
            fn members() -> &'static Members<Self> {
                &$members
            }
            #[inline(always)]
            fn endpoints() -> &'static Endpoints<Self> {
                &$endpoints
            }
            #[inline(always)]
            fn addresses() -> &'static Addresses {
                &$addresses
            }
            #[inline(always)]
            fn source_ranges() -> &'static SourceRanges<Self> {
                &$source_ranges
            }
            #[inline(always)]
            fn affinity() -> &'static Affinities<Self> {
                &$affinity
            }
            #[inline(always)]
            fn flows() -> &'static Flows<Self> {
                &$flows
            }
            #[inline(always)]
            fn previous() -> &'static Flows<Self> {
                &$previous
            }
            #[inline(always)]
            fn fragments() -> &'static Fragments<Self> {
                &$fragments
            }
            #[inline(always)]
            fn spent() -> &'static Spent<Self> {
                &$spent
            }
            #[inline(always)]
            fn embryos() -> &'static PerCpuArray<EmbryoBudget, 1> {
                &$embryos
            }
            #[inline(always)]
            fn embryo_ring() -> &'static Ring<Self> {
                &$ring
            }
            #[inline(always)]
            fn work() -> &'static PerCpuArray<Work<Self>, 1> {
                &$work
            }
        }
    };
}
family_maps!(V4: frontends4, pools4, members4, endpoints4, addresses4, source_ranges4, affinity4, flows4, previous4, fragments4, spent4, embryos4, embryo_ring4, work4);
family_maps!(V6: frontends6, pools6, members6, endpoints6, addresses6, source_ranges6, affinity6, flows6, previous6, fragments6, spent6, embryos6, embryo_ring6, work6);
