//! The records that a decision is made in. They hold nothing between two packets.

use crate::addr::{Addr, Proto};
use crate::parse::TcpFlags;
use crate::table::{
    Affinity, AffinityKey, Counter, DIRECT, Direction, EndpointKey, Fate, Flow, FlowKey, FlowState, Fragment,
    FragmentKey, FrontendKey, Heard, MemberKey, SourceRangeKey, Tuple,
};
use crate::verdict::Action;

/// What of a new flow is settled before a tuple is looked for.
pub(crate) struct Pin;

impl Pin {
    pub(crate) const NONE: u32 = 0;
    /// The backend that the client had last.
    pub(crate) const BACKEND: u32 = 1;
    /// The backend of the flow's hash.
    pub(crate) const HASH: u32 = 2;
    /// The source port as well: the backend knows the connection by it.
    pub(crate) const TUPLE: u32 = 3;
}

/// The records that a decision works on: in the kernel they stand in a per-CPU map, for all of a program shares 512
/// bytes of stack.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Work<A> {
    /// The packet's own flow key; parsing fills in the tuple.
    pub key: FlowKey<A>,
    /// What the packet becomes.
    pub(crate) to: Tuple<A>,
    /// The key of the flow's other entry.
    pub(crate) partner_key: FlowKey<A>,
    /// The key of the other entry of a flow that is in the way.
    pub(crate) other_key: FlowKey<A>,
    /// The entry that is being inserted.
    pub(crate) flow: Flow<A>,
    /// The destination as the tables of frontends and endpoints know it.
    pub(crate) frontend_key: FrontendKey<A>,
    pub(crate) endpoint_key: EndpointKey<A>,
    /// The client as the table of source ranges knows it.
    pub(crate) source_key: SourceRangeKey<A>,
    pub(crate) affinity_key: AffinityKey<A>,
    /// The backend that the flow is pinned to: the one that the client had last, and when, or the one of its hash.
    pub(crate) affinity: Affinity<A>,
    pub(crate) member_key: MemberKey<A>,
    /// Whether the frame came in for another MAC than that of its interface: 0 where not.
    pub(crate) stray: u32,
    /// Flows that went for the new one. It stands here as the verifier looks at each number of them by itself elsewhere.
    pub(crate) given_up: u32,
    /// [`Pin`]: whether the flow goes to that backend, whatever chance says.
    pub(crate) pin: u32,
    /// Backends to choose from.
    pub(crate) count: u16,
    /// Why there is no new flow.
    pub(crate) refused: Counter,
    /// The frontend whose flow takes the packet.
    pub(crate) frontend: u32,
    /// Of the packet's headers, for parts of the decision that are functions of their own.
    pub(crate) tcp: TcpFlags,
    /// The datagram that the packet is a fragment of, and what is noted of it.
    pub(crate) fragment_key: FragmentKey<A>,
    pub(crate) fragment: Fragment<A>,
}

impl<A: Addr> Work<A> {
    /// Nothing yet.
    pub fn new() -> Self {
        let addr = A::new_zeroed();
        let tuple = Tuple { src: addr, dst: addr, sport: 0, dport: 0 };
        let key = FlowKey::new(0, Direction::Request, Proto::TCP, tuple);
        let state = FlowState::New;
        let heard = Heard::Nothing;
        let flow = Flow { to: tuple, frontend: 0, pool: 0, state, heard, seq_high: 0, last_seen_jiffies: 0 };
        let frontend_key = FrontendKey { addr, port: 0, proto: Proto::TCP, pad: 0 };
        let endpoint_key = EndpointKey { addr, port: 0, pad: 0 };
        let source_key = SourceRangeKey::of_prefix(0, addr, 0);
        let affinity_key = AffinityKey { service_port: 0, client: addr };
        let affinity = Affinity { addr, port: 0, pad: 0, last_seen_secs: 0 };
        let member_key = MemberKey { service_port: 0, addr, port: 0, pad: 0 };
        let (proto, direction) = (Proto::TCP, Direction::Request);
        let fragment_key = FragmentKey { edge: 0, src: addr, dst: addr, id: 0, proto, direction, pad: 0 };
        let fate = Fate::Dropped;
        let fragment = Fragment { src: addr, dst: addr, fate, pad: [0; 3], parked: 0, since_jiffies: 0 };
        Self {
            key,
            to: tuple,
            partner_key: key,
            other_key: key,
            flow,
            frontend_key,
            endpoint_key,
            source_key,
            affinity_key,
            affinity,
            member_key,
            stray: 0,
            given_up: 0,
            pin: Pin::NONE,
            count: 0,
            refused: Counter::DropFlowTable,
            frontend: DIRECT,
            tcp: TcpFlags::default(),
            fragment_key,
            fragment,
        }
    }

    /// What the hook does with a packet that has its new tuple. One of a flow between a client and an endpoint itself keeps its
    /// destination.
    #[inline(always)]
    pub(crate) fn translated(&self, direction: Direction) -> Action {
        let is_to_backend = matches!(direction, Direction::Request) && self.to.dst != self.key.tuple.dst;
        if is_to_backend { Action::ToBackend } else { Action::Next }
    }

    /// Whether the packet keeps its tuple, as those of most direct connections do.
    #[inline(always)]
    pub(crate) const fn is_untouched(&self, frontend: u32) -> bool {
        let (from, to) = (&self.key.tuple, &self.to);
        frontend == DIRECT && from.sport == to.sport && from.dport == to.dport
    }

    /// The tuple that the packet gets, after a verdict that says so.
    #[inline(always)]
    pub const fn to(&self) -> &Tuple<A> {
        &self.to
    }
}

impl<A: Addr> Default for Work<A> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a request that gets another destination may be sent past the stack: what a client says to an endpoint itself, and
    /// its answers, go as they went before us.
    #[test]
    fn only_requests_to_frontends_go_to_backends() {
        let mut work = Work::<[u8; 4]>::new();
        work.key.tuple = Tuple { src: [10, 0, 0, 9], dst: [192, 0, 2, 1], sport: 4_000, dport: 80 };
        work.to = Tuple { dst: [10, 0, 0, 8], dport: 8_080, ..work.key.tuple };
        assert_eq!(work.translated(Direction::Request), Action::ToBackend);
        assert_eq!(work.translated(Direction::Reply), Action::Next);
        work.to = Tuple { sport: 40_000, ..work.key.tuple };
        assert_eq!(work.translated(Direction::Request), Action::Next);
    }
}
