//! The programs at the hooks. Each judges its packets at a glance, and lets strangers pass without a call. Packets of
//! known flows are handled by one function, and the rest by another one, the whole path.
//!
//! Both are global functions (`extern "C"`, not mangled): the verifier walks each once, and only one of their stack
//! frames is in use at a time.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::addr::Family;
use lb_common::client::Client;
use lb_common::forward::{Edge, Hook};
use lb_common::packet::ETHERNET_LEN;
use lb_common::parse::Plain;
use lb_common::path;
use lb_common::run::Run;
use lb_common::straight::{self, Glance};
use lb_common::table::Direction;
use lb_common::verdict::HookAction;

use crate::bridge;
use crate::kernel::{Kernel, is_behind_driver};
use crate::log;
use crate::routes;
use crate::skb::Skb;
use crate::tables::{self, FamilyTables};

// include/uapi/linux/bpf.h, enum tcx_action_base.
pub const TCX_NEXT: i32 = -1;
pub const TCX_DROP: i32 = 2;
/// No action of the kernel's: the packet needs the whole path.
const DETOUR: i32 = i32::MIN;
/// No action of the kernel's: the packet is forwarded.
pub const FORWARD: i32 = i32::MIN + 1;
/// No action of the kernel's: the header of the packet's flow is due.
pub const HEADER: i32 = i32::MIN + 2;

