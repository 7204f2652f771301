//! The programs at the hooks. Each has two stages: the straight way, and the whole path for the packets that need it.
//!
//! The stages are global functions (`extern "C"`, not mangled): the verifier walks each once, and only one of their
//! stack frames is in use at a time.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::addr::Family;
use lb_common::client::Client;
use lb_common::forward::Edge;
use lb_common::packet::ETHERNET_LEN;
use lb_common::table::{Direction, EDGE_UPLINK};
use lb_common::verdict::Action;
use lb_common::{path, straight};

use crate::bridge;
use crate::env::Kernel;
use crate::maps::Maps;
use crate::skb::Skb;
use crate::tables::{self, FamilyTables};

// include/uapi/linux/bpf.h, enum tcx_action_base.
pub const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;
/// No action of the kernel's: the packet needs the second stage.
const DETOUR: i32 = i32::MIN;

/// Declares programs with their stages, edge, length of the link header and direction.
macro_rules! hooks {
    ($( $(#[doc = $what:literal])+ $program:ident($first:ident, $second:ident): $edge:ty, $link_len:expr, $direction:ident; )*) => {
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
                first_stage::<$edge, { $link_len }>(Skb::new(skb), Direction::$direction)
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $second(skb: *mut __sk_buff) -> i32 {
                second_stage::<$edge, { $link_len }>(Skb::new(skb), Direction::$direction)
            }
        )*
    };
}
hooks! {
    /// Packets that a pod on this node sends.
    workload_ingress(straight_wi, whole_wi): Workload, ETHERNET_LEN, Request;
    /// Packets that a pod on this node is about to receive.
    workload_egress(straight_we, whole_we): Workload, ETHERNET_LEN, Reply;
    /// Packets that the network delivers to this node.
    uplink_ingress(straight_ui, whole_ui): Uplink, ETHERNET_LEN, Request;
    /// Packets that this node sends to the network.
    uplink_egress(straight_ue, whole_ue): Uplink, ETHERNET_LEN, Reply;
    // The same for interfaces without a link header (WireGuard, tun, PPP). They are loaded if such an interface exists.
    /// Packets that a pod on this node sends.
    workload_in_l3(straight_wi_l3, whole_wi_l3): Workload, 0, Request;
    /// Packets that a pod on this node is about to receive.
    workload_out_l3(straight_we_l3, whole_we_l3): Workload, 0, Reply;
    /// Packets that the network delivers to this node.
    uplink_in_l3(straight_ui_l3, whole_ui_l3): Uplink, 0, Request;
    /// Packets that this node sends to the network.
    uplink_out_l3(straight_ue_l3, whole_ue_l3): Uplink, 0, Reply;
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
fn first_stage<E: AttachedAt, const LINK_LEN: usize>(skb: Skb<LINK_LEN>, direction: Direction) -> i32 {
    match path::family(&skb) {
        Some(Family::V4) => first_stage_of::<[u8; 4], E, LINK_LEN>(skb, direction),
        Some(Family::V6) => first_stage_of::<[u8; 16], E, LINK_LEN>(skb, direction),
        None => TCX_NEXT,
    }
}

#[inline(always)]
fn first_stage_of<A: FamilyTables, E: AttachedAt, const LINK_LEN: usize>(
    mut skb: Skb<LINK_LEN>,
    direction: Direction,
) -> i32 {
    let (edge, tables) = (E::edge(&skb), Maps { packet_len: skb.len(), skb: skb.framed() });
    let action = match direction {
        Direction::Request => straight::ingress::<A, _, _>(&mut skb, edge, &tables, &Kernel),
        Direction::Reply => straight::egress::<A, _, _>(&mut skb, edge, &tables, &Kernel),
    };
    action.map_or(DETOUR, |action| act(&skb, action))
}

#[inline(always)]
fn second_stage<E: AttachedAt, const LINK_LEN: usize>(skb: Skb<LINK_LEN>, direction: Direction) -> i32 {
    match path::family(&skb) {
        Some(Family::V4) => second_stage_of::<[u8; 4], E, LINK_LEN>(skb, direction),
        Some(Family::V6) => second_stage_of::<[u8; 16], E, LINK_LEN>(skb, direction),
        None => TCX_NEXT,
    }
}

#[inline(always)]
fn second_stage_of<A: FamilyTables, E: AttachedAt, const LINK_LEN: usize>(
    mut skb: Skb<LINK_LEN>,
    direction: Direction,
) -> i32 {
    let (edge, tables) = (E::edge(&skb), Maps { packet_len: skb.len(), skb: skb.framed() });
    let Some(work) = tables::work::<A>() else { return TCX_NEXT };
    let action = match direction {
        Direction::Request => path::ingress(&mut skb, edge, &tables, &Kernel, work),
        Direction::Reply => path::egress(&mut skb, edge, &tables, &Kernel, work),
    };
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
fn act<const LINK_LEN: usize>(skb: &Skb<LINK_LEN>, action: Action) -> i32 {
    match action {
        Action::ToBackend if LINK_LEN == ETHERNET_LEN => to_backend(skb),
        Action::Next | Action::ToBackend => TCX_NEXT,
        Action::SendBack => skb.send_back(),
        Action::Drop => TCX_DROP,
    }
}
