//! Shapes of values for the verifier: what it must not know, so that it walks the programs in time, and what the
//! compiler must not know, so that the verifier accepts them.

use core::arch::asm;
use core::ptr::addr_of_mut;

use aya_ebpf::bindings::__sk_buff;
use lb_common::packet::DatagramId;

/// All offsets of headers are below this.
const OFFSET_MAX: usize = 1 << 14;

/// Returns values as they are, but unknown to the verifier. Otherwise it would walk the rest of the program once for
/// each way to find one.
///
/// They go through the control block of the skb (`__sk_buff.cb`), which is scratch space for programs.
pub struct Forgetful(*mut __sk_buff);

impl Forgetful {
    #[inline(always)]
    pub const fn of(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    /// An offset in the packet, of which the verifier knows only that it is below [`OFFSET_MAX`].
    #[inline(always)]
    pub fn offset(&self, offset: usize) -> usize {
        // SAFETY: the context of this program run.
        let offset = unsafe {
            let scratch = addr_of_mut!((*self.0).cb[0]);
            scratch.write_volatile(offset as u32);
            scratch.read_volatile()
        };
        offset as usize & (OFFSET_MAX - 1)
    }

    /// The datagram of a first fragment. As one number: an `Option<u32>` that is `None` leaves the register of the
    /// `u32` undefined, and the verifier refuses to use that ("R3 !read_ok").
    #[inline(always)]
    pub fn datagram(&self, id: Option<DatagramId>) -> Option<DatagramId> {
        // SAFETY: as above. Eight bytes from the third word on are aligned.
        let number = unsafe {
            let scratch = addr_of_mut!((*self.0).cb[2]).cast::<u64>();
            scratch.write_volatile(DatagramId::to_number(id));
            scratch.read_volatile()
        };
        DatagramId::from_number(number)
    }
}

/// The same value, of which the compiler does not know the origin.
///
/// An empty block would also do, but its line info would name no instruction, and 6.18 refuses such a program.
#[inline(always)]
pub fn opaque(mut value: usize) -> usize {
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
