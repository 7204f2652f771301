//! New connections: backend and source port are random, within limits.

use lb_common::addr::Proto;
use lb_common::verdict::HookAction;

use super::connection::{Connection, Heard, State, Way};
use super::hash::slot;
use super::judge::{Outcome, Packet, Seen, Verdict, translated};
use super::policy::Frontend;
use super::rule::Rule;
use super::transit::Candidate;
use super::wire::Wire;
use super::{Clock, Reference};
use crate::packet::End;

/// Source ports that are drawn if the client's own is taken.
pub(super) const CHOSEN_PORTS: std::ops::RangeInclusive<u16> = 0x8000..=0xffff;

impl Reference {
    /// A packet that opens a connection to no frontend. From a pod or the node to an endpoint, it keeps its tuple if that
    /// is free, and gets another source port otherwise.
    pub(super) fn direct(
        &mut self,
        seen: Seen,
        packet: Packet,
        known: Option<usize>,
        given: &Outcome,
    ) -> Result<Verdict, String> {
        let (client, endpoint) = packet.ends;
        let is_of_node = !seen.is_workload && seen.way == Way::ToClient;
        // A client in the network is of interest only where it meets another connection, whose SYN this is not.
        let is_another = |other: &Connection| {
            let heard = packet.seq.map(|seq| seq >> 16);
            other.is_reply(seen.edge, packet.proto, (endpoint, client))
                && (!other.knows_request || other.heard.client != heard)
        };
        let gives_way = !seen.is_workload
            && seen.way == Way::ToBackend
            && packet.proto == Proto::TCP
            && self.forwarding.is_some()
            && (known.is_some() || self.connections.iter().any(is_another));
        if !(seen.is_workload || is_of_node || gives_way) || !self.policy.is_endpoint(endpoint) {
            self.hits.hit(Rule::Stranger);
            return Ok(Verdict::Untouched);
        }
        if let Some(known) = known {
            if !self.connections[known].is_over(self.now_secs) {
                self.hits.hit(Rule::DirectKnown);
                return Ok(self.forward(known, packet));
            }
            self.hits.hit(Rule::DirectOver);
            self.connections.remove(known);
        }
        let (from, to) = Wire::read(&given.1).ends();
        // Both draw from the ports of the node.
        let is_of_node = is_of_node || gives_way;
        let is_reply_taken = |reference: &Self, port: u16| {
            let reply = (endpoint, (client.0, port));
            reference.connections.iter().any(|known| known.is_reply(seen.edge, packet.proto, reply))
        };
        let has_collided = is_reply_taken(self, client.1);
        // With SCTP, taking over the tuple of a half that has just become too old looks like leaving a young half
        // alone. So does that of the node's own, which are taken over only if no port is free.
        let may_be_either = (self.clock == Clock::Runs && packet.proto == Proto::SCTP) || is_of_node;
        let is_placed = !may_be_either || self.held.holds_request(seen.edge, packet.proto, packet.ends);
        let candidate = Candidate { backend: endpoint, source: client.0, is_elsewhere: false };
        self.forget_dead_in_the_way(seen, packet, &[candidate], is_placed.then_some((from, to)));
        if is_of_node && !is_placed {
            self.hits.hit(Rule::OwnWithoutPort);
            let is_right = has_collided && (from, to) == packet.ends;
            return if is_right {
                Ok(Verdict::Untouched)
            } else {
                Err("the node's own connection is not noted".into())
            };
        }
        let collides = is_reply_taken(self, client.1);
        if collides && packet.proto == Proto::SCTP {
            self.hits.hit(Rule::DirectSctpTaken);
            return Ok(Verdict::Untouched);
        }
        let drawn = if is_of_node { self.ports_elsewhere(packet.proto, client.1) } else { CHOSEN_PORTS };
        let is_kept = from.1 == client.1;
        // The node's own may have met a dead connection, and drawn its port before that one gave way.
        let may_draw = collides || (is_of_node && has_collided);
        let is_right_port = if may_draw { drawn.contains(&from.1) } else { is_kept };
        if (from.0, to) != (client.0, endpoint) || !is_right_port || is_reply_taken(self, from.1) {
            return Err(format!("a direct connection: {:?} became {:?}", packet.ends, (from, to)));
        }
        self.hits.hit(match (is_of_node, is_kept) {
            (true, false) if gives_way => Rule::DirectGivesWay,
            (true, true) => Rule::OwnNew,
            (true, false) => Rule::OwnDrawnPort,
            (false, true) => Rule::DirectNew,
            (false, false) => Rule::DirectDrawnPort,
        });
        Ok(self.made(seen, packet, (endpoint, from), (0, 0)))
    }

