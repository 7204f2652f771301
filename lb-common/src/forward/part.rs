//! How a [`Part`] is run: of what few packets need, each a function that the verifier walks by itself.
//!
//! It walks a usual function once more for every way that leads to it, with all that it knows on that way; a global one
//! only once, with arguments of which it knows nothing (`do_check_subprogs()` in kernel/bpf/verifier.c). So all that a part
//! needs stands in [`Work`], and so does what it leaves.

use super::run::{Client, Edge, Env, Part, Path, Tables};
use crate::addr::Addr;
use crate::parse::Transport;
use crate::table::EDGE_UPLINK;
use crate::work::Work;

impl<'a, A: Addr, T: Tables<A>, E: Env> Path<'a, A, T, E> {
    /// The path of a packet whose flow key is complete, in the function of a part.
    #[inline(always)]
    pub fn resumed(tables: &'a T, env: &'a E, work: &'a mut Work<A>) -> Self {
        let id = work.key.edge;
        let client = if id == EDGE_UPLINK { Client::External } else { Client::Workload };
        let transport = Transport { proto: work.key.proto, tcp: work.tcp };
        Self { transport, edge: Edge { id, client }, tables, env, work }
    }

    /// Has the part done, here or in a function of its own.
    #[inline(always)]
    pub(super) fn apart(&mut self, part: Part) -> bool {
        self.work.tcp = self.transport.tcp;
        T::run_apart(self, part)
    }

    /// Does the part. What the answer says is the part's.
    #[inline(always)]
    pub fn run(&mut self, part: Part) -> bool {
        match part {
            Part::Place => match self.place_flow() {
                None => true,
                Some(reason) => {
                    self.work.refused = reason;
                    false
                }
            },
            Part::RefreshPartner => {
                self.write_partner();
                true
            }
            Part::FollowDirect => self.follow_direct(),
        }
    }
}
