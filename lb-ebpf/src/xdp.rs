//! [`Packet`] and [`Rewrite`] for a frame in its driver, before it is an skb. The sums of such a frame are finished.

use core::cell::Cell;
use core::ffi::c_void;
use core::ptr::addr_of;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_redirect, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len};
use lb_common::addr::Addr;
use lb_common::packet::{Addressee, ETHERNET_LEN, Header, PARKED_LEN_MAX, Packet, Refused, Rewrite, Summed, ZeroSum};
use lb_common::table::{Tuple, edge_index};

use crate::kernel::Subject;
use crate::linear::{Linear, TRANSLATED};
use crate::maps;
use crate::routes::Arrived;

/// The frame of a program run.
#[derive(Clone, Copy)]
pub struct Xdp(*mut xdp_md);

impl Xdp {
    #[inline(always)]
    pub const fn new(frame: *mut xdp_md) -> Self {
        Self(frame)
    }

    /// The context, for a function that takes it.
    #[inline(always)]
    pub const fn context(self) -> *mut xdp_md {
        self.0
    }

    /// Marks the frame as translated. False, without any effect, if its driver keeps no metadata.
    #[inline(always)]
    pub fn mark(&self) -> bool {
        // SAFETY: the context of this program run, as in all below; the helper checks the room.
        if unsafe { bpf_xdp_adjust_meta(self.0, -(size_of::<u32>() as i32)) } != 0 {
            return false;
        }
        // SAFETY: see above.
        let mark = unsafe { addr_of!((*self.0).data_meta).read_volatile() as usize };
        if mark + size_of::<u32>() > self.data() {
            return false;
        }
        // SAFETY: the bytes are metadata of the frame.
        unsafe { (mark as *mut u32).write_volatile(TRANSLATED) };
        true
    }

    /// Whether all of the frame is where a program reaches it. Many drivers send no frames of several buffers of another
    /// interface, and the kernel drops them (`xdp_do_redirect()` in net/core/filter.c).
    #[inline(always)]
    pub fn is_in_one_buffer(&self) -> bool {
        (self.data_end() - self.data()) as u64 == self.bytes()
    }

    /// Sends the frame out of another interface.
    #[inline(always)]
    pub fn send_out(&self, ifindex: u32) -> u32 {
        // SAFETY: a helper of plain numbers.
        unsafe { bpf_redirect(ifindex, 0) as u32 }
    }

    /// Overwrites both MACs.
    #[inline(always)]
    pub fn write_macs(&self, macs: [u16; 6]) -> Result<(), Refused> {
        let target = self.at::<[u16; 6]>(0).ok_or(Refused)?;
        // SAFETY: `at` proved the bytes to be in the frame.
        unsafe { target.write_unaligned(macs) };
        Ok(())
    }
}

impl Linear for Xdp {
    #[inline(always)]
    fn data(&self) -> usize {
        // SAFETY: see `mark`.
        unsafe { addr_of!((*self.0).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        // SAFETY: see `mark`.
        unsafe { addr_of!((*self.0).data_end).read_volatile() as usize }
    }
}

impl Arrived for Xdp {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: see `mark`.
        unsafe { addr_of!((*self.0).ingress_ifindex).read_volatile() }
    }

    #[inline(always)]
    fn any_context(&self) -> *mut c_void {
        self.0.cast()
    }
}

impl Subject for Xdp {
    #[inline(always)]
    fn bytes(&self) -> u64 {
        // SAFETY: see `mark`.
        unsafe { bpf_xdp_get_buff_len(self.0) }
    }

    #[inline(always)]
    unsafe fn add(counter: *mut u64, amount: u64) {
        // SAFETY: see the trait. No run interrupts another on the same CPU: bottom halves are off.
        unsafe { *counter += amount }
    }
}

impl Packet for Xdp {
    const LINK_LEN: usize = ETHERNET_LEN;

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.get::<[u8; 2]>(12).map_or(0, u16::from_be_bytes)
    }

    #[inline(always)]
    fn network_len(&self) -> u32 {
        (self.bytes() as u32).wrapping_sub(ETHERNET_LEN as u32)
    }

    #[inline(always)]
    fn segment_bytes(&self) -> u32 {
        0
    }

    /// What the stack finds out later (`eth_type_trans()` in net/ethernet/eth.c). No program of a driver handles frames for
    /// a bridge.
    #[inline(always)]
    fn addressee(&self) -> Addressee {
        let (Some([w0, w1, w2]), Some(port)) = (self.get_mac(), maps::ports.get_ptr(edge_index(self.ifindex()))) else {
            return Addressee::Another;
        };
        // SAFETY: array elements live as long as the map. If the agent writes one meanwhile, tc judges the packet.
        let (of, bridge, own) = unsafe {
            let own = addr_of!((*port).mac).cast::<u16>();
            ((*port).ifindex, (*port).bridge, [own.read(), own.add(1).read(), own.add(2).read()])
        };
        if of == self.ifindex() && bridge == 0 && [w0, w1, w2] == own {
            Addressee::Interface
        } else {
            Addressee::Another
        }
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
        false
    }

    /// Fragments are left to tc.
    #[inline(always)]
    fn save(&self, _: usize, _: &Cell<[u8; PARKED_LEN_MAX]>) -> Option<u32> {
        None
    }
}

impl Xdp {
    /// The destination MAC, in words.
    #[inline(always)]
    fn get_mac(&self) -> Option<[u16; 3]> {
        let mac = self.at::<u16>(0)?;
        self.at::<[u16; 3]>(0)?;
        // SAFETY: `at` proved the bytes to be in the frame.
        Some(unsafe { [mac.read_unaligned(), mac.add(1).read_unaligned(), mac.add(2).read_unaligned()] })
    }
}

impl Rewrite for Xdp {
    #[inline(always)]
    fn write_addresses<A: Addr>(&mut self, offset: usize, tuple: &Tuple<A>) -> Result<(), Refused> {
        self.put_tuple(offset, tuple)
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Result<(), Refused> {
        self.put(offset, bytes)
    }

    #[inline(always)]
    fn adjust_l4_checksum(&mut self, offset: usize, diff: u32, _: Summed, zero: ZeroSum) -> Result<(), Refused> {
        let check = u16::from_ne_bytes(self.get::<[u8; 2]>(offset).ok_or(Refused)?);
        self.put(offset, &zero.adjust(check, diff).to_ne_bytes())
    }
}
