//! Direct packet access: headers are read and written in place, between two pointers of the context. The verifier accepts
//! that in inlined functions only.

use core::mem::MaybeUninit;
use core::ptr::{addr_of, addr_of_mut};

use lb_common::addr::Addr;
use lb_common::packet::{Header, Refused};
use lb_common::table::Tuple;

use crate::verifier;

/// Makes the compiler move a header in words of four bytes instead of bytes.
///
/// A network header is rarely aligned to four. BPF loads may be unaligned if the host's may (elsewhere the verifier
/// refuses the program), and the compiler uses the promise for the width alone.
#[repr(C, align(4))]
struct Wide<T>(T);

/// Copies a `T`, whose size is a multiple of four, in words.
///
/// Volatile: otherwise the compiler makes it a call of `memmove`, which copies byte by byte.
///
/// # Safety
///
/// Both pointers must be valid for that many bytes; see [`Wide`] for their alignment.
#[inline(always)]
pub unsafe fn copy_words<T>(from: *const u32, to: *mut u32) {
    const { assert!(size_of::<T>().is_multiple_of(4)) };
    for word in 0..size_of::<T>() / 4 {
        // SAFETY: the caller vouches for the bytes.
        unsafe { to.add(word).write(from.add(word).read_volatile()) };
    }
}

/// The metadata in front of a packet that was translated in the driver: tc leaves the packet alone. Only programs of
/// drivers write metadata.
pub const TRANSLATED: u32 = 0x6c62_5854;

/// The bytes of a packet that programs reach by pointers.
pub trait Linear {
    /// Address of the first byte.
    fn data(&self) -> usize;
    /// Address behind the last byte.
    fn data_end(&self) -> usize;

    /// A pointer to a `T` at `offset`, checked in a way that the verifier follows.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        // Otherwise the compiler drops a check that follows from an earlier one on another register, which the verifier
        // does not connect (6.18: "offset is outside of the packet").
        let start = verifier::opaque(self.data() + offset);
        if start + size_of::<T>() > self.data_end() {
            return None;
        }
        Some(start as *mut T)
    }

    /// Reads the words at `offset`.
    #[inline(always)]
    fn read_words<const WORDS: usize>(&self, offset: usize) -> Option<[u32; WORDS]> {
        let mut words = [0; WORDS];
        let from = self.at::<[u32; WORDS]>(offset)?;
        // SAFETY: `at` proved the bytes to be in the packet.
        unsafe { copy_words::<[u32; WORDS]>(from.cast(), words.as_mut_ptr()) };
        Some(words)
    }

    /// Reads the header at `offset`.
    #[inline(always)]
    fn get<H: Header>(&self, offset: usize) -> Option<H> {
        let header = self.at::<H>(offset)?;
        // SAFETY: `at` proved the bytes to be in the packet, and any bytes are a valid `Header`; see `Wide`.
        Some(unsafe {
            if size_of::<H>().is_multiple_of(4) { header.cast::<Wide<H>>().read().0 } else { header.read_unaligned() }
        })
    }

    /// Copies addresses at `offset` in words.
    #[inline(always)]
    fn get_addresses<A: Addr, const N: usize>(&self, offset: usize) -> Option<[A; N]> {
        let from = self.at::<[A; N]>(offset)?;
        let mut copy = MaybeUninit::<Wide<[A; N]>>::uninit();
        // SAFETY: `at` proved the bytes to be in the packet; all of `copy` is written.
        Some(unsafe {
            copy_words::<[A; N]>(from.cast(), copy.as_mut_ptr().cast());
            copy.assume_init().0
        })
    }

    /// Copies source and destination at `offset` to `tuple`.
    #[inline(always)]
    fn get_tuple<A: Addr>(&self, offset: usize, tuple: &mut Tuple<A>) -> Option<()> {
        let addresses = self.at::<[A; 2]>(offset)?;
        // SAFETY: `at` proved the bytes to be in the packet; a tuple begins with its two addresses.
        unsafe { copy_words::<[A; 2]>(addresses.cast(), addr_of_mut!(*tuple).cast()) };
        Some(())
    }

    /// Overwrites the bytes at `offset`.
    #[inline(always)]
    fn put<const N: usize>(&self, offset: usize, bytes: &[u8; N]) -> Result<(), Refused> {
        let target = self.at::<[u8; N]>(offset).ok_or(Refused)?;
        // SAFETY: `at` proved the bytes to be in the packet; see `Wide` for the alignment.
        unsafe {
            if N.is_multiple_of(4) {
                target.cast::<Wide<[u8; N]>>().write(Wide(*bytes));
            } else {
                target.write_unaligned(*bytes);
            }
        }
        Ok(())
    }

    /// Overwrites source and destination at `offset`.
    #[inline(always)]
    fn put_tuple<A: Addr>(&self, offset: usize, tuple: &Tuple<A>) -> Result<(), Refused> {
        let addresses = self.at::<[A; 2]>(offset).ok_or(Refused)?;
        // SAFETY: `at` proved the bytes to be in the packet; a tuple begins with its two addresses.
        unsafe { copy_words::<[A; 2]>(addr_of!(*tuple).cast(), addresses.cast()) };
        Ok(())
    }
}
