//! [`Packet`] and [`PacketMut`] for an skb.
//!
//! L4 checksums go through the kernel's helper: only the skb shows whether the device finishes them.

use core::cell::Cell;
use core::ptr::{addr_of, addr_of_mut};

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode,
};
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
    bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    bpf_skb_vlan_pop,
};
use lb_common::addr::{Addr, Family};
use lb_common::packet::{
    self, Addressee, DatagramId, ETHERNET_LEN, HEADER_ROOM, Header, PARKED_LEN_MAX, Packet, PacketMut, Refused,
    Rewrite, Summed, ZeroSum,
};
use lb_common::table::{Direction, FlowKey, Tuple};

use crate::linear::{Linear, TRANSLATED, copy_words};
use crate::verifier::{self, Forgetful};

/// Bytes that are pulled into the linear part: Ethernet, IPv6, a few extension headers, TCP.
const HEADERS_LEN: u32 = 14 + 40 + 44 + 20;

/// A flag of `bpf_l4_csum_replace` (enum in include/uapi/linux/bpf.h, since Linux 6.16).
const BPF_F_IPV6: u64 = 1 << 7;

/// The mark (`skb->mark`) of a copy that is re-injected. The kernel clears marks where a packet leaves a network namespace,
/// so no pod can set it.
const COPY: u32 = 0x6c62_6370;

/// [`Skb::mark_forwarded`]: 16 bits, the letters "lb".
const FORWARDED: u32 = 0x6c62;

// include/uapi/linux/if_packet.h.
const PACKET_HOST: u32 = 0;
const PACKET_OTHERHOST: u32 = 3;

/// The skb of a program run on an interface whose link header has this length.
#[derive(Clone, Copy)]
pub struct Skb<const LINK_LEN: usize>(*mut __sk_buff);

