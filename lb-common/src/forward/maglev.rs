//! Flows that chance does not decide: pinned to the backend of their hash, when they are new and after they were evicted.

use super::run::{Env, Path, Tables};
use crate::addr::Addr;
use crate::flow;
use crate::parse::TcpFlags;
use crate::selection::{self, Spread};
use crate::table::{Action, Counter, FlowKey, PoolKey, Scope, ScopeFlags};
use crate::verdict::Verdict;
use crate::work::{Pin, Work};

impl<A: Addr, T: Tables<A>, E: Env> Path<'_, A, T, E> {
    /// Pins a flow that chance shall not decide to its backend: the one that the client had last, else the one of the
    /// flow's hash. False where the slot is empty.
    #[inline(never)]
    pub(super) fn pin(&mut self, frontend: u32, scope: Scope) -> bool {
        let mut spread = Spread::Connections;
        if scope.has(ScopeFlags::AFFINITY) {
            self.recall(frontend, scope);
            spread = Spread::Clients;
        }
        let work = &mut *self.work;
        if work.pin != Pin::NONE || !scope.has(ScopeFlags::MAGLEV) {
            return true;
        }
        let hash = selection::flow_hash(&work.key.tuple, self.transport.proto, spread);
        let key = PoolKey { pool: scope.pool, slot: selection::slot(hash, scope.count) };
        let Some(port) = self.tables.read_backend(&key, &mut work.affinity.addr) else { return false };
        work.affinity.port = port;
        work.pin = Pin::HASH;
        true
    }

    /// A segment in mid-flow that belongs to no known flow.
    #[inline(always)]
    pub(super) fn unknown_segment(&mut self) -> Verdict {
        let may_repair = self.env.repairs_evicted_flows() && !self.transport.tcp.has(TcpFlags::SYN | TcpFlags::RST);
        if may_repair { self.repair() } else { Verdict::Pass }
    }

    /// Gives a connection the flow that it had, if it may have had one: flows have been evicted, and edge and frontend are
    /// older than any connection that has been quiet since before them. The flow begins half open, as any other: a flood of
    /// segments gets no more of the table than one of SYNs, and the first answer of a backend that knows the connection
    /// opens it.
    #[inline(never)]
    fn repair(&mut self) -> Verdict {
        let tables = self.tables;
        if !self.is_for_node() {
            return Verdict::Pass;
        }
        let now_jiffies = self.env.now_jiffies();
        if now_jiffies >= tables.evictions_until_jiffies() || !self.is_old(tables.attached_jiffies(self.edge.id)) {
            return Verdict::Pass;
        }
        let Work { key: FlowKey { tuple, .. }, frontend_key, .. } = &mut *self.work;
        (frontend_key.addr, frontend_key.port) = (tuple.dst, tuple.dport);
        (frontend_key.proto, frontend_key.pad) = (self.transport.proto, 0);
        let Some(frontend) = tables.frontend(frontend_key) else { return Verdict::Pass };
        let scope = tables.scope(frontend, self.edge.client);
        let chooses_alike = matches!(scope.action, Action::Balance) && scope.has(ScopeFlags::MAGLEV);
        if !chooses_alike || !self.is_old(tables.balanced_jiffies(frontend)) {
            return Verdict::Pass;
        }
        if scope.has(ScopeFlags::SOURCE_RANGES) && !self.is_source_allowed(frontend) {
            return Verdict::Pass;
        }
        self.work.pin = Pin::NONE;
        if !self.pin(frontend, scope) {
            return Verdict::Pass;
        }
        self.work.pin = Pin::TUPLE;
        // Where the tuple is another flow's by now, the connection was translated differently, and nobody knows how.
        if self.place(frontend, scope.pool, scope.count).is_some() {
            return Verdict::Pass;
        }
        tables.count(Counter::FlowRepaired);
        self.translated(frontend)
    }

    /// Whether something has been so for longer than a connection may be quiet.
    #[inline(always)]
    fn is_old(&self, since_jiffies: u64) -> bool {
        let age_jiffies = flow::quiet_jiffies(since_jiffies, self.env.now_jiffies());
        since_jiffies != 0 && age_jiffies > self.env.timeouts().tcp_established_jiffies
    }
}
