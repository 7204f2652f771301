//! Connection tracking as pure functions: how packets change the state of a flow, and when a flow is over.

use crate::addr::Proto;
use crate::parse::TcpFlags;
use crate::sequence::Sequence;
use crate::table::{Direction, FlowState};

/// Timeouts of a quiet flow, in kernel ticks.
///
/// Ticks, because reading jiffies64 costs the packet path 2 ns, and reading a clock 31 ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A half-open TCP connection.
    pub tcp_syn_jiffies: u64,
    pub tcp_established_jiffies: u64,
    /// FIN both ways, or RST and no segment since.
    pub tcp_closing_jiffies: u64,
    /// UDP, and SCTP, whose state is not tracked.
    pub udp_jiffies: u64,
    /// One second: the resolution of `last_seen_jiffies`.
    pub second_jiffies: u64,
}

impl Timeouts {
    /// Quiet ticks after which a flow is over.
    #[inline(always)]
    pub const fn of(&self, proto: Proto, state: FlowState) -> u64 {
        match (proto, state) {
            (Proto::UDP | Proto::SCTP, _) => self.udp_jiffies,
            (_, FlowState::New | FlowState::Answered) => self.tcp_syn_jiffies,
            (_, FlowState::Established | FlowState::ClientClosed | FlowState::BackendClosed) => {
                self.tcp_established_jiffies
            }
            // Closed or reset.
            _ => self.tcp_closing_jiffies,
        }
    }
}

/// Ticks since a flow's last packet; 0 if another CPU's clock is ahead.
#[inline(always)]
pub const fn quiet_jiffies(last_seen_jiffies: u64, now_jiffies: u64) -> u64 {
    now_jiffies.saturating_sub(last_seen_jiffies)
}

/// Whether a flow is over: closed, reset, or quiet for longer than its timeout.
#[inline(always)]
pub const fn is_over(proto: Proto, state: FlowState, quiet_jiffies: u64, timeouts: &Timeouts) -> bool {
    state.has_ended() || quiet_jiffies > timeouts.of(proto, state)
}

/// Whether a flow has been quiet for longer than its timeout. An ended flow is kept until then: its last segments
/// still need translation, and its reset may be forged.
#[inline(always)]
pub const fn is_expired(proto: Proto, state: FlowState, quiet_jiffies: u64, timeouts: &Timeouts) -> bool {
    quiet_jiffies > timeouts.of(proto, state)
}

/// The state after a packet in `direction`; `flags` are empty unless TCP.
#[inline(always)]
pub const fn step(state: FlowState, direction: Direction, flags: TcpFlags) -> FlowState {
    use FlowState::{Answered, BackendClosed, ClientClosed, Closed, Established, New};
    // A receiver that rejects a reset continues, at the latest with a challenge ACK (RFC 5961). A receiver that
    // accepts it answers later segments with another reset. So the last segment decides.
    if flags.has(TcpFlags::RST) {
        return state.reset();
    }
    let fin = flags.has(TcpFlags::FIN);
    match (state.before_reset(), direction, fin) {
        (Closed, _, _) | (ClientClosed, Direction::Reply, true) | (BackendClosed, Direction::Request, true) => Closed,
        // No backend has answered yet. The client's segments prove nothing: its address may be spoofed.
        (New, Direction::Request, _) => New,
        // A SYN-ACK proves nothing about the client, whose address may be spoofed. The flow stays half-open until the
        // client ACKs. A backend that answers without SYN knew the connection before: the flow was evicted and is
        // repaired.
        (New, Direction::Reply, _) if flags.has(TcpFlags::SYN) => Answered,
        // Only an ACK shows that the client received the answer.
        (Answered, Direction::Request, _) if !flags.has(TcpFlags::ACK) => Answered,
        // Another SYN of the backend, whatever its other flags.
        (state @ Answered, Direction::Reply, _) if flags.has(TcpFlags::SYN) => state,
        (Answered | Established, Direction::Request, true) => ClientClosed,
        // A backend closes only what it has accepted. Before the client's ACK it accepts only a client that it knows
        // (TCP Fast Open, RFC 7413).
        (New | Answered | Established, Direction::Reply, true) => BackendClosed,
        (New, Direction::Reply, false) | (Answered, Direction::Request, false) => Established,
        (state, _, _) => state,
    }
}

/// The state after a segment. `noted` is the sequence number noted for this direction. A FIN or RST that does not fit
/// it is guessed or very late, and changes nothing.
#[inline(always)]
pub const fn follow(state: FlowState, direction: Direction, flags: TcpFlags, noted: Sequence) -> FlowState {
    let ends = flags.has(TcpFlags::FIN | TcpFlags::RST);
    if ends && !flags.sequence().fits(noted) { state } else { step(state, direction, flags) }
}

