//! Drops with an address: by frontend, interface and reason. And the events for `lb-agent monitor`.

use super::run::{FlowRef as _, Maps, Part, Path, Sighting};
use crate::addr::Addr;
use crate::table::{Counter, DropKey};

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Notes that the packet is refused, rejected or dropped, for this reason. Its flow key must be complete.
    #[inline(always)]
    pub(crate) fn note_refused(&mut self, reason: Counter) {
        self.work.reason = reason;
        self.apart(Part::Refuse);
    }

    /// Tells who listens what became of a packet of this frontend. Nothing is left of it if the programs were loaded
    /// while nothing listened.
    #[inline(always)]
    pub(super) fn tell(&mut self, reason: Counter, frontend: u32) {
        if self.kernel.monitors() {
            (self.work.reason, self.work.frontend) = (reason, frontend);
            self.apart(Part::Tell);
        }
    }

    /// Does [`Self::note_refused`].
    #[inline(always)]
    pub(super) fn refuse(&mut self) {
        let frontend = self.frontend_of_packet();
        let (kernel, work) = (self.kernel, &mut *self.work);
        kernel.note_drop(work.reason, &work.key);
        kernel.count_drop(&DropKey { frontend, edge: work.key.edge, reason: work.reason as u32 });
        work.frontend = frontend;
        if kernel.monitors() {
            self.tell_now();
        }
    }

    /// Does [`Self::tell`].
    #[inline(always)]
    pub(super) fn tell_now(&self) {
        let (kernel, work) = (self.kernel, &*self.work);
        let has_backend = matches!(work.reason, Counter::FlowCreated | Counter::FlowRepaired);
        let backend = if has_backend { Some((&work.to.dst, work.to.dport)) } else { None };
        kernel.tell(&Sighting {
            reason: work.reason,
            frontend: work.frontend,
            edge: work.key.edge,
            proto: work.key.proto,
            tuple: &work.key.tuple,
            backend,
        });
    }

    /// The frontend of the packet's flow, or the one that the packet is for.
    #[inline(always)]
    fn frontend_of_packet(&mut self) -> u32 {
        let (kernel, work) = (self.kernel, &mut *self.work);
        if let Some(entry) = kernel.flow(&work.key) {
            return entry.frontend();
        }
        (work.frontend_key.addr, work.frontend_key.port) = (work.key.tuple.dst, work.key.tuple.dport);
        (work.frontend_key.proto, work.frontend_key.pad) = (work.key.proto, 0);
        kernel.frontend(&work.frontend_key).unwrap_or(0)
    }
}
