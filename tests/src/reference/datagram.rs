//! Fragments follow the first fragment of their datagram (PR-01). Fragments that overtake the first one are parked.

use std::net::IpAddr;

use lb_common::addr::Proto;
use lb_common::verdict::HookAction;

use super::Reference;
use super::connection::Way;
use super::judge::{Outcome, Seen, Verdict};
use super::rule::Rule;
use super::wire::Wire;

/// How long a fragment is parked, and how long the verdict on a datagram is kept after its last fragment.
const FRESH_SECS: u64 = 2;
/// The longest fragment that is parked, from its network header.
const WAITING_LEN_MAX: usize = 2_048;
/// How many fragments are parked at most on the test machines, over all datagrams. The oldest makes room.
const PLACES: u32 = 16;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// What all fragments of a datagram have in common, and where they are seen. An IPv6 identification is shared by all
/// protocols.
type Key = (Seen, Option<Proto>, (IpAddr, IpAddr), u32);

fn key(seen: Seen, wire: &Wire, (proto, id): (Proto, u32)) -> Key {
    (seen, wire.is_v4().then_some(proto), wire.addresses(), id)
}

/// A datagram of which fragments were seen.
#[derive(Clone, Debug)]
struct Datagram {
    key: Key,
    fate: Fate,
    noted_secs: u64,
}

#[derive(Clone, Debug)]
enum Fate {
    /// The first fragment has not arrived. The tickets of the parked fragments, the latest last.
    Awaited(Vec<u32>),
    Decided(Verdict),
}

/// All datagrams, and the parked fragments.
#[derive(Debug, Default)]
pub struct Datagrams {
    known: Vec<Datagram>,
    /// By ticket: the fragment's bytes from the network header. A ticket that is missing has made room.
    waiting: Vec<(u32, Vec<u8>)>,
    tickets: u32,
}

impl Datagrams {
    fn position(&self, key: &Key) -> Option<usize> {
        self.known.iter().position(|known| known.key == *key)
    }

    /// Removes a datagram.
    fn forget(&mut self, key: &Key) -> Option<Datagram> {
        self.position(key).map(|at| self.known.remove(at))
    }

    /// Draws a ticket. If the places are used up, the oldest parked fragment makes room.
    fn draw(&mut self) -> u32 {
        self.tickets += 1;
        let drawn = self.tickets;
        self.waiting.retain(|(ticket, _)| ticket + PLACES > drawn);
        drawn
    }
}

impl Datagram {
    const fn is_fresh(&self, now_secs: u64) -> bool {
        now_secs - self.noted_secs < FRESH_SECS
    }
}

impl Reference {
    /// Whether the fragments of a datagram may belong to a Service, judging by addresses alone: they go to a frontend,
    /// or come from an endpoint.
    fn may_be_ours(&self, (seen, _, (from, to), _): &Key) -> bool {
        let is_endpoint = || self.policy.members.iter().any(|(_, member)| member.0 == *from);
        match seen.way {
            Way::ToBackend => {
                let is_request = self.policy.frontends.iter().any(|frontend| frontend.end.0 == *to);
                is_request || (!seen.is_workload && self.forwarding.is_some() && is_endpoint())
            }
            Way::ToClient => is_endpoint(),
        }
    }

    /// Removes and returns the fragments that are parked for a first fragment, in the order of their arrival, which is
    /// also the order of re-injection; `None` if none is parked.
    pub(super) fn take_waiting(&mut self, seen: Seen, wire: &Wire, of: (Proto, u32)) -> Option<Vec<Vec<u8>>> {
        let at = self.datagrams.position(&key(seen, wire, of))?;
        let Datagram { fate: Fate::Awaited(tickets), noted_secs, .. } = &mut self.datagrams.known[at] else {
            return None;
        };
        if self.now_secs - *noted_secs >= FRESH_SECS {
            self.hits.hit(Rule::AwaitedTooLong);
            return None;
        }
        let mut behind = Vec::new();
        for ticket in std::mem::take(tickets).into_iter().rev() {
            let Some(at) = self.datagrams.waiting.iter().position(|(of, _)| *of == ticket) else {
                self.hits.hit(Rule::WaitingLost);
                break;
            };
            let (_, bytes) = self.datagrams.waiting.remove(at);
            // They are re-injected with the link header of the first one.
            behind.push([&wire.bytes()[..ETHERNET], &bytes].concat());
        }
        Some(behind)
    }