    /// A new connection to a frontend that balances over these backends.
    pub(super) fn open(
        &mut self,
        seen: Seen,
        packet: Packet,
        (frontend, pool, backends): (&Frontend, u32, &[End]),
        given: &Outcome,
    ) -> Result<Verdict, String> {
        let (client, service) = packet.ends;
        let keeps_port = packet.proto == Proto::SCTP;
        let remembered = self.kept_backend(frontend, client.0, backends);
        // Not random: exactly one backend is right.
        let hashed = (frontend.by_hash && remembered.is_none())
            .then(|| self.hashed_backend(frontend, packet.proto, (client, service), backends));
        let kept = remembered.or(hashed);
        let candidates = |reference: &Self, backends: &[End]| -> Vec<Candidate> {
            backends.iter().map(|backend| reference.candidate(seen, frontend, packet, *backend)).collect()
        };
        let mut wanted = candidates(self, kept.as_ref().map_or(backends, std::slice::from_ref));
        let has_collided = self.is_any_taken(seen, packet, &wanted);
        let was_scarce = self.are_ports_scarce(seen, packet, &wanted, 2);
        let chosen = self.chosen(seen, packet, given);
        self.forget_dead_in_the_way(seen, packet, &wanted, chosen);
        let mut collides = self.is_any_taken(seen, packet, &wanted);
        if (collides || has_collided && wanted[0].is_elsewhere) && keeps_port && hashed.is_some() {
            // Its port cannot change, so its backend does.
            self.hits.hit(Rule::HashedSctpMoves);
            wanted = candidates(self, backends);
            self.forget_dead_in_the_way(seen, packet, &wanted, chosen);
            collides |= self.is_any_taken(seen, packet, &wanted);
        }
        let Some(((from, port), backend)) = chosen else {
            // Of 32 attempts, the last eight take over what may go.
            let is_scarce = was_scarce && self.are_ports_scarce(seen, packet, &wanted, 4);
            if collides && is_scarce {
                self.hits.hit(if wanted[0].is_elsewhere { Rule::NoPortElsewhere } else { Rule::NoPort });
                return Ok(Verdict::Dropped);
            }
            let known: Vec<_> = self.connections.iter().filter(|one| one.edge == seen.edge).collect();
            return Err(format!(
                "dropped although a backend was free: {wanted:?} beside {known:?}; held {:?}",
                self.held.0.iter().filter(|entry| entry.0 == 0).collect::<Vec<_>>()
            ));
        };
        let ends = ((from, port), backend);
        let matches: Vec<_> = wanted.iter().filter(|one| (one.backend, one.source) == (backend, from)).collect();
        let elsewhere = self.ports_elsewhere(packet.proto, client.1);
        // A dead connection makes room, but the attempt that met it has failed as well.
        let may_draw = has_collided && !keeps_port;
        let is_right_port = |one: &&Candidate| {
            if one.is_elsewhere {
                elsewhere.contains(&port)
            } else {
                port == client.1 || (may_draw && CHOSEN_PORTS.contains(&port))
            }
        };
        for (is_right, what) in [
            (wanted.iter().any(|one| one.backend == backend), "not a backend that may be chosen"),
            (!matches.is_empty(), "the source address is wrong"),
            (matches.iter().any(is_right_port), "the source port is wrong"),
            (!self.is_taken(seen, packet, (backend, (from, port))), "the reply tuple belongs to another connection"),
        ] {
            if !is_right {
                return Err(format!("{what}: {:?} became {ends:?}", packet.ends));
            }
        }
        let is_elsewhere = matches.iter().any(|one| one.is_elsewhere);
        self.note_choice((kept.is_some(), has_collided), packet.proto, (client.1, port), is_elsewhere);
        self.remember_client(frontend, client.0, backend);
        if seen.is_workload && from != client.0 {
            self.has_hairpins = true;
            self.hits.hit(Rule::NewToItself);
        }
        Ok(self.made(seen, packet, (backend, (from, port)), (frontend.id, pool)))
    }

    /// The ends that the kernel chose for a new connection; `None` if it chose none. A packet that has no hop left is
    /// answered after its connection was made: then the tables tell.
    fn chosen(&self, seen: Seen, packet: Packet, given: &Outcome) -> Option<(End, End)> {
        match given.0 {
            HookAction::Drop => None,
            HookAction::SendBack | HookAction::SendOut if !seen.is_workload => {
                self.held.request(seen.edge, packet.proto, packet.ends)
            }
            _ => Some(Wire::read(&given.1).ends()),
        }
    }

    fn is_taken(&self, seen: Seen, packet: Packet, reply: (End, End)) -> bool {
        self.connections.iter().any(|known| known.is_reply(seen.edge, packet.proto, reply))
    }

    /// The reply tuples that a connection to a backend may get without drawing any port but those for forwarding.
    fn reply_tuples(&self, packet: Packet, one: &Candidate) -> Vec<(End, End)> {
        let asked = packet.ends.0.1;
        let ports = if one.is_elsewhere { self.ports_elsewhere(packet.proto, asked) } else { asked..=asked };
        ports.map(|port| (one.backend, (one.source, port))).collect()
    }

