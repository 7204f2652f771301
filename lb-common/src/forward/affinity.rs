//! Session affinity: a client returns to the backend that it used last (SA-01 to SA-06).

use super::run::{Env, Path, Tables};
use crate::addr::Addr;
use crate::table::Scope;
use crate::work::Pin;

impl<A: Addr, T: Tables<A>, E: Env> Path<'_, A, T, E> {
    /// Finds the backend that the client used last. It is used again if the affinity timeout has not passed and the
    /// scope's set contains it.
    #[inline(always)]
    pub(super) fn recall(&mut self, frontend: u32, scope: Scope) {
        let (tables, work) = (self.tables, &mut *self.work);
        let service_port = tables.service_port(frontend);
        work.affinity_key.service_port = service_port;
        work.affinity_key.client = work.key.tuple.src;
        // A division that could panic would not load.
        let now_secs = self.env.now_jiffies().checked_div(self.env.second_jiffies()).unwrap_or(0) as u32;
        if tables.read_affinity(&work.affinity_key, &mut work.affinity) {
            work.member_key.service_port = service_port;
            work.member_key.addr = work.affinity.addr;
            work.member_key.port = work.affinity.port;
            work.member_key.pad = 0;
            // 0 if another CPU's clock is ahead.
            let idle_secs = now_secs.saturating_sub(work.affinity.last_seen_secs);
            let is_fresh = idle_secs < tables.affinity_secs(frontend);
            if is_fresh && tables.member_sets(&work.member_key) & scope.set() != 0 {
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
        self.tables.write_affinity(&work.affinity_key, &work.affinity);
    }
}
