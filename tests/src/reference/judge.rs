//! The correct outcome of a packet, step by step as in docs/design.md#flows.

use etherparse::IpNumber;
use lb_common::addr::Proto;
use lb_common::table::EDGE_UPLINK;
use lb_common::verdict::HookAction;

use super::Reference;
use super::connection::{Connection, Heard, Segment, State, Way};
use super::error::port_unreachable;
use super::open::CHOSEN_PORTS;
use super::policy::{Choice, Frontend};
use super::rule::Rule;
use super::wire::{Part, Wire, proto};
use crate::machine::{EDGE, Program};
use crate::packet::{BRIDGE_MAC, End, NODE_MAC};

/// The outcome of a packet.
pub type Outcome = (HookAction, Vec<u8>);

/// Bytes of a TCP header without options.
const TCP_LEN: usize = 20;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The hook at which a packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub edge: u32,
    pub is_workload: bool,
    pub way: Way,
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

/// The receiver of a frame that arrives at a port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The node's stack: the frame has the MAC of the port or of the bridge.
    Node,
    /// Another host behind the bridge. Only a packet that may have the tuple of a flow matters.
    Neighbour,
    /// Broadcast or multicast.
    Group,
}

/// The outcome of a packet with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Untouched,
    /// The packet continues with these ends.
    Becomes((End, End)),
    /// The packet gets these ends and is sent back to the interface from which it came.
    ComesBack((End, End)),
    /// The packet gets these ends and leaves the node, to an endpoint elsewhere or as the answer of one.
    Leaves((End, End)),
    Rejected,
    Dropped,
}

/// The fields of a packet with ports that the rules use.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub proto: Proto,
    pub ends: (End, End),
    /// 0 unless the packet is TCP.
    pub tcp_flags: u8,
    pub seq: Option<u32>,
}

impl Packet {
    /// Whether the packet may open a connection.
    pub const fn opens(&self) -> bool {
        !matches!(self.proto, Proto::TCP) || self.tcp_flags & (SYN | ACK | RST) == SYN
    }

    const fn segment(&self) -> Segment {
        Segment { flags: self.tcp_flags, seq: self.seq }
    }
}

impl Reference {
    /// The outcome that a packet must have, given the outcome that it had: `given` is used only for random choices. If
    /// the packet is the first fragment of a datagram, `beyond` is the rest of that datagram.
    ///
    /// # Errors
    ///
    /// A random choice that is not allowed.
    pub fn judge(
        &mut self,
        program: Program,
        (packet, beyond): (&[u8], &[u8]),
        given: &Outcome,
    ) -> Result<Outcome, String> {
        self.replayed.clear();
        let seen = Seen::from(program);
        let wire = Wire::read(packet).with_beyond(beyond);
        let reach = self.reach(seen, packet);
        let untouched = (HookAction::Next, packet.to_vec());
        if reach == Reach::Group {
            return Ok(untouched);
        }
        if matches!(wire.protocol, IpNumber::ICMP | IpNumber::IPV6_ICMP) {
            return Ok(if wire.part == Part::Whole { self.message((seen, reach), wire) } else { untouched });
        }
        let Some(proto) = proto(wire.protocol) else { return Ok(untouched) };
        if let Part::Later(id) = wire.part {
            if reach == Reach::Neighbour {
                self.hits.hit(Rule::NeighboursFragment);
                return Ok(untouched);
            }
            return Ok(self.later_fragment(seen, wire, (proto, id)));
        }
        let is_short = proto == Proto::TCP && wire.bytes().len() < wire.l4 + TCP_LEN;
        let is_tcp = proto == Proto::TCP && !is_short;
        let tcp_flags = if is_tcp { wire.tcp_flags() } else { 0 };
        let headers = Packet { ends: wire.ends(), proto, tcp_flags, seq: is_tcp.then(|| wire.tcp_seq()) };
        let behind = match wire.part {
            Part::First(id) if reach == Reach::Node => self.take_waiting(seen, &wire, (proto, id)),
            Part::First(_) | Part::Whole | Part::Later(_) => None,
        };
        let verdict = match seen.way {
            _ if is_short => {
                self.hits.hit(Rule::FirstTooShort);
                Verdict::Untouched
            }
            Way::ToBackend => self.request((seen, reach), headers, given)?,
            Way::ToClient => self.leaves(seen, headers, given)?,
        };
        if let Part::First(id) = wire.part
            && reach == Reach::Node
        {
            self.note_datagram(seen, &wire, (proto, id), (verdict, behind.is_some()));
            let behind = behind.into_iter().flatten();
            self.replayed = behind.map(|later| self.later_fragment(seen, Wire::read(&later), (proto, id))).collect();
        }
        let outcome = self.perform(verdict, wire.clone(), headers);
        if outcome.1 != wire.bytes() {
            self.note_looks(seen, &wire);
        }
        Ok(outcome)
    }

