//! An edge that has used its share of the flow table gives up its own spent flows for new ones.

use super::known::FlowRef;
use super::run::{Maps, Path};
use crate::addr::{Addr, Proto};
use crate::flow;
use crate::share::{Occupancy, Room, UNBOUNDED_PERCENT, WALK_SECS, percent_of_edge};
use crate::table::{Counter, FlowState};

/// Notes that are examined for one new flow.
const SPENT_TRIES: u32 = 4;
/// Spent flows that are deleted for one new flow.
const SPENT_FLOWS: u32 = 2;

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Whether the packet's edge may have a new flow.
    #[inline(always)]
    pub(super) fn may_have_flow(&mut self) -> bool {
        let percent = self.kernel.pod_flows_percent();
        if percent >= UNBOUNDED_PERCENT {
            return true;
        }
        let percent = percent_of_edge(self.edge.id, percent);
        let occupancy: Occupancy = self.kernel.occupancy(self.edge.id);
        let room = occupancy.room(self.kernel.flow_entries_usable(), percent);
        // Starts before the share is used up: a note may name a flow that is already gone, and a try may find only
        // such notes.
        room == Room::Plenty || self.gives_up_flows() || room == Room::Little || !self.is_looked_after()
    }

    /// Deletes up to two spent flows of this edge: ended connections and answered datagrams. Two, so that there is
    /// more room than before. Whether any was deleted.
    #[inline(never)]
    fn gives_up_flows(&mut self) -> bool {
        self.work.given_up = 0;
        for _ in 0..SPENT_TRIES {
            if self.work.given_up == SPENT_FLOWS || !self.kernel.take_spent(self.edge.id, &mut self.work.other_key) {
                break;
            }
            let is_deleted = self.is_spent_flow_deleted();
            self.work.given_up += u32::from(is_deleted);
        }
        self.work.given_up > 0
    }

    /// Whether the agent still walks over the flows and cuts edges that have too many.
    #[inline(always)]
    fn is_looked_after(&self) -> bool {
        let walked_ago = flow::quiet_jiffies(self.kernel.walked_jiffies(), self.kernel.now_jiffies());
        walked_ago <= WALK_SECS * self.kernel.second_jiffies()
    }

    #[inline(never)]
    fn is_spent_flow_deleted(&mut self) -> bool {
        let (kernel, work) = (self.kernel, &mut *self.work);
        if work.other_key.edge != self.edge.id {
            return false;
        }
        let Some(entry) = kernel.flow(&work.other_key) else { return false };
        if work.other_key.proto == Proto::TCP && !entry.state().has_ended() {
            return false;
        }
        self.give_up(entry, Counter::EdgeFlowEvicted);
        true
    }

    /// Notes the packet's flow if this packet made it spent.
    #[inline(always)]
    pub(super) fn note_spent(&self, before: FlowState, after: FlowState) {
        let is_answered = self.transport.proto != Proto::TCP && flow::is_proved(before, after);
        if is_answered || (after.has_ended() && !before.has_ended()) {
            self.kernel.note_spent(&self.work.key);
        }
    }
}
