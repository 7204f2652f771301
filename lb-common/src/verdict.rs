//! How a packet ends: exactly one of these.

use crate::table::Counter;
#[cfg(doc)]
use crate::table::Port;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// None of our business, or deliberately left alone: the next program or the stack has it.
    Pass,
    /// The packet gets the tuple that [`Work::to`](crate::forward::Work::to) names, then it goes on.
    Translate,
    /// The same, and it goes back out of the interface that it came in by: a pod reaches itself.
    Hairpin,
    /// The sender is told: ICMP port unreachable.
    Reject,
    /// Silence, for the counted reason.
    Drop(Counter),
}

/// What the program tells the kernel to do with the packet as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The next program, then the stack (`TCX_NEXT`).
    Next,
    /// The same for a request on its way to a backend, which the hook may shorten: see [`Port::unfiltered_bits4`].
    ToBackend,
    /// Out of the interface that it came in by.
    SendBack,
    /// Gone (`TCX_DROP`).
    Drop,
}
