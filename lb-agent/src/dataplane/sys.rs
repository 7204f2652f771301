//! System calls that aya does not offer: typed batches on maps, links by interface index, pins, and RCU.
//!
//! Except for memory mappings, this file and its parts hold all unsafe code of the agent.

mod ethtool;
mod link;

use std::ffi::CString;
use std::io::{Error, Result};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{BPF_F_XDP_HAS_FRAGS, bpf_attr, bpf_cmd, bpf_map_info, bpf_prog_info, bpf_prog_type};
use lb_common::table::TableType;

pub use ethtool::{Card, card};
pub use link::{
    cgroup_attach, cgroup_link, link_detach, link_update, tcx_attach, tcx_link, tcx_programs, xdp_attach, xdp_link,
};

/// `BPF_NOEXIST` of `bpf(2)`: writes no row whose key exists.
const BPF_NOEXIST: u64 = 1;
/// `BPF_F_LOCK` of `bpf(2)`: changes a value in place under its spin lock.
pub const BPF_F_LOCK: u64 = 4;
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
const SO_NETNS_COOKIE: libc::c_int = 71;
/// Rows per batch call.
const BATCH: usize = 4096;

/// A hook of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Ingress,
    Egress,
}

fn zeroed() -> bpf_attr {
    // SAFETY: the union holds plain integers. bpf(2) wants unset members to be zero.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> Result<i64> {
    // SAFETY: `attr` is the union that the call takes, passed with its own size. The callers in this module set its
    // pointers from live slices.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_uint, std::ptr::from_mut(attr), size_of::<bpf_attr>())
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(command: bpf_cmd, attr: &mut bpf_attr) -> Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    let fd = RawFd::try_from(fd).map_err(Error::other)?;
    // SAFETY: the call has just returned this descriptor, so it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn path_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(Error::other)
}

