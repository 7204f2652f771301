//! The way across a bridge between ports whose frames do not traverse netfilter.

use core::mem::MaybeUninit;
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::bindings::{__sk_buff, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Lookup};
use aya_ebpf::helpers::bpf_fib_lookup;
use lb_common::addr::{Family, is_same_prefix};
use lb_common::packet::ETHERNET_LEN;
use lb_common::table::edge_index;
use lb_common::{parse, path};

use crate::linear::Linear as _;
use crate::maps;
use crate::routes;
use crate::skb::Skb;

// include/uapi/linux/bpf.h: looks up the route alone, not the neighbour. Since Linux 6.3.
const BPF_FIB_LOOKUP_SKIP_NEIGH: u32 = 1 << 3;

/// Whether `across` is worth a call: one load, and hardly any interface is a port of such a bridge.
#[inline(always)]
pub fn may_be_crossed(ifindex: u32) -> bool {
    let Some(port) = maps::ports.get_ptr(edge_index(ifindex)) else { return false };
    // SAFETY: array elements live as long as the map; both bytes are read by one load.
    unsafe { addr_of!((*port).unfiltered_bits4).cast::<u16>().read_volatile() != 0 }
}

/// The bridge that the packet came in by a port of, if backend and client are neighbours on it, so that answers cross
/// it as well; else 0. A global function: the verifier walks it by itself, and its stack frame is not the hook's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn across(skb: *mut __sk_buff) -> u32 {
    let skb = Skb::<ETHERNET_LEN>::new(skb);
    let ifindex = skb.ifindex();
    let Some(port) = maps::ports.get_ptr(edge_index(ifindex)) else { return 0 };
    // SAFETY: array elements live as long as the map. The agent may write one meanwhile; the packet is then judged by
    // the old row or the new one.
    let (of, bridge) = unsafe { ((*port).ifindex, (*port).bridge) };
    let Some(family) = path::family(&skb) else { return 0 };
    // SAFETY: as above.
    let bits = unsafe { (*port).unfiltered_bits(family) };
    // A VLAN tag that the device took off would stay with the packet.
    if of != ifindex || bridge == 0 || bits == 0 || skb.has_vlan_tag() {
        return 0;
    }
    let is_neighbour = match family {
        Family::V4 => is_neighbour::<1>(skb, family, bits, bridge),
        Family::V6 => is_neighbour::<4>(skb, family, bits, bridge),
    };
    if is_neighbour { bridge } else { 0 }
}

/// Whether source and destination share a prefix of that length, and the route to the destination leads to the bridge
/// without a gateway.
#[inline(always)]
fn is_neighbour<const WORDS: usize>(skb: Skb<ETHERNET_LEN>, family: Family, bits: u8, bridge: u32) -> bool {
    let source = ETHERNET_LEN + parse::addresses_offset(family);
    let Some(from) = skb.read_words::<WORDS>(source) else { return false };
    let Some(to) = skb.read_words::<WORDS>(source + 4 * WORDS) else { return false };
    if !is_same_prefix(&from, &to, bits) {
        return false;
    }
    let mut lookup = MaybeUninit::<Lookup>::uninit();
    let lookup = lookup.as_mut_ptr();
    let len = size_of::<Lookup>() as i32;
    // SAFETY: the record is whole. The fields of the unions are words, at least as many as an address of the family has.
    // The context belongs to this program run.
    unsafe {
        routes::begin(lookup, family, bridge);
        let (source, destination) =
            (addr_of_mut!((*lookup).__bindgen_anon_3), addr_of_mut!((*lookup).__bindgen_anon_4));
        source.cast::<[u32; WORDS]>().write(from);
        destination.cast::<[u32; WORDS]>().write(to);
        let found = bpf_fib_lookup(skb.context().cast(), lookup, len, BPF_FIB_LOOKUP_SKIP_NEIGH);
        // A gateway would replace the destination.
        let is_on_link = destination.cast::<[u32; WORDS]>().read() == to;
        found == i64::from(BPF_FIB_LKUP_RET_SUCCESS) && (*lookup).ifindex == bridge && is_on_link
    }
}
