//! The BPF programs. Each entry point is one expression; every decision is made in `lb-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "core has no atomics that the BPF target compiles")]
#![allow(non_upper_case_globals, reason = "maps are named as bpftool shows them")]

mod bridge;
mod driver;
mod hook;
mod kernel;
mod linear;
mod log;
mod maps;
mod routes;
mod skb;
mod socket;
mod tables;
mod verifier;
mod xdp;

use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::addr::Family;
use lb_common::garbage::Due;
use lb_common::packet::{ETHERNET_LEN, Packet as _};
use lb_common::path;
use lb_common::table::{COLLECTED_KEYS_MAX, FlowKey};

use crate::skb::Skb;
use crate::tables::FamilyTables;

/// Does nothing: shows the cost of a program run itself, for the benchmarks.
#[classifier]
pub fn empty(_ctx: TcContext) -> i32 {
    hook::TCX_NEXT
}

/// The low 32 bits of the kernel's tick counter. The agent has no other exact way to read it.
#[classifier]
pub fn tick(_ctx: TcContext) -> i32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() as i32 }
}

/// Deletes flows that are due and returns how many. In place of a packet, the agent passes a [`Due`] and flow keys
/// behind it.
#[classifier]
pub fn collect(ctx: TcContext) -> i32 {
    let skb = Skb::<ETHERNET_LEN>::new(ctx.skb.skb);
    match path::family(&skb) {
        Some(Family::V4) => collect_of::<[u8; 4]>(&skb),
        Some(Family::V6) => collect_of::<[u8; 16]>(&skb),
        None => 0,
    }
}

#[inline(always)]
fn collect_of<A: FamilyTables>(skb: &Skb<ETHERNET_LEN>) -> i32 {
    let Some(work) = tables::work::<A>() else { return 0 };
    let Some(due) = skb.header(ETHERNET_LEN) else { return 0 };
    let (due, mut collected) = (Due::from_bytes(due), 0);
    for index in 0..COLLECTED_KEYS_MAX {
        if skb.read_key(ETHERNET_LEN + Due::LEN + index * size_of::<FlowKey<A>>(), &mut work.key).is_none() {
            break;
        }
        collected += i32::from(A::collect_apart(*skb, work, due));
    }
    collected
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: this function never returns, and no program that still contains a panic passes the verifier.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
