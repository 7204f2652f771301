//! Fragments in order: the others go where the first one went (PR-01).

use std::net::IpAddr;

use lb_common::addr::Proto;
use lb_common::verdict::Action;

use super::Reference;
use super::judge::{Outcome, Seen, Verdict};
use super::rule::Rule;
use super::wire::Wire;

/// The fragments of one datagram, as they are seen in one place.
#[derive(Clone, Debug)]
pub struct Datagram {
    seen: Seen,
    proto: Proto,
    addresses: (IpAddr, IpAddr),
    id: u32,
    verdict: Verdict,
}

impl Reference {
    /// Takes note of a first fragment. It ends what was known of an earlier datagram with this identification.
    pub(super) fn note_datagram(&mut self, seen: Seen, wire: &Wire, (proto, id): (Proto, u32), verdict: Verdict) {
        let addresses = wire.addresses();
        self.datagrams
            .retain(|known| (known.seen, known.proto, known.addresses, known.id) != (seen, proto, addresses, id));
        self.hits.hit(if verdict == Verdict::Untouched { Rule::FirstPassed } else { Rule::FirstNoted });
        self.datagrams.push(Datagram { seen, proto, addresses, id, verdict });
    }

    /// What becomes of a fragment that is not the first: it has no ports, so only its addresses change.
    pub(super) fn later_fragment(&mut self, seen: Seen, mut wire: Wire, (proto, id): (Proto, u32)) -> Outcome {
        let addresses = wire.addresses();
        let known = self
            .datagrams
            .iter()
            .find(|known| (known.seen, known.proto, known.addresses, known.id) == (seen, proto, addresses, id));
        match known.map_or(Verdict::Untouched, |known| known.verdict) {
            Verdict::Untouched => {
                self.hits.hit(Rule::LaterOfNobody);
                (Action::Next, wire.bytes().to_vec())
            }
            Verdict::Becomes((from, to)) => {
                self.hits.hit(Rule::LaterTranslated);
                wire.set_addresses(from.0, to.0);
                (Action::Next, wire.bytes().to_vec())
            }
            Verdict::ComesBack((from, to)) => {
                self.hits.hit(Rule::LaterSentBack);
                wire.set_addresses(from.0, to.0);
                wire.turn_back();
                (Action::SendBack, wire.bytes().to_vec())
            }
            Verdict::Rejected | Verdict::Dropped => {
                self.hits.hit(Rule::LaterDropped);
                (Action::Drop, wire.bytes().to_vec())
            }
        }
    }
}
