//! The outcome of a decision ([`Verdict`]), and what the program returns to the kernel ([`HookAction`]).

use crate::addr::Addr;
#[cfg(doc)]
use crate::table::Port;
use crate::table::{Counter, Direction, Tuple};

/// The decision about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours, or deliberately left alone: the next program or the stack gets the packet.
    Pass,
    /// Give the packet the tuple [`Work::to`](crate::forward::Work::to).
    Translate,
    /// The same, and send it back out of the interface that it came in by: a pod reaches itself.
    Hairpin,
    /// The same, and send it out by an uplink: the endpoint is on another node, or answers from there.
    Forward,
    /// Answer ICMP port unreachable.
    Reject,
    /// Drop the packet silently and count the reason.
    Drop(DropReason),
}

/// How a translated packet continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Course {
    /// To the stack, after [`Verdict::Translate`].
    Stack = 0,
    /// Back, after [`Verdict::Hairpin`].
    Back = 1,
    /// On to another machine, after [`Verdict::Forward`].
    On = 2,
}

/// Why a decision drops a packet. Each reason has a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// No source range of the frontend contains the client.
    SourceRange,
    /// Policy Local, and no endpoint on this node.
    NoLocalEndpoint,
    /// The slot of the pool is empty.
    NoBackend,
    /// No source port is free at the backends that were tried.
    NoPort,
    /// No route leads to the backends that were tried, or the node has no address on the way.
    NoRoute,
    /// The flow table refused the entry.
    FlowTable,
    /// The interface has used up its share of the flow table.
    EdgeFlows,
}

impl DropReason {
    #[inline(always)]
    pub const fn counter(self) -> Counter {
        match self {
            Self::SourceRange => Counter::DropSourceRange,
            Self::NoLocalEndpoint => Counter::DropNoLocalEndpoint,
            Self::NoBackend => Counter::DropNoBackend,
            Self::NoPort => Counter::DropNoPort,
            Self::NoRoute => Counter::DropNoRoute,
            Self::FlowTable => Counter::DropFlowTable,
            Self::EdgeFlows => Counter::DropEdgeFlows,
        }
    }
}

/// What the kernel does with the packet as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookAction {
    /// Pass it to the next program, then the stack (`TCX_NEXT`).
    Next,
    /// The same for a request to a backend, which the hook may send across the bridge: see [`Port::unfiltered_bits4`].
    ToBackend,
    /// Send it back out of the interface that it came in by.
    SendBack,
    /// Deal with the PROXY header that is due for its flow: [`Run::header`](crate::run::Run::header) does that.
    Header,
    /// Forward it: [`Run::forward`](crate::run::Run::forward) does that.
    Forward,
    /// Send it out on the way that [`Maps::way`](crate::forward::Maps::way) found.
    SendOut,
    /// Drop it (`TCX_DROP`).
    Drop,
}

impl HookAction {
    /// What the hook does with a translated packet. Direct flows keep their destination, so their packets go to the
    /// stack.
    #[inline(always)]
    pub fn of_translated<A: Addr>(direction: Direction, from: &Tuple<A>, to: &Tuple<A>) -> Self {
        let is_to_backend = matches!(direction, Direction::Request) && !to.dst.is(&from.dst);
        if is_to_backend { Self::ToBackend } else { Self::Next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only a request with a new destination may bypass the stack. Direct flows and all replies take the way that they
    /// had before.
    #[test]
    fn only_requests_to_frontends_go_to_backends() {
        let from = Tuple { src: [10, 0, 0, 9], dst: [192, 0, 2, 1], sport: 4_000, dport: 80 };
        let to = Tuple { dst: [10, 0, 0, 8], dport: 8_080, ..from };
        assert_eq!(HookAction::of_translated(Direction::Request, &from, &to), HookAction::ToBackend);
        assert_eq!(HookAction::of_translated(Direction::Reply, &from, &to), HookAction::Next);
        let to = Tuple { sport: 40_000, ..from };
        assert_eq!(HookAction::of_translated(Direction::Request, &from, &to), HookAction::Next);
    }
}
