//! The BPF object: the shapes of its maps, and how it is loaded over pinned maps.
//!
//! aya 0.14 reuses a pinned map of any shape without an error, so shapes are compared before the load.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;

use aya::programs::{CgroupSockAddr, Program, ProgramType, SchedClassifier, Xdp};
use aya::sys::{BpfHelper, is_helper_supported};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY,
    BPF_MAP_TYPE_RINGBUF, BPF_MAP_TYPE_SK_STORAGE,
};
use lb_common::table::POOL_ELEMENTS_MAX;
use lb_common::table::maps::{Declaration, FAMILY4, FAMILY6, Kind, PINNED, PRIVATE, PRIVATE4, PRIVATE6, Rows, Writer};
use lb_common::way::SnatPorts;

use super::addresses::address_words;
use super::bpf_log;
use super::shares::Bound;
use super::sockets::{SocketHook, SocketLb};
use super::sys::{self, MapShape};
use super::{BpfLog, Error, Monitor, Refusal, Repair, Settings, Sizes, threads};

pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.bpf.o"));

pub const BPF_F_NO_PREALLOC: u32 = 1;
const BPF_F_MMAPABLE: u32 = 1 << 10;

/// The attached programs. Those that take the verifier longest come first, so that the parallel load does not end with
/// one of them.
pub const PROGRAMS: [&str; 4] = ["workload_ingress", "uplink_ingress", "workload_egress", "uplink_egress"];
/// The programs for interfaces without a link header. Few nodes have such interfaces, so they are loaded for the first
/// one.
pub const BARE_PROGRAMS: [&str; 4] = ["workload_in_l3", "uplink_in_l3", "workload_out_l3", "uplink_out_l3"];
/// The programs for drivers, and for the kernel in their place.
pub const DRIVER_PROGRAMS: [&str; 2] = ["uplink_driver", "uplink_generic"];
/// The program that does nothing, to measure the cost of a run itself.
pub const EMPTY_PROGRAM: &str = "empty";
/// The program that returns the low 32 bits of jiffies64.
pub const TICK_PROGRAM: &str = "tick";
/// The program that deletes expired flows.
pub const COLLECT_PROGRAM: &str = "collect";

/// The number of frontend IDs. Freed IDs are quarantined before reuse, so there are more of them than frontends.
pub const fn scopes_max(sizes: &Sizes) -> u32 {
    sizes.frontends_max.saturating_mul(2)
}

/// The number of elements of a pool map. Both families share the element numbers, and element 0 is unused. Replaced
/// pools and gaps that are too small take what the smaller family leaves.
pub const fn pool_elements(sizes: &Sizes) -> u32 {
    let elements = sizes.backends_max.saturating_mul(2).saturating_add(1);
    if elements < POOL_ELEMENTS_MAX { elements } else { POOL_ELEMENTS_MAX - 1 }
}

/// The number of rows of a map. [`Rows::EmbryosOfCpu`] gives the number for all CPUs together.
const fn rows(rows: Rows, sizes: &Sizes) -> u32 {
    match rows {
        Rows::FrontendIds => scopes_max(sizes),
        Rows::PoolElements => pool_elements(sizes),
        Rows::AddressWords => address_words(sizes),
        // A changed set is written beside the old one. A trie allocates rows only when they are written.
        Rows::SourceRanges => sizes.source_ranges_max.saturating_mul(2),
        Rows::Previous => 1,
        rows => sizes.asked(rows),
    }
}

const fn shape(map: &Declaration, sizes: &Sizes) -> MapShape {
    let (map_type, flags) = match map.kind {
        Kind::Sparse => (BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC),
        Kind::Lru => (BPF_MAP_TYPE_LRU_HASH, 0),
        Kind::Trie => (BPF_MAP_TYPE_LPM_TRIE, BPF_F_NO_PREALLOC),
        Kind::Array => (BPF_MAP_TYPE_ARRAY, 0),
        Kind::Mapped => (BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE),
        Kind::PerCpu => (BPF_MAP_TYPE_PERCPU_ARRAY, 0),
        Kind::OfSocket => (BPF_MAP_TYPE_SK_STORAGE, BPF_F_NO_PREALLOC),
        Kind::Ring => (BPF_MAP_TYPE_RINGBUF, 0),
    };
    let (key_size, value_size) = match map.kind {
        Kind::Ring => (0, 0),
        _ => (map.key_bytes, map.value_bytes),
    };
    MapShape { map_type: map_type as u32, key_size, value_size, max_entries: rows(map.rows, sizes), flags }
}

