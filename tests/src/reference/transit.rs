//! What the node forwards to endpoints of other nodes, and what they answer.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use lb_common::addr::Proto;
use lb_common::table::EDGE_UPLINK;
use lb_common::verdict::HookAction;
use lb_common::way::SnatPorts;

use super::Reference;
use super::connection::{Connection, State};
use super::error::hops_exceeded;
use super::judge::{Outcome, Packet, Seen, Verdict};
use super::policy::Frontend;
use super::rule::Rule;
use super::wire::{Part, Wire};
use crate::machine::Program;
use crate::packet::End;

/// The host number of the node.
pub const NODE: u8 = 1;
/// Few, so that forwarded connections collide.
pub const FEW_PORTS: SnatPorts = SnatPorts { first: 61_000, last: 61_003 };

/// What the node forwards with.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// Its address on the way to all other nodes.
    pub node: IpAddr,
    pub ports: RangeInclusive<u16>,
}

/// A backend as a new connection would know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub backend: End,
    /// The address that the backend would see.
    pub source: IpAddr,
    pub is_elsewhere: bool,
}

impl Connection {
    /// Whether the node sends the packets of this connection on, both ways.
    pub fn is_transit(&self) -> bool {
        self.edge == EDGE_UPLINK && self.seen.0 != self.client.0
    }

    /// Whether nothing has proved yet that the client exists.
    const fn is_half_open(&self) -> bool {
        matches!(self.state, State::Asked | State::Answered) && !self.is_reset
    }

    /// Whether the connection may lose its port to one that is forwarded.
    pub(super) fn may_give_way(&self, now_secs: u64) -> bool {
        self.is_half_open() && now_secs - self.last_packet_secs >= 1
    }
}

impl Reference {
    /// The node, if it forwards what is seen here for this frontend.
    fn forwarding_for(&self, seen: Seen, frontend: &Frontend) -> Option<&Forwarding> {
        self.forwarding.as_ref().filter(|_| !seen.is_workload && frontend.forwards)
    }

    /// A backend of a frontend, for a client. SCTP keeps the port that was dialled.
    pub(super) fn candidate(&self, seen: Seen, frontend: &Frontend, packet: Packet, backend: End) -> Candidate {
        let (client, service) = packet.ends;
        let answers = if packet.proto == Proto::SCTP { (backend.0, service.1) } else { backend };
        match self.forwarding_for(seen, frontend) {
            Some(forwarding) if !self.policy.is_near(frontend.service, backend) => {
                Candidate { backend: answers, source: forwarding.node, is_elsewhere: true }
            }
            _ => {
                let is_to_itself = seen.is_workload && backend.0 == client.0;
                let source = if is_to_itself { service.0 } else { client.0 };
                Candidate { backend: answers, source, is_elsewhere: false }
            }
        }
    }

    /// The source ports that a connection to another node may have.
    pub(super) fn ports_elsewhere(&self, proto: Proto, asked: u16) -> RangeInclusive<u16> {
        match &self.forwarding {
            Some(forwarding) if proto != Proto::SCTP => forwarding.ports.clone(),
            _ => asked..=asked,
        }
    }

    /// The verdict on a packet of the network that is an answer of another node's endpoint; `None` if it is not.
    pub(super) fn answer_from_elsewhere(&mut self, seen: Seen, packet: Packet) -> Option<Verdict> {
        self.forwarding.as_ref().filter(|_| !seen.is_workload)?;
        let known = self.connections.iter().find(|known| known.is_reply(seen.edge, packet.proto, packet.ends))?;
        let is_transit = known.is_transit();
        if !is_transit && !known.is_direct() {
            return None;
        }
        let Verdict::Becomes(ends) = self.reply(seen, packet)? else { return None };
        self.hits.hit(if is_transit { Rule::AnswerFromElsewhere } else { Rule::AnswerToNode });
        Some(if is_transit { Verdict::Leaves(ends) } else { Verdict::Becomes(ends) })
    }

    /// A packet that leaves by an uplink. If the node itself dials an endpoint from a port that it also forwards from, no
    /// forwarded connection may take its tuple.
    pub(super) fn own_request(&mut self, seen: Seen, packet: Packet, given: &Outcome) -> Result<Verdict, String> {
        let (from, _) = packet.ends;
        let is_own = self.forwarding.as_ref().is_some_and(|node| node.node == from.0 && node.ports.contains(&from.1));
        if !is_own {
            return Ok(Verdict::Untouched);
        }
        let known = self.connections.iter().position(|known| known.is_request(seen.edge, packet.proto, packet.ends));
        let opens = packet.opens();
        if let Some(known) = known.filter(|known| !(opens && self.connections[*known].is_over(self.now_secs))) {
            self.hits.hit(Rule::OwnKnown);
            return Ok(self.forward(known, packet));
        }
        if opens { self.direct(seen, packet, known, given) } else { Ok(Verdict::Untouched) }
    }

    /// Whether no such packet can be: it would leave by an uplink, and it is an answer of another node's endpoint.
    pub(super) fn is_impossible(&self, program: Program, packet: &[u8]) -> bool {
        let wire = Wire::read(packet);
        let Some(proto) = super::wire::proto(wire.protocol) else { return false };
        let is_later = matches!(wire.part, Part::Later(_));
        program == Program::UplinkEgress
            && self.connections.iter().any(|known| {
                let is_answer = if is_later {
                    (known.backend.0, known.seen.0) == wire.addresses()
                } else {
                    known.is_reply(EDGE_UPLINK, proto, wire.ends())
                };
                let is_own = self.forwarding.as_ref().is_some_and(|node| node.node == known.client.0);
                is_answer && (known.is_transit() || (known.edge == EDGE_UPLINK && known.is_direct() && is_own))
            })
    }

    /// The outcome of a packet that the node sends on. With its last hop it goes no further. Only a packet with ports gets
    /// an answer then.
    pub(super) fn send_on(&mut self, mut translated: Wire, untranslated: Option<(&Wire, Packet)>) -> Outcome {
        if translated.hops() > 1 {
            translated.spend_hop();
            return (HookAction::SendOut, translated.bytes().to_vec());
        }
        let Some((wire, packet)) = untranslated else {
            self.hits.hit(Rule::LastHopUnanswered);
            return (HookAction::Drop, translated.bytes().to_vec());
        };
        self.hits.hit(Rule::LastHop);
        (HookAction::SendBack, hops_exceeded(wire, packet.proto, packet.ends))
    }

    /// Whether the network may complain of a packet to an endpoint elsewhere.
    pub(super) fn complains_in_transit(&self, seen: Seen, found: &Connection) -> bool {
        !seen.is_workload && self.forwarding.is_some() && (found.is_transit() || found.is_direct())
    }
}
