//! Connection tracking as pure functions: how a flow's state follows its packets, and when a flow is too old.

use crate::addr::Proto;
use crate::parse::TcpFlags;
use crate::table::{Direction, FlowState};

/// Time-outs in kernel ticks, of a flow that has seen no packet.
///
/// Ticks, because reading jiffies64 costs the packet path 2 ns and a clock 31.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TCP connection that is half open.
    pub tcp_syn_jiffies: u64,
    pub tcp_established_jiffies: u64,
    /// FIN both ways, or RST.
    pub tcp_closing_jiffies: u64,
    /// UDP, and SCTP of which no state is followed.
    pub udp_jiffies: u64,
    /// One second: how coarse `last_seen_jiffies` is.
    pub second_jiffies: u64,
}

impl Timeouts {
    /// After how many quiet ticks a flow is over.
    #[inline(always)]
    pub const fn of(&self, proto: Proto, state: FlowState) -> u64 {
        match (proto, state) {
            (Proto::UDP | Proto::SCTP, _) => self.udp_jiffies,
            (_, FlowState::New | FlowState::Answered) => self.tcp_syn_jiffies,
            (_, FlowState::Closed) => self.tcp_closing_jiffies,
            (_, FlowState::Established | FlowState::ClientClosed | FlowState::BackendClosed) => {
                self.tcp_established_jiffies
            }
        }
    }
}

/// Ticks since a flow's last packet; 0 where another CPU's clock is ahead.
#[inline(always)]
pub const fn quiet_jiffies(last_seen_jiffies: u64, now_jiffies: u64) -> u64 {
    now_jiffies.saturating_sub(last_seen_jiffies)
}

/// Whether a flow is over: closed, or quiet for longer than its time-out.
#[inline(always)]
pub const fn is_over(proto: Proto, state: FlowState, quiet_jiffies: u64, timeouts: &Timeouts) -> bool {
    matches!(state, FlowState::Closed) || quiet_jiffies > timeouts.of(proto, state)
}

/// Whether a flow has been quiet for longer than its time-out. A closed one is remembered for a while: its last segments
/// are still to be translated.
#[inline(always)]
pub const fn is_expired(proto: Proto, state: FlowState, quiet_jiffies: u64, timeouts: &Timeouts) -> bool {
    quiet_jiffies > timeouts.of(proto, state)
}

/// The state after a packet in `direction`; `flags` are empty unless TCP.
#[inline(always)]
pub const fn step(state: FlowState, direction: Direction, proto: Proto, flags: TcpFlags) -> FlowState {
    use FlowState::{Answered, BackendClosed, ClientClosed, Closed, Established, New};
    if flags.has(TcpFlags::RST) {
        return Closed;
    }
    let fin = flags.has(TcpFlags::FIN);
    match (state, direction, fin) {
        (Closed, _, _) | (ClientClosed, Direction::Reply, true) | (BackendClosed, Direction::Request, true) => Closed,
        (New | Answered | Established, Direction::Request, true) => ClientClosed,
        (New | Answered | Established, Direction::Reply, true) => BackendClosed,
        // A backend answers whoever's address stands in a SYN; only who hears the answer goes on. One that answers without
        // a SYN knew the connection before: the flow was evicted and is repaired.
        (New, Direction::Reply, false) => match proto {
            Proto::TCP if flags.has(TcpFlags::SYN) => Answered,
            Proto::TCP | Proto::UDP | Proto::SCTP => Established,
        },
        (Answered, Direction::Request, false) if !flags.opens() => Established,
        (state, _, _) => state,
    }
}

/// Whether a flow, by going from one state to another, has shown that both ends are there.
#[inline(always)]
pub const fn is_proved(before: FlowState, after: FlowState) -> bool {
    use FlowState::{Answered, ClientClosed, Established, New};
    matches!(before, New | Answered) && matches!(after, ClientClosed | Established)
}

/// Whether a flow may go to make room for a new one: half open, or closed.
#[inline(always)]
pub const fn is_dispensable(state: FlowState) -> bool {
    matches!(state, FlowState::New | FlowState::Answered | FlowState::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Reply, Request};
    use FlowState::{Answered, BackendClosed, ClientClosed, Closed, Established, New};

    const SYN: TcpFlags = TcpFlags::new(TcpFlags::SYN);
    const FIN: TcpFlags = TcpFlags::new(TcpFlags::FIN | TcpFlags::ACK);
    const RST: TcpFlags = TcpFlags::new(TcpFlags::RST);
    const ACK: TcpFlags = TcpFlags::new(TcpFlags::ACK);
    const SYN_ACK: TcpFlags = TcpFlags::new(TcpFlags::SYN | TcpFlags::ACK);

    #[test]
    fn states_follow_the_packets() {
        for (state, direction, flags, expected) in [
            (New, Request, ACK, New),
            (New, Reply, SYN_ACK, Answered),
            (New, Reply, ACK, Established),
            (New, Reply, RST, Closed),
            (Answered, Request, SYN, Answered),
            (Answered, Reply, ACK, Answered),
            (Answered, Request, ACK, Established),
            (Answered, Request, FIN, ClientClosed),
            (Answered, Reply, FIN, BackendClosed),
            (Answered, Reply, RST, Closed),
            (Established, Request, ACK, Established),
            (Established, Request, FIN, ClientClosed),
            (Established, Reply, FIN, BackendClosed),
            (ClientClosed, Request, FIN, ClientClosed),
            (ClientClosed, Reply, ACK, ClientClosed),
            (ClientClosed, Reply, FIN, Closed),
            (BackendClosed, Request, FIN, Closed),
            (BackendClosed, Request, RST, Closed),
            (Closed, Reply, ACK, Closed),
        ] {
            assert_eq!(step(state, direction, Proto::TCP, flags), expected, "{state:?} {direction:?} {flags:?}");
        }
        let none = TcpFlags::default();
        assert_eq!(step(New, Reply, Proto::UDP, none), Established);
        assert_eq!(step(Established, Request, Proto::SCTP, none), Established);
    }
}