/// Whether the segment is one of an established flow that changes no state, judged by as little as possible.
#[inline(always)]
pub const fn is_steady(state: FlowState, flags: TcpFlags) -> bool {
    let is_established = matches!(state, FlowState::Established | FlowState::ClientClosed | FlowState::BackendClosed);
    is_established && !flags.has(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
}

/// Whether the flow notes the segment's sequence number for this direction. A number that is far off is not noted, or
/// the next forged segment would fit. While a flow is half-open, its ends are still choosing their numbers.
#[inline(always)]
pub const fn is_noted(state: FlowState, flags: TcpFlags, noted: Sequence) -> bool {
    let sequence = flags.sequence();
    let is_free = !noted.is_known() || state.is_half_open();
    sequence.is_known() && !flags.has(TcpFlags::RST) && (is_free || sequence.advances(noted))
}

/// Whether a change of state proves both ends of a flow. It happens at most once in a flow's life: the flow is never
/// half-open again.
#[inline(always)]
pub const fn is_proved(before: FlowState, after: FlowState) -> bool {
    use FlowState::{Answered, BackendClosed, ClientClosed, Established, New};
    matches!(before.before_reset(), New | Answered) && matches!(after, Established | ClientClosed | BackendClosed)
}

/// Whether a flow may be deleted for a new one: half-open, closed or reset.
#[inline(always)]
pub const fn is_dispensable(state: FlowState) -> bool {
    state.is_half_open() || state.has_ended()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use Direction::{Reply, Request};
    use FlowState::{
        Answered, BackendClosed, ClientClosed, Closed, Established, New, ResetAnswered, ResetBackendClosed,
        ResetClientClosed, ResetEstablished, ResetNew,
    };

    const SYN: TcpFlags = TcpFlags::new(TcpFlags::SYN);
    const FIN: TcpFlags = TcpFlags::new(TcpFlags::FIN | TcpFlags::ACK);
    const NULL: TcpFlags = TcpFlags::new(0);
    const SYN_FIN: TcpFlags = TcpFlags::new(TcpFlags::SYN | TcpFlags::FIN);
    const RST: TcpFlags = TcpFlags::new(TcpFlags::RST);
    const ACK: TcpFlags = TcpFlags::new(TcpFlags::ACK);
    const SYN_ACK: TcpFlags = TcpFlags::new(TcpFlags::SYN | TcpFlags::ACK);

    #[test]
    fn states_follow_the_packets() {
        for (state, direction, flags, expected) in [
            (New, Request, ACK, New),
            (New, Request, FIN, New),
            (New, Request, SYN_FIN, New),
            (New, Reply, SYN_ACK, Answered),
            (New, Reply, ACK, Established),
            (New, Reply, FIN, BackendClosed),
            (New, Reply, RST, ResetNew),
            (Answered, Request, SYN, Answered),
            (Answered, Request, SYN_FIN, Answered),
            (Answered, Request, NULL, Answered),
            (Answered, Request, SYN_ACK, Established),
            (Answered, Reply, SYN_ACK, Answered),
            (Answered, Reply, ACK, Answered),
            (Answered, Request, ACK, Established),
            (Answered, Request, FIN, ClientClosed),
            (Answered, Reply, FIN, BackendClosed),
            (Answered, Reply, RST, ResetAnswered),
            (Established, Request, ACK, Established),
            (Established, Request, FIN, ClientClosed),
            (Established, Reply, FIN, BackendClosed),
            (ClientClosed, Request, FIN, ClientClosed),
            (ClientClosed, Reply, ACK, ClientClosed),
            (ClientClosed, Reply, FIN, Closed),
            (BackendClosed, Request, FIN, Closed),
            (Established, Request, RST, ResetEstablished),
            (ClientClosed, Reply, RST, ResetClientClosed),
            (BackendClosed, Request, RST, ResetBackendClosed),
            (ResetBackendClosed, Reply, RST, ResetBackendClosed),
            (Closed, Reply, RST, Closed),
            (ResetEstablished, Request, ACK, Established),
            (ResetEstablished, Reply, ACK, Established),
            (ResetEstablished, Reply, FIN, BackendClosed),
            (ResetClientClosed, Request, ACK, ClientClosed),
            (ResetClientClosed, Reply, FIN, Closed),
            (ResetBackendClosed, Request, FIN, Closed),
            (ResetNew, Request, ACK, New),
            (ResetNew, Reply, SYN_ACK, Answered),
            (ResetAnswered, Request, ACK, Established),
            (Closed, Reply, ACK, Closed),
        ] {
            assert_eq!(step(state, direction, flags), expected, "{state:?} {direction:?} {flags:?}");
        }
        let none = TcpFlags::default();
        assert_eq!(step(New, Reply, none), Established);
        assert_eq!(step(Established, Request, none), Established);
    }

    #[test]
    fn steady_segments_change_no_state() {
        const SEGMENTS: u8 = 64;
        let mut steady = 0;
        for state in STATES {
            for (bits, direction) in (0..SEGMENTS).flat_map(|bits| [(bits, Request), (bits, Reply)]) {
                let flags = TcpFlags::new(bits);
                if is_steady(state, flags) {
                    steady += 1;
                    assert_eq!(follow(state, direction, flags, Sequence::NONE), state, "{direction:?} {flags:?}");
                    assert!(!state.has_ended() && !state.is_half_open(), "{state:?}");
                }
            }
        }
        // Three states, three flags of no effect, both ways.
        assert_eq!(steady, 3 * 8 * 2);
    }

    const STATES: [FlowState; 11] = [
        New,
        Established,
        ClientClosed,
        BackendClosed,
        Closed,
        Answered,
        ResetNew,
        ResetAnswered,
        ResetEstablished,
        ResetClientClosed,
        ResetBackendClosed,
    ];

    const FAR: Sequence = Sequence::of(0x8000);

    /// A forged segment neither ends a flow nor makes a forged end fit. A segment that fits has its effect.
    #[test]
    fn who_guesses_a_sequence_number_changes_nothing() {
        let noted = Sequence::of(0x0010);
        for state in [Answered, Established, ClientClosed, BackendClosed, ResetEstablished, Closed] {
            for direction in [Request, Reply] {
                for flags in [RST, FIN, SYN_FIN, TcpFlags::new(TcpFlags::RST | TcpFlags::ACK)] {
                    let forged = follow(state, direction, flags.at(FAR), noted);
                    assert_eq!(forged, state, "{direction:?} {flags:?}");
                    let own = follow(state, direction, flags.at(Sequence::of(0x0011)), noted);
                    assert_eq!(own, step(state, direction, flags), "{state:?} {direction:?} {flags:?}");
                    assert_eq!(follow(state, direction, flags.at(FAR), Sequence::NONE), own, "nothing is known");
                }
                let data = follow(state, direction, ACK.at(FAR), noted);
                assert_eq!(data, step(state, direction, ACK), "what ends nothing is not judged");
            }
        }
        for (state, flags, noted, expected) in [
            (Established, ACK.at(FAR), noted, false),
            (ResetEstablished, ACK.at(FAR), noted, false),
            (Established, SYN.at(FAR), noted, false),
            (Established, ACK.at(Sequence::of(0x0011)), noted, true),
            (Established, ACK.at(Sequence::of(0x000f)), noted, false),
            (Established, ACK.at(FAR), Sequence::NONE, true),
            (Established, RST.at(FAR), Sequence::NONE, false),
            (New, SYN.at(FAR), noted, true),
            (Answered, SYN_ACK.at(FAR), noted, true),
            (Established, TcpFlags::default(), Sequence::NONE, false),
        ] {
            assert_eq!(is_noted(state, flags, noted), expected, "{state:?} {flags:?} {noted:?}");
        }
    }

    /// Packets in a history. All histories of this length are tried.
    const HISTORY_LEN: u32 = 4;
    /// All combinations of FIN, SYN, RST and ACK, both ways.
    const PACKETS: u32 = 32;

    fn packet(number: u32) -> (Direction, TcpFlags) {
        let (low, ack) = (number & 7, number >> 3 & 1);
        (if number & 16 == 0 { Request } else { Reply }, TcpFlags::new((low | ack << 4) as u8))
    }

    /// An established flow, which may not be deleted for a new one, has given its token back exactly once. Other flows
    /// have not.
    #[test]
    fn tokens_come_back_once_and_for_proof_only() {
        for number in 0..PACKETS.pow(HISTORY_LEN) {
            let history = || (0..HISTORY_LEN).map(|at| packet(number / PACKETS.pow(at) % PACKETS));
            let (mut state, mut given, mut was_open) = (New, 0, false);
            // Whether a backend has answered; whether the client has acknowledged that, or a backend that knows the
            // connection has sent.
            let (mut is_answered, mut is_heard) = (false, false);
            for (direction, flags) in history() {
                let after = step(state, direction, flags);
                given += u32::from(is_proved(state, after));
                state = after;
                was_open |= !is_dispensable(state);
                let is_reset = flags.has(TcpFlags::RST);
                let is_alive = !is_reset && state != Closed;
                is_heard |= is_alive
                    && match direction {
                        Request => is_answered && flags.has(TcpFlags::ACK),
                        Reply => !flags.has(TcpFlags::SYN) && (!is_answered || flags.has(TcpFlags::FIN)),
                    };
                is_answered |= direction == Reply && !is_reset;
                assert_eq!(state.has_ended(), state == Closed || is_reset, "{state:?}: the last word counts");
            }
            let expected = (u32::from(is_heard), is_heard);
            assert_eq!((given, was_open), expected, "{:?}", history().collect::<std::vec::Vec<_>>());
        }
    }
}
