//! The way across a bridge whose ports pass no netfilter between each other.

use core::mem::zeroed;
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::bindings::{__sk_buff, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Lookup};
use aya_ebpf::helpers::bpf_fib_lookup;
use lb_common::addr::Family;
use lb_common::packet::{ETHERNET_LEN, Packet as _};
use lb_common::table::{Port, edge_index};
use lb_common::{parse, path};

use crate::maps;
use crate::skb::Skb;

// include/uapi/linux/bpf.h: only where the route leads, since Linux 6.3.
const BPF_FIB_LOOKUP_SKIP_NEIGH: u32 = 1 << 3;
// include/linux/socket.h.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Whether it is worth asking: one load, where nearly no interface is a port of such a bridge.
#[inline(always)]
pub fn may_be_crossed(ifindex: u32) -> bool {
    // SAFETY: array elements live as long as the map; one aligned half word is read.
    maps::ports.get_ptr(edge_index(ifindex)).is_some_and(|port| unsafe { addr_of!((*port).flags).read_volatile() } != 0)
}

/// The bridge that the packet came in by a port of, if its way leads back to that bridge and nobody between has a say; else 0.
/// A global function: the verifier walks it by itself, and its frame is not the hook's.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn across(skb: *mut __sk_buff) -> u32 {
    let skb = Skb::<ETHERNET_LEN>::new(skb);
    let ifindex = skb.ifindex();
    let Some(port) = maps::ports.get_ptr(edge_index(ifindex)) else { return 0 };
    // SAFETY: array elements live as long as the map; the agent may write one meanwhile, of which a packet more or less is
    // taken for one of before.
    let (of, bridge, flags) = unsafe { ((*port).ifindex, (*port).bridge, (*port).flags) };
    let Some(family) = path::family(&skb) else { return 0 };
    if of != ifindex || bridge == 0 || flags & Port::unfiltered(family) == 0 {
        return 0;
    }
    // SAFETY: zeroes are a value of each of its fields.
    let mut lookup: Lookup = unsafe { zeroed() };
    lookup.ifindex = bridge;
    let source = ETHERNET_LEN + parse::addresses_offset(family);
    // SAFETY: the fields of a union are words of zero, as many as an address of the family has at least.
    let addresses = unsafe {
        let (from, to) = (addr_of_mut!(lookup.__bindgen_anon_3).cast(), addr_of_mut!(lookup.__bindgen_anon_4).cast());
        match family {
            Family::V4 => {
                lookup.family = AF_INET;
                skb.read_words::<1>(source, from).and(skb.read_words::<1>(source + 4, to))
            }
            Family::V6 => {
                lookup.family = AF_INET6;
                skb.read_words::<4>(source, from).and(skb.read_words::<4>(source + 16, to))
            }
        }
    };
    if addresses.is_none() {
        return 0;
    }
    let len = size_of::<Lookup>() as i32;
    // SAFETY: the context of this program run; the record is whole.
    let found = unsafe { bpf_fib_lookup(skb.context().cast(), addr_of_mut!(lookup), len, BPF_FIB_LOOKUP_SKIP_NEIGH) };
    if found == i64::from(BPF_FIB_LKUP_RET_SUCCESS) && lookup.ifindex == bridge { bridge } else { 0 }
}
