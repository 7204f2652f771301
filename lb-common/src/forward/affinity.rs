//! Session affinity: the backend that a client had last (SA-01 to SA-06).

use super::run::{Env, Path, Tables};
use crate::addr::Addr;
use crate::table::Scope;
use crate::work::Pin;

impl<A: Addr, T: Tables<A>, E: Env> Path<'_, A, T, E> {
    /// Finds the backend that the client had last. It counts while it has not been left for the time-out and is one of
    /// those that this scope chooses from.
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
            // None where another CPU's clock is ahead.
            let idle_secs = now_secs.saturating_sub(work.affinity.last_seen_secs);
            let is_fresh = idle_secs < tables.affinity_secs(frontend);
            if is_fresh && tables.member_sets(&work.member_key) & scope.set() != 0 {
                work.pin = Pin::BACKEND;
            }
        }
        work.affinity.last_seen_secs = now_secs;
    }

    /// Notes the backend that the client got, for its next connection.
    #[inline(never)]
    pub(super) fn remember(&mut self) {
        let work = &mut *self.work;
        // Of SCTP with another target port the backend is not known again: its port is not in the packet.
        (work.affinity.addr, work.affinity.port, work.affinity.pad) = (work.to.dst, work.to.dport, 0);
        self.tables.write_affinity(&work.affinity_key, &work.affinity);
    }
}
