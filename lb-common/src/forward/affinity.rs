//! Session affinity: a client returns to the backend that it used last (SA-01 to SA-06).

use super::run::{Maps, Path};
use crate::addr::Addr;
use crate::table::Scope;
use crate::work::Pin;

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Finds the backend that the client used last. It is used again if the affinity timeout has not passed and the
    /// scope's set contains it.
    #[inline(always)]
    pub(super) fn recall(&mut self, frontend: u32, scope: Scope) {
        let (kernel, work) = (self.kernel, &mut *self.work);
        let service_port = kernel.service_port(frontend);
        work.affinity_key.service_port = service_port;
        work.affinity_key.client = work.key.tuple.src;
        // A division that could panic would not load.
        let now_secs = self.kernel.now_jiffies().checked_div(self.kernel.second_jiffies()).unwrap_or(0) as u32;
        if kernel.read_affinity(&work.affinity_key, &mut work.affinity) {
            work.member_key.service_port = service_port;
            work.member_key.addr = work.affinity.addr;
            work.member_key.port = work.affinity.port;
            work.member_key.pad = 0;
            // 0 if another CPU's clock is ahead.
            let idle_secs = now_secs.saturating_sub(work.affinity.last_seen_secs);
            let is_fresh = idle_secs < kernel.affinity_secs(frontend);
            if is_fresh && kernel.member_sets(&work.member_key) & scope.set() != 0 {
                work.pin = Pin::LastBackend;
            }
        }
        work.affinity.last_seen_secs = now_secs;
    }

    /// Notes the client's backend for its next connection.
    #[inline(never)]
    pub(super) fn remember(&mut self) {
        let work = &mut *self.work;
        // SCTP packets keep their port. If the backend's port differs, the note matches no member and has no effect.
        (work.affinity.addr, work.affinity.port, work.affinity.pad) = (work.to.dst, work.to.dport, 0);
        self.kernel.write_affinity(&work.affinity_key, &work.affinity);
    }
}
