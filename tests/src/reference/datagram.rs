//! Fragments go where the first one of their datagram went (PR-01); those that overtake it wait for it.

use std::net::IpAddr;

use lb_common::addr::Proto;
use lb_common::verdict::Action;

use super::Reference;
use super::connection::Way;
use super::judge::{Outcome, Seen, Verdict};
use super::rule::Rule;
use super::wire::Wire;

/// How long a fragment waits, and how long it is known what became of a datagram of which no more comes.
const FRESH_SECS: u64 = 2;
/// The longest fragment that waits, from its network header on.
const WAITING_LEN_MAX: usize = 2_048;
/// So many wait at most on the test machines, whatever they wait for; the oldest makes room.
const PLACES: u32 = 16;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// What all fragments of a datagram have in common, and where they are seen. The identification of an IPv6 datagram is one
/// for all protocols.
type Key = (Seen, Option<Proto>, (IpAddr, IpAddr), u32);

fn key(seen: Seen, wire: &Wire, (proto, id): (Proto, u32)) -> Key {
    (seen, wire.is_v4().then_some(proto), wire.addresses(), id)
}

/// What is known of a datagram.
#[derive(Clone, Debug)]
struct Datagram {
    key: Key,
    fate: Fate,
    noted_secs: u64,
}

#[derive(Clone, Debug)]
enum Fate {
    /// The first one has not come; the tickets of those that wait for it, the latest last.
    Awaited(Vec<u32>),
    Decided(Verdict),
}

/// All of them, and those that wait.
#[derive(Debug, Default)]
pub struct Datagrams {
    known: Vec<Datagram>,
    /// By ticket, from the network header on; a ticket that is not here any more has made room.
    waiting: Vec<(u32, Vec<u8>)>,
    tickets: u32,
}

impl Datagrams {
    fn position(&self, key: &Key) -> Option<usize> {
        self.known.iter().position(|known| known.key == *key)
    }

    /// Takes what is known of a datagram away.
    fn forget(&mut self, key: &Key) -> Option<Datagram> {
        self.position(key).map(|at| self.known.remove(at))
    }

    /// Draws a ticket, for which the one that has waited longest makes room.
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
    /// Whether the fragments of a datagram may be ours, as far as a packet without ports can tell: it goes to a frontend,
    /// or comes from an endpoint.
    fn may_be_ours(&self, (seen, _, (from, to), _): &Key) -> bool {
        match seen.way {
            Way::ToBackend => self.policy.frontends.iter().any(|frontend| frontend.end.0 == *to),
            Way::ToClient => self.policy.members.iter().any(|(_, member)| member.0 == *from),
        }
    }

    /// Those that wait for a first fragment, in the order in which they go on behind it, as they came; nothing where none
    /// does.
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
            // They travel in the frame of the first one.
            behind.push([&wire.bytes()[..ETHERNET], &bytes].concat());
        }
        Some(behind)
    }

    /// Takes note of a first fragment. It ends what was known of an earlier datagram with this identification.
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
                Verdict::Rejected | Verdict::Dropped => Rule::AwaitedDropped,
            });
        }
    }

    /// What becomes of a fragment that is not the first: it has no ports, so only its addresses change.
    pub(super) fn later_fragment(&mut self, seen: Seen, mut wire: Wire, of: (Proto, u32)) -> Outcome {
        let key = key(seen, &wire, of);
        match self.decided(&key) {
            None => {
                let action = if self.waits(&key, &wire.bytes()[ETHERNET..]) { Action::Drop } else { Action::Next };
                (action, wire.bytes().to_vec())
            }
            Some(Verdict::Untouched) => {
                self.hits.hit(Rule::LaterPassed);
                (Action::Next, wire.bytes().to_vec())
            }
            Some(Verdict::Becomes((from, to))) => {
                self.hits.hit(Rule::LaterTranslated);
                wire.set_addresses(from.0, to.0);
                (Action::Next, wire.bytes().to_vec())
            }
            Some(Verdict::ComesBack((from, to))) => {
                self.hits.hit(Rule::LaterSentBack);
                wire.set_addresses(from.0, to.0);
                wire.turn_back();
                (Action::SendBack, wire.bytes().to_vec())
            }
            Some(Verdict::Rejected | Verdict::Dropped) => {
                self.hits.hit(Rule::LaterDropped);
                (Action::Drop, wire.bytes().to_vec())
            }
        }
    }

    /// What became of the first fragment of a datagram, if that is not long ago; it is known as long again then.
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

    /// Lets a fragment wait for the first one of its datagram. False where it may not.
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
        // Their time begins with the one that has come first.
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
