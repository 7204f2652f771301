//! The routes of the kernel: how the node reaches an endpoint, and the way of a packet in transit.
//!
//! The record of a lookup is in [`Work::route`]: the stack has no room for it.

use core::ffi::c_void;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Lookup,
    bpf_redir_neigh as NextHop,
};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_redirect_neigh};
use lb_common::addr::{Addr, Family};
use lb_common::forward::Work;
use lb_common::hash;
use lb_common::packet::ETHERNET_LEN;
use lb_common::table::{Port, edge_index};
use lb_common::way::{OnUplink, Reach, Way};

use crate::linear::copy_words;
use crate::maps;
use crate::skb::Skb;

// include/linux/socket.h.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const LOOKUP_LEN: usize = size_of::<Lookup>();

/// Makes the record that of a lookup in this family by an interface.
///
/// # Safety
///
/// The pointer is valid for a record.
#[inline(always)]
pub unsafe fn begin(lookup: *mut Lookup, family: Family, ifindex: u32) {
    const { assert!(LOOKUP_LEN == 64) };
    // Word by word. Otherwise the compiler calls a function to write zeroes, and Linux 6.1 takes 32 bytes of stack for
    // the call, which the deepest chain of calls does not have.
    // SAFETY: the caller vouches for the record, and zeroes are a valid value of each field.
    unsafe {
        for word in 0..LOOKUP_LEN / size_of::<u32>() {
            lookup.cast::<u32>().add(word).write_volatile(0);
        }
        (*lookup).family = match family {
            Family::V4 => AF_INET,
            Family::V6 => AF_INET6,
        };
        (*lookup).ifindex = ifindex;
    }
}

/// Outcomes of a lookup, as the helper returns them.
const FOUND: i64 = BPF_FIB_LKUP_RET_SUCCESS as i64;
/// The next hop has not been resolved yet: the redirect does that.
const NO_NEIGHBOUR: i64 = BPF_FIB_LKUP_RET_NO_NEIGH as i64;
const TOO_LONG: i64 = BPF_FIB_LKUP_RET_FRAG_NEEDED as i64;

/// How the node reaches the backend `to.dst`, which is not on this node. If by an uplink, `to.src` becomes the node's
/// address there. The route from that address decides: it may be another one.
#[inline(always)]
pub fn reach<A: Addr + OnUplink>(skb: Skb<ETHERNET_LEN>, work: &mut Work<A>) -> Reach {
    let mut egress = 0;
    // The route without a source, the one from the address that it suggests, and once more if that leaves elsewhere.
    for _ in 0..3 {
        match look_up(&skb, work, egress != 0, 0) {
            FOUND | NO_NEIGHBOUR | TOO_LONG => {}
            _ => return Reach::Nowhere,
        }
        let ifindex = egress_of(work);
        if ifindex == egress {
            return Reach::Uplink;
        }
        let Some(uplink) = maps::uplinks.get_ptr(ifindex) else { return Reach::Nowhere };
        // SAFETY: the agent replaces elements whole, and the kernel frees them only after this program run. Both are an
        // address.
        unsafe { copy_words::<A>(addr_of!(*A::on_uplink(&*uplink)).cast(), addr_of_mut!(work.to_mut().src).cast()) };
        if work.to().src.is(&A::new_zeroed()) {
            return Reach::Nowhere;
        }
        egress = ifindex;
    }
    Reach::Nowhere
}

/// The way of a packet with the tuple `to`. Leaves the next hop in [`Work::route`].
#[inline(always)]
pub fn way<A: Addr>(skb: Skb<ETHERNET_LEN>, work: &mut Work<A>, len_bytes: u16) -> Way {
    match look_up(&skb, work, true, len_bytes) {
        FOUND | NO_NEIGHBOUR => Way::Out,
        // The length is replaced by the MTU.
        TOO_LONG => Way::TooLong { mtu_bytes: mtu_bytes(work) },
        _ => Way::Nowhere,
    }
}

/// Whether the way of a packet with the tuple `to` is known down to the MAC. Leaves the next hop in [`Work::route`].
#[inline(always)]
pub fn is_known_way<A: Addr>(from: impl Arrived, work: &mut Work<A>, len_bytes: u16) -> bool {
    look_up(&from, work, true, len_bytes) == FOUND
}

/// A packet that came in by an interface.
pub trait Arrived {
    fn ifindex(&self) -> u32;
    /// The context of the program run.
    fn any_context(&self) -> *mut c_void;
}

impl Arrived for Skb<ETHERNET_LEN> {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        Self::ifindex(self)
    }

    #[inline(always)]
    fn any_context(&self) -> *mut c_void {
        self.context().cast()
    }
}

