//! [`Fragments`] over the maps.

use core::cell::Cell;
use core::intrinsics::{self, AtomicOrdering};
use core::ptr::{addr_of, addr_of_mut};

use lb_common::fragment::{Fragments, Note, Parked};
use lb_common::table::{Fate, Fragment, FragmentKey, Tuple};

use super::BPF_NOEXIST;
use super::parts::FamilyTables;
use crate::kernel::{Kernel, parked_max};
use crate::linear::copy_words;
use crate::maps;

/// An element of a table of fragments, as a lookup in this program run found it. If it is recycled meanwhile, it is
/// another datagram's, which is no worse than a lost fragment.
#[derive(Clone, Copy)]
pub struct NoteElement<A>(*mut Fragment<A>);

impl<A: Copy> Note<A> for NoteElement<A> {
    #[inline(always)]
    fn fate(self) -> Fate {
        field!(self, fate)
    }

    #[inline(always)]
    fn since_jiffies(self) -> u64 {
        field!(self, since_jiffies)
    }

    #[inline(always)]
    fn touch(self, now_jiffies: u64) {
        field!(self, since_jiffies = now_jiffies);
    }

    #[inline(always)]
    fn read_to(self, to: &mut Tuple<A>) {
        // SAFETY: as in `field`; both begin with their two addresses.
        unsafe { copy_words::<[A; 2]>(self.0.cast(), addr_of_mut!(*to).cast()) };
    }

    #[inline(always)]
    fn parked(self) -> u32 {
        field!(self, parked)
    }

    #[inline(always)]
    fn swap_parked(self, ticket: u32) -> u32 {
        // SAFETY: as in `field`. Ordered, like every atomic whose result is used: LLVM 22 compiles a relaxed one to
        // another operation.
        unsafe { intrinsics::atomic_xchg::<u32, { AtomicOrdering::AcqRel }>(addr_of_mut!((*self.0).parked), ticket) }
    }
}

impl<A: FamilyTables> Fragments<A> for Kernel {
    type Note = NoteElement<A>;

    #[inline(always)]
    fn note(&self, key: &FragmentKey<A>) -> Option<NoteElement<A>> {
        A::fragments().get_ptr_mut(key).map(NoteElement)
    }

    #[inline(always)]
    fn write_note(&self, key: &FragmentKey<A>, fragment: &Fragment<A>) {
        // If refused, the other fragments of the datagram wait in vain, and the datagram is lost.
        let _ = A::fragments().insert(key, fragment, 0);
    }

    #[inline(always)]
    fn add_note(&self, key: &FragmentKey<A>, fragment: &Fragment<A>) -> bool {
        A::fragments().insert(key, fragment, BPF_NOEXIST).is_ok()
    }

    #[inline(always)]
    fn forget_note(&self, key: &FragmentKey<A>) {
        // Usually no note exists.
        let _ = A::fragments().remove(key);
    }

    #[inline(always)]
    fn next_ticket(&self) -> u32 {
        let Some(tickets) = maps::parked_tickets.get_ptr_mut(0) else { return 0 };
        // SAFETY: array elements live as long as the map; for the ordering see `swap_parked`.
        unsafe { intrinsics::atomic_xadd::<u32, u32, { AtomicOrdering::AcqRel }>(tickets, 1).wrapping_add(1) }
    }

    #[inline(always)]
    fn place(&self, ticket: u32) -> Option<&Parked> {
        let place = u64::from(ticket).checked_rem(parked_max()).unwrap_or(0) as u32;
        // SAFETY: array elements live as long as the map. The bytes are those of a `Parked`, zero at first. Other CPUs
        // write its cells as well: words one at a time, and the bytes by the kernel's own copying. Only the kernel
        // reads the bytes.
        maps::parked.get_ptr(place).map(|place| unsafe { &*place })
    }

    #[inline(always)]
    fn swap(&self, word: &Cell<u32>, value: u32) -> u32 {
        // SAFETY: a word of an array element; for the ordering see `swap_parked`.
        unsafe { intrinsics::atomic_xchg::<u32, { AtomicOrdering::AcqRel }>(word.as_ptr(), value) }
    }

    #[inline(always)]
    fn swap_if(&self, word: &Cell<u32>, expected: u32, value: u32) -> bool {
        // SAFETY: as above.
        unsafe {
            intrinsics::atomic_cxchg::<u32, { AtomicOrdering::AcqRel }, { AtomicOrdering::Acquire }>(
                word.as_ptr(),
                expected,
                value,
            )
            .1
        }
    }
}