    /// Records which kinds of packets were changed.
    fn note_looks(&mut self, seen: Seen, wire: &Wire) {
        for (is_so, rule) in [
            (wire.has_options() && wire.is_v4(), Rule::WithOptions),
            (wire.has_options() && !wire.is_v4(), Rule::WithExtensionHeader),
            (wire.is_udp_without_sum(), Rule::UdpWithoutSum),
            (wire.protocol == IpNumber::SCTP, Rule::SctpTranslated),
            (!seen.is_workload, Rule::AtUplink),
            (wire.is_atomic_fragment, Rule::AtomicFragment),
        ] {
            if is_so {
                self.hits.hit(rule);
            }
        }
    }

    /// The receiver of a frame. A frame on egress is the node's.
    fn reach(&mut self, seen: Seen, frame: &[u8]) -> Reach {
        let to = &frame[..6];
        let reach = match seen.way {
            Way::ToClient => Reach::Node,
            Way::ToBackend if to[0] & 1 == 1 => Reach::Group,
            Way::ToBackend if [NODE_MAC, BRIDGE_MAC].iter().any(|mac| mac == to) => Reach::Node,
            Way::ToBackend => Reach::Neighbour,
        };
        match reach {
            Reach::Node if to == NODE_MAC => {}
            Reach::Node => self.hits.hit(Rule::ToTheBridge),
            Reach::Neighbour => self.hits.hit(Rule::ToNeighbour),
            Reach::Group => self.hits.hit(Rule::ToGroup),
        }
        reach
    }

    fn request(&mut self, (seen, reach): (Seen, Reach), packet: Packet, given: &Outcome) -> Result<Verdict, String> {
        if seen.is_workload
            && reach == Reach::Node
            && self.has_hairpins
            && let Some(Verdict::Becomes(ends)) = self.reply(seen, packet)
            && ends != packet.ends
        {
            self.hits.hit(Rule::AnswerToItself);
            return Ok(Verdict::ComesBack(ends));
        }
        if reach == Reach::Node
            && let Some(verdict) = self.answer_from_elsewhere(seen, packet)
        {
            return Ok(verdict);
        }
        let known = self.connections.iter().position(|known| known.is_request(seen.edge, packet.proto, packet.ends));
        let opens = packet.opens();
        let is_deaf = |known: usize| reach == Reach::Neighbour && !self.connections[known].is_direct();
        if known.is_some_and(is_deaf) && (!opens || self.policy.frontend(packet.ends.1, packet.proto).is_none()) {
            let is_over = opens && known.is_some_and(|known| self.connections[known].is_over(self.now_secs));
            if !is_over {
                self.hits.hit(Rule::NeighbourMeetsConnection);
                return Ok(Verdict::Untouched);
            }
        }
        if !opens {
            self.hits.hit(if known.is_some() { Rule::MidFlowOfConnection } else { Rule::MidFlowOfNobody });
            return Ok(known.map_or(Verdict::Untouched, |known| self.forward(known, packet)));
        }
        let Some(frontend) = self.policy.frontend(packet.ends.1, packet.proto).cloned() else {
            return self.direct(seen, packet, known, given);
        };
        if reach == Reach::Neighbour {
            self.hits.hit(Rule::NeighbourMeetsFrontend);
            return Ok(Verdict::Untouched);
        }
        let choice = frontend.choice(seen.is_workload).clone();
        if let Some(known) = known {
            if self.is_wanted(known, &frontend, &choice) {
                self.hits.hit(if packet.proto == Proto::TCP { Rule::SynOfConnection } else { Rule::KnownRequest });
                if frontend.ranges_with(packet.ends.0.0) == Some(0) {
                    self.hits.hit(Rule::RangeNotAsked);
                }
                return Ok(self.forward(known, packet));
            }
            self.hits.hit(Rule::Unwanted);
            self.connections.remove(known);
        }
        if !self.is_let_in(&frontend, &choice, packet) {
            return Ok(Verdict::Dropped);
        }
        let (rule, verdict) = match choice {
            Choice::Pass => (Rule::NewPassed, Verdict::Untouched),
            Choice::Drop => (Rule::NewDropped, Verdict::Dropped),
            Choice::Reject => (Rule::NewRejected, Verdict::Rejected),
            Choice::Balance(pool, backends) => {
                self.hits.hit(Rule::NewBalanced);
                return self.open(seen, packet, (&frontend, pool, &backends), given);
            }
        };
        self.hits.hit(rule);
        Ok(verdict)
    }