/// Looks up the route from `to.src` (or from anywhere) to `to.dst`.
#[inline(always)]
fn look_up<A: Addr>(from: &impl Arrived, work: &mut Work<A>, has_source: bool, len_bytes: u16) -> i64 {
    let lookup = addr_of_mut!(work.route).cast::<Lookup>();
    let (sport, dport) = if has_source { (work.to().sport, work.to().dport) } else { (0, 0) };
    // SAFETY: the record is whole. The fields of the unions are words, at least as many as an address of the family has.
    // The context belongs to this program run.
    unsafe {
        begin(lookup, A::FAMILY, from.ifindex());
        (*lookup).l4_protocol = work.key.proto as u8;
        (*lookup).sport = sport.to_be();
        (*lookup).dport = dport.to_be();
        (*lookup).__bindgen_anon_1.tot_len = len_bytes;
        if has_source {
            copy_words::<A>(addr_of!(work.to().src).cast(), addr_of_mut!((*lookup).__bindgen_anon_3).cast());
        }
        copy_words::<A>(addr_of!(work.to().dst).cast(), addr_of_mut!((*lookup).__bindgen_anon_4).cast());
        bpf_fib_lookup(from.any_context(), lookup, LOOKUP_LEN as i32, 0)
    }
}

/// The MTU of a way that is too narrow.
#[inline(always)]
fn mtu_bytes<A>(work: &Work<A>) -> u16 {
    // SAFETY: the record is a lookup; both fields of the union are a number of 16 bits.
    unsafe { (*addr_of!(work.route).cast::<Lookup>()).__bindgen_anon_1.mtu_result }
}

/// The interface of the route that was found.
#[inline(always)]
pub fn egress_of<A>(work: &Work<A>) -> u32 {
    // SAFETY: the record is a lookup.
    unsafe { (*addr_of!(work.route).cast::<Lookup>()).ifindex }
}

/// The MACs of a frame to the next hop of the route that was found, as words of an Ethernet header.
#[inline(always)]
pub fn macs<A>(work: &Work<A>) -> [u16; 6] {
    let lookup = addr_of!(work.route).cast::<Lookup>();
    // SAFETY: the record is a lookup, whose last twelve bytes are the MAC of the interface and that of the next hop.
    let word = |index: usize| unsafe { addr_of!((*lookup).smac).cast::<u16>().add(index).read_unaligned() };
    const { assert!(offset_of!(Lookup, dmac) == offset_of!(Lookup, smac) + 6) };
    [word(3), word(4), word(5), word(0), word(1), word(2)]
}

/// A hash of the next hop of the route that was found, and its interface.
#[inline(always)]
pub fn hop<A>(work: &Work<A>) -> u32 {
    let [high, middle, low, ..] = macs(work).map(u32::from);
    hash::finish(hash::mix((high << 16) | middle, (low << 16) ^ egress_of(work)), 2)
}

/// Sends the packet to the next hop of the route that was found. `None` if there is no room for a link header.
#[inline(always)]
pub fn send_out<A, const LINK_LEN: usize>(skb: &Skb<LINK_LEN>, work: &Work<A>) -> Option<i32> {
    skb.mark_forwarded();
    skb.drop_priority_tag()?;
    skb.frame()?;
    let egress = egress_of(work);
    if has_link_header(egress) { Some(send_to_next_hop(work)) } else { Some(skb.send_to_neighbour(egress)) }
}

/// Whether packets that leave by this interface are known to get a link header. Interfaces share rows; where another has
/// this one's, the lookup of the helper serves as well.
#[inline(always)]
fn has_link_header(ifindex: u32) -> bool {
    let Some(port) = maps::ports.get_ptr(edge_index(ifindex)) else { return false };
    // SAFETY: array elements live as long as the map. The agent may write one meanwhile; the packet is then judged by
    // the old row or the new one.
    let (of, flags) = unsafe { ((*port).ifindex, (*port).flags) };
    of == ifindex && flags & Port::BARE == 0
}

/// Sends the packet to the next hop itself: no second lookup.
#[inline(always)]
fn send_to_next_hop<A>(work: &Work<A>) -> i32 {
    let lookup = addr_of!(work.route).cast::<Lookup>();
    // An IPv4 route may have a next hop of IPv6 (RFC 5549): the family in the record is that of the next hop.
    // SAFETY: the record is a lookup, and the next hop has the width of an IPv6 address there and here. All of
    // `hop` is written.
    unsafe {
        let mut hop = MaybeUninit::<NextHop>::uninit();
        let hop = hop.as_mut_ptr();
        addr_of_mut!((*hop).nh_family).write(u32::from((*lookup).family));
        let from = addr_of!((*lookup).__bindgen_anon_4);
        copy_words::<[u8; 16]>(from.cast(), addr_of_mut!((*hop).__bindgen_anon_1).cast());
        bpf_redirect_neigh((*lookup).ifindex, hop, size_of::<NextHop>() as i32, 0) as i32
    }
}
