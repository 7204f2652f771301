//! The BPF programs. Each entry point is one expression; every decision is made in `lb-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "core has no atomics that the BPF target compiles")]
#![allow(non_upper_case_globals, reason = "maps are named as bpftool shows them")]

mod bridge;
mod env;
mod maps;
mod skb;
mod tables;

use aya_ebpf::helpers::bpf_jiffies64;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::addr::Family;
use lb_common::forward::{Client, Edge};
use lb_common::garbage::{self, Due};
use lb_common::packet::{ETHERNET_LEN, Packet as _};
use lb_common::path;
use lb_common::table::{COLLECTED_KEYS_MAX, EDGE_UPLINK, FlowKey};
use lb_common::verdict::Action;

use crate::env::Kernel;
use crate::maps::Maps;
use crate::skb::Skb;
use crate::tables::FamilyTables;

// include/uapi/linux/bpf.h, enum tcx_action_base.
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

// The macro puts each into a function of the same name. Inlining is forced, because the compiler may otherwise make it
// a call for every packet.

/// Packets that a pod on this node sends.
#[classifier]
#[inline(always)]
pub fn workload_ingress(ctx: TcContext) -> i32 {
    ingress::<Workload, ETHERNET_LEN>(Skb::new(ctx.skb.skb))
}

/// Packets that a pod on this node is about to receive.
#[classifier]
#[inline(always)]
pub fn workload_egress(ctx: TcContext) -> i32 {
    egress::<Workload, ETHERNET_LEN>(Skb::new(ctx.skb.skb))
}

/// Packets that the network delivers to this node.
#[classifier]
#[inline(always)]
pub fn uplink_ingress(ctx: TcContext) -> i32 {
    ingress::<Uplink, ETHERNET_LEN>(Skb::new(ctx.skb.skb))
}

/// Packets that this node sends to the network.
#[classifier]
#[inline(always)]
pub fn uplink_egress(ctx: TcContext) -> i32 {
    egress::<Uplink, ETHERNET_LEN>(Skb::new(ctx.skb.skb))
}

// The same for interfaces without a link header (WireGuard, tun, PPP). They are loaded if such an interface exists.

/// Packets that a pod on this node sends.
#[classifier]
#[inline(always)]
pub fn workload_in_l3(ctx: TcContext) -> i32 {
    ingress::<Workload, 0>(Skb::new(ctx.skb.skb))
}

/// Packets that a pod on this node is about to receive.
#[classifier]
#[inline(always)]
pub fn workload_out_l3(ctx: TcContext) -> i32 {
    egress::<Workload, 0>(Skb::new(ctx.skb.skb))
}

/// Packets that the network delivers to this node.
#[classifier]
#[inline(always)]
pub fn uplink_in_l3(ctx: TcContext) -> i32 {
    ingress::<Uplink, 0>(Skb::new(ctx.skb.skb))
}

/// Packets that this node sends to the network.
#[classifier]
#[inline(always)]
pub fn uplink_out_l3(ctx: TcContext) -> i32 {
    egress::<Uplink, 0>(Skb::new(ctx.skb.skb))
}

/// Does nothing: shows the cost of a program run itself, for the benchmarks.
#[classifier]
pub fn empty(_ctx: TcContext) -> i32 {
    TCX_NEXT
}

/// The low 32 bits of the kernel's tick counter. The agent has no other exact way to read it.
#[classifier]
pub fn tick(_ctx: TcContext) -> i32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() as i32 }
}

/// The edge that a program is attached to.
trait AttachedAt {
    fn edge<const LINK_LEN: usize>(skb: &Skb<LINK_LEN>) -> Edge;
}

struct Workload;
struct Uplink;

impl AttachedAt for Workload {
    #[inline(always)]
    fn edge<const LINK_LEN: usize>(skb: &Skb<LINK_LEN>) -> Edge {
        Edge { id: skb.ifindex(), client: Client::Workload }
    }
}

impl AttachedAt for Uplink {
    #[inline(always)]
    fn edge<const LINK_LEN: usize>(_: &Skb<LINK_LEN>) -> Edge {
        Edge { id: EDGE_UPLINK, client: Client::External }
    }
}

#[inline(always)]
fn ingress<E: AttachedAt, const LINK_LEN: usize>(skb: Skb<LINK_LEN>) -> i32 {
    match path::family(&skb) {
        Some(Family::V4) => ingress_of::<[u8; 4], E, LINK_LEN>(skb),
        Some(Family::V6) => ingress_of::<[u8; 16], E, LINK_LEN>(skb),
        None => TCX_NEXT,
    }
}

#[inline(always)]
fn egress<E: AttachedAt, const LINK_LEN: usize>(skb: Skb<LINK_LEN>) -> i32 {
    match path::family(&skb) {
        Some(Family::V4) => egress_of::<[u8; 4], E, LINK_LEN>(skb),
        Some(Family::V6) => egress_of::<[u8; 16], E, LINK_LEN>(skb),
        None => TCX_NEXT,
    }
}

#[inline(always)]
fn ingress_of<A: FamilyTables, E: AttachedAt, const LINK_LEN: usize>(mut skb: Skb<LINK_LEN>) -> i32 {
    let (edge, tables) = (E::edge(&skb), Maps { packet_len: skb.len(), skb: skb.framed() });
    let Some(work) = tables::work::<A>() else { return TCX_NEXT };
    match path::ingress(&mut skb, edge, &tables, &Kernel, work) {
        Action::ToBackend if LINK_LEN == ETHERNET_LEN => to_backend(&skb),
        action => act(&skb, action),
    }
}

#[inline(always)]
fn egress_of<A: FamilyTables, E: AttachedAt, const LINK_LEN: usize>(mut skb: Skb<LINK_LEN>) -> i32 {
    let (edge, tables) = (E::edge(&skb), Maps { packet_len: skb.len(), skb: skb.framed() });
    let Some(work) = tables::work::<A>() else { return TCX_NEXT };
    let action = path::egress(&mut skb, edge, &tables, &Kernel, work);
    act(&skb, action)
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
        collected += i32::from(garbage::collect(due, &Maps { packet_len: 0, skb: *skb }, &Kernel, work));
    }
    collected
}

/// Sends a request across the client's own bridge if answers cross it as well, past other programs at this hook and
/// the stack's hooks. Else passes it.
#[inline(always)]
fn to_backend<const LINK_LEN: usize>(skb: &Skb<LINK_LEN>) -> i32 {
    if !bridge::may_be_crossed(skb.ifindex()) {
        return TCX_NEXT;
    }
    match bridge::across(skb.context()) {
        0 => TCX_NEXT,
        bridge => skb.send_to_neighbour(bridge),
    }
}

#[inline(always)]
fn act<const LINK_LEN: usize>(skb: &Skb<LINK_LEN>, action: Action) -> i32 {
    match action {
        Action::Next | Action::ToBackend => TCX_NEXT,
        Action::SendBack => skb.send_back(),
        Action::Drop => TCX_DROP,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reachable: this function never returns, and no program that still contains a panic passes the verifier.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