impl<const LINK_LEN: usize> Skb<LINK_LEN> {
    /// The packet of a program run.
    #[inline(always)]
    pub const fn new(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    /// The same skb, typed as if it had an Ethernet header.
    #[inline(always)]
    pub const fn framed(self) -> Skb<ETHERNET_LEN> {
        Skb(self.0)
    }

    /// The context, for a function that takes it.
    #[inline(always)]
    pub const fn context(self) -> *mut __sk_buff {
        self.0
    }

    #[inline(always)]
    pub fn len(&self) -> u32 {
        // SAFETY: the context of this program run, as in all below.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        // SAFETY: see `len`.
        unsafe { (*self.0).ifindex }
    }

    /// The interface by which the packet came to the stack; 0: a socket of this node.
    #[inline(always)]
    pub fn ingress_ifindex(&self) -> u32 {
        // SAFETY: see `len`.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Sends the packet out of the interface that it came in by. `None` if there is no room for a link header.
    #[inline(always)]
    pub fn send_back(&self) -> Option<i32> {
        if LINK_LEN == 0 {
            // A tunnel without one remote address finds it by the route (`ip_tunnel_xmit()` in net/ipv4/ip_tunnel.c).
            self.frame()?;
            return Some(self.send_to_neighbour(self.ifindex()));
        }
        // SAFETY: a helper of plain numbers.
        Some(unsafe { bpf_redirect(self.ifindex(), 0) as i32 })
    }

    /// Puts an empty Ethernet header in front of a packet without a link header: the kernel drops packets without one
    /// that are sent to a neighbour, and takes the header off itself (`__bpf_redirect_neigh()` in net/core/filter.c).
    #[inline(always)]
    pub fn frame(&self) -> Option<()> {
        // SAFETY: the context of this program run; the helper checks the length.
        if LINK_LEN == 0 && unsafe { bpf_skb_change_head(self.0, ETHERNET_LEN as u32, 0) } != 0 {
            return None;
        }
        Some(())
    }

    /// Sends the packet out of a link to its destination, or to the gateway of the route to it by this link.
    #[inline(always)]
    pub fn send_to_neighbour(&self, ifindex: u32) -> i32 {
        // SAFETY: a helper of plain numbers. Without a given route, it looks the route up.
        unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
    }

    /// Copies the flow key at `offset`.
    #[inline(always)]
    pub fn read_key<A: Addr>(&self, offset: usize, key: &mut FlowKey<A>) -> Option<()> {
        let from = self.at::<FlowKey<A>>(offset)?;
        // SAFETY: `at` proved the bytes to be in the packet; the agent wrote a key.
        unsafe { copy_words::<FlowKey<A>>(from.cast(), addr_of_mut!(*key).cast()) };
        Some(())
    }

    /// Whether the program of the driver has translated the packet.
    #[inline(always)]
    pub fn has_mark_of_driver(&self) -> bool {
        // SAFETY: see `len`.
        let mark = unsafe { addr_of!((*self.0).data_meta).read_volatile() as usize };
        // SAFETY: the bytes are metadata of the packet, checked in a way that the verifier follows.
        mark + size_of::<u32>() <= self.data() && unsafe { *(mark as *const u32) } == TRANSLATED
    }

    /// Marks the packet as forwarded, until it leaves: by the index of a traffic class, which nothing else reads there.
    #[inline(always)]
    pub fn mark_forwarded(&self) {
        // SAFETY: see `len`.
        unsafe { addr_of_mut!((*self.0).tc_index).write_volatile(FORWARDED) }
    }

    /// Whether the packet has that mark.
    #[inline(always)]
    pub fn is_marked_forwarded(&self) -> bool {
        // SAFETY: see `len`.
        unsafe { addr_of!((*self.0).tc_index).read_volatile() == FORWARDED }
    }

    /// Whether the packet has a VLAN tag that the device took off.
    #[inline(always)]
    pub fn has_vlan_tag(&self) -> bool {
        // SAFETY: see `len`.
        unsafe { (*self.0).vlan_present != 0 }
    }

    /// Whether that tag names a VLAN: one that only has a priority does not (IEEE 802.1Q, VLAN ID 0).
    #[inline(always)]
    pub fn is_in_vlan(&self) -> bool {
        const ID: u32 = 0xfff;
        // SAFETY: see `len`.
        self.has_vlan_tag() && unsafe { (*self.0).vlan_tci } & ID != 0
    }

    /// Takes off a tag that only has a priority: a link without a header would get it in the middle of the packet
    /// (`validate_xmit_vlan()` in net/core/dev.c). `None` if that fails.
    #[inline(always)]
    pub fn drop_priority_tag(&self) -> Option<()> {
        // SAFETY: the context of this program run.
        if self.has_vlan_tag() && unsafe { bpf_skb_vlan_pop(self.0) } != 0 { None } else { Some(()) }
    }
}

impl<const LINK_LEN: usize> Linear for Skb<LINK_LEN> {
    // Volatile, as below: the compiler would keep the value in 32 bits, and the verifier would lose the pointer.
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: see `len`.
        unsafe { addr_of!((*self.0).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: see `len`.
        unsafe { addr_of!((*self.0).data_end).read_volatile() as usize }
    }
}

/// What [`sum_words_apart`] returns in place of a sum.
const NO_SUM: u64 = u64::MAX;

/// A global function: the verifier walks its loop once. Linux 6.1 would walk the rest of the program again after each
/// number of rounds.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sum_words_apart(skb: *mut __sk_buff, start: u32, end: u32) -> u64 {
    let skb = Skb::<ETHERNET_LEN>::new(skb);
    let [start, end] = [start, end].map(|offset| skb.forget_offset(offset as usize));
    packet::sum_words(&skb, start, end).map_or(NO_SUM, u64::from)
}

impl<const LINK_LEN: usize> Packet for Skb<LINK_LEN> {
    const LINK_LEN: usize = LINK_LEN;

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        // SAFETY: see `len`.
        u16::from_be(unsafe { (*self.0).protocol } as u16)
    }

    #[inline(always)]
    fn network_len(&self) -> u32 {
        self.len() - LINK_LEN as u32
    }

    #[inline(always)]
    fn segment_bytes(&self) -> u32 {
        // SAFETY: see `len`.
        unsafe { (*self.0).gso_size }
    }

    #[inline(always)]
    fn addressee(&self) -> Addressee {
        // SAFETY: see `len`.
        match unsafe { (*self.0).pkt_type } {
            PACKET_HOST => Addressee::Interface,
            PACKET_OTHERHOST => Addressee::Another,
            _ => Addressee::Group,
        }
    }

    #[inline(always)]
    fn sum_words(&self, start: usize, end: usize) -> Option<u32> {
        let sum = sum_words_apart(self.context(), start as u32, end as u32);
        if sum == NO_SUM { None } else { Some(sum as u32) }
    }

    #[inline(always)]
    fn forget_offset(&self, offset: usize) -> usize {
        Forgetful::of(self.0).offset(offset)
    }

    #[inline(always)]
    fn forget_datagram(&self, id: Option<DatagramId>) -> Option<DatagramId> {
        Forgetful::of(self.0).datagram(id)
    }

    #[inline(always)]
    fn header<H: Header>(&self, offset: usize) -> Option<H> {
        self.get(offset)
    }

    #[inline(always)]
    fn read_addresses<A: Addr>(&self, offset: usize, tuple: &mut Tuple<A>) -> Option<()> {
        self.get_tuple(offset, tuple)
    }

    #[inline(always)]
    fn address<A: Addr>(&self, offset: usize) -> Option<A> {
        let [addr] = self.get_addresses(offset)?;
        Some(addr)
    }

    #[inline(always)]
    fn addresses<A: Addr>(&self, offset: usize) -> Option<[A; 2]> {
        self.get_addresses(offset)
    }

    #[inline(always)]
    fn is_copy(&self) -> bool {
        // SAFETY: see `len`.
        unsafe { addr_of!((*self.0).mark).read_volatile() == COPY }
    }

    #[inline(always)]
    fn save(&self, offset: usize, to: &Cell<[u8; PARKED_LEN_MAX]>) -> Option<u32> {
        let len = self.len() - offset as u32;
        if len as usize > PARKED_LEN_MAX {
            return None;
        }
        let len = bounded(len);
        // SAFETY: the context of this program run; `bounded` is at most the length of `to`.
        let result = unsafe { bpf_skb_load_bytes(self.0.cast_const().cast(), offset as u32, to.as_ptr().cast(), len) };
        if result == 0 { Some(len) } else { None }
    }
}

/// The same length, which must be from 1 to [`PARKED_LEN_MAX`], bounded in a way that the verifier follows.
#[inline(always)]
fn bounded(len: u32) -> u32 {
    const { assert!(PARKED_LEN_MAX.is_power_of_two()) };
    // The compiler must not know that the mask changes nothing.
    let last = verifier::opaque((len as usize).wrapping_sub(1));
    (last & (PARKED_LEN_MAX - 1)) as u32 + 1
}

impl<const LINK_LEN: usize> Rewrite for Skb<LINK_LEN> {
    #[inline(always)]
    fn write_addresses<A: Addr>(&mut self, offset: usize, tuple: &Tuple<A>) -> Result<(), Refused> {
        self.put_tuple(offset, tuple)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Result<(), Refused> {
        self.put(offset, bytes)
    }

    #[inline(always)]
    fn adjust_l4_checksum(&mut self, offset: usize, diff: u32, summed: Summed, zero: ZeroSum) -> Result<(), Refused> {
        let mangled = match zero {
            ZeroSum::Valid => 0,
            ZeroSum::Absent => u64::from(BPF_F_MARK_MANGLED_0),
        };
        let pseudo = mangled | u64::from(BPF_F_PSEUDO_HDR);
        let adjust = |flags: u64| {
            // A size of 0 in the flags: `diff` is the difference itself.
            // SAFETY: the context of this program run; the helper checks the offset.
            match unsafe { bpf_l4_csum_replace(self.0, offset as u32, 0, u64::from(diff), flags) } {
                0 => Ok(()),
                _ => Err(Refused),
            }
        };
        match summed {
            Summed::Payload => adjust(mangled),
            Summed::PseudoHeader(Family::V4) => adjust(pseudo),
            // Kernels before 6.16 do not know the flag, and refuse it before they change anything.
            Summed::PseudoHeader(Family::V6) => adjust(pseudo | BPF_F_IPV6).or_else(|_| adjust(pseudo)),
        }
    }
}

impl<const LINK_LEN: usize> PacketMut for Skb<LINK_LEN> {
    #[inline(always)]
    fn pull(&mut self) -> bool {
        let linear_len = (self.data_end() - self.data()) as u32;
        let wanted_len = HEADERS_LEN.min(self.len());
        // SAFETY: the context of this program run.
        linear_len < wanted_len && unsafe { bpf_skb_pull_data(self.0, wanted_len) } == 0
    }

