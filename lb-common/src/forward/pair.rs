//! The two entries of a flow. The table may evict one alone, and its tuple may then go to another flow. So what changes
//! or deletes both first proves that the other one is of the same flow.

use super::known::{FlowRef, Known};
use super::run::{Maps, Path};
use crate::addr::Addr;
use crate::flow;
use crate::parse::TcpFlags;
use crate::table::{Counter, FlowKey, Tuple};
use crate::work::Work;

/// The other entry of a flow.
pub(crate) enum Partner<F> {
    Own(F),
    /// Another flow has its tuple.
    Another,
    /// Evicted.
    Lost,
}

impl<F> Partner<F> {
    /// Looks up the other entry of the flow with this key. Overwrites `scratch`.
    #[inline(always)]
    pub(crate) fn find<A: Addr, K: Known<A, Flow = F>>(
        kernel: &K,
        key: &FlowKey<A>,
        partner_key: &FlowKey<A>,
        scratch: &mut Tuple<A>,
    ) -> Self
    where
        F: FlowRef<A>,
    {
        let Some(partner) = kernel.flow(partner_key) else { return Self::Lost };
        partner.read_to(scratch);
        if scratch.is_reversed(&key.tuple) { Self::Own(partner) } else { Self::Another }
    }

    /// Looks up the other entry of the packet's flow, which turns its packets into [`Work::to`]. Sets
    /// [`Work::partner_key`] to its key and overwrites the tuple of [`Work::flow`].
    #[inline(always)]
    pub(crate) fn of_packet<A: Addr, K: Known<A, Flow = F>>(kernel: &K, work: &mut Work<A>) -> Self
    where
        F: FlowRef<A>,
    {
        work.partner_key.set_partner(&work.key, &work.to);
        Self::find(kernel, &work.key, &work.partner_key, &mut work.flow.to)
    }

    /// Removes both entries of the packet's flow, which turns its packets into [`Work::to`].
    #[inline(always)]
    pub(crate) fn forget_both<A: Addr, K: Maps<A, Flow = F>>(kernel: &K, work: &mut Work<A>)
    where
        F: FlowRef<A>,
    {
        if Self::of_packet(kernel, work).is_own() {
            kernel.remove_flow(&work.partner_key);
        }
        kernel.remove_flow(&work.key);
    }

    /// Whether the other entry exists and is of the same flow.
    #[inline(always)]
    pub(crate) const fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// Notes in both entries of a flow that the flow is in use, for a packet that changes no state: `entry` is the one of the
/// packet's key. False, without any effect, if the packet may change the state, or if the other entry was evicted.
#[inline(always)]
pub fn keep<A: Addr, K: Known<A>>(kernel: &K, work: &mut Work<A>, entry: K::Flow, tcp: TcpFlags) -> bool {
    let (state, noted) = (entry.state(), entry.sequence());
    if !flow::is_steady(state, tcp) {
        return false;
    }
    let Partner::Own(partner) = Partner::of_packet(kernel, work) else { return false };
    let now_jiffies = kernel.now_jiffies();
    entry.touch(now_jiffies);
    partner.touch(now_jiffies);
    partner.set_state(state);
    if tcp.sequence() != noted && flow::is_noted(state, tcp, noted) {
        entry.set_sequence(tcp.sequence());
    }
    true
}

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Deletes both entries of a flow that is not the packet's, whose key is [`Work::other_key`], and counts it.
    #[inline(always)]
    pub(super) fn give_up(&mut self, entry: K::Flow, counter: Counter) {
        let (kernel, work) = (self.kernel, &mut *self.work);
        entry.read_to(&mut work.flow.to);
        work.partner_key.set_partner(&work.other_key, &work.flow.to);
        kernel.remove_flow(&work.other_key);
        kernel.count(counter);
        if Partner::find(kernel, &work.other_key, &work.partner_key, &mut work.flow.to).is_own() {
            kernel.remove_flow(&work.partner_key);
        }
    }
}
