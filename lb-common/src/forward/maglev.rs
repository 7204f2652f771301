//! Flows whose backend is not random: affinity or a hash pins them, when they are new and when they are repaired.

use super::run::{Maps, Path};
use crate::addr::Addr;
use crate::flow;
use crate::parse::TcpFlags;
use crate::selection::{self, Spread};
use crate::table::{Action, Counter, FlowKey, PoolKey, Scope, ScopeFlags};
use crate::verdict::Verdict;
use crate::work::{HeaderWish, Pin, Work};

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Pins a flow to the backend that its client used last, else (Maglev) to the backend of its hash. False if the
    /// slot is empty.
    #[inline(never)]
    pub(super) fn pin(&mut self, frontend: u32, scope: Scope) -> bool {
        let mut spread = Spread::Connections;
        if scope.has(ScopeFlags::AFFINITY) {
            self.recall(frontend, scope);
            spread = Spread::Clients;
        }
        let work = &mut *self.work;
        if work.pin != Pin::Nothing || !scope.has(ScopeFlags::MAGLEV) {
            return true;
        }
        let hash = selection::flow_hash(&work.key.tuple, self.transport.proto, spread);
        let key = PoolKey { pool: scope.pool, slot: selection::slot(hash, scope.count) };
        let Some(port) = self.kernel.read_backend(&key, &mut work.affinity.addr) else { return false };
        work.affinity.port = port;
        work.pin = Pin::Hash;
        true
    }

    /// Decides a segment in mid-flow that belongs to no known flow.
    #[inline(always)]
    pub(super) fn unknown_segment(&mut self) -> Verdict {
        let may_repair = self.kernel.repairs_evicted_flows() && !self.transport.tcp.has(TcpFlags::SYN | TcpFlags::RST);
        if may_repair { self.repair() } else { Verdict::Pass }
    }

    /// Recreates the flow of a connection if it may have been evicted: flows were evicted lately, and edge and
    /// frontend have been in place for longer than a connection may be quiet. The new flow is half-open like any
    /// other, so that a flood of segments gets no more of the table than a flood of SYNs. The first answer of a
    /// backend that knows the connection establishes the flow.
    #[inline(never)]
    fn repair(&mut self) -> Verdict {
        let kernel = self.kernel;
        if !self.is_for_node() {
            return Verdict::Pass;
        }
        let now_jiffies = self.kernel.now_jiffies();
        if now_jiffies >= kernel.evictions_until_jiffies() || !self.is_old(kernel.attached_jiffies(self.edge.id)) {
            return Verdict::Pass;
        }
        let Work { key: FlowKey { tuple, .. }, frontend_key, .. } = &mut *self.work;
        (frontend_key.addr, frontend_key.port) = (tuple.dst, tuple.dport);
        (frontend_key.proto, frontend_key.pad) = (self.transport.proto, 0);
        let Some(frontend) = kernel.frontend(frontend_key) else { return Verdict::Pass };
        let scope = kernel.scope(frontend, self.edge.client);
        let chooses_alike = matches!(scope.action, Action::Balance) && scope.has(ScopeFlags::MAGLEV);
        // Whether the backend has its header is lost with the flow.
        let has_header = HeaderWish::of_new(scope) != HeaderWish::NOTHING;
        if !chooses_alike || has_header || !self.is_old(kernel.balanced_jiffies(frontend)) {
            return Verdict::Pass;
        }
        if scope.has(ScopeFlags::SOURCE_RANGES) && !self.is_source_allowed(frontend) {
            return Verdict::Pass;
        }
        self.work.pin = Pin::Nothing;
        if !self.pin(frontend, scope) {
            return Verdict::Pass;
        }
        (self.work.pin, self.work.masquerades) = (Pin::Tuple, u32::from(scope.has(ScopeFlags::MASQUERADE)));
        // If another flow has the tuple by now, the connection was translated differently, and its translation is
        // lost.
        if self.place(frontend, scope.pool, scope.count).is_err() {
            return Verdict::Pass;
        }
        kernel.count(Counter::FlowRepaired);
        self.tell(Counter::FlowRepaired, frontend);
        self.translated(frontend)
    }

    /// Whether something has lasted for longer than a connection may be quiet. False if its start is unknown (0).
    #[inline(always)]
    fn is_old(&self, since_jiffies: u64) -> bool {
        let age_jiffies = flow::quiet_jiffies(since_jiffies, self.kernel.now_jiffies());
        since_jiffies != 0 && age_jiffies > self.kernel.timeouts().tcp_established_jiffies
    }
}