    #[inline(always)]
    fn set_len(&mut self, len: u32) -> Result<(), Refused> {
        // SAFETY: the context of this program run; the helper checks the length.
        match unsafe { bpf_skb_change_tail(self.0, len, 0) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    #[inline(always)]
    fn insert_before_network<const N: usize>(&mut self) -> Result<(), Refused> {
        // SAFETY: the context of this program run; the helper checks the length.
        match unsafe { bpf_skb_adjust_room(self.0, N as i32, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, 0) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    #[inline(always)]
    fn restore(&mut self, offset: usize, from: &Cell<[u8; PARKED_LEN_MAX]>, len: u32) -> Result<(), Refused> {
        let len = bounded(len);
        self.set_len(offset as u32 + len)?;
        // A sum of all bytes from the device (CHECKSUM_COMPLETE) is updated. A sum that the device is to finish would
        // go wrong, but no first fragment has one: the kernel sums before it fragments (ip_do_fragment(),
        // ip6_fragment()).
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: the context of this program run; `bounded` is at most the length of `from`.
        match unsafe { bpf_skb_store_bytes(self.0, offset as u32, from.as_ptr().cast_const().cast(), len, flags) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    #[inline(always)]
    fn write_text(&mut self, offset: usize, bytes: &[u8; HEADER_ROOM], len: usize) -> Result<(), Refused> {
        const { assert!(HEADER_ROOM.is_power_of_two()) };
        // As in `bounded`.
        let last = verifier::opaque(len.wrapping_sub(1));
        let len = (last & (HEADER_ROOM - 1)) as u32 + 1;
        // SAFETY: the context of this program run; `len` is at most the length of `bytes`.
        match unsafe { bpf_skb_store_bytes(self.0, offset as u32, bytes.as_ptr().cast(), len, 0) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }

    #[inline(always)]
    fn send_copy(&mut self) -> Result<(), Refused> {
        // SAFETY: see `len`.
        let mark = unsafe { addr_of_mut!((*self.0).mark) };
        // A mark of others would be lost with the copy.
        // SAFETY: see `len`.
        if unsafe { mark.read_volatile() } != 0 {
            return Err(Refused);
        }
        // SAFETY: see `len`.
        unsafe { mark.write_volatile(COPY) };
        let sent = self.send_again(Direction::Request);
        // SAFETY: see `len`.
        unsafe { mark.write_volatile(0) };
        sent
    }

    #[inline(always)]
    fn take_copy(&mut self) -> bool {
        let is_copy = self.is_copy();
        if is_copy {
            // SAFETY: see `len`.
            unsafe { addr_of_mut!((*self.0).mark).write_volatile(0) };
        }
        is_copy
    }

    #[inline(always)]
    fn send_again(&mut self, hook: Direction) -> Result<(), Refused> {
        let flags = match hook {
            // To the end of this CPU's queue of received packets (netif_rx()).
            Direction::Request => u64::from(BPF_F_INGRESS),
            // Out at once: the program runs nested in this run (dev_queue_xmit()).
            Direction::Reply => 0,
        };
        // SAFETY: the context of this program run.
        match unsafe { bpf_clone_redirect(self.0, self.ifindex(), flags) } {
            0 => Ok(()),
            _ => Err(Refused),
        }
    }
}
