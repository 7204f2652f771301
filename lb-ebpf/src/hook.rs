//! The programs at the hooks. Each has two stages: the straight way, and the whole path for the packets that need it.
//!
//! The stages are global functions (`extern "C"`, not mangled): the verifier walks each once, and only one of their
//! stack frames is in use at a time.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::addr::Family;
use lb_common::forward::{Edge, Hook};
use lb_common::packet::ETHERNET_LEN;
use lb_common::table::Direction;
use lb_common::verdict::HookAction;
use lb_common::{path, straight};

use crate::bridge;
use crate::kernel::Kernel;
use crate::skb::Skb;
use crate::tables::{self, FamilyTables};

// include/uapi/linux/bpf.h, enum tcx_action_base.
pub const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;
/// No action of the kernel's: the packet needs the second stage.
const DETOUR: i32 = i32::MIN;

/// Declares programs with their stages, edge, length of the link header and direction.
macro_rules! hooks {
    ($( $(#[doc = $what:literal])+ $program:ident($first:ident, $second:ident): $edge:ident, $link_len:expr, $direction:ident; )*) => {
        $(
            $(#[doc = $what])+
            // The macro puts the program into a function of the same name. Inlining is forced, because the compiler
            // may otherwise make it a call for every packet.
            #[classifier]
            #[inline(always)]
            pub fn $program(ctx: TcContext) -> i32 {
                match $first(ctx.skb.skb) {
                    DETOUR => $second(ctx.skb.skb),
                    action => action,
                }
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $first(skb: *mut __sk_buff) -> i32 {
                let skb = Skb::<{ $link_len }>::new(skb);
                let hook = Hook { edge: $edge(&skb), direction: Direction::$direction };
                first_stage(skb, hook)
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $second(skb: *mut __sk_buff) -> i32 {
                let skb = Skb::<{ $link_len }>::new(skb);
                let hook = Hook { edge: $edge(&skb), direction: Direction::$direction };
                second_stage(skb, hook)
            }
        )*
    };
}
hooks! {
    /// Packets that a pod on this node sends.
    workload_ingress(straight_wi, whole_wi): workload, ETHERNET_LEN, Request;
    /// Packets that a pod on this node is about to receive.
    workload_egress(straight_we, whole_we): workload, ETHERNET_LEN, Reply;
    /// Packets that the network delivers to this node.
    uplink_ingress(straight_ui, whole_ui): uplink, ETHERNET_LEN, Request;
    /// Packets that this node sends to the network.
    uplink_egress(straight_ue, whole_ue): uplink, ETHERNET_LEN, Reply;
    // The same for interfaces without a link header (WireGuard, tun, PPP). They are loaded if such an interface exists.
    /// Packets that a pod on this node sends.
    workload_in_l3(straight_wi_l3, whole_wi_l3): workload, 0, Request;
    /// Packets that a pod on this node is about to receive.
    workload_out_l3(straight_we_l3, whole_we_l3): workload, 0, Reply;
    /// Packets that the network delivers to this node.
    uplink_in_l3(straight_ui_l3, whole_ui_l3): uplink, 0, Request;
    /// Packets that this node sends to the network.
    uplink_out_l3(straight_ue_l3, whole_ue_l3): uplink, 0, Reply;
}

#[inline(always)]
fn workload<const LINK_LEN: usize>(skb: &Skb<LINK_LEN>) -> Edge {
    Edge::workload(skb.ifindex())
}

#[inline(always)]
fn uplink<const LINK_LEN: usize>(_: &Skb<LINK_LEN>) -> Edge {
    Edge::uplink()
}

#[inline(always)]
fn first_stage<const LINK_LEN: usize>(mut skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    let kernel = Kernel::new(skb);
    let action = match path::family(&skb) {
        Some(Family::V4) => straight::run::<[u8; 4], _>(&mut skb, hook, &kernel),
        Some(Family::V6) => straight::run::<[u8; 16], _>(&mut skb, hook, &kernel),
        None => return TCX_NEXT,
    };
    action.map_or(DETOUR, |action| act(&skb, action))
}

#[inline(always)]
fn second_stage<const LINK_LEN: usize>(skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    match path::family(&skb) {
        Some(Family::V4) => second_stage_of::<[u8; 4], LINK_LEN>(skb, hook),
        Some(Family::V6) => second_stage_of::<[u8; 16], LINK_LEN>(skb, hook),
        None => TCX_NEXT,
    }
}

#[inline(always)]
fn second_stage_of<A: FamilyTables, const LINK_LEN: usize>(mut skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    let Some(work) = tables::work::<A>() else { return TCX_NEXT };
    let kernel = Kernel::new(skb);
    let action = path::run(&mut skb, hook, &kernel, work);
    act(&skb, action)
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
fn act<const LINK_LEN: usize>(skb: &Skb<LINK_LEN>, action: HookAction) -> i32 {
    match action {
        HookAction::ToBackend if LINK_LEN == ETHERNET_LEN => to_backend(skb),
        HookAction::Next | HookAction::ToBackend => TCX_NEXT,
        HookAction::SendBack => skb.send_back(),
        HookAction::Drop => TCX_DROP,
    }
}
