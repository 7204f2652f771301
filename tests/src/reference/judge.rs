//! What must become of a packet, step by step as the design tells it (section 4).

use etherparse::IpNumber;
use lb_common::addr::Proto;
use lb_common::table::{EDGE_UPLINK, Scope};
use lb_common::verdict::Action;

use super::Reference;
use super::connection::{Connection, State, Way};
use super::error::port_unreachable;
use super::wire::{Quoted, Wire, proto};
use crate::machine::{EDGE, Program};
use crate::packet::End;

/// What became of a packet.
pub type Outcome = (Action, Vec<u8>);

/// Source ports that are chosen where the client's own is taken.
const CHOSEN_PORTS: std::ops::RangeInclusive<u16> = 0x8000..=0xffff;

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Where a packet is seen.
#[derive(Clone, Copy)]
struct Seen {
    edge: u32,
    is_workload: bool,
    way: Way,
}

impl From<Program> for Seen {
    fn from(program: Program) -> Self {
        match program {
            Program::WorkloadIngress => Self { edge: EDGE, is_workload: true, way: Way::ToBackend },
            Program::WorkloadEgress => Self { edge: EDGE, is_workload: true, way: Way::ToClient },
            Program::UplinkIngress => Self { edge: EDGE_UPLINK, is_workload: false, way: Way::ToBackend },
            Program::UplinkEgress => Self { edge: EDGE_UPLINK, is_workload: false, way: Way::ToClient },
        }
    }
}

/// A packet with ports, as the rules look at it.
struct Packet {
    wire: Wire,
    proto: Proto,
    ends: (End, End),
    /// None unless TCP.
    tcp_flags: u8,
}

impl Reference {
    /// Says what must become of a packet, given what became of it: `given` is asked only where chance decides.
    ///
    /// # Errors
    ///
    /// What chance may not choose.
    pub fn judge(&mut self, program: Program, packet: &[u8], given: &Outcome) -> Result<Outcome, String> {
        let seen = Seen::from(program);
        let wire = Wire::read(packet);
        let untouched = (Action::Next, packet.to_vec());
        if wire.is_fragment {
            return Ok(untouched);
        }
        if matches!(wire.protocol, IpNumber::ICMP | IpNumber::IPV6_ICMP) {
            return Ok(self.message(seen, wire));
        }
        let Some(proto) = proto(wire.protocol) else { return Ok(untouched) };
        let tcp_flags = if proto == Proto::TCP { wire.tcp_flags() } else { 0 };
        let packet = Packet { ends: wire.ends(), wire, proto, tcp_flags };
        match seen.way {
            Way::ToBackend => self.request(seen, packet, given),
            Way::ToClient => Ok(self.reply(seen, &packet).unwrap_or(untouched)),
        }
    }

    fn request(&mut self, seen: Seen, packet: Packet, given: &Outcome) -> Result<Outcome, String> {
        let untouched = (Action::Next, packet.wire.bytes().to_vec());
        if seen.is_workload
            && self.has_hairpins
            && let Some((_, bytes)) = self.reply(seen, &packet)
            && bytes != packet.wire.bytes()
        {
            // A pod answers itself.
            return Ok(sent_back(Wire::read(&bytes)));
        }
        let known = self.connections.iter().position(|known| known.is_request(seen.edge, packet.proto, packet.ends));
        let opens = packet.proto != Proto::TCP || packet.tcp_flags & (SYN | ACK | RST) == SYN;
        if !opens {
            return Ok(known.map_or(untouched, |known| self.forward(known, packet)));
        }
        let Some(frontend) = self.frontend(packet.ends.1, packet.proto) else {
            return self.direct(seen, packet, known, given);
        };
        let scope = self.scope(frontend, seen.is_workload);
        if let Some(known) = known {
            if self.is_wanted(known, frontend, scope, packet.proto) {
                return Ok(self.forward(known, packet));
            }
            self.connections.remove(known);
        }
        match scope.action {
            lb_common::table::Action::Pass => Ok(untouched),
            lb_common::table::Action::Drop => Ok((Action::Drop, untouched.1)),
            lb_common::table::Action::Reject => {
                Ok((Action::SendBack, port_unreachable(&packet.wire, packet.proto, packet.ends)))
            }
            lb_common::table::Action::Balance => self.open(seen, packet, (frontend, scope), given),
        }
    }