    /// Whether the source ranges of a frontend admit a new connection. They apply to every client and to every choice
    /// but Pass (SR-01, SR-02, SR-09).
    fn is_let_in(&mut self, frontend: &Frontend, choice: &Choice, packet: Packet) -> bool {
        let Some(count) = frontend.ranges_with(packet.ends.0.0) else { return true };
        if *choice == Choice::Pass {
            return true;
        }
        self.hits.hit(match (count, choice) {
            (0, Choice::Balance(..)) => Rule::RangeKeepsOut,
            (0, _) => Rule::RangeBeforeFixed,
            (1, _) => Rule::RangeLetsIn,
            _ => Rule::RangesOverlap,
        });
        count > 0
    }

    /// The verdict on a packet from a backend; `None` if it belongs to no connection.
    pub(super) fn reply(&mut self, seen: Seen, packet: Packet) -> Option<Verdict> {
        let known = self.connections.iter().position(|known| known.is_reply(seen.edge, packet.proto, packet.ends));
        let Some(known) = known else {
            if seen.way == Way::ToClient {
                self.hits.hit(Rule::AnswerOfNobody);
            }
            return None;
        };
        let is_unanswered = self.connections[known].state == State::Asked && packet.tcp_flags & ACK != 0;
        if packet.tcp_flags & SYN != 0 && self.connections[known].has_ended() && is_unanswered {
            self.hits.hit(Rule::AnswerAfterReset);
        } else if packet.tcp_flags & SYN != 0 && self.connections[known].has_ended() {
            // A direct connection on the tuple of one that is over.
            self.hits.hit(Rule::DirectOverClosed);
            self.connections.remove(known);
            return None;
        }
        self.hits.hit(Rule::Answer);
        self.note(known, Way::ToClient, packet.segment());
        let connection = &self.connections[known];
        Some(Verdict::Becomes((connection.service, connection.client)))
    }

    /// A packet on egress. On the test machines every one has arrived at the same edge or at another port of its
    /// bridge.
    fn leaves(&mut self, seen: Seen, packet: Packet, given: &Outcome) -> Result<Verdict, String> {
        if let Some(verdict) = self.reply(seen, packet) {
            return Ok(verdict);
        }
        if !seen.is_workload {
            return self.own_request(seen, packet, given);
        }
        let (client, backend) = packet.ends;
        let opens = packet.opens();
        let known = self.connections.iter().position(|known| {
            known.is_reply(seen.edge, packet.proto, (backend, client))
                && known.state == State::Asked
                && !known.is_reset
                && !known.is_direct()
                && known.seen.0 != known.service.0
        });
        let Some(known) = known.filter(|_| opens) else { return Ok(Verdict::Untouched) };
        self.come_home(known, packet, given)
    }

