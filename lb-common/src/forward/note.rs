//! Drops with an address: by frontend, interface and reason. And the events for `lb-agent monitor`.

use super::known::FlowRef as _;
use super::run::{Maps, Part, Path};
use super::services::Sighting;
use crate::addr::{Addr, Proto};
use crate::hash::mix;
use crate::selection::{Spread, flow_hash};
use crate::table::{Counter, DropKey, PASSES_TOLD, Tuple};

/// A datagram of which `lb-agent monitor` hears once a second. UDP has no connections, so each one that is left alone counts as the first of a
/// connection: a busy client would leave no room for other events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// The element of `passes_told`.
    pub index: u32,
    /// Client and second. While the element has this value, the datagram was told.
    pub word: u64,
}

impl<A: Addr> Sighting<'_, A> {
    /// What tells datagrams of a client and a second from others; `None` if each packet of this kind counts.
    #[inline(always)]
    pub fn repeated(&self, now_ns: u64) -> Option<Repeated> {
        let is_pass = matches!(self.reason, Counter::PassedProxy | Counter::PassedNoRoute);
        if self.proto != Proto::UDP || !is_pass {
            return None;
        }
        let hash = client_hash(self.tuple, self.edge);
        // The seconds have 2^30 ns: a shift costs less than a division.
        let second = (now_ns >> 30) as u32;
        Some(Repeated { index: hash % PASSES_TOLD, word: (u64::from(hash) << 32) | u64::from(second) })
    }
}

/// A function of its own: its variables would take the stack of dials.
#[inline(never)]
fn client_hash<A: Addr>(tuple: &Tuple<A>, edge: u32) -> u32 {
    mix(flow_hash(tuple, Proto::UDP, Spread::Connections), edge)
}

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Notes that the packet is refused, rejected or dropped, for this reason. Its flow key must be complete.
    #[inline(always)]
    pub(crate) fn note_refused(&mut self, reason: Counter) {
        self.work.reason = reason;
        self.apart(Part::Refuse);
    }

    /// Tells who listens what became of a packet of this frontend. Nothing is left of it if the programs were loaded
    /// while nothing listened.
    #[inline(always)]
    pub(super) fn tell(&mut self, reason: Counter, frontend: u32) {
        if self.kernel.monitors() {
            (self.work.reason, self.work.frontend) = (reason, frontend);
            self.apart(Part::Tell);
        }
    }

    /// Does [`Self::note_refused`].
    #[inline(always)]
    pub(super) fn refuse(&mut self) {
        let frontend = self.frontend_of_packet();
        let (kernel, work) = (self.kernel, &mut *self.work);
        kernel.note_drop(work.reason, &work.key);
        kernel.count_drop(&DropKey { frontend, edge: work.key.edge, reason: work.reason as u32 });
        work.frontend = frontend;
        if kernel.monitors() {
            self.tell_now();
        }
    }

    /// Does [`Self::tell`].
    #[inline(always)]
    pub(super) fn tell_now(&self) {
        let (kernel, work) = (self.kernel, &*self.work);
        let has_backend = matches!(work.reason, Counter::FlowCreated | Counter::FlowRepaired);
        let backend = if has_backend { Some((&work.to.dst, work.to.dport)) } else { None };
        kernel.tell(&Sighting {
            reason: work.reason,
            frontend: work.frontend,
            edge: work.key.edge,
            proto: work.key.proto,
            tuple: &work.key.tuple,
            backend,
        });
    }

    /// The frontend of the packet's flow, or the one that the packet is for.
    #[inline(always)]
    fn frontend_of_packet(&mut self) -> u32 {
        let (kernel, work) = (self.kernel, &mut *self.work);
        if let Some(entry) = kernel.flow(&work.key) {
            return entry.frontend();
        }
        (work.frontend_key.addr, work.frontend_key.port) = (work.key.tuple.dst, work.key.tuple.dport);
        (work.frontend_key.proto, work.frontend_key.pad) = (work.key.proto, 0);
        kernel.frontend(&work.frontend_key).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_datagrams_of_a_second_are_told_once() {
        let tuple = Tuple { src: [10, 0, 0, 9], dst: [192, 0, 2, 1], sport: 4_000, dport: 53 };
        let seen = |reason, proto, edge, tuple: &Tuple<[u8; 4]>, secs: u64| {
            let sighting = Sighting { reason, frontend: 1, edge, proto, tuple, backend: None };
            sighting.repeated(secs << 30)
        };
        let first = seen(Counter::PassedProxy, Proto::UDP, 7, &tuple, 1).expect("it is a pass");
        assert!(first.index < PASSES_TOLD);
        assert_eq!(seen(Counter::PassedProxy, Proto::UDP, 7, &tuple, 1), Some(first));
        let others = [
            seen(Counter::PassedProxy, Proto::UDP, 7, &tuple, 2),
            seen(Counter::PassedProxy, Proto::UDP, 8, &tuple, 1),
            seen(Counter::PassedProxy, Proto::UDP, 7, &Tuple { sport: 4_001, ..tuple }, 1),
        ];
        for other in others {
            assert_ne!(other.expect("it is a pass").word, first.word);
        }
        assert_eq!(seen(Counter::PassedProxy, Proto::TCP, 7, &tuple, 1), None, "a connection has one first packet");
        assert_eq!(seen(Counter::DropSourceRange, Proto::UDP, 7, &tuple, 1), None, "drops are all told");
    }
}
