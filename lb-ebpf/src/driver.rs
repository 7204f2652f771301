//! The program of a driver (XDP): it handles packets of known flows at an uplink before they are skbs. It passes all
//! others, untouched and uncounted, to tc, which stays attached.
//!
//! The first of its two functions decides without writing to the frame, the second one writes: each has a stack of its own,
//! and what the first one found is in the records of the CPU.

use core::mem::MaybeUninit;
use core::ptr::addr_of;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use lb_common::addr::Family;
use lb_common::forward::{Edge, Hook, Services};
use lb_common::parse::Plain;
use lb_common::path;
use lb_common::straight::{self, Glance};
use lb_common::table::{Counter, Direction, Tuple};
use lb_common::verdict::HookAction;

use crate::kernel::Kernel;
use crate::linear::copy_words;
use crate::log;
use crate::routes::{self, Arrived as _};
use crate::tables::{self, FamilyTables};
use crate::xdp::Xdp;

// What the first function found.
/// tc handles the packet.
const LEFT: u32 = 0;
/// The packet is for this node.
const LOCAL: u32 = 1;
/// It is between the network and an endpoint of another node.
const TRANSIT: u32 = 2;

const HOOK: Hook = Hook { edge: Edge::uplink(), direction: Direction::Request };

/// Packets of known flows that the network delivers to this node. Drivers also run it for frames in several buffers.
#[xdp(frags)]
#[inline(always)]
pub fn uplink_driver(ctx: XdpContext) -> u32 {
    arrives(ctx)
}

/// The same for the kernel in place of a driver. Where the kernel runs a program of several buffers, it copies the skb and
/// forgets the length of the link header, which tc needs (`skb_pp_cow_data()` in net/core/skbuff.c, seen with Linux 6.18).
#[xdp]
#[inline(always)]
pub fn uplink_generic(ctx: XdpContext) -> u32 {
    arrives(ctx)
}

#[inline(always)]
fn arrives(ctx: XdpContext) -> u32 {
    let xdp = Xdp::new(ctx.ctx);
    match glance(xdp) {
        // The debug channel reads skbs, so it leaves all to tc.
        Glance::Flow(plain) if !log::is_on() => {
            let [proto, tcp, ports] = plain.to_words();
            match known_driver(xdp.context(), proto, tcp, ports) {
                LEFT => XDP_PASS,
                found => match path::family(&xdp) {
                    Some(Family::V4) => complete_driver4(xdp.context(), found),
                    _ => complete_driver6(xdp.context(), found),
                },
            }
        }
        Glance::Flow(_) | Glance::Stranger | Glance::Other => XDP_PASS,
    }
}

#[inline(always)]
fn glance(xdp: Xdp) -> Glance {
    let kernel = Kernel { subject: xdp };
    match path::family(&xdp) {
        Some(Family::V4) => straight::glance::<[u8; 4], _>(&xdp, HOOK, &kernel),
        Some(Family::V6) => straight::glance::<[u8; 16], _>(&xdp, HOOK, &kernel),
        None => Glance::Stranger,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn known_driver(frame: *mut xdp_md, proto: u32, tcp: u32, ports: u32) -> u32 {
    let (mut xdp, plain) = (Xdp::new(frame), Plain::from_words([proto, tcp, ports]));
    let kernel = Kernel { subject: xdp };
    let found = match path::family(&xdp) {
        Some(Family::V4) => straight::known_flow::<[u8; 4], _>(&mut xdp, plain, HOOK, &kernel),
        Some(Family::V6) => straight::known_flow::<[u8; 16], _>(&mut xdp, plain, HOOK, &kernel),
        None => None,
    };
    match found {
        Some(HookAction::Forward) => TRANSIT,
        Some(HookAction::ToBackend) => LOCAL,
        _ => LEFT,
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn complete_driver4(frame: *mut xdp_md, found: u32) -> u32 {
    complete::<[u8; 4]>(Xdp::new(frame), found == TRANSIT)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn complete_driver6(frame: *mut xdp_md, found: u32) -> u32 {
    complete::<[u8; 16]>(Xdp::new(frame), found == TRANSIT)
}

/// A copy on the stack, made in words: the compiler would keep each byte of the records in a place of its own.
#[inline(always)]
fn copy<A: FamilyTables>(tuple: &Tuple<A>) -> Tuple<A> {
    let mut copied = MaybeUninit::<Tuple<A>>::uninit();
    // SAFETY: both are a tuple; all of the copy is written.
    unsafe {
        copy_words::<Tuple<A>>(addr_of!(*tuple).cast(), copied.as_mut_ptr().cast());
        copied.assume_init()
    }
}

#[inline(always)]
fn complete<A: FamilyTables>(mut xdp: Xdp, is_transit: bool) -> u32 {
    let (Some(work), kernel) = (tables::work::<A>(), Kernel { subject: xdp }) else { return XDP_DROP };
    let count = |counter| Services::<A>::count(&kernel, counter);
    let tuples = [copy(&work.key.tuple), copy(work.to())];
    let mut done = straight::complete(&mut xdp, work.key.proto, &tuples, is_transit);
    if is_transit {
        done = done.and_then(|()| xdp.write_macs(routes::macs(work)));
    }
    if done.is_err() {
        count(Counter::DropRewrite);
        return XDP_DROP;
    }
    count(Counter::InDriver);
    if !is_transit {
        return XDP_PASS;
    }
    count(Counter::Forwarded);
    let egress = routes::egress_of(work);
    if egress == xdp.ifindex() { XDP_TX } else { xdp.send_out(egress) }
}
