//! The memory of the tables compared with the container's limit: the kernel charges map memory to the cgroup.

use std::fs;
use std::path::Path;

use aya_obj::generated::bpf_map_type::{
    BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_RINGBUF,
};

use super::sys::MapShape;
use super::{Error, Sizes, object};

const LRU: u32 = BPF_MAP_TYPE_LRU_HASH as u32;
const HASH: u32 = BPF_MAP_TYPE_HASH as u32;
const PER_CPU: u32 = BPF_MAP_TYPE_PERCPU_ARRAY as u32;
const RING: u32 = BPF_MAP_TYPE_RINGBUF as u32;
const MIB: u64 = 1 << 20;
/// The temporary memory of a start, mostly for the verifier (deploy/README.md, on 2 CPUs).
const START_BYTES: u64 = 65 * MIB;

/// The memory that a start needs, and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub tables_bytes: u64,
    pub cpus: usize,
    /// `None` if there is no limit, or none that this process can see.
    pub limit_bytes: Option<u64>,
}

impl Memory {
    /// The memory for tables of these sizes, in the cgroup of this process.
    pub fn of(sizes: &Sizes) -> Result<Self, Error> {
        let cpus = object::possible_cpus()?;
        Ok(Self { tables_bytes: tables_bytes(sizes, cpus), cpus, limit_bytes: limit_bytes() })
    }

    /// The problem and its remedy, if the limit is too small.
    pub fn shortage(&self) -> Option<(String, &'static str)> {
        let (needed, limit) = (self.tables_bytes + START_BYTES, self.limit_bytes?);
        (needed > limit).then(|| {
            let found = format!(
                "new tables and their start take about {} MiB with {} possible CPUs, and the memory limit is {} MiB: \
                 the kernel kills the agent during the start",
                needed / MIB,
                self.cpus,
                limit / MIB
            );
            (found, "raise the limit, or lower --frontends-max, --backends-max or --flows-max (deploy/README.md)")
        })
    }
}

fn tables_bytes(sizes: &Sizes, cpus: usize) -> u64 {
    object::wanted(sizes).map(|(_, shape)| allocated_bytes(&shape, cpus as u64)).sum()
}

/// The memory that the kernel allocates when it makes a map (kernel/bpf/hashtab.c, kernel/bpf/arraymap.c).
fn allocated_bytes(shape: &MapShape, cpus: u64) -> u64 {
    let rows = u64::from(shape.max_entries);
    let (key, value) = (u64::from(shape.key_size).next_multiple_of(8), u64::from(shape.value_size).next_multiple_of(8));
    // struct bucket, struct htab_elem.
    let buckets = 16 * rows.next_power_of_two();
    match shape.map_type {
        LRU => buckets + rows * (48 + key + value),
        HASH => buckets,
        // A pointer, and one copy per CPU.
        PER_CPU => rows * (8 + value * cpus),
        // In bytes.
        RING => rows,
        // A trie is allocated row by row.
        _ if shape.flags & object::BPF_F_NO_PREALLOC != 0 => 0,
        _ => rows * value,
    }
}

/// The smallest limit of this process's cgroup and its visible ancestors; cgroup v2 only.
fn limit_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let root = Path::new(super::mounts::points(&mounts, "cgroup2").next()?);
    smallest_limit(root, group)
}

fn smallest_limit(root: &Path, group: &str) -> Option<u64> {
    let whole = root.join(group);
    let groups = whole.ancestors().take_while(|path| path.starts_with(root));
    groups.filter_map(|path| fs::read_to_string(path.join("memory.max")).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the pinned maps (`bytes_memlock` of `bpftool --json map show`, on 2 processors).
    #[test]
    fn tables_take_what_was_measured() {
        let mib = |sizes: &Sizes, cpus| tables_bytes(sizes, cpus) / MIB;
        let default = Sizes::default();
        let small =
            Sizes { frontends_max: 4096, backends_max: 32_768, flows_max: 65_536, affinity_max: 16_384, ..default };
        for (sizes, cpus, measured) in [(default, 2, 158), (small, 2, 43), (default, 64, 158 + 310)] {
            let found = mib(&sizes, cpus);
            assert!(found.abs_diff(measured) * 50 <= measured, "{found} MiB, measured {measured}");
        }
    }

    #[test]
    fn a_limit_below_the_tables_is_told() {
        let memory = |cpus, limit| Memory {
            tables_bytes: tables_bytes(&Sizes::default(), cpus),
            cpus,
            limit_bytes: Some(limit * MIB),
        };
        // The limit of deploy/.
        assert_eq!(memory(128, 1024).shortage(), None);
        let (found, remedy) = memory(256, 1024).shortage().expect("it is too small");
        assert!(found.contains("256 possible CPUs") && found.contains("1024 MiB"), "{found}");
        assert!(remedy.contains("--frontends-max"));
        assert_eq!(Memory { limit_bytes: None, ..memory(256, 1024) }.shortage(), None);
    }

    #[test]
    fn the_smallest_limit_counts() {
        let root = tempfile::tempdir().expect("a folder");
        let pod = root.path().join("pod/agent");
        fs::create_dir_all(&pod).expect("folders");
        let limit = |folder: &Path, text: &str| fs::write(folder.join("memory.max"), text).expect("a file");
        assert_eq!(smallest_limit(root.path(), "pod/agent"), None);
        limit(&pod, "max\n");
        assert_eq!(smallest_limit(root.path(), "pod/agent"), None);
        limit(&root.path().join("pod"), "1048576\n");
        limit(&pod, "2097152\n");
        assert_eq!(smallest_limit(root.path(), "pod/agent"), Some(MIB));
        assert_eq!(smallest_limit(root.path(), ""), None);
    }
}
