//! The BPF object: its maps' shapes, and loading it over pinned maps.
//!
//! aya 0.14 re-uses a pinned map of any shape without a word, so shapes are compared before the load.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::programs::{Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader};
use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY,
};
use lb_common::table::{
    AddressBits, Affinity, AffinityKey, CounterValue, EDGES_MAX, EdgeAge, EdgeFlows, EdgeState, Endpoint, EndpointKey,
    Evictions, Flow, FlowKey, FlowTotals, Fragment, FragmentKey, Frontend, FrontendAge, FrontendKey, FrontendStats,
    Member, MemberKey, Owner, POOL_ELEMENTS_MAX, PoolElement, Port, RejectBucket, SPENT_RING_LEN, SPENT_RINGS, Scopes,
    SourceRange, SourceRangeKey, SpentRing, name,
};

use super::addresses::address_words;
use super::shares::Bound;
use super::sys::{self, MapShape};
use super::{Error, Repair, Settings, Sizes, threads};

pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.bpf.o"));

pub const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Elements of `counters`, as `lb-ebpf` declares them.
const COUNTERS_MAX: u32 = 64;
/// Datagrams of which fragments are on their way, per family: more than a second's worth.
const FRAGMENTS_MAX: u32 = 1 << 13;

/// The programs that are attached. Those that the verifier walks for longest come first: none of them is left for the end
/// when programs are loaded.
pub const PROGRAMS: [&str; 4] = ["workload_ingress", "uplink_ingress", "workload_egress", "uplink_egress"];
/// Those for interfaces without a link header, which few nodes have: they are loaded for the first one.
pub const BARE_PROGRAMS: [&str; 4] = ["workload_in_l3", "uplink_in_l3", "workload_out_l3", "uplink_out_l3"];
/// The program that does nothing, for measuring what a run costs by itself.
pub const EMPTY_PROGRAM: &str = "empty";
/// The program that returns the low 32 bits of jiffies64.
pub const TICK_PROGRAM: &str = "tick";
/// The program that deletes flows that are over.
pub const COLLECT_PROGRAM: &str = "collect";

fn shape<K, V>(map_type: u32, max_entries: u32, flags: u32) -> MapShape {
    MapShape { map_type, key_size: size_of::<K>() as u32, value_size: size_of::<V>() as u32, max_entries, flags }
}

/// Ids of frontends rest before they are used again, so there are more of them than frontends.
pub const fn scopes_max(sizes: &Sizes) -> u32 {
    sizes.frontends_max.saturating_mul(2)
}

/// Both families share the numbers of the elements, and the first one is nobody's. Pools that are replaced, and gaps that
/// are too small, take what one family leaves.
pub const fn pool_elements(sizes: &Sizes) -> u32 {
    let elements = sizes.backends_max.saturating_mul(2).saturating_add(1);
    if elements < POOL_ELEMENTS_MAX { elements } else { POOL_ELEMENTS_MAX - 1 }
}

