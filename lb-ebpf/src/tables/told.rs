//! Drops by frontend, interface and reason, and the ring that `lb-agent monitor` reads.

use core::intrinsics::{self, AtomicOrdering};
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use lb_common::addr::{Addr, Family};
use lb_common::forward::{Env, Repeated, Sighting};
use lb_common::table::{DropCount, DropKey, Monitor, Told};

use crate::linear::copy_words;
use crate::maps;

const BPF_NOEXIST: u64 = 1;

/// Adds to a word that several CPUs write.
#[inline(always)]
fn add(word: *mut u64, amount: u64) {
    // SAFETY: an aligned word of a map element that was looked up in this program run. The result is not used.
    unsafe { intrinsics::atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(word, amount) };
}

/// Counts a packet in `drop_counts`. If another CPU makes the row at the same time, its row is used.
#[inline(always)]
pub fn count_drop(key: &DropKey, bytes: u64, now_jiffies: u64) {
    let mut known = maps::drop_counts.get_ptr_mut(key);
    if known.is_none() {
        let first = DropCount { packets: 0, bytes: 0, last_jiffies: 0 };
        // Refused: the row exists by now, or the packet is not counted here.
        let _ = maps::drop_counts.insert(key, first, BPF_NOEXIST);
        known = maps::drop_counts.get_ptr_mut(key);
    }
    if let Some(count) = known {
        // SAFETY: as in `add`.
        unsafe {
            add(addr_of_mut!((*count).packets), 1);
            add(addr_of_mut!((*count).bytes), bytes);
            addr_of_mut!((*count).last_jiffies).write_volatile(now_jiffies);
        }
    }
}

/// Writes an event to the ring, without waking who reads it: that costs ten times as much, and the reader looks often.
#[inline(always)]
pub fn tell<A: Addr>(sighting: &Sighting<'_, A>, bytes: u64, env: &impl Env) {
    let Some(monitor) = maps::monitor.get_ptr_mut(0) else { return };
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_boot_ns() };
    if !is_heard(monitor, now_ns) || was_told(sighting.repeated(now_ns)) || !may_tell(monitor, env) {
        return;
    }
    let Some(mut entry) = maps::events.reserve(0) else {
        // SAFETY: array elements live as long as the map.
        add(unsafe { addr_of_mut!((*monitor).lost) }, 1);
        return;
    };
    write(entry.as_mut_ptr(), sighting, now_ns, bytes);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Whether a datagram like this one was told in this second. If not, it is noted. Two clients with one element replace each
/// other's notes, and are heard of more often.
#[inline(always)]
fn was_told(repeated: Option<Repeated>) -> bool {
    let Some(Repeated { index, word }) = repeated else { return false };
    let Some(told) = maps::passes_told.get_ptr_mut(index) else { return false };
    // SAFETY: array elements live as long as the map; an aligned word, which another CPU may write meanwhile.
    unsafe {
        if told.read_volatile() == word {
            return true;
        }
        told.write_volatile(word);
    }
    false
}

/// Whether the command listens.
#[inline(always)]
fn is_heard(monitor: *mut Monitor, now_ns: u64) -> bool {
    // SAFETY: array elements live as long as the map; an aligned word.
    now_ns < unsafe { addr_of!((*monitor).until_ns).read_volatile() }
}

/// Whether the command wants another event in this second.
#[inline(always)]
fn may_tell(monitor: *mut Monitor, env: &impl Env) -> bool {
    // SAFETY: array elements live as long as the map; aligned words. Another CPU may write the bucket meanwhile, which
    // `take` tolerates.
    unsafe {
        let per_sec = addr_of!((*monitor).per_sec).read_volatile() as u32;
        if (*monitor).bucket.take(env.now_jiffies(), per_sec, env.second_jiffies()) {
            return true;
        }
        add(addr_of_mut!((*monitor).lost), 1);
    }
    false
}

/// Writes all bytes of an event.
#[inline(always)]
fn write<A: Addr>(told: *mut Told, sighting: &Sighting<'_, A>, now_ns: u64, bytes: u64) {
    let Sighting { reason, frontend, edge, proto, tuple, backend } = *sighting;
    // SAFETY: room for an event, which the ring has reserved, aligned to eight bytes.
    unsafe {
        for word in 0..size_of::<Told>() / 8 {
            told.cast::<u64>().add(word).write_volatile(0);
        }
        addr_of_mut!((*told).at_ns).write_volatile(now_ns);
        copy_words::<A>(addr_of!(tuple.src).cast(), addr_of_mut!((*told).src).cast());
        copy_words::<A>(addr_of!(tuple.dst).cast(), addr_of_mut!((*told).dst).cast());
        if let Some((addr, port)) = backend {
            copy_words::<A>(addr_of!(*addr).cast(), addr_of_mut!((*told).backend).cast());
            addr_of_mut!((*told).backend_port).write_volatile(port);
        }
        addr_of_mut!((*told).sport).write_volatile(tuple.sport);
        addr_of_mut!((*told).dport).write_volatile(tuple.dport);
        addr_of_mut!((*told).proto).write_volatile(proto);
        addr_of_mut!((*told).version).write_volatile(match A::FAMILY {
            Family::V4 => 4,
            Family::V6 => 6,
        });
        addr_of_mut!((*told).frontend).write_volatile(frontend);
        addr_of_mut!((*told).edge).write_volatile(edge);
        addr_of_mut!((*told).reason).write_volatile(reason as u32);
        addr_of_mut!((*told).bytes).write_volatile(bytes as u32);
    }
}
