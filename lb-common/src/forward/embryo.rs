//! Bounds half-open flows, so that a flood of them does not push established flows out of the table.

use super::known::FlowRef;
use super::run::{Maps, Path};
use crate::addr::Addr;
use crate::flow;
use crate::table::Counter;

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Counts a new half-open flow. Without a bound, a flood would make the LRU evict idle connections. If no token is
    /// left, each new flow deletes the oldest one in the ring, provided that it is still half-open. That one has had a
    /// full turn of the ring, many times what an honest client needs.
    #[inline(always)]
    pub(super) fn bound_embryos(&mut self) {
        if !self.kernel.take_embryo() {
            self.evict_oldest_embryo();
        }
        self.kernel.note_embryo(&self.work.key);
    }

    /// Deletes the flow whose note the next one replaces, unless the flow has been established since. Only then is the
    /// old note read: its memory was last used a turn of the ring ago.
    #[inline(never)]
    fn evict_oldest_embryo(&mut self) {
        let work = &mut *self.work;
        if !self.kernel.read_oldest_embryo(&mut work.other_key) {
            return;
        }
        if work.other_key == work.key {
            // The ring noted this tuple for an earlier flow. The new flow has it now and must not be deleted.
            return;
        }
        let Some(entry) = self.kernel.flow(&work.other_key) else { return };
        if !flow::is_dispensable(entry.state()) {
            return;
        }
        // The packet's own tuples are still needed; the entry that was inserted is not.
        self.give_up(entry, Counter::EmbryoEvicted);
    }
}