/// Every pinned map with the shape that this version wants.
pub fn wanted(sizes: &Sizes) -> [(&'static str, MapShape); 33] {
    type V4 = [u8; 4];
    type V6 = [u8; 16];
    let (hash, lru) = (BPF_MAP_TYPE_HASH as u32, BPF_MAP_TYPE_LRU_HASH as u32);
    let (array, per_cpu) = (BPF_MAP_TYPE_ARRAY as u32, BPF_MAP_TYPE_PERCPU_ARRAY as u32);
    let trie = BPF_MAP_TYPE_LPM_TRIE as u32;
    let Sizes { frontends_max, backends_max, source_ranges_max, affinity_max, flows_max, .. } = *sizes;
    // A set that replaces another is written beside it. Nothing is allocated before it is used.
    let source_ranges_max = source_ranges_max.saturating_mul(2);
    let address_words = address_words(sizes);
    [
        (name::FRONTENDS4, shape::<FrontendKey<V4>, Frontend>(hash, frontends_max, BPF_F_NO_PREALLOC)),
        (name::FRONTENDS6, shape::<FrontendKey<V6>, Frontend>(hash, frontends_max, BPF_F_NO_PREALLOC)),
        (name::SCOPES, shape::<u32, Scopes>(array, scopes_max(sizes), BPF_F_MMAPABLE)),
        (name::POOLS4, shape::<u32, PoolElement<V4>>(array, pool_elements(sizes), BPF_F_MMAPABLE)),
        (name::POOLS6, shape::<u32, PoolElement<V6>>(array, pool_elements(sizes), BPF_F_MMAPABLE)),
        (name::MEMBERS4, shape::<MemberKey<V4>, Member>(hash, backends_max, BPF_F_NO_PREALLOC)),
        (name::MEMBERS6, shape::<MemberKey<V6>, Member>(hash, backends_max, BPF_F_NO_PREALLOC)),
        (name::ENDPOINTS4, shape::<EndpointKey<V4>, Endpoint>(hash, backends_max, BPF_F_NO_PREALLOC)),
        (name::ENDPOINTS6, shape::<EndpointKey<V6>, Endpoint>(hash, backends_max, BPF_F_NO_PREALLOC)),
        (name::ADDRESSES4, shape::<u32, AddressBits>(array, address_words, BPF_F_MMAPABLE)),
        (name::ADDRESSES6, shape::<u32, AddressBits>(array, address_words, BPF_F_MMAPABLE)),
        (name::SOURCE_RANGES4, shape::<SourceRangeKey<V4>, SourceRange>(trie, source_ranges_max, BPF_F_NO_PREALLOC)),
        (name::SOURCE_RANGES6, shape::<SourceRangeKey<V6>, SourceRange>(trie, source_ranges_max, BPF_F_NO_PREALLOC)),
        (name::AFFINITY4, shape::<AffinityKey<V4>, Affinity<V4>>(lru, affinity_max, 0)),
        (name::AFFINITY6, shape::<AffinityKey<V6>, Affinity<V6>>(lru, affinity_max, 0)),
        (name::FLOWS4, shape::<FlowKey<V4>, Flow<V4>>(lru, flows_max, 0)),
        (name::FLOWS6, shape::<FlowKey<V6>, Flow<V6>>(lru, flows_max, 0)),
        (name::FRAGMENTS4, shape::<FragmentKey<V4>, Fragment<V4>>(lru, FRAGMENTS_MAX, 0)),
        (name::FRAGMENTS6, shape::<FragmentKey<V6>, Fragment<V6>>(lru, FRAGMENTS_MAX, 0)),
        (name::COUNTERS, shape::<u32, CounterValue>(per_cpu, COUNTERS_MAX, 0)),
        (name::FRONTEND_STATS, shape::<u32, FrontendStats>(per_cpu, scopes_max(sizes), 0)),
        (name::EDGES, shape::<u32, EdgeState>(array, EDGES_MAX, 0)),
        (name::PORTS, shape::<u32, Port>(array, EDGES_MAX, 0)),
        (name::EDGE_FLOWS, shape::<u32, EdgeFlows>(array, EDGES_MAX, BPF_F_MMAPABLE)),
        (name::SPENT4, shape::<u32, FlowKey<V4>>(array, SPENT_RINGS * SPENT_RING_LEN, 0)),
        (name::SPENT6, shape::<u32, FlowKey<V6>>(array, SPENT_RINGS * SPENT_RING_LEN, 0)),
        (name::SPENT_RINGS, shape::<u32, SpentRing>(array, SPENT_RINGS, 0)),
        (name::FLOW_TOTALS, shape::<u32, FlowTotals>(array, 1, BPF_F_MMAPABLE)),
        (name::EDGE_AGES, shape::<u32, EdgeAge>(array, EDGES_MAX, 0)),
        (name::FRONTEND_AGES, shape::<u32, FrontendAge>(array, scopes_max(sizes), 0)),
        (name::EVICTIONS, shape::<u32, Evictions>(array, 2, 0)),
        (name::REJECT_BUCKETS, shape::<u32, RejectBucket>(array, EDGES_MAX, 0)),
        (name::OWNER, shape::<u32, Owner>(array, 1, 0)),
    ]
}

/// The names of all pinned maps.
pub fn map_names() -> [&'static str; 33] {
    wanted(&Sizes::default()).map(|(name, _)| name)
}

/// The rings of half-open flows; not pinned, for a new program notes anew.
const RINGS: [&str; 2] = ["embryo_ring4", "embryo_ring6"];
/// The flow tables of programs that are about to be replaced; those of nobody where there are none.
const PREVIOUS: [(&str, &str); 2] = [("previous4", name::FLOWS4), ("previous6", name::FLOWS6)];
const NOBODYS_ENTRIES: u32 = 1;
/// The ring of parked fragments; not pinned either.
const PARKED: &str = "parked";

/// Half-open flows that each CPU may make.
fn embryos_per_cpu(sizes: &Sizes) -> Result<u32, Error> {
    Ok((sizes.embryos_max / u32::try_from(possible_cpus()?).unwrap_or(u32::MAX)).max(1))
}

pub fn possible_cpus() -> Result<usize, Error> {
    aya::util::nr_cpus().map_err(|(file, source)| Error::Kernel { what: format!("reading {file}"), source })
}

/// Whether the maps pinned in `directory` are those that this version would make.
pub fn is_adoptable(directory: &Path, sizes: &Sizes) -> Result<bool, Error> {
    for (name, shape) in wanted(sizes) {
        let path = directory.join(name);
        let found = match sys::obj_get(&path) {
            Ok(map) => sys::map_shape(map.as_fd()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => Err(error),
        };
        let found =
            found.map_err(|source| Error::Kernel { what: format!("asking for the pin {}", path.display()), source })?;
        if found != shape {
            tracing::info!(map = name, ?found, wanted = ?shape, "pinned map has another shape");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Loads all programs over the maps in `directory`; maps that are not pinned there are made and pinned. Flows are looked for
/// in those of `previous` as well, if there are any.
pub fn load(
    directory: &Path,
    settings: &Settings,
    jiffies_per_sec: u32,
    previous: Option<&Path>,
) -> Result<Ebpf, Error> {
    let jiffies = |secs: u32| u64::from(secs) * u64::from(jiffies_per_sec);
    let timeouts = &settings.timeouts;
    let globals = [
        ("TCP_SYN_JIFFIES", jiffies(timeouts.tcp_syn_secs)),
        ("TCP_ESTABLISHED_JIFFIES", jiffies(timeouts.tcp_established_secs)),
        ("TCP_CLOSING_JIFFIES", jiffies(timeouts.tcp_closing_secs)),
        ("UDP_JIFFIES", jiffies(timeouts.udp_secs)),
        ("SECOND_JIFFIES", jiffies(1)),
        ("REJECTS_PER_SEC", u64::from(settings.rejects_per_sec)),
        ("ADDRESS_WORDS", u64::from(address_words(&settings.sizes))),
        ("REPAIRS_EVICTED_FLOWS", u64::from(settings.repair == Repair::On)),
        ("LOOKS_BACK", u64::from(previous.is_some())),
    ];
    let embryos_max = embryos_per_cpu(&settings.sizes)?;
    let bound = Bound::of(&settings.sizes, possible_cpus()?);
    let shares = [("POD_FLOWS_PERCENT", u64::from(bound.percent)), ("FLOW_ENTRIES_USABLE", bound.usable())];
    let maps = wanted(&settings.sizes);
    let mut loader = EbpfLoader::new();
    for (name, shape) in maps {
        loader.map_pin_path(name, directory.join(name)).map_max_entries(name, shape.max_entries);
    }
    for (name, value) in globals.iter().chain(&shares) {
        loader.override_global(name, value, true);
    }
    for (name, flows) in PREVIOUS {
        match previous {
            Some(maps) => loader.map_pin_path(name, maps.join(flows)),
            None => loader.map_max_entries(name, NOBODYS_ENTRIES),
        };
    }
    let embryos = u64::from(embryos_max);
    loader.override_global("EMBRYOS_MAX", &embryos, true);
    let parked = u64::from(settings.sizes.parked_max);
    loader.override_global("PARKED_MAX", &parked, true).map_max_entries(PARKED, settings.sizes.parked_max);
    for ring in RINGS {
        loader.map_max_entries(ring, embryos_max);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| load_error("the BPF object", &error))?;
    let names: Vec<_> = PROGRAMS.into_iter().chain([EMPTY_PROGRAM, TICK_PROGRAM, COLLECT_PROGRAM]).collect();
    load_programs(&mut ebpf, &names)?;
    Ok(ebpf)
}

/// Loads those of these programs that are not loaded, several at once: the verifier walks all paths of each, which is most of
/// a start where Services are few, and privileged loads do not wait for each other (`bpf_check` in kernel/bpf/verifier.c).
pub fn load_programs(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), Error> {
    let mut programs: BTreeMap<&str, &mut Program> = ebpf.programs_mut().collect();
    let found = names.iter().map(|name| Ok((*name, classifier(name, programs.remove(name))?)));
    let mut found = found.collect::<Result<Vec<_>, _>>()?;
    found.retain(|(_, program)| program.fd().is_err());
    threads::share(found.into_iter(), |(name, program)| {
        program.load().map_err(|error| load_error(&format!("program {name}"), &error))
    })
}

/// A program of the object.
pub fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, Error> {
    classifier(name, ebpf.program_mut(name))
}

fn classifier<'a>(name: &str, program: Option<&'a mut Program>) -> Result<&'a mut SchedClassifier, Error> {
    let program = program.ok_or_else(|| Error::Refused(format!("the BPF object has no program {name}")))?;
    program.try_into().map_err(|error| load_error(&format!("program {name}"), &error))
}

fn load_error(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Error::Refused(format!("the kernel did not load {what}: {text}; `lb-agent check` says what this machine lacks"))
}