    /// A packet that opens a connection to no frontend: a pod's to an endpoint keeps its tuple if nobody else has it, and
    /// gets another source port otherwise.
    fn direct(&mut self, seen: Seen, packet: Packet, known: Option<usize>, given: &Outcome) -> Result<Outcome, String> {
        let (client, endpoint) = packet.ends;
        let untouched = (Action::Next, packet.wire.bytes().to_vec());
        if !seen.is_workload || !self.is_endpoint(endpoint) {
            return Ok(untouched);
        }
        if let Some(known) = known {
            if !self.connections[known].is_over(self.now_secs) {
                return Ok(self.forward(known, packet));
            }
            self.connections.remove(known);
        }
        let (from, to) = Wire::read(&given.1).ends();
        self.forget_dead_in_the_way((seen.edge, packet.proto), &[endpoint], client, Some((from, to)));
        let is_taken = |port: u16| {
            let reply = (endpoint, (client.0, port));
            self.connections.iter().any(|known| known.is_reply(seen.edge, packet.proto, reply))
        };
        let collides = is_taken(client.1);
        if collides && packet.proto == Proto::SCTP {
            return Ok(untouched);
        }
        let is_right_port = if collides { CHOSEN_PORTS.contains(&from.1) } else { from.1 == client.1 };
        if (from.0, to) != (client.0, endpoint) || !is_right_port || is_taken(from.1) {
            return Err(format!("a direct connection: {:?} became {:?}", packet.ends, (from, to)));
        }
        let connection = Connection {
            edge: seen.edge,
            proto: packet.proto,
            client,
            service: endpoint,
            backend: endpoint,
            seen: from,
            frontend: 0,
            pool: 0,
            state: State::Asked,
            last_packet_secs: self.now_secs,
            knows_request: true,
            knows_reply: true,
        };
        let outcome = translated(&connection, packet.wire);
        self.connections.push(connection);
        Ok(outcome)
    }

    /// A packet that comes from a backend; nothing where it is nobody's.
    fn reply(&mut self, seen: Seen, packet: &Packet) -> Option<Outcome> {
        let known = self.connections.iter().position(|known| known.is_reply(seen.edge, packet.proto, packet.ends))?;
        if packet.tcp_flags & SYN != 0 && self.connections[known].state == State::Over {
            // A direct connection on the tuple of one that is over.
            self.connections.remove(known);
            return None;
        }
        self.note(known, Way::ToClient, packet.tcp_flags);
        let connection = &self.connections[known];
        let mut wire = packet.wire.clone();
        wire.set_ends(connection.service, connection.client);
        Some((Action::Next, wire.bytes().to_vec()))
    }

    fn forward(&mut self, known: usize, packet: Packet) -> Outcome {
        self.note(known, Way::ToBackend, packet.tcp_flags);
        translated(&self.connections[known], packet.wire)
    }

    /// Takes note of a packet of a connection. A lost half is put back, unless its tuple is another connection's now.
    fn note(&mut self, known: usize, way: Way, tcp_flags: u8) {
        if !self.connections[known].note(way, tcp_flags, self.now_secs) {
            return;
        }
        let Connection { edge, proto, client, service, backend, seen, .. } = self.connections[known];
        let mut others = self.connections.iter().enumerate().filter(|(index, _)| *index != known);
        let request_is_free = !others.clone().any(|(_, other)| other.is_request(edge, proto, (client, service)));
        let reply_is_free = !others.any(|(_, other)| other.is_reply(edge, proto, (backend, seen)));
        let connection = &mut self.connections[known];
        connection.knows_request |= request_is_free;
        connection.knows_reply |= reply_is_free;
    }

    /// Whether the first packet of a connection, or any datagram, may go the way of a known one.
    fn is_wanted(&mut self, known: usize, frontend: u32, scope: Scope, proto: Proto) -> bool {
        let service_port = self.service_port(frontend);
        let connection = &self.connections[known];
        if connection.is_over(self.now_secs) {
            return false;
        }
        match scope.action {
            lb_common::table::Action::Reject | lb_common::table::Action::Drop => false,
            lb_common::table::Action::Pass => proto != Proto::TCP,
            lb_common::table::Action::Balance if (connection.pool, connection.frontend) == (scope.pool, frontend) => {
                true
            }
            lb_common::table::Action::Balance => {
                let is_member = self.is_member(service_port, self.connections[known].backend);
                if is_member {
                    self.connections[known].pool = scope.pool;
                }
                is_member
            }
        }
    }

    /// A new connection: which backend and source port is chance's, but not everything goes.
    fn open(
        &mut self,
        seen: Seen,
        packet: Packet,
        (frontend, scope): (u32, Scope),
        given: &Outcome,
    ) -> Result<Outcome, String> {
        let (client, service) = packet.ends;
        let keeps_port = packet.proto == Proto::SCTP;
        let answers = |backend: End| if keeps_port { (backend.0, service.1) } else { backend };
        let source = |backend: End| if seen.is_workload && backend.0 == client.0 { service.0 } else { client.0 };
        let pool = self.pool(scope, client.0.is_ipv4());
        let backends: Vec<End> = pool.into_iter().map(answers).collect();
        let has_collided = self.connections.iter().any(|known| {
            let reply = (known.backend, (source(known.backend), client.1));
            backends.contains(&known.backend) && known.is_reply(seen.edge, packet.proto, reply)
        });
        let chosen = (given.0 != Action::Drop).then(|| Wire::read(&given.1).ends());
        self.forget_dead_in_the_way((seen.edge, packet.proto), &backends, client, chosen);
        let is_taken = |backend: &End, port: u16| {
            let reply = (*backend, (source(*backend), port));
            self.connections.iter().any(|known| known.is_reply(seen.edge, packet.proto, reply))
        };
        let collides = backends.iter().any(|backend| is_taken(backend, client.1));
        let Some(((from, port), backend)) = chosen else {
            let dropped = (Action::Drop, packet.wire.bytes().to_vec());
            return if collides { Ok(dropped) } else { Err("dropped although every backend was free".into()) };
        };
        // A dead connection makes room, but the attempt that met it has failed as well.
        let is_right_port = port == client.1 || (has_collided && !keeps_port && CHOSEN_PORTS.contains(&port));
        for (is_right, what) in [
            (backends.contains(&backend), "not a backend of the pool"),
            (from == source(backend), "the source address is wrong"),
            (is_right_port, "the source port is wrong"),
            (!is_taken(&backend, port), "the reply tuple belongs to another connection"),
        ] {
            if !is_right {
                return Err(format!("{what}: {:?} became {:?}", packet.ends, ((from, port), backend)));
            }
        }
        let connection = Connection {
            edge: seen.edge,
            proto: packet.proto,
            client,
            service,
            backend,
            seen: (from, port),
            frontend,
            pool: scope.pool,
            state: State::Asked,
            last_packet_secs: self.now_secs,
            knows_request: true,
            knows_reply: true,
        };
        self.has_hairpins |= from != client.0;
        let outcome = translated(&connection, packet.wire);
        self.connections.push(connection);
        Ok(outcome)
    }

