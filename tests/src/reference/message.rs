//! ICMP messages about connections (RFC 5508 section 4).

use std::net::IpAddr;

use lb_common::verdict::HookAction;

use super::Reference;
use super::connection::{Connection, Way};
use super::judge::{Outcome, Reach, Seen};
use super::rule::Rule;
use super::wire::{Part, Quoted, Wire};
use crate::packet::End;

/// An ICMPv6 redirect is exchanged between neighbours, and its quote is at another offset.
fn is_redirect(wire: &Wire) -> bool {
    wire.is_v4() && wire.icmp_type() == 5
}

fn is_error(wire: &Wire) -> bool {
    if wire.is_v4() { matches!(wire.icmp_type(), 3 | 4 | 11 | 12) } else { (1..=4).contains(&wire.icmp_type()) }
}

/// The packet that the message's receiver sent, the receiver, the other end of the connection, and the address by which
/// the receiver knows that end.
const fn readers_view(connection: &Connection, way: Way) -> ((End, End), IpAddr, IpAddr, IpAddr) {
    let Connection { client, service, backend, seen, .. } = *connection;
    match way {
        Way::ToBackend => ((client, service), client.0, backend.0, service.0),
        Way::ToClient => ((backend, seen), backend.0, client.0, seen.0),
    }
}

impl Reference {
    /// The outcome of an ICMP message.
    pub(super) fn message(&mut self, (seen, reach): (Seen, Reach), mut wire: Wire) -> Outcome {
        let untouched = (HookAction::Next, wire.bytes().to_vec());
        let is_redirect = is_redirect(&wire);
        if !is_error(&wire) && !is_redirect {
            self.hits.hit(Rule::MessageNoError);
            return untouched;
        }
        let quoted = wire.quoted();
        if quoted.as_ref().is_some_and(|quoted| matches!(quoted.part, Part::Later(_))) {
            self.hits.hit(Rule::ErrorAboutLaterFragment);
            return untouched;
        }
        let found = quoted.and_then(|quoted| {
            let (connection, way) = self.complained_of(seen, &quoted)?;
            Some((connection.clone(), way, quoted))
        });
        let is_deaf = |(connection, way, _): &(Connection, Way, Quoted)| {
            reach == Reach::Neighbour && (!connection.is_direct() || *way == Way::ToBackend)
        };
        if found.as_ref().is_some_and(is_deaf) {
            self.hits.hit(Rule::NeighboursError);
            return untouched;
        }
        let Some((connection, way, quoted)) = found else {
            self.hits.hit(Rule::ErrorOfNobody);
            return untouched;
        };
        let is_direct = connection.is_direct();
        if is_direct && connection.client == connection.seen {
            self.hits.hit(Rule::ErrorAboutDirectUntouched);
            return untouched;
        }
        if is_redirect {
            self.hits.hit(Rule::Redirected);
            return (HookAction::Drop, wire.bytes().to_vec());
        }
        let (source, _) = wire.addresses();
        let (about, reader, other_end, other_name) = readers_view(&connection, way);
        let is_to_itself = (seen.way, way) == (Way::ToBackend, Way::ToBackend);
        for (is_so, rule) in [
            (is_to_itself && seen.is_workload, Rule::ErrorToItself),
            (!is_direct && way == Way::ToBackend, Rule::ErrorAboutRequest),
            (!is_direct && way == Way::ToClient, Rule::ErrorAboutReply),
            (is_direct && way == Way::ToBackend, Rule::ErrorAboutDirectRequest),
            (is_direct && way == Way::ToClient, Rule::ErrorAboutDirectReply),
            (source == other_end, Rule::ErrorByOtherEnd),
            (source != other_end, Rule::ErrorByRouter),
            (quoted.part != Part::Whole, Rule::ErrorAboutFragment),
            (quoted.is_cut_short, Rule::ErrorCutShort),
        ] {
            if is_so {
                self.hits.hit(rule);
            }
        }
        // An endpoint of another node may not know the way to the routers of the client.
        let is_in_transit = connection.is_transit() && seen.way == Way::ToBackend;
        let is_hidden = is_in_transit && way == Way::ToClient;
        let from = if source == other_end || is_hidden { other_name } else { source };
        wire.set_error(&quoted, about, (from, reader));
        match (is_in_transit, is_to_itself, seen.is_workload) {
            (true, _, _) => {
                self.hits.hit(Rule::ErrorSentOn);
                return self.send_on(wire, None);
            }
            (false, true, true) => {
                wire.turn_back();
                return (HookAction::SendBack, wire.bytes().to_vec());
            }
            (false, true, false) => self.hits.hit(Rule::ErrorToNode),
            (false, false, _) => {}
        }
        (HookAction::Next, wire.bytes().to_vec())
    }

    /// The connection of a quoted packet, and the direction of that packet.
    fn complained_of(&self, seen: Seen, quoted: &Quoted) -> Option<(&Connection, Way)> {
        let (from, to) = quoted.ends;
        let answer = (to, from);
        let of_reply = self.connections.iter().find(|known| known.is_request(seen.edge, quoted.proto, answer));
        let of_request = self.connections.iter().find(|known| known.is_reply(seen.edge, quoted.proto, answer));
        match seen.way {
            Way::ToClient => of_request.map(|connection| (connection, Way::ToBackend)),
            Way::ToBackend => of_reply.map(|connection| (connection, Way::ToClient)).or_else(|| {
                let may_be_own = seen.is_workload && self.has_hairpins;
                let is_ours = |known: &&Connection| may_be_own || self.complains_in_transit(seen, known);
                of_request.filter(is_ours).map(|connection| (connection, Way::ToBackend))
            }),
        }
    }
}
