//! A flow entry as the packet path changes it in place.

use std::cell::{Cell, RefCell};

use crate::addr::Addr;
use crate::forward::{FlowRef, HeaderRef};
use crate::sequence::Sequence;
use crate::table::{Flow, FlowState, ProxyHeader, Tuple};

/// A flow entry as the path holds it.
pub struct Entry<A: 'static>(pub(super) &'static RefCell<Flow<A>>);

impl<A> Clone for Entry<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Entry<A> {}

impl<A: Addr> FlowRef<A> for Entry<A> {
    fn read_to(self, to: &mut Tuple<A>) {
        *to = self.0.borrow().to;
    }
    fn to(self) -> Tuple<A> {
        self.0.borrow().to
    }
    fn frontend(self) -> u32 {
        self.0.borrow().frontend
    }
    fn pool(self) -> u32 {
        self.0.borrow().pool
    }
    fn state(self) -> FlowState {
        self.0.borrow().state
    }
    fn last_seen_jiffies(self) -> u64 {
        self.0.borrow().last_seen_jiffies
    }
    fn touch(self, now_jiffies: u64) {
        self.0.borrow_mut().last_seen_jiffies = now_jiffies;
    }
    fn set_state(self, state: FlowState) {
        self.0.borrow_mut().state = state;
    }
    fn set_pool(self, pool: u32) {
        self.0.borrow_mut().pool = pool;
    }
    fn sequence(self) -> Sequence {
        self.0.borrow().sequence()
    }
    fn set_sequence(self, sequence: Sequence) {
        self.0.borrow_mut().set_sequence(sequence);
    }
    fn has_header(self) -> bool {
        self.0.borrow().has_header()
    }
    fn set_header(self, is_due: bool) {
        self.0.borrow_mut().set_header(is_due);
    }
}

/// A row of the headers as the path holds it.
#[derive(Clone, Copy)]
pub struct HeaderRow(pub(super) &'static Cell<ProxyHeader>);

impl HeaderRef for HeaderRow {
    fn read(self) -> ProxyHeader {
        self.0.get()
    }
    fn write_request(self, row: &ProxyHeader) {
        self.0.set(*row);
    }
    fn write_reply(self, row: &ProxyHeader) {
        self.0.set(*row);
    }
}
