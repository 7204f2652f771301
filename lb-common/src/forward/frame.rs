//! Frames for other MACs: a packet that the node's stack would not get is not treated as one for the node.
//!
//! A bridge hands frames for its own MAC to the node, whichever port they came in by. Frames between two of its ports
//! pass the programs as well, and matter only if they may have the tuple of a flow.

use super::run::{Maps, Path, Whose};
use crate::addr::Addr;
use crate::table::DIRECT;
use crate::work::Work;

/// The owner of the packet's frame.
#[inline(always)]
pub(crate) fn whose<A: Addr, K: Maps<A>>(kernel: &K, work: &Work<A>) -> Whose {
    if work.stray == 0 { Whose::Node } else { kernel.whose_frame() }
}

/// Whether a flow of this frontend may take the packet. A frontend's flow takes frames for the node; a direct flow
/// takes frames for neighbours as well.
#[inline(always)]
pub(crate) fn is_heard<A: Addr, K: Maps<A>>(frontend: u32, kernel: &K, work: &Work<A>) -> bool {
    match whose(kernel, work) {
        Whose::Node => true,
        Whose::Neighbour => frontend == DIRECT,
        Whose::Stranger => false,
    }
}

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Whether the frame is for the node.
    #[inline(always)]
    pub(super) fn is_for_node(&self) -> bool {
        whose(self.kernel, self.work) == Whose::Node
    }

    /// Whether a flow of this frontend may take the packet.
    #[inline(always)]
    pub(super) fn is_heard(&self, frontend: u32) -> bool {
        is_heard(frontend, self.kernel, self.work)
    }
}
