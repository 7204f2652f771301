//! New connections: backend and source port are random, within limits.

use lb_common::addr::Proto;
use lb_common::verdict::HookAction;

use super::connection::{Connection, Heard, State};
use super::hash::slot;
use super::judge::{Outcome, Packet, Seen, Verdict, translated};
use super::policy::Frontend;
use super::rule::Rule;
use super::wire::Wire;
use super::{Clock, Reference};
use crate::packet::End;

/// Source ports that are drawn if the client's own is taken.
pub(super) const CHOSEN_PORTS: std::ops::RangeInclusive<u16> = 0x8000..=0xffff;

impl Reference {
    /// A packet that opens a connection to no frontend. From a pod to an endpoint, it keeps its tuple if that is free,
    /// and gets another source port otherwise.
    pub(super) fn direct(
        &mut self,
        seen: Seen,
        packet: Packet,
        known: Option<usize>,
        given: &Outcome,
    ) -> Result<Verdict, String> {
        let (client, endpoint) = packet.ends;
        if !seen.is_workload || !self.policy.is_endpoint(endpoint) {
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
        // With SCTP, taking over the tuple of a half that has just become too old looks like leaving a young half
        // alone.
        let may_be_either = self.clock == Clock::Runs && packet.proto == Proto::SCTP;
        let is_placed = !may_be_either || self.held.holds_request(seen.edge, packet.proto, packet.ends);
        self.forget_dead_in_the_way((seen.edge, packet.proto), &[endpoint], client, is_placed.then_some((from, to)));
        let is_taken = |port: u16| {
            let reply = (endpoint, (client.0, port));
            self.connections.iter().any(|known| known.is_reply(seen.edge, packet.proto, reply))
        };
        let collides = is_taken(client.1);
        if collides && packet.proto == Proto::SCTP {
            self.hits.hit(Rule::DirectSctpTaken);
            return Ok(Verdict::Untouched);
        }
        let is_right_port = if collides { CHOSEN_PORTS.contains(&from.1) } else { from.1 == client.1 };
        if (from.0, to) != (client.0, endpoint) || !is_right_port || is_taken(from.1) {
            return Err(format!("a direct connection: {:?} became {:?}", packet.ends, (from, to)));
        }
        self.hits.hit(if collides { Rule::DirectDrawnPort } else { Rule::DirectNew });
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
        let answers = |backend: End| if keeps_port { (backend.0, service.1) } else { backend };
        let source = |backend: End| if seen.is_workload && backend.0 == client.0 { service.0 } else { client.0 };
        let remembered = self.kept_backend(frontend, client.0, backends);
        // Not random: exactly one backend is right.
        let hashed = (frontend.by_hash && remembered.is_none())
            .then(|| self.hashed_backend(frontend, packet.proto, (client, service), backends));
        let kept = remembered.or(hashed);
        let all: Vec<End> = backends.iter().map(|end| answers(*end)).collect();
        let mut backends: Vec<End> =
            kept.as_ref().map_or(backends, std::slice::from_ref).iter().map(|end| answers(*end)).collect();
        let has_collided = self.connections.iter().any(|known| {
            let reply = (known.backend, (source(known.backend), client.1));
            backends.contains(&known.backend) && known.is_reply(seen.edge, packet.proto, reply)
        });
        let chosen = (given.0 != HookAction::Drop).then(|| Wire::read(&given.1).ends());
        self.forget_dead_in_the_way((seen.edge, packet.proto), &backends, client, chosen);
        let is_taken = |backend: &End, port: u16| {
            let reply = (*backend, (source(*backend), port));
            self.connections.iter().any(|known| known.is_reply(seen.edge, packet.proto, reply))
        };
        let collides = backends.iter().any(|backend| is_taken(backend, client.1));
        if collides && keeps_port && hashed.is_some() {
            // Its port cannot change, so its backend does.
            self.hits.hit(Rule::HashedSctpMoves);
            backends = all;
            self.forget_dead_in_the_way((seen.edge, packet.proto), &backends, client, chosen);
        }
        let is_taken = |backend: &End, port: u16| {
            let reply = (*backend, (source(*backend), port));
            self.connections.iter().any(|known| known.is_reply(seen.edge, packet.proto, reply))
        };
        let Some(((from, port), backend)) = chosen else {
            if collides {
                self.hits.hit(Rule::NoPort);
                return Ok(Verdict::Dropped);
            }
            return Err("dropped although every backend was free".into());
        };
        // A dead connection makes room, but the attempt that met it has failed as well.
        let is_right_port = port == client.1 || (has_collided && !keeps_port && CHOSEN_PORTS.contains(&port));
        for (is_right, what) in [
            (backends.contains(&backend), "not a backend that may be chosen"),
            (from == source(backend), "the source address is wrong"),
            (is_right_port, "the source port is wrong"),
            (!is_taken(&backend, port), "the reply tuple belongs to another connection"),
        ] {
            if !is_right {
                return Err(format!("{what}: {:?} became {:?}", packet.ends, ((from, port), backend)));
            }
        }
        self.note_choice((kept.is_some(), has_collided), packet.proto, (client.1, port));
        self.remember_client(frontend, client.0, backend);
        self.has_hairpins |= from != client.0;
        if from != client.0 {
            self.hits.hit(Rule::NewToItself);
        }
        Ok(self.made(seen, packet, (backend, (from, port)), (frontend.id, pool)))
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

    fn note_choice(&mut self, (is_kept, has_collided): (bool, bool), proto: Proto, (asked, port): (u16, u16)) {
        for (is_so, rule) in [
            (asked == port, Rule::KeptPort),
            (asked != port, Rule::DrawnPort),
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

    /// Removes connections that hold a wanted reply tuple and are over or have lost a half. Which ones the kernel meets
    /// is random: those that the tables still hold stay, unless the new connection has their tuple.
    fn forget_dead_in_the_way(
        &mut self,
        (edge, proto): (u32, Proto),
        backends: &[End],
        client: End,
        chosen: Option<(End, End)>,
    ) {
        let (now_secs, held, clock) = (self.now_secs, &self.held, self.clock);
        let before = self.connections.len();
        self.connections.retain(|known| {
            let is_chosen = chosen == Some((known.seen, known.backend));
            let is_in_the_way = (known.edge, known.proto) == (edge, proto)
                && known.knows_reply
                && (is_chosen || (known.seen.1 == client.1 && backends.contains(&known.backend)));
            // A young half may have become too old in the meantime. Then it is removed.
            let is_half = known.is_half(now_secs) || (clock == Clock::Runs && !known.knows_request);
            let is_dead = is_half || known.is_over(now_secs);
            !(is_in_the_way && is_dead) || (!is_chosen && held.holds(known))
        });
        if self.connections.len() < before {
            self.hits.hit(Rule::DeadInTheWay);
        }
        let is_spared = |known: &Connection| {
            known.is_reply(edge, proto, (known.backend, (client.0, client.1)))
                && backends.contains(&known.backend)
                && !known.knows_request
                && !known.is_half(now_secs)
        };
        if self.connections.iter().any(is_spared) {
            self.hits.hit(Rule::YoungHalfInTheWay);
        }
    }
}