    /// A pod's request reaches that pod. The pod must see the frontend's address, or it would answer itself internally.
    fn come_home(&mut self, known: usize, packet: Packet, given: &Outcome) -> Result<Verdict, String> {
        let Connection { edge, proto, service, backend, .. } = self.connections[known];
        let is_free = |reference: &Self, port| {
            let others = reference.connections.iter().enumerate().filter(|(index, _)| *index != known);
            !others.into_iter().any(|(_, other)| other.is_reply(edge, proto, (backend, (service.0, port))))
        };
        let asked = packet.ends.0.1;
        let is_asked_free = is_free(self, asked);
        if !is_asked_free && proto == Proto::SCTP {
            self.hits.hit(Rule::HomeTaken);
            return Ok(Verdict::Dropped);
        }
        let (from, _) = Wire::read(&given.1).ends();
        let port = if is_asked_free { asked } else { from.1 };
        let is_right = is_asked_free || (CHOSEN_PORTS.contains(&port) && is_free(self, port));
        if !is_right {
            return Err(format!("at home, {:?} became {from:?}", packet.ends));
        }
        self.hits.hit(if is_asked_free { Rule::CameHome } else { Rule::CameHomeDrawnPort });
        self.has_hairpins = true;
        let connection = &mut self.connections[known];
        connection.seen = (service.0, port);
        (connection.knows_request, connection.knows_reply) = (true, true);
        connection.heard = Heard { client: packet.seq.map(|seq| seq >> 16), backend: None };
        connection.last_packet_secs = self.now_secs;
        let home = connection.clone();
        // A UDP server may answer from the address to which the request was sent. Such answers have a reply entry only.
        let answers = (home.client.0, backend.1);
        let is_taken = self.connections.iter().any(|other| other.is_reply(edge, proto, (answers, home.seen)));
        if proto == Proto::UDP && !is_taken {
            self.connections.push(Connection { backend: answers, knows_request: false, ..home.clone() });
        }
        Ok(Verdict::Becomes((home.seen, backend)))
    }

    pub(super) fn forward(&mut self, known: usize, packet: Packet) -> Verdict {
        self.note(known, Way::ToBackend, packet.segment());
        translated(&self.connections[known])
    }

    /// Records a packet of a connection. A half that was evicted is restored, unless another connection has its tuple
    /// now.
    fn note(&mut self, known: usize, way: Way, segment: Segment) {
        let states = |connection: &Connection| (connection.state, connection.is_reset);
        let (before, was_reset) = states(&self.connections[known]);
        if self.connections[known].is_guessed(way, segment) {
            self.hits.hit(Rule::GuessedEnd);
        }
        let is_written = self.connections[known].note(way, segment, self.now_secs);
        let (after, is_reset) = states(&self.connections[known]);
        self.note_states(way, segment.flags, ((before, was_reset), (after, is_reset)));
        if matches!(before, State::Asked | State::Answered)
            && matches!(after, State::Open | State::ClientDone | State::BackendDone)
            && self.embryos.give_back()
        {
            self.hits.hit(Rule::EmbryoTokenBack);
        }
        if !is_written {
            return;
        }
        let Connection { edge, proto, client, service, backend, seen, knows_request, knows_reply, .. } =
            self.connections[known];
        let mut others = self.connections.iter().enumerate().filter(|(index, _)| *index != known);
        let request_is_free = !others.clone().any(|(_, other)| other.is_request(edge, proto, (client, service)));
        let reply_is_free = !others.any(|(_, other)| other.is_reply(edge, proto, (backend, seen)));
        if !(knows_request && knows_reply) {
            let is_free = (knows_request || request_is_free) && (knows_reply || reply_is_free);
            self.hits.hit(if is_free { Rule::HalfRestored } else { Rule::HalfTakenByAnother });
        }
        let connection = &mut self.connections[known];
        connection.knows_request |= request_is_free;
        connection.knows_reply |= reply_is_free;
    }