/// Opens a pinned object.
pub fn obj_get(path: &Path) -> Result<OwnedFd> {
    let path = path_string(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    new_fd(bpf_cmd::BPF_OBJ_GET, &mut attr)
}

/// Pins an object to a path that does not exist.
pub fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let path = path_string(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = fd.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

fn info<T>(fd: BorrowedFd<'_>) -> Result<T> {
    let mut info = MaybeUninit::<T>::zeroed();
    let mut attr = zeroed();
    attr.info.bpf_fd = fd.as_raw_fd().cast_unsigned();
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = info.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    // SAFETY: the kernel writes at most `info_len` bytes. The info structs are plain integers, which are valid when
    // zero.
    Ok(unsafe { info.assume_init() })
}

/// The kind of a BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    Map,
    Program,
    Link,
    Other,
}

/// Reads the kind from the name that the kernel gives a descriptor's file (`anon_inode_getfd` in kernel/bpf).
pub fn object_kind(object: BorrowedFd<'_>) -> Result<ObjectKind> {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", object.as_raw_fd()))?;
    Ok(match name.to_string_lossy().trim_start_matches("anon_inode:").trim_matches(['[', ']']) {
        "bpf-map" => ObjectKind::Map,
        "bpf-prog" => ObjectKind::Program,
        "bpf_link" | "bpf-link" => ObjectKind::Link,
        _ => ObjectKind::Other,
    })
}

/// The name of a program, of which the kernel keeps 15 bytes. Needs CAP_SYS_ADMIN.
pub fn program_name(id: u32) -> Result<String> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    let program = new_fd(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    let info: bpf_prog_info = info(program.as_fd())?;
    Ok(short_name(&info.name))
}

/// The name of [`load_dropping_program`].
pub const DROPPING: &str = "lb_shut";

/// Loads a program for interfaces that drops every packet.
pub fn load_dropping_program() -> Result<OwnedFd> {
    const SHOT: u8 = 2;
    load_short(bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS, 0, SHOT, DROPPING)
}

/// Loads a program for drivers that passes every frame, whatever its size. It is attached nowhere.
pub fn load_passing_program() -> Result<OwnedFd> {
    const PASS: u8 = 2;
    load_short(bpf_prog_type::BPF_PROG_TYPE_XDP, BPF_F_XDP_HAS_FRAGS, PASS, "lb_pass")
}

/// Loads a program that returns a number.
fn load_short(prog_type: bpf_prog_type, flags: u32, number: u8, called: &str) -> Result<OwnedFd> {
    // Each instruction is an operation, registers, an offset of two bytes, and a number: r0 = number; exit.
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, number, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut attr = zeroed();
    attr.__bindgen_anon_3.prog_type = prog_type as u32;
    attr.__bindgen_anon_3.prog_flags = flags;
    attr.__bindgen_anon_3.insn_cnt = instructions.len() as u32;
    attr.__bindgen_anon_3.insns = instructions.as_ptr() as u64;
    attr.__bindgen_anon_3.license = c"GPL".as_ptr() as u64;
    // SAFETY: this member was set, and its bytes may have any value.
    let name = unsafe { &mut attr.__bindgen_anon_3.prog_name };
    for (place, byte) in name.iter_mut().zip(called.bytes()) {
        *place = libc::c_char::from_ne_bytes([byte]);
    }
    new_fd(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

/// The ID of a program.
pub fn program_id(program: BorrowedFd<'_>) -> Result<u32> {
    let info: bpf_prog_info = info(program)?;
    Ok(info.id)
}

/// The name that a map was made with.
pub fn map_name(map: BorrowedFd<'_>) -> Result<String> {
    let info: bpf_map_info = info(map)?;
    Ok(short_name(&info.name))
}

fn short_name(name: &[libc::c_char]) -> String {
    let bytes: Vec<u8> =
        name.iter().map(|byte| u8::from_ne_bytes(byte.to_ne_bytes())).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The shape of a map. A pinned map is adopted only if its shape is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

pub fn map_shape(map: BorrowedFd<'_>) -> Result<MapShape> {
    let info: bpf_map_info = info(map)?;
    Ok(MapShape {
        map_type: info.type_,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
    })
}

/// Why a batch stopped: the index of the row that failed, and the error.
#[derive(Debug)]
pub struct BatchError {
    pub index: usize,
    pub source: Error,
}

/// Writes rows. `flags` are the element flags of `bpf(2)`: 0 or [`BPF_F_LOCK`].
pub fn update_batch<K: TableType, V: TableType>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
    flags: u64,
) -> std::result::Result<(), BatchError> {
    const { (K::NO_PADDING, V::NO_PADDING) };
    assert_eq!(keys.len(), values.len(), "as many values as keys");
    for (chunk, (keys, values)) in keys.chunks(BATCH).zip(values.chunks(BATCH)).enumerate() {
        update_chunk(map, keys, values, flags, chunk)?;
    }
    Ok(())
}

/// Writes the rows of one call. `chunk` is its number.
fn update_chunk<K, V>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
    flags: u64,
    chunk: usize,
) -> std::result::Result<(), BatchError> {
    assert_eq!(keys.len(), values.len(), "a row is a key and a value");
    let mut attr = zeroed();
    attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.values = values.as_ptr() as u64;
    attr.batch.count = keys.len() as u32;
    attr.batch.elem_flags = flags;
    run_batch(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr, chunk)
}

/// Deletes rows. Missing rows are skipped.
pub fn delete_batch<K: TableType>(map: BorrowedFd<'_>, keys: &[K]) -> std::result::Result<(), BatchError> {
    const { K::NO_PADDING };
    for (chunk, keys) in keys.chunks(BATCH).enumerate() {
        let mut rest = keys;
        while !rest.is_empty() {
            let mut attr = zeroed();
            attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
            attr.batch.keys = rest.as_ptr() as u64;
            attr.batch.count = rest.len() as u32;
            match run_batch(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr, chunk) {
                Ok(()) => break,
                Err(error) if error.source.raw_os_error() == Some(libc::ENOENT) => {
                    rest = &rest[(error.index - chunk * BATCH + 1).min(rest.len())..];
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn run_batch(command: bpf_cmd, attr: &mut bpf_attr, chunk: usize) -> std::result::Result<(), BatchError> {
    bpf(command, attr).map(drop).map_err(|source| {
        // SAFETY: this member was set, and the kernel wrote the number of finished rows to it.
        let done = unsafe { attr.batch.count } as usize;
        BatchError { index: chunk * BATCH + done, source }
    })
}

/// All rows of a hash map or a trie, in no particular order. Rows whose bytes are no valid value are left out and
/// counted.
pub fn dump<K: TableType, V: TableType>(map: BorrowedFd<'_>) -> Result<(Vec<(K, V)>, usize)> {
    let (mut cursor, mut rows, mut invalid) = (Cursor::default(), Vec::new(), 0);
    while !cursor.is_at_end() {
        invalid += walk(map, &mut cursor, &mut rows)?;
    }
    Ok((rows, invalid))
}

/// The position of a walk over a hash map.
#[derive(Debug)]
pub struct Cursor {
    /// The kernel's token: the number of a bucket, or in a trie the last key. `None` at the start.
    at: Option<Vec<u8>>,
    rows_max: usize,
    is_at_end: bool,
}

impl Default for Cursor {
    fn default() -> Self {
        Self { at: None, rows_max: BATCH, is_at_end: false }
    }
}

impl Cursor {
    pub const fn is_at_end(&self) -> bool {
        self.is_at_end
    }
}

/// Appends some more rows. Returns the number of rows whose bytes are no valid value.
pub fn walk<K: TableType, V: TableType>(
    map: BorrowedFd<'_>,
    cursor: &mut Cursor,
    rows: &mut Vec<(K, V)>,
) -> Result<usize> {
    let mut to = vec![0_u8; size_of::<K>().max(size_of::<u64>())];
    let (keys, values, count) = loop {
        // The allocator gets zeroed pages from the kernel, so unused pages are never touched.
        let mut keys = vec![0_u8; cursor.rows_max * size_of::<K>()];
        let mut values = vec![0_u8; cursor.rows_max * size_of::<V>()];
        let mut attr = zeroed();
        attr.batch.map_fd = map.as_raw_fd().cast_unsigned();
        attr.batch.in_batch = cursor.at.as_ref().map_or(0, |token| token.as_ptr() as u64);
        attr.batch.out_batch = to.as_mut_ptr() as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = values.as_mut_ptr() as u64;
        attr.batch.count = cursor.rows_max as u32;
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
        // SAFETY: this member was set, and the kernel wrote the number of copied rows to it.
        let count = unsafe { attr.batch.count } as usize;
        match result {
            Ok(_) => break (keys, values, count),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                cursor.is_at_end = true;
                break (keys, values, count);
            }
            // One bucket holds more rows than fit: tries again with more room.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => cursor.rows_max *= 2,
            Err(error) => return Err(error),
        }
    };
    cursor.at = Some(to);
    let mut invalid = 0;
    for (key, value) in keys.chunks_exact(size_of::<K>()).zip(values.chunks_exact(size_of::<V>())).take(count) {
        match (K::try_read_from_bytes(key), V::try_read_from_bytes(value)) {
            (Ok(key), Ok(value)) => rows.push((key, value)),
            _ => invalid += 1,
        }
    }
    Ok(invalid)
}

/// The element of an array at `index`. For a per-CPU array, the copies of all CPUs one after the other.
pub fn lookup_array(map: BorrowedFd<'_>, index: u32, value_len: usize) -> Result<Vec<u8>> {
    let mut value = vec![0_u8; value_len];
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = std::ptr::from_ref(&index) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr)?;
    Ok(value)
}

/// Writes the element of an array.
pub fn update_array<V: TableType>(map: BorrowedFd<'_>, index: u32, value: &V) -> Result<()> {
    const { V::NO_PADDING };
    update_element(map, std::ptr::from_ref(&index).cast(), std::ptr::from_ref(value).cast(), 0)
}

/// Writes zeroes to the element of an array, on all CPUs: `value_len` bytes.
pub fn clear_array(map: BorrowedFd<'_>, index: u32, value_len: usize) -> Result<()> {
    let zeroes = vec![0_u8; value_len];
    update_element(map, std::ptr::from_ref(&index).cast(), zeroes.as_ptr(), 0)
}

/// Writes the row if the map lacks its key. If a program has just written one, that stays. A batch cannot do this
/// (`generic_map_update_batch` in kernel/bpf/syscall.c).
pub fn insert<K: TableType, V: TableType>(map: BorrowedFd<'_>, key: &K, value: &V) -> Result<()> {
    const { (K::NO_PADDING, V::NO_PADDING) };
    match update_element(map, std::ptr::from_ref(key).cast(), std::ptr::from_ref(value).cast(), BPF_NOEXIST) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// Writes an element of any map. The callers know the sizes of its keys and values.
fn update_element(map: BorrowedFd<'_>, key: *const u8, value: *const u8, flags: u64) -> Result<()> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = key as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value as u64;
    attr.__bindgen_anon_2.flags = flags;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Whether a hash map has this key.
pub fn contains<K: TableType, V: TableType>(map: BorrowedFd<'_>, key: &K) -> Result<bool> {
    const { K::NO_PADDING };
    let mut value = MaybeUninit::<V>::uninit();
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.as_raw_fd().cast_unsigned();
    attr.__bindgen_anon_2.key = std::ptr::from_ref(key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits for an RCU grace period. Afterwards no program run sees elements that were unlinked before.
///
/// `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu()` (kernel/sched/membarrier.c).
pub fn synchronize_rcu() -> Result<()> {
    // SAFETY: the arguments are plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Returns freed memory to the system. Computing the first full state takes several times the memory that remains in
/// use.
pub fn give_back_memory() {
    // Other C libraries return free memory by themselves.
    #[cfg(target_env = "gnu")]
    // SAFETY: the argument is a plain number. The allocator takes its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The cookie of the calling thread's network namespace, unique until the machine restarts (Linux 5.14).
pub fn netns_cookie() -> Result<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)))?;
    let mut cookie = [0; size_of::<u64>()];
    ask_socket(socket.as_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, &mut cookie)?;
    Ok(u64::from_ne_bytes(cookie))
}

/// Reads an option of a socket. The kernel may read the value first. Returns the number of bytes that it wrote.
pub fn ask_socket(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int, value: &mut [u8]) -> Result<usize> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(Error::other)?;
    // SAFETY: the pointers point to `len` bytes, which may have any value, and to their number.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut len) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(len as usize) }
}

/// Kernel ticks per second, from the resolution of the coarse clock, which is one tick.
pub fn jiffies_per_sec() -> Result<u32> {
    let mut resolution = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer points to a timespec, which is plain integers.
    let resolution = unsafe {
        if libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, resolution.as_mut_ptr()) < 0 {
            return Err(Error::last_os_error());
        }
        resolution.assume_init()
    };
    let tick_ns = u32::try_from(resolution.tv_nsec).unwrap_or(1).max(1);
    Ok((1_000_000_000 + tick_ns / 2) / tick_ns)
}

/// An estimate of jiffies64. Clock and tick drift apart by parts per million.
///
/// So that the low 32 bits overflow soon after boot, the kernel starts jiffies64 300 seconds before 2^32
/// (`INITIAL_JIFFIES`).
pub fn estimate_jiffies(jiffies_per_sec: u32) -> Result<u64> {
    let mut now = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the pointer points to a timespec, which is plain integers.
    let now = unsafe {
        if libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, now.as_mut_ptr()) < 0 {
            return Err(Error::last_os_error());
        }
        now.assume_init()
    };
    let per_sec = u64::from(jiffies_per_sec);
    let initial_jiffies = u64::from(u32::MAX) + 1 - 300 * per_sec;
    let secs = u64::try_from(now.tv_sec).map_err(Error::other)?;
    let nanos = u64::try_from(now.tv_nsec).map_err(Error::other)?;
    Ok(initial_jiffies + secs * per_sec + nanos * per_sec / 1_000_000_000)
}

/// Nanoseconds since the boot, time asleep included (`CLOCK_BOOTTIME`).
pub fn boot_ns() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    let (secs, nanos) = (u64::try_from(now.tv_sec()), u64::try_from(now.tv_nsec()));
    Ok(secs.map_err(Error::other)? * 1_000_000_000 + nanos.map_err(Error::other)?)
}

/// Locks a directory for as long as the descriptor lives; `WouldBlock` if another process holds the lock.
pub fn lock(directory: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: the descriptor is live.
    let result = unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Whether a directory is on a BPF file system (`BPF_FS_MAGIC` of linux/magic.h).
pub fn is_bpffs(directory: BorrowedFd<'_>) -> Result<bool> {
    const BPF_FS_MAGIC: i128 = 0xcafe_4a11;
    let mut stat = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the descriptor is live, and the pointer points to a statfs, which is plain integers.
    unsafe {
        if libc::fstatfs(directory.as_raw_fd(), stat.as_mut_ptr()) < 0 {
            return Err(Error::last_os_error());
        }
        // The field is signed with glibc and unsigned with musl.
        Ok(i128::from(stat.assume_init().f_type) == BPF_FS_MAGIC)
    }
}

/// Mounts a BPF file system.
pub fn mount_bpffs(directory: &Path) -> Result<()> {
    let path = path_string(directory)?;
    // SAFETY: the arguments are C strings that outlive the call.
    let result =
        unsafe { libc::mount(c"bpf".as_ptr(), path.as_ptr(), c"bpf".as_ptr(), 0, c"mode=0700".as_ptr().cast()) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
