//! System calls that aya does not offer: typed batches on maps, tcx links by interface index, pins, and RCU.
//!
//! Except for memory mappings, this file holds all unsafe code of the agent.

use std::ffi::CString;
use std::io::{Error, Result};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_map_info, bpf_prog_info, bpf_prog_type,
};
use lb_common::table::TableType;

/// `BPF_NOEXIST` of `bpf(2)`: writes no row whose key exists.
const BPF_NOEXIST: u64 = 1;
/// `BPF_F_LOCK` of `bpf(2)`: changes a value in place under its spin lock.
pub const BPF_F_LOCK: u64 = 4;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
/// `BPF_MPROG_MAX` of linux/bpf_mprog.h: the most programs of a hook.
const TCX_PROGRAMS_MAX: usize = 64;
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
    // SAFETY: `attr` is the union that the call takes, passed with its own size. The callers in this file set its
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

/// Detaches a link at once, although it may be open or pinned elsewhere.
pub fn link_detach(link: BorrowedFd<'_>) -> Result<()> {
    let mut attr = zeroed();
    attr.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
}

/// Pins an object to a path that does not exist.
pub fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let path = path_string(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = fd.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

/// Attaches a program to an interface by tcx: as the first at ingress, as the last at egress.
pub fn tcx_attach(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_ifindex = ifindex;
    (attr.link_create.attach_type, attr.link_create.flags) = match hook {
        Hook::Ingress => (BPF_TCX_INGRESS, BPF_F_BEFORE),
        Hook::Egress => (BPF_TCX_EGRESS, BPF_F_AFTER),
    };
    new_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Attaches a program to a hook of a cgroup. Programs of others at the hook stay and run as well.
pub fn cgroup_attach(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: bpf_attach_type) -> Result<OwnedFd> {
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    attr.link_create.__bindgen_anon_2.target_fd = cgroup.as_raw_fd().cast_unsigned();
    attr.link_create.attach_type = attach_type as u32;
    new_fd(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// Swaps the program of a link. Every packet meets either the old or the new program.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attr = zeroed();
    attr.link_update.link_fd = link.as_raw_fd().cast_unsigned();
    attr.link_update.__bindgen_anon_1.new_prog_fd = program.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
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

/// A tcx link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcxLink {
    /// 0 if the interface is gone.
    pub ifindex: u32,
    /// `None` if the hook is neither tcx ingress nor egress.
    pub hook: Option<Hook>,
    pub program_id: u32,
}

/// The attachment of a link; `None` if it is not a tcx link.
pub fn tcx_link(link: BorrowedFd<'_>) -> Result<Option<TcxLink>> {
    let info: bpf_link_info = info(link)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_TCX as u32 {
        return Ok(None);
    }
    // SAFETY: all members of the union are plain integers, and the kernel wrote the one of this type.
    let tcx = unsafe { info.__bindgen_anon_1.tcx };
    let hook = match tcx.attach_type {
        BPF_TCX_INGRESS => Some(Hook::Ingress),
        BPF_TCX_EGRESS => Some(Hook::Egress),
        _ => None,
    };
    Ok(Some(TcxLink { ifindex: tcx.ifindex, hook, program_id: info.prog_id }))
}

/// The hook of a link; `None` if it is not a link of a cgroup.
pub fn cgroup_link(link: BorrowedFd<'_>) -> Result<Option<u32>> {
    let info: bpf_link_info = info(link)?;
    if info.type_ != bpf_link_type::BPF_LINK_TYPE_CGROUP as u32 {
        return Ok(None);
    }
    // SAFETY: all members of the union are plain integers, and the kernel wrote the one of this type.
    Ok(Some(unsafe { info.__bindgen_anon_1.cgroup }.attach_type))
}

/// The IDs of the programs on a tcx hook, in the order in which they run.
pub fn tcx_programs(ifindex: u32, hook: Hook) -> Result<Vec<u32>> {
    let mut ids = vec![0_u32; TCX_PROGRAMS_MAX];
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_ifindex = ifindex;
    attr.query.attach_type = match hook {
        Hook::Ingress => BPF_TCX_INGRESS,
        Hook::Egress => BPF_TCX_EGRESS,
    };
    attr.query.prog_ids = ids.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.count = ids.len() as u32;
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: this member was set, and the kernel wrote the number of programs to it.
    ids.truncate(unsafe { attr.query.__bindgen_anon_2.count } as usize);
    Ok(ids)
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
    // Each instruction is an operation, registers, an offset of two bytes, and a number: r0 = TC_ACT_SHOT; exit.
    const SHOT: u8 = 2;
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, SHOT, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let mut attr = zeroed();
    attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    attr.__bindgen_anon_3.insn_cnt = instructions.len() as u32;
    attr.__bindgen_anon_3.insns = instructions.as_ptr() as u64;
    attr.__bindgen_anon_3.license = c"GPL".as_ptr() as u64;
    // SAFETY: this member was set, and its bytes may have any value.
    let name = unsafe { &mut attr.__bindgen_anon_3.prog_name };
    for (place, byte) in name.iter_mut().zip(DROPPING.bytes()) {
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