    /// Records a first fragment. It replaces the record of an earlier datagram with this identification.
    pub(super) fn note_datagram(
        &mut self,
        seen: Seen,
        wire: &Wire,
        of: (Proto, u32),
        (verdict, is_awaited): (Verdict, bool),
    ) {
        let key = key(seen, wire, of);
        self.datagrams.forget(&key);
        if verdict == Verdict::Untouched && !self.may_be_ours(&key) {
            self.hits.hit(Rule::FirstOfNobody);
            return;
        }
        self.hits.hit(if verdict == Verdict::Untouched { Rule::FirstPassed } else { Rule::FirstNoted });
        self.datagrams.known.push(Datagram { key, fate: Fate::Decided(verdict), noted_secs: self.now_secs });
        if is_awaited {
            self.hits.hit(match verdict {
                Verdict::Untouched => Rule::AwaitedPassed,
                Verdict::Becomes(_) => Rule::AwaitedTranslated,
                Verdict::ComesBack(_) => Rule::AwaitedSentBack,
                Verdict::Leaves(_) => Rule::AwaitedSentOn,
                Verdict::Rejected | Verdict::Dropped => Rule::AwaitedDropped,
            });
        }
    }

    /// The outcome of a later fragment. It has no ports, so only its addresses change.
    pub(super) fn later_fragment(&mut self, seen: Seen, mut wire: Wire, of: (Proto, u32)) -> Outcome {
        let key = key(seen, &wire, of);
        match self.decided(&key) {
            None => {
                let action =
                    if self.waits(&key, &wire.bytes()[ETHERNET..]) { HookAction::Drop } else { HookAction::Next };
                (action, wire.bytes().to_vec())
            }
            Some(Verdict::Untouched) => {
                self.hits.hit(Rule::LaterPassed);
                (HookAction::Next, wire.bytes().to_vec())
            }
            Some(Verdict::Becomes((from, to))) => {
                self.hits.hit(Rule::LaterTranslated);
                wire.set_addresses(from.0, to.0);
                (HookAction::Next, wire.bytes().to_vec())
            }
            Some(Verdict::ComesBack((from, to))) => {
                self.hits.hit(Rule::LaterSentBack);
                wire.set_addresses(from.0, to.0);
                wire.turn_back();
                (HookAction::SendBack, wire.bytes().to_vec())
            }
            Some(Verdict::Leaves((from, to))) => {
                self.hits.hit(Rule::LaterSentOn);
                wire.set_addresses(from.0, to.0);
                self.send_on(wire, None)
            }
            Some(Verdict::Rejected | Verdict::Dropped) => {
                self.hits.hit(Rule::LaterDropped);
                (HookAction::Drop, wire.bytes().to_vec())
            }
        }
    }

    /// The verdict on the first fragment of a datagram, if it is still fresh. The lookup refreshes it.
    fn decided(&mut self, key: &Key) -> Option<Verdict> {
        let now_secs = self.now_secs;
        let at = self.datagrams.position(key)?;
        let known = &mut self.datagrams.known[at];
        let Fate::Decided(verdict) = known.fate else { return None };
        if !known.is_fresh(now_secs) {
            self.hits.hit(Rule::LaterTooLate);
            return None;
        }
        if known.noted_secs < now_secs {
            self.hits.hit(Rule::LaterAfterPause);
        }
        known.noted_secs = now_secs;
        Some(verdict)
    }

    /// Parks a fragment until the first one of its datagram arrives. Returns false if it must not be parked.
    fn waits(&mut self, key: &Key, bytes: &[u8]) -> bool {
        if !self.may_be_ours(key) {
            self.hits.hit(Rule::LaterOfNobody);
            return false;
        }
        let ticket = self.datagrams.draw();
        if bytes.len() > WAITING_LEN_MAX {
            self.hits.hit(Rule::LaterTooLong);
            return false;
        }
        self.datagrams.waiting.push((ticket, bytes.to_vec()));
        // The time of all of them begins with the earliest.
        let (mut tickets, noted_secs) = match self.datagrams.forget(key) {
            Some(known) if known.is_fresh(self.now_secs) => match known.fate {
                Fate::Awaited(tickets) => (tickets, known.noted_secs),
                Fate::Decided(_) => unreachable!("it has been asked for"),
            },
            _ => (Vec::new(), self.now_secs),
        };
        self.hits.hit(if tickets.is_empty() { Rule::LaterWaits } else { Rule::LaterWaitsToo });
        tickets.push(ticket);
        self.datagrams.known.push(Datagram { key: *key, fate: Fate::Awaited(tickets), noted_secs });
        true
    }
}
