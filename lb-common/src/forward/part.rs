//! How a [`Part`] runs: what few packets need, in a function that the verifier walks on its own.
//!
//! The verifier walks a normal function once for each way that leads to it, with everything it knows on that way. It
//! walks a global function once, with unknown arguments (`do_check_subprogs()` in kernel/bpf/verifier.c). So a part
//! reads its input from [`Work`] and leaves its results there.

use super::run::{Edge, Maps, Part, Path};
use crate::addr::Addr;
use crate::parse::Transport;
use crate::work::Work;

impl<'a, A: Addr, K: Maps<A>> Path<'a, A, K> {
    /// The path of a packet in the function of a part. The packet's flow key must be complete.
    #[inline(always)]
    pub fn resumed(kernel: &'a K, work: &'a mut Work<A>) -> Self {
        let transport = Transport { proto: work.key.proto, tcp: work.tcp };
        Self { transport, edge: Edge::of(work.key.edge), kernel, work }
    }

    /// Runs the part, here or in a function of its own.
    #[inline(always)]
    pub(crate) fn apart(&mut self, part: Part) -> bool {
        self.work.tcp = self.transport.tcp;
        K::run_apart(self, part)
    }

    /// Runs the part. Each part defines what its answer means.
    #[inline(always)]
    pub fn run(&mut self, part: Part) -> bool {
        match part {
            Part::Place => match self.place_flow() {
                Ok(()) => true,
                Err(reason) => {
                    self.work.refused = reason;
                    false
                }
            },
            Part::RefreshPartner => {
                self.write_partner();
                true
            }
            Part::FollowDirect => self.follow_direct(),
            Part::Settle => self.settle(),
            Part::Refuse => {
                self.refuse();
                true
            }
            Part::DecideHeader => self.decide_header(),
            Part::Tell => {
                self.tell_now();
                true
            }
        }
    }
}
