//! What the [straight way](crate::straight) asks of the kernel. The program of a driver offers no more than this.

use super::services::Services;
use crate::addr::Addr;
use crate::packet::Packet;
use crate::parse::TcpFlags;
use crate::sequence::Sequence;
use crate::table::{EdgeState, FlowKey, FlowState, Role, Tuple};

/// A flow entry in its table, read field by field and changed in place. A copy costs stack; replacing an element would
/// allocate one and may evict another.
pub trait FlowRef<A>: Copy {
    /// Copies [`Flow::to`].
    fn read_to(self, to: &mut Tuple<A>);
    /// [`Flow::to`], for code that has room for it.
    fn to(self) -> Tuple<A>;
    fn frontend(self) -> u32;
    fn pool(self) -> u32;
    fn state(self) -> FlowState;
    fn last_seen_jiffies(self) -> u64;
    fn touch(self, now_jiffies: u64);
    fn set_state(self, state: FlowState);
    /// [`Flow::sequence`].
    fn sequence(self) -> Sequence;
    fn set_sequence(self, sequence: Sequence);
    fn set_pool(self, pool: u32);
    /// [`Flow::has_header`].
    fn has_header(self) -> bool;
    fn set_header(self, is_due: bool);
}

/// The tables as packets of known flows use them.
pub trait Known<A: Addr>: Services<A> {
    type Flow: FlowRef<A>;

    /// Whether all packets with a new tuple are handed over, not only those in transit.
    const HANDS_ALL_OVER: bool = false;

    /// What the flows of this edge have in common.
    fn edge_state(&self, edge: u32) -> EdgeState;
    fn flow(&self, key: &FlowKey<A>) -> Option<Self::Flow>;
    /// Whether the address may have this role for any Service. Addresses with the same
    /// [`AddressBit`](crate::table::AddressBit) get the same answer.
    fn may_be_ours(&self, addr: &A, role: Role) -> bool;
    /// Whether the packet may be forwarded to another node from here: `--forwarding`, and the packet has no VLAN tag, so
    /// that no interface of its own will see it.
    fn may_forward(&self) -> bool;
    /// Whether a packet that leaves by an uplink was forwarded by [`Run::forward`](crate::run::Run::forward).
    fn is_forwarded(&self) -> bool;

    /// Leaves a packet without options and extension headers to what completes it: in transit
    /// [`Run::forward`](crate::run::Run::forward). False, without any effect, if nothing here can complete it.
    fn hand_over(&self, packet: &impl Packet, key: &FlowKey<A>, to: &Tuple<A>, course: HandOver) -> bool;

    /// Lets a packet that has no records yet change the state of its flow, or note that the flow is in use. `entry` is the
    /// flow's, and gives the packet the tuple `to`. False if the flow is gone, or if this cannot be done here.
    fn settle(&self, key: &FlowKey<A>, entry: Self::Flow, to: &Tuple<A>, tcp: TcpFlags) -> bool;
}

/// A packet that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Offset of its transport header.
    pub l4: usize,
    /// Whether it is between the network and an endpoint of another node.
    pub is_transit: bool,
}