/// Every pinned map with the shape that this version needs.
pub fn wanted(sizes: &Sizes) -> impl Iterator<Item = (&'static str, MapShape)> {
    PINNED.iter().map(|map| (map.name, shape(map, sizes)))
}

/// Half-open flows that each CPU may make.
fn embryos_per_cpu(sizes: &Sizes) -> Result<u32, Error> {
    Ok((sizes.embryos_max / u32::try_from(possible_cpus()?).unwrap_or(u32::MAX)).max(1))
}

pub fn possible_cpus() -> Result<usize, Error> {
    aya::util::nr_cpus().map_err(|(file, source)| Error::Path { op: "reading", path: file.into(), source })
}

/// Whether all maps pinned in `directory` have the shape that this version needs. A map that the agent does not write
/// may be missing: an older version did not have it, and it begins empty.
pub fn is_adoptable(directory: &Path, sizes: &Sizes) -> Result<bool, Error> {
    for map in PINNED {
        let (name, shape) = (map.name, shape(map, sizes));
        let path = directory.join(name);
        let may_be_missing = matches!(map.writer, Writer::Programs | Writer::Monitor);
        let found = match sys::obj_get(&path) {
            Ok(map) => sys::map_shape(map.as_fd()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_be_missing => continue,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => Err(error),
        };
        let found = found.map_err(|source| Error::Path { op: "asking for the pin", path, source })?;
        if found != shape {
            tracing::info!(map = name, ?found, wanted = ?shape, "pinned map has another shape");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Loads the programs that every node needs, over the maps in `directory`.
pub fn load(
    directory: &Path,
    settings: &Settings,
    jiffies_per_sec: u32,
    previous: Option<&Path>,
) -> Result<Ebpf, Error> {
    let mut ebpf = open(directory, settings, jiffies_per_sec, previous)?;
    let names: Vec<_> = PROGRAMS.into_iter().chain([EMPTY_PROGRAM, TICK_PROGRAM, COLLECT_PROGRAM]).collect();
    load_programs(&mut ebpf, &names)?;
    Ok(ebpf)
}

/// Opens the object over the maps in `directory`, and loads no program yet. Missing maps are made and pinned. With
/// `previous`, the programs also look flows up in the flow tables of that directory.
pub fn open(
    directory: &Path,
    settings: &Settings,
    jiffies_per_sec: u32,
    previous: Option<&Path>,
) -> Result<Ebpf, Error> {
    open_object(OBJECT, directory, settings, jiffies_per_sec, previous)
}

/// The same with another object.
pub fn open_object(
    object: &[u8],
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
        ("BEHIND_DRIVER", u64::from(settings.xdp.mode().is_some())),
        // The debug channel logs the reasons as well.
        ("MONITORS", u64::from(settings.monitor == Monitor::On || settings.bpf_log == BpfLog::On)),
    ];
    let embryos_max = embryos_per_cpu(&settings.sizes)?;
    let bound = Bound::of(&settings.sizes, possible_cpus()?);
    let netns_cookie = sys::netns_cookie()
        .map_err(|source| Error::Kernel { op: "asking for the cookie of the network namespace", source })?;
    let sockets = [
        ("NODE_NETNS", netns_cookie),
        ("SERVES_POD_SOCKETS", u64::from(settings.sockets == SocketLb::All)),
        ("SETS_RETVAL", u64::from(sets_retval())),
    ];
    let snat_ports = settings.snat_ports.unwrap_or(SnatPorts::DEFAULT);
    let forwarding = [
        ("FORWARDS", u64::from(settings.snat_ports.is_some())),
        ("SNAT_FIRST", u64::from(snat_ports.first)),
        ("SNAT_LAST", u64::from(snat_ports.last)),
    ];
    let shares = [("POD_FLOWS_PERCENT", u64::from(bound.percent)), ("FLOW_ENTRIES_USABLE", bound.usable())];
    let mut loader = EbpfLoader::new();
    // Why a program was refused, without the state at each instruction: that is megabytes.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, shape) in wanted(&settings.sizes) {
        loader.map_pin_path(name, directory.join(name)).map_max_entries(name, shape.max_entries);
    }
    for (name, value) in globals.iter().chain(&shares).chain(&sockets).chain(&forwarding) {
        loader.override_global(name, value, true);
    }
    for map in PRIVATE {
        let rows = if map.rows == Rows::EmbryosOfCpu { embryos_max } else { rows(map.rows, &settings.sizes) };
        loader.map_max_entries(map.name, rows);
    }
    if let Some(maps) = previous {
        loader.map_pin_path(PRIVATE4.previous, maps.join(FAMILY4.flows.name()));
        loader.map_pin_path(PRIVATE6.previous, maps.join(FAMILY6.flows.name()));
    }
    let level = if settings.bpf_log == BpfLog::On { bpf_log::LEVEL_DEBUG } else { 0 };
    loader.override_global(bpf_log::LEVEL, &level, false);
    let (embryos, parked) = (u64::from(embryos_max), u64::from(settings.sizes.parked_max));
    loader.override_global("EMBRYOS_MAX", &embryos, true).override_global("PARKED_MAX", &parked, true);
    loader.load(object).map_err(|error| load_error("the BPF object".into(), &error))
}

/// Whether programs of sockets can choose the error of a dial that they refuse.
pub fn sets_retval() -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval).unwrap_or(false)
}