/// Declares programs with their two functions, edge, length of the link header and direction.
macro_rules! hooks {
    ($(
        $(#[doc = $what:literal])+
        $program:ident($known:ident, $whole:ident, $header:ident $(, $forward:ident)?): $edge:ident, $link_len:expr, $direction:ident;
    )*) => {
        $(
            $(#[doc = $what])+
            // The macro puts the program into a function of the same name. Inlining is forced, because the compiler
            // may otherwise make it a call for every packet.
            #[classifier]
            #[inline(always)]
            pub fn $program(ctx: TcContext) -> i32 {
                let skb = Skb::<{ $link_len }>::new(ctx.skb.skb);
                if is_done(skb, Hook { edge: $edge(&skb), direction: Direction::$direction }) {
                    return TCX_NEXT;
                }
                let action = match glance(skb, Hook { edge: $edge(&skb), direction: Direction::$direction }) {
                    Glance::Stranger => return TCX_NEXT,
                    // Only the whole path has records to log; it decides alike.
                    Glance::Flow(plain) if !log::is_on() => {
                        let [proto, tcp, ports] = plain.to_words();
                        $known(skb.context(), proto, tcp, ports)
                    }
                    Glance::Flow(_) | Glance::Other => DETOUR,
                };
                let action = if action == DETOUR { $whole(skb.context()) } else { action };
                if log::is_on() {
                    log::verdict(skb.context(), Direction::$direction, action);
                }
                let action = if action == HEADER { $header(skb.context()) } else { action };
                $( if action == FORWARD {
                    return $forward(skb.context());
                } )?
                action
            }

            $(
                #[unsafe(no_mangle)]
                #[inline(never)]
                extern "C" fn $forward(skb: *mut __sk_buff) -> i32 {
                    let skb = Skb::<{ $link_len }>::new(skb);
                    forward(skb, Hook { edge: $edge(&skb), direction: Direction::$direction })
                }
            )?

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $known(skb: *mut __sk_buff, proto: u32, tcp: u32, ports: u32) -> i32 {
                let (skb, plain) = (Skb::<{ $link_len }>::new(skb), Plain::from_words([proto, tcp, ports]));
                known_flow(skb, plain, Hook { edge: $edge(&skb), direction: Direction::$direction })
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $header(skb: *mut __sk_buff) -> i32 {
                let skb = Skb::<{ $link_len }>::new(skb);
                header(skb, Hook { edge: $edge(&skb), direction: Direction::$direction })
            }

            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $whole(skb: *mut __sk_buff) -> i32 {
                let skb = Skb::<{ $link_len }>::new(skb);
                whole(skb, Hook { edge: $edge(&skb), direction: Direction::$direction })
            }
        )*
    };
}
hooks! {
    /// Packets that a pod on this node sends.
    workload_ingress(known_wi, whole_wi, header_wi): workload, ETHERNET_LEN, Request;
    /// Packets that a pod on this node is about to receive.
    workload_egress(known_we, whole_we, header_we): workload, ETHERNET_LEN, Reply;
    /// Packets that the network delivers to this node.
    uplink_ingress(known_ui, whole_ui, header_ui, forward_ui): uplink, ETHERNET_LEN, Request;
    /// Packets that this node sends to the network.
    uplink_egress(known_ue, whole_ue, header_ue): uplink, ETHERNET_LEN, Reply;
    // The same for interfaces without a link header (WireGuard, tun, PPP). They are loaded if such an interface exists.
    /// Packets that a pod on this node sends.
    workload_in_l3(known_wi_l3, whole_wi_l3, header_wi_l3): workload, 0, Request;
    /// Packets that a pod on this node is about to receive.
    workload_out_l3(known_we_l3, whole_we_l3, header_we_l3): workload, 0, Reply;
    /// Packets that the network delivers to this node.
    uplink_in_l3(known_ui_l3, whole_ui_l3, header_ui_l3, forward_ui_l3): uplink, 0, Request;
    /// Packets that this node sends to the network.
    uplink_out_l3(known_ue_l3, whole_ue_l3, header_ue_l3): uplink, 0, Reply;
}

/// Whether a program of the driver has dealt with the packet.
#[inline(always)]
fn is_done<const LINK_LEN: usize>(skb: Skb<LINK_LEN>, hook: Hook) -> bool {
    let enters = matches!((hook.edge.client, hook.direction), (Client::External, Direction::Request));
    LINK_LEN == ETHERNET_LEN && enters && is_behind_driver() && skb.has_mark_of_driver()
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
fn glance<const LINK_LEN: usize>(skb: Skb<LINK_LEN>, hook: Hook) -> Glance {
    let kernel = Kernel::new(skb);
    match path::family(&skb) {
        Some(Family::V4) => straight::glance::<[u8; 4], _>(&skb, hook, &kernel),
        Some(Family::V6) => straight::glance::<[u8; 16], _>(&skb, hook, &kernel),
        None => Glance::Stranger,
    }
}

#[inline(always)]
fn known_flow<const LINK_LEN: usize>(mut skb: Skb<LINK_LEN>, plain: Plain, hook: Hook) -> i32 {
    let kernel = Kernel::new(skb);
    let action = match path::family(&skb) {
        Some(Family::V4) => straight::known_flow::<[u8; 4], _>(&mut skb, plain, hook, &kernel),
        Some(Family::V6) => straight::known_flow::<[u8; 16], _>(&mut skb, plain, hook, &kernel),
        None => return TCX_NEXT,
    };
    action.map_or(DETOUR, |action| act(&skb, action))
}

#[inline(always)]
fn whole<const LINK_LEN: usize>(skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    match path::family(&skb) {
        Some(Family::V4) => whole_of::<[u8; 4], LINK_LEN>(skb, hook),
        Some(Family::V6) => whole_of::<[u8; 16], LINK_LEN>(skb, hook),
        None => TCX_NEXT,
    }
}

#[inline(always)]
fn whole_of<A: FamilyTables, const LINK_LEN: usize>(mut skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    let Some(work) = tables::work::<A>() else { return TCX_NEXT };
    if log::is_on() {
        work.forget_outcome();
    }
    let kernel = Kernel::new(skb);
    let action = Run { packet: &mut skb, hook, kernel: &kernel, work }.handle();
    act(&skb, action)
}

#[inline(always)]
fn header<const LINK_LEN: usize>(skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    match path::family(&skb) {
        Some(Family::V4) => header_of::<[u8; 4], LINK_LEN>(skb, hook),
        Some(Family::V6) => header_of::<[u8; 16], LINK_LEN>(skb, hook),
        None => TCX_NEXT,
    }
}

#[inline(always)]
fn header_of<A: FamilyTables, const LINK_LEN: usize>(mut skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    let Some(work) = tables::work::<A>() else { return TCX_DROP };
    let kernel = Kernel::new(skb);
    let action = Run { packet: &mut skb, hook, kernel: &kernel, work }.header();
    act(&skb, action)
}

#[inline(always)]
fn forward<const LINK_LEN: usize>(skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    match path::family(&skb) {
        Some(Family::V4) => forward_of::<[u8; 4], LINK_LEN>(skb, hook),
        Some(Family::V6) => forward_of::<[u8; 16], LINK_LEN>(skb, hook),
        None => TCX_NEXT,
    }
}

#[inline(always)]
fn forward_of<A: FamilyTables, const LINK_LEN: usize>(mut skb: Skb<LINK_LEN>, hook: Hook) -> i32 {
    let Some(work) = tables::work::<A>() else { return TCX_DROP };
    let kernel = Kernel::new(skb);
    let action = Run { packet: &mut skb, hook, kernel: &kernel, work }.forward();
    let Some(work) = tables::work::<A>() else { return TCX_DROP };
    match action {
        HookAction::SendOut => routes::send_out(&skb, work).unwrap_or(TCX_DROP),
        action => act(&skb, action),
    }
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
        HookAction::SendBack => skb.send_back().unwrap_or(TCX_DROP),
        HookAction::Forward => FORWARD,
        HookAction::Header => HEADER,
        HookAction::Drop | HookAction::SendOut => TCX_DROP,
    }
}
