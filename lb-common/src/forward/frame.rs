//! Frames for others: what the node's stack would not get is not taken for a packet to it.
//!
//! A bridge hands frames for its own MAC to the node, whatever the MAC of the port is that they came in by; what two of
//! its ports say to each other passes the programs as well, and is of interest only where it may have the tuple of a flow.

use super::run::{Env, Path, Tables, Whose};
use crate::addr::Addr;
use crate::table::DIRECT;
use crate::work::Work;

/// Whose frame the packet came in by.
#[inline(always)]
pub(crate) fn whose<A: Addr, T: Tables<A>>(tables: &T, work: &Work<A>) -> Whose {
    if work.stray == 0 { Whose::Node } else { tables.whose_frame() }
}

/// Whether a flow may take the packet: that of a frontend what is for the node, a direct one what is for a neighbour as
/// well.
#[inline(always)]
pub(crate) fn is_heard<A: Addr, T: Tables<A>>(frontend: u32, tables: &T, work: &Work<A>) -> bool {
    match whose(tables, work) {
        Whose::Node => true,
        Whose::Neighbour => frontend == DIRECT,
        Whose::Stranger => false,
    }
}

impl<A: Addr, T: Tables<A>, E: Env> Path<'_, A, T, E> {
    /// Whether the frame is for the node.
    #[inline(always)]
    pub(super) fn is_for_node(&self) -> bool {
        whose(self.tables, self.work) == Whose::Node
    }

    /// Whether a flow may take the packet.
    #[inline(always)]
    pub(super) fn is_heard(&self, frontend: u32) -> bool {
        is_heard(frontend, self.tables, self.work)
    }
}
