//! The tables as fragments use them, over ordinary maps.

use std::cell::{Cell, RefCell};

use super::{Host, HostFamily};
use crate::addr::Addr;
use crate::fragment::{Fragments, Note, Parked};
use crate::table::{Fate, Fragment, FragmentKey, Tuple};

/// A note as the path holds it.
pub struct HostNote<A: 'static>(&'static RefCell<Fragment<A>>);

impl<A> Clone for HostNote<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for HostNote<A> {}

impl<A: Addr> Note<A> for HostNote<A> {
    fn fate(self) -> Fate {
        self.0.borrow().fate
    }
    fn since_jiffies(self) -> u64 {
        self.0.borrow().since_jiffies
    }
    fn touch(self, now_jiffies: u64) {
        self.0.borrow_mut().since_jiffies = now_jiffies;
    }
    fn read_to(self, to: &mut Tuple<A>) {
        (to.src, to.dst) = (self.0.borrow().src, self.0.borrow().dst);
    }
    fn parked(self) -> u32 {
        self.0.borrow().parked
    }
    fn swap_parked(self, ticket: u32) -> u32 {
        std::mem::replace(&mut self.0.borrow_mut().parked, ticket)
    }
}

impl<A: HostFamily> Fragments<A> for Host {
    type Note = HostNote<A>;

    fn note(&self, key: &FragmentKey<A>) -> Option<HostNote<A>> {
        A::state(self).fragments.borrow().get(key).map(|note| HostNote(note))
    }
    fn write_note(&self, key: &FragmentKey<A>, fragment: &Fragment<A>) {
        A::state(self).fragments.borrow_mut().insert(*key, Box::leak(Box::new(RefCell::new(*fragment))));
    }
    fn add_note(&self, key: &FragmentKey<A>, fragment: &Fragment<A>) -> bool {
        let is_new = self.note(key).is_none();
        if is_new {
            self.write_note(key, fragment);
        }
        is_new
    }
    fn forget_note(&self, key: &FragmentKey<A>) {
        A::state(self).fragments.borrow_mut().remove(key);
    }
    fn next_ticket(&self) -> u32 {
        self.tickets.set(self.tickets.get() + 1);
        self.tickets.get()
    }
    fn place(&self, ticket: u32) -> Option<&Parked> {
        self.parked.get(ticket as usize % self.parked.len())
    }
    fn swap(&self, word: &Cell<u32>, value: u32) -> u32 {
        word.replace(value)
    }
    fn swap_if(&self, word: &Cell<u32>, expected: u32, value: u32) -> bool {
        let is_it = word.get() == expected;
        if is_it {
            word.set(value);
        }
        is_it
    }
}