    /// Connections that are over, or of which half is lost, make room where they hold a wanted reply tuple. Which ones
    /// were met is chance's: those that the tables still hold stay, unless the new one has their tuple.
    fn forget_dead_in_the_way(
        &mut self,
        (edge, proto): (u32, Proto),
        backends: &[End],
        client: End,
        chosen: Option<(End, End)>,
    ) {
        let (now_secs, held) = (self.now_secs, &self.held);
        self.connections.retain(|known| {
            let is_chosen = chosen == Some((known.seen, known.backend));
            let is_in_the_way = (known.edge, known.proto) == (edge, proto)
                && known.knows_reply
                && (is_chosen || (known.seen.1 == client.1 && backends.contains(&known.backend)));
            let is_dead = !known.knows_request || known.is_over(now_secs);
            !(is_in_the_way && is_dead) || (!is_chosen && held.holds(known))
        });
    }

    /// An ICMP message.
    fn message(&mut self, seen: Seen, mut wire: Wire) -> Outcome {
        let untouched = (Action::Next, wire.bytes().to_vec());
        let is_redirect = wire.is_v4() && wire.icmp_type() == 5;
        let is_error = if wire.is_v4() {
            matches!(wire.icmp_type(), 3 | 4 | 11 | 12)
        } else {
            (1..=4).contains(&wire.icmp_type())
        };
        let Some(quoted) = wire.quoted().filter(|_| is_error || is_redirect) else { return untouched };
        let Some((connection, way)) = self.complained_of(seen, &quoted) else { return untouched };
        if (connection.client, connection.service) == (connection.seen, connection.backend) {
            // A direct connection as it is.
            return untouched;
        }
        if is_redirect {
            return (Action::Drop, wire.bytes().to_vec());
        }
        let (source, _) = wire.addresses();
        // What the reader of the message sent, whom it sent it to, and whose complaint this is then.
        let (about, reader, other_end, other_name) = match way {
            Way::ToBackend => {
                let about = (connection.client, connection.service);
                (about, connection.client.0, connection.backend.0, connection.service.0)
            }
            Way::ToClient => {
                let about = (connection.backend, connection.seen);
                (about, connection.backend.0, connection.client.0, connection.seen.0)
            }
        };
        let from = if source == other_end { other_name } else { source };
        wire.set_error(&quoted, about, (from, reader));
        if (seen.way, way) == (Way::ToBackend, Way::ToBackend) {
            return sent_back(wire);
        }
        (Action::Next, wire.bytes().to_vec())
    }

    /// The connection that a quoted packet belongs to, and which way that packet went.
    fn complained_of(&self, seen: Seen, quoted: &Quoted) -> Option<(&Connection, Way)> {
        let (from, to) = quoted.ends;
        let answer = (to, from);
        let of_reply = self.connections.iter().find(|known| known.is_request(seen.edge, quoted.proto, answer));
        let of_request = self.connections.iter().find(|known| known.is_reply(seen.edge, quoted.proto, answer));
        match seen.way {
            Way::ToClient => of_request.map(|connection| (connection, Way::ToBackend)),
            Way::ToBackend => of_reply.map(|connection| (connection, Way::ToClient)).or_else(|| {
                let may_be_own = seen.is_workload && self.has_hairpins;
                of_request.filter(|_| may_be_own).map(|connection| (connection, Way::ToBackend))
            }),
        }
    }
}

/// The packet of a connection on its way to the backend; one that changes its source goes back where it came from.
fn translated(connection: &Connection, mut wire: Wire) -> Outcome {
    wire.set_ends(connection.seen, connection.backend);
    if connection.seen.0 == connection.client.0 { (Action::Next, wire.bytes().to_vec()) } else { sent_back(wire) }
}

fn sent_back(mut wire: Wire) -> Outcome {
    wire.turn_back();
    (Action::SendBack, wire.bytes().to_vec())
}
