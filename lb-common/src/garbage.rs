//! Garbage collection: deletes flows that have been quiet for too long, before the table is full.
//!
//! The agent searches a copy of the table. A flow may have been used since, so it is checked again before it is
//! deleted.

use crate::addr::{Addr, Proto};
use crate::flow;
use crate::forward::{Env, FlowRef, Maps, Partner, Work};
use crate::table::Counter;

/// Which flows are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Flows that have been quiet for longer than their timeout.
    TimedOut,
    /// Flows without a packet at this tick (jiffies64) or later. A copy of the table made at that tick still describes
    /// them. 0 is read as [`Due::TimedOut`].
    QuietSince(u64),
}

impl Due {
    /// The length of what [`Due::to_bytes`] returns.
    pub const LEN: usize = size_of::<u64>();

    /// The bytes that the agent passes to the kernel before the keys.
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        match self {
            Self::TimedOut => [0; Self::LEN],
            Self::QuietSince(jiffies) => jiffies.to_ne_bytes(),
        }
    }

    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        match u64::from_ne_bytes(bytes) {
            0 => Self::TimedOut,
            jiffies => Self::QuietSince(jiffies),
        }
    }

    #[inline(always)]
    fn is<A>(self, proto: Proto, entry: impl FlowRef<A>, env: &impl Env) -> bool {
        let last_seen_jiffies = entry.last_seen_jiffies();
        match self {
            Self::TimedOut => {
                let quiet_jiffies = flow::quiet_jiffies(last_seen_jiffies, env.now_jiffies());
                flow::is_expired(proto, entry.state(), quiet_jiffies, &env.timeouts())
            }
            Self::QuietSince(jiffies) => last_seen_jiffies < jiffies,
        }
    }
}

/// Deletes both entries of the flow whose key is in `work`, unless one of them was used lately. Returns whether it
/// did. If the other entry was lost, its tuple may be another flow's by now, which stays.
#[inline(always)]
pub fn collect<A: Addr, K: Maps<A>>(due: Due, kernel: &K, work: &mut Work<A>) -> bool {
    let proto = work.key.proto;
    let Some(entry) = kernel.flow(&work.key) else { return false };
    entry.read_to(&mut work.to);
    if !due.is(proto, entry, kernel) {
        return false;
    }
    if let Partner::Own(partner) = Partner::of_packet(kernel, work) {
        if !due.is(proto, partner, kernel) {
            return false;
        }
        kernel.remove_flow(&work.partner_key);
    }
    kernel.remove_flow(&work.key);
    kernel.count(match due {
        Due::TimedOut => Counter::FlowCollected,
        Due::QuietSince(_) => Counter::EdgeFlowEvicted,
    });
    true
}