    fn note_states(
        &mut self,
        way: Way,
        tcp_flags: u8,
        ((before, was_reset), (after, is_reset)): ((State, bool), (State, bool)),
    ) {
        let is_new = before != after;
        for (is_so, rule) in [
            (tcp_flags & (SYN | ACK | FIN | RST) == SYN && way == Way::ToClient, Rule::SimultaneousOpen),
            (is_new && after == State::ClientDone, Rule::ClientFin),
            (is_new && after == State::BackendDone, Rule::BackendFin),
            (is_new && after == State::Over, Rule::FinBothWays),
            (is_reset && !was_reset && way == Way::ToBackend, Rule::ClientRst),
            (is_reset && !was_reset && way == Way::ToClient, Rule::BackendRst),
            (was_reset && !is_reset, Rule::GoesOnAfterReset),
        ] {
            if is_so {
                self.hits.hit(rule);
            }
        }
    }

    fn perform(&mut self, verdict: Verdict, mut wire: Wire, packet: Packet) -> Outcome {
        match verdict {
            Verdict::Untouched => (HookAction::Next, wire.bytes().to_vec()),
            Verdict::Becomes((from, to)) => {
                wire.set_ends(from, to);
                (HookAction::Next, wire.bytes().to_vec())
            }
            Verdict::ComesBack((from, to)) => {
                wire.set_ends(from, to);
                wire.turn_back();
                (HookAction::SendBack, wire.bytes().to_vec())
            }
            Verdict::Leaves((from, to)) => {
                let untranslated = wire.clone();
                wire.set_ends(from, to);
                self.send_on(wire, Some((&untranslated, packet)))
            }
            Verdict::Rejected => (HookAction::SendBack, port_unreachable(&wire, packet.proto, packet.ends)),
            Verdict::Dropped => (HookAction::Drop, wire.bytes().to_vec()),
        }
    }

    /// Whether the first packet of a connection, or any datagram, may use the flow of a known connection.
    fn is_wanted(&mut self, known: usize, frontend: &Frontend, choice: &Choice) -> bool {
        let Connection { proto, backend, pool, frontend: id, .. } = self.connections[known];
        let has_ended = self.connections[known].has_ended();
        if self.connections[known].is_over(self.now_secs) {
            self.hits.hit(if has_ended { Rule::OverByState } else { Rule::OverByTime });
            return false;
        }
        match choice {
            Choice::Drop if proto != Proto::TCP && self.policy.is_in_cluster(frontend.service, backend) => {
                self.hits.hit(Rule::DatagramsKeepBackend);
                true
            }
            Choice::Reject | Choice::Drop => {
                self.hits.hit(Rule::UnwantedWithoutBackend);
                false
            }
            Choice::Pass => {
                let is_wanted = proto != Proto::TCP;
                self.hits.hit(if is_wanted { Rule::WantedPassed } else { Rule::UnwantedTcpPassed });
                is_wanted
            }
            Choice::Balance(chosen, backends) => {
                let is_member = self.policy.is_member(frontend.service, backend);
                if is_member && !backends.contains(&backend) {
                    self.hits.hit(Rule::BackendDraining);
                }
                // SCTP keeps the port that was dialled, so only the pool identifies the member.
                let is_wanted = is_member || (proto == Proto::SCTP && (pool, id) == (*chosen, frontend.id));
                if !is_wanted {
                    self.hits.hit(if proto == Proto::UDP { Rule::BackendGoneUdp } else { Rule::BackendGone });
                }
                is_wanted
            }
        }
    }
}

/// The verdict on a packet of a connection on its way to the backend. If its source address changes, it is sent back to
/// the interface from which it came, or on to another node.
pub(super) fn translated(connection: &Connection) -> Verdict {
    let ends = (connection.seen, connection.backend);
    if connection.seen.0 == connection.client.0 {
        Verdict::Becomes(ends)
    } else if connection.is_transit() {
        Verdict::Leaves(ends)
    } else {
        Verdict::ComesBack(ends)
    }
}
