//! Half-open flows: so few that a flood of them does not push open connections out of the table.

use super::run::{Env, FlowRef, Path, Tables};
use crate::addr::Addr;
use crate::flow;
use crate::table::Counter;

impl<A: Addr, T: Tables<A>, E: Env> Path<'_, A, T, E> {
    /// Keeps the half-open flows few, so that a flood of them does not push open connections out of the table, whose LRU
    /// takes an idle connection for a useless one. While there are more than there may be, each new flow deletes the
    /// oldest one that is noted, if that is still half open: it has had as long as the ring has places, which is many
    /// times what an honest client takes.
    #[inline(always)]
    pub(super) fn bound_embryos(&mut self) {
        let has_token = self.tables.take_embryo();
        let work = &mut *self.work;
        let has_oldest = self.tables.note_embryo(&work.key, &mut work.other_key);
        if has_oldest && !has_token {
            self.evict_embryo();
        }
    }

    /// Deletes the flow whose request entry `work.other_key` names, unless it has opened since.
    #[inline(never)]
    fn evict_embryo(&mut self) {
        let work = &mut *self.work;
        if work.other_key == work.key {
            // The tuple was noted for an earlier flow, and is now the new one's: that one has had no time at all.
            return;
        }
        let Some(entry) = self.tables.flow(&work.other_key) else { return };
        if !flow::is_dispensable(entry.state()) {
            return;
        }
        // The packet's own tuples are needed still; the entry that was inserted is not.
        entry.read_to(&mut work.flow.to);
        work.partner_key.set_partner(&work.other_key, &work.flow.to);
        self.tables.remove_flow(&work.other_key);
        self.tables.count(Counter::EmbryoEvicted);
        let Some(partner) = self.tables.flow(&work.partner_key) else { return };
        partner.read_to(&mut work.flow.to);
        if work.flow.to.is_reversed(&work.other_key.tuple) {
            self.tables.remove_flow(&work.partner_key);
        }
    }
}