/// Loads the named programs that are not loaded yet, several in parallel. The verifier walks all paths of each, which
/// takes most of a start if there are few Services. Privileged loads do not wait for each other (`bpf_check` in
/// kernel/bpf/verifier.c).
pub fn load_programs(ebpf: &mut Ebpf, names: &[&'static str]) -> Result<(), Error> {
    let mut programs: BTreeMap<&str, &mut Program> = ebpf.programs_mut().collect();
    let found = names.iter().map(|name| Ok((*name, classifier(name, programs.remove(name))?)));
    let mut found = found.collect::<Result<Vec<_>, Error>>()?;
    found.retain(|(_, program)| program.fd().is_err());
    threads::share(found.into_iter(), |(name, program)| {
        program.load().map_err(|error| load_error(format!("program {name}"), &error))
    })
}

/// A program of the object.
pub fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, Error> {
    classifier(name, ebpf.program_mut(name))
}

fn classifier<'a>(name: &str, program: Option<&'a mut Program>) -> Result<&'a mut SchedClassifier, Error> {
    let program = program.ok_or_else(|| Refusal::NoProgram { program: name.to_owned() })?;
    program.try_into().map_err(|error| load_error(format!("program {name}"), &error))
}

/// The program of a cgroup hook, loaded.
pub fn socket_program(ebpf: &mut Ebpf, hook: SocketHook) -> Result<&mut CgroupSockAddr, Error> {
    let name = hook.program();
    let program = ebpf.program_mut(name).ok_or_else(|| Refusal::NoProgram { program: name.to_owned() })?;
    let failed = |error: aya::programs::ProgramError| load_error(format!("program {name}"), &error);
    let program: &mut CgroupSockAddr = program.try_into().map_err(failed)?;
    if program.fd().is_err() {
        program.load().map_err(failed)?;
    }
    Ok(program)
}

/// One of [`DRIVER_PROGRAMS`], loaded.
pub fn driver_program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf.program_mut(name).ok_or_else(|| Refusal::NoProgram { program: name.to_owned() })?;
    let failed = |error: aya::programs::ProgramError| load_error(format!("program {name}"), &error);
    let program: &mut Xdp = program.try_into().map_err(failed)?;
    if program.fd().is_err() {
        program.load().map_err(failed)?;
    }
    Ok(program)
}

fn load_error(what: String, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        reason = format!("{reason}: {cause}");
        source = cause.source();
    }
    Refusal::Load { what, reason }.into()
}