    fn is_any_taken(&self, seen: Seen, packet: Packet, candidates: &[Candidate]) -> bool {
        candidates
            .iter()
            .any(|one| self.reply_tuples(packet, one).into_iter().any(|reply| self.is_taken(seen, packet, reply)))
    }

    /// Whether more than one tuple in so many is taken: all attempts may have met such ones.
    fn are_ports_scarce(&self, seen: Seen, packet: Packet, candidates: &[Candidate], one_in: usize) -> bool {
        let tuples: Vec<_> = candidates.iter().flat_map(|one| self.reply_tuples(packet, one)).collect();
        let taken = tuples.iter().filter(|reply| self.is_taken(seen, packet, **reply)).count();
        taken * one_in > tuples.len() || !candidates.iter().any(|one| one.is_elsewhere)
    }

    /// The backend of a connection's hash. With affinity, all connections of a client have the same.
    fn hashed_backend(
        &mut self,
        frontend: &Frontend,
        proto: Proto,
        (client, service): (End, End),
        slots: &[End],
    ) -> End {
        let keeps_clients = frontend.affinity_secs > 0;
        self.hits.hit(if keeps_clients { Rule::HashedClient } else { Rule::Hashed });
        let port = if keeps_clients { 0 } else { client.1 };
        slots[slot((client.0, port), service, proto, slots.len())]
    }

    fn note_choice(
        &mut self,
        (is_kept, has_collided): (bool, bool),
        proto: Proto,
        (asked, port): (u16, u16),
        is_elsewhere: bool,
    ) {
        for (is_so, rule) in [
            (is_elsewhere, Rule::NewElsewhere),
            (!is_elsewhere && asked == port, Rule::KeptPort),
            (!is_elsewhere && asked != port, Rule::DrawnPort),
            (is_kept && proto == Proto::UDP, Rule::ClientKeptUdp),
            (is_kept && proto == Proto::SCTP, Rule::ClientKeptSctp),
            (is_kept && has_collided, Rule::ClientKeptCollides),
        ] {
            if is_so {
                self.hits.hit(rule);
            }
        }
    }

    /// Records a new connection; returns the outcome of its packet.
    fn made(
        &mut self,
        seen: Seen,
        packet: Packet,
        (backend, from): (End, End),
        (frontend, pool): (u32, u32),
    ) -> Verdict {
        let connection = Connection {
            edge: seen.edge,
            proto: packet.proto,
            client: packet.ends.0,
            service: packet.ends.1,
            backend,
            seen: from,
            frontend,
            pool,
            state: State::Asked,
            is_reset: false,
            heard: Heard { client: packet.seq.map(|seq| seq >> 16), backend: None },
            last_packet_secs: self.now_secs,
            knows_request: true,
            knows_reply: true,
        };
        let verdict = translated(&connection);
        self.bound_embryos(&connection);
        self.connections.push(connection);
        verdict
    }

    /// Removes connections that hold a wanted reply tuple and are over or have lost a half. For another node, half-open
    /// ones go as well. Which ones the kernel meets is random: those that the tables still hold stay, unless the new
    /// connection has their tuple.
    fn forget_dead_in_the_way(
        &mut self,
        seen: Seen,
        packet: Packet,
        candidates: &[Candidate],
        chosen: Option<(End, End)>,
    ) {
        let mut wanted: Vec<_> = candidates.iter().flat_map(|one| self.reply_tuples(packet, one)).collect();
        if seen.way == Way::ToClient {
            // The node's own connection tries the ports for forwarding as well.
            let (client, endpoint) = packet.ends;
            wanted.extend(self.ports_elsewhere(packet.proto, client.1).map(|port| (endpoint, (client.0, port))));
        }
        let is_of_node = candidates.iter().any(|one| one.is_elsewhere);
        let (now_secs, held, clock) = (self.now_secs, &self.held, self.clock);
        let before = self.connections.len();
        self.connections.retain(|known| {
            let is_chosen = chosen == Some((known.seen, known.backend));
            let is_in_the_way = (known.edge, known.proto) == (seen.edge, packet.proto)
                && known.knows_reply
                && (is_chosen || wanted.contains(&(known.backend, known.seen)));
            // A young half may have become too old in the meantime. Then it is removed.
            let is_half = known.is_half(now_secs) || (clock == Clock::Runs && !known.knows_request);
            let gives_way = is_of_node && known.may_give_way(now_secs);
            let is_dead = is_half || known.is_over(now_secs) || gives_way;
            !(is_in_the_way && is_dead) || (!is_chosen && held.holds(known))
        });
        if self.connections.len() < before {
            self.hits.hit(Rule::DeadInTheWay);
        }
        let is_spared = |known: &Connection| {
            known.is_reply(seen.edge, packet.proto, (known.backend, known.seen))
                && wanted.contains(&(known.backend, known.seen))
                && !known.knows_request
                && !known.is_half(now_secs)
        };
        if self.connections.iter().any(is_spared) {
            self.hits.hit(Rule::YoungHalfInTheWay);
        }
    }
}
