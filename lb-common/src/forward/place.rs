//! A new flow gets a backend and a tuple that no other flow has: the insert of its reply entry is the reservation.

use super::known::FlowRef;
use super::pair::Partner;
use super::run::{InsertError, Maps, Part, Path};
use super::services::Event;
use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::flow;
use crate::sequence::Sequence;
use crate::table::{Counter, DIRECT, EdgeState, FlowState, MemberSets, PoolKey};
use crate::verdict::DropReason;
use crate::way::Reach;
use crate::work::{HeaderWish, Pin, Work};

/// Attempts of a new flow to find a backend and source port whose reply tuple is free.
pub(super) const PLACE_ATTEMPTS: u32 = 8;
/// The first attempt that also changes the source port. SCTP keeps its ports, so a flow pinned by hash gives up its
/// pin.
const PORT_ATTEMPT: u32 = 2;
/// Rounds of attempts for a flow to another node. Any client's flows may fill its source ports, so more are tried.
const MASQUERADE_ROUNDS: u32 = 4;
/// The first round that takes over the port of a flow that is over or idle. Its endpoint may still know that connection,
/// so free ports are sought before.
const TAKE_OVER_ROUND: u32 = 2;
/// Ports of this node that are tried towards one endpoint: the way to an endpoint costs more to find than a port.
const NODE_PORTS: u32 = 4;
/// Source ports that are chosen if the client's own is taken: the upper half, clear of the usual NodePort range.
pub(super) const PORT_BASE: u16 = 0x8000;

/// The result of an attempt to reserve a reply tuple.
enum Reservation {
    Made,
    /// Another flow has it.
    Taken,
    /// The pool's slot is empty.
    NoBackend,
    /// No route leads to the backend.
    NoRoute,
    /// The table refused the entry.
    Refused,
}

impl<A: Addr, K: Maps<A>> Path<'_, A, K> {
    /// Creates a flow to one of the `count` backends of a pool. Returns the reason if this fails.
    #[inline(always)]
    pub(super) fn place(&mut self, frontend: u32, pool: u32, count: u16) -> Result<(), DropReason> {
        let work = &mut *self.work;
        (work.flow.frontend, work.flow.pool, work.count) = (frontend, pool, count);
        work.takes_over = 0;
        work.flow.set_header(work.wish != HeaderWish::NOTHING);
        let mut is_placed = self.apart(Part::Place);
        if matches!(self.edge.client, Client::External) {
            for round in 1..MASQUERADE_ROUNDS {
                self.work.takes_over = u32::from(round >= TAKE_OVER_ROUND);
                // Ports of the node are sought for what is forwarded, and for connections of the node that give way.
                let is_full = self.work.refused == DropReason::NoPort && self.is_of_node();
                if is_placed || !(is_full || self.work.refused == DropReason::NoRoute) {
                    break;
                }
                is_placed = self.apart(Part::Place);
            }
        }
        if is_placed { Ok(()) } else { Err(self.work.refused) }
    }

    /// Chooses a backend whose reply tuple is free at this edge and inserts both entries or none. The reply entry goes
    /// first: its insert is the reservation. Returns the reason if this fails.
    #[inline(always)]
    pub(super) fn place_flow(&mut self) -> Result<(), DropReason> {
        if !self.may_have_flow() {
            return Err(DropReason::EdgeFlows);
        }
        let flow = &mut self.work.flow;
        flow.state = FlowState::New;
        flow.set_sequence(Sequence::NONE);
        flow.last_seen_jiffies = self.kernel.now_jiffies();
        self.work.reach = Reach::Stack;
        for attempt in 0..PLACE_ATTEMPTS {
            match self.reserve(attempt) {
                Reservation::Made => return self.complete(),
                Reservation::NoBackend => return Err(DropReason::NoBackend),
                Reservation::Refused => return Err(DropReason::FlowTable),
                Reservation::Taken => {}
                // The next attempt may choose another backend. A flow that is made again has only one.
                Reservation::NoRoute if self.work.pin != Pin::Tuple => self.work.pin = Pin::Nothing,
                Reservation::NoRoute => return Err(DropReason::NoRoute),
            }
        }
        Err(if self.work.reach == Reach::Nowhere { DropReason::NoRoute } else { DropReason::NoPort })
    }

    /// Chooses a backend and inserts the reply entry. It is a function of its own; inlined, the compiler keeps the
    /// address of every field on the stack during the loop.
    #[inline(never)]
    fn reserve(&mut self, attempt: u32) -> Reservation {
        if attempt == PORT_ATTEMPT && self.work.pin == Pin::Hash && self.work.key.proto == Proto::SCTP {
            self.work.pin = Pin::Nothing;
        }
        if !attempt.is_multiple_of(NODE_PORTS) && self.is_of_node() && self.transport.proto != Proto::SCTP {
            self.draw_node_port();
        } else {
            if !self.choose(attempt) {
                return Reservation::NoBackend;
            }
            if !self.masquerade() {
                return Reservation::NoRoute;
            }
            self.note_client_ports();
        }
        self.work.partner_key.set_partner(&self.work.key, &self.work.to);
        match self.claim(attempt) {
            // At once: a flow to another node would hardly draw the port that it has freed again.
            Reservation::Taken if self.may_make_room() && self.make_room() => self.claim(0),
            reservation => reservation,
        }
    }

    /// Inserts the reply entry.
    #[inline(always)]
    fn claim(&mut self, attempt: u32) -> Reservation {
        let work = &mut *self.work;
        // An insert into a full table evicts a flow even if it fails then. The first attempt hardly ever fails.
        if attempt > 0 && self.kernel.flow(&work.partner_key).is_some() {
            return Reservation::Taken;
        }
        work.flow.to.set_reversed(&work.key.tuple);
        match self.kernel.insert_flow(&work.partner_key, &work.flow) {
            Ok(()) => Reservation::Made,
            Err(InsertError::Refused) => Reservation::Refused,
            Err(InsertError::Exists) => Reservation::Taken,
        }
    }

    /// Whether the flow that holds the wanted tuple may be removed. By a port of this node, the endpoint may still know the
    /// connection of another client: such a flow stays at first.
    #[inline(always)]
    fn may_make_room(&self) -> bool {
        self.work.takes_over != 0 || !self.is_of_node()
    }

    /// Chooses a backend, and from the third attempt on another source port. False if the slot is empty.
    #[inline(always)]
    fn choose(&mut self, attempt: u32) -> bool {
        let random = self.kernel.random();
        let Work { key, to, flow, affinity, pin, count, member_key, .. } = &mut *self.work;
        let member_port = &mut member_key.port;
        let slot = ((u64::from(random) * u64::from(*count)) >> 32) as u32;
        let from = &key.tuple;
        // SCTP: only addresses change. A changed port would need a new CRC32c over the whole packet.
        let keeps_ports = self.transport.proto == Proto::SCTP;
        (to.dst, to.dport) = (from.dst, from.dport);
        if flow.frontend != DIRECT {
            let port = if *pin == Pin::Nothing {
                let key = PoolKey { pool: flow.pool, slot };
                let Some(port) = self.kernel.read_backend(&key, &mut to.dst) else { return false };
                port
            } else {
                to.dst = affinity.addr;
                affinity.port
            };
            *member_port = port;
            if !keeps_ports {
                to.dport = port;
            }
        }
        let is_hairpin = matches!(self.edge.client, Client::Workload) && to.dst.is(&from.src);
        to.src = if is_hairpin { from.dst } else { from.src };
        let keeps_source = keeps_ports || *pin == Pin::Tuple;
        to.sport = if attempt < PORT_ATTEMPT || keeps_source {
            from.sport
        } else if matches!(self.edge.client, Client::External) && flow.frontend == DIRECT {
            // Answers are known by these ports.
            self.kernel.snat_ports().select(self.kernel.random())
        } else {
            PORT_BASE | random as u16
        };
        true
    }

    /// Whether the flow has an address of the node as its source: it is forwarded, or the node's own.
    #[inline(always)]
    fn is_of_node(&self) -> bool {
        let is_own = matches!(self.edge.client, Client::External) && self.work.flow.frontend == DIRECT;
        is_own || self.work.reach == Reach::Uplink
    }

    /// If the backend is on another node, gives the flow an address and a port of this node as source. False if no
    /// route leads there.
    #[inline(always)]
    fn masquerade(&mut self) -> bool {
        if !matches!(self.edge.client, Client::External) || self.work.masquerades == 0 {
            return true;
        }
        let (kernel, work) = (self.kernel, &mut *self.work);
        work.member_key.service_port = kernel.service_port(work.flow.frontend);
        (work.member_key.addr, work.member_key.pad) = (work.to.dst, 0);
        if kernel.member_sets(&work.member_key) & MemberSets::NEAR != 0 {
            work.reach = Reach::Stack;
            return true;
        }
        work.reach = if work.key.tuple.src.may_be_client() { kernel.reach(work) } else { Reach::Nowhere };
        if self.work.reach == Reach::Uplink {
            if self.work.pin == Pin::Tuple {
                // The port by which the backend knows the connection is lost with the flow.
                self.work.reach = Reach::Nowhere;
            } else {
                self.draw_node_port();
            }
        }
        self.work.reach != Reach::Nowhere
    }

    /// Draws a source port of this node, and notes it before an answer to it can arrive. SCTP keeps its ports.
    #[inline(always)]
    fn draw_node_port(&mut self) {
        if self.transport.proto != Proto::SCTP {
            self.work.to.sport = self.kernel.snat_ports().select(self.kernel.random());
        }
        self.kernel.note_node_port(self.work.to.sport);
        if self.work.flow.frontend == DIRECT {
            // The answers to a client that gives way leave by the hook that knows client ports.
            self.note_client_bits(EdgeState::client_port_bit(self.work.to.sport));
        }
    }

    /// Notes the client port, and the port that the backend sees, before the flow's first answer can arrive. Answers of
    /// other nodes are known by the ports that the node uses for forwarding.
    #[inline(always)]
    fn note_client_ports(&mut self) {
        let (from, to) = (&self.work.key.tuple, &self.work.to);
        if self.is_of_node() && self.work.flow.frontend == DIRECT {
            self.kernel.note_node_port(to.sport);
        }
        let mut bits = EdgeState::client_port_bit(from.sport);
        if self.work.reach != Reach::Uplink {
            bits |= EdgeState::client_port_bit(to.sport);
        }
        self.note_client_bits(bits);
    }

    #[inline(always)]
    fn note_client_bits(&self, bits: u64) {
        if self.kernel.edge_state(self.edge.id).client_ports & bits != bits {
            self.kernel.note_client_ports(self.edge.id, bits);
        }
    }

    /// Inserts the request entry of a flow whose reply tuple is reserved. If that fails, removes the reservation.
    #[inline(always)]
    fn complete(&mut self) -> Result<(), DropReason> {
        let (kernel, work) = (self.kernel, &mut *self.work);
        if matches!(self.edge.client, Client::Workload) && !work.to.src.is(&work.key.tuple.src) {
            kernel.note_hairpin(self.edge.id);
        }
        work.flow.to.set(&work.to);
        work.flow.set_sequence(self.transport.tcp.sequence());
        let Err(error) = kernel.insert_flow(&work.key, &work.flow) else {
            if work.takes_over != 0 && !self.is_reserved() {
                self.kernel.remove_flow(&self.work.key);
                return Err(DropReason::NoPort);
            }
            if self.work.flow.frontend == DIRECT {
                kernel.count(Counter::DirectNoted);
            } else {
                kernel.count(Counter::FlowCreated);
                kernel.count_frontend(self.work.flow.frontend, Event::FlowCreated);
            }
            self.bound_embryos();
            return Ok(());
        };
        kernel.remove_flow(&work.partner_key);
        match kernel.flow(&work.key) {
            // Another CPU created the same flow first: its entry is used.
            Some(entry) if error == InsertError::Exists => {
                entry.read_to(&mut work.to);
                Ok(())
            }
            _ => Err(DropReason::FlowTable),
        }
    }

    /// Whether the reply entry is still the flow's own. Another CPU that took over the same port may have removed it
    /// together with the flow that held the port before: it looked at that one.
    #[inline(always)]
    fn is_reserved(&mut self) -> bool {
        let work = &mut *self.work;
        let Some(entry) = self.kernel.flow(&work.partner_key) else { return false };
        entry.read_to(&mut work.flow.to);
        work.flow.to.is_reversed(&work.key.tuple)
    }

    /// Removes the flow that holds the wanted reply tuple, if it is over or its other entry is gone. Any client may hold
    /// the ports of this node, so towards another node a half-open flow goes as well. False if the flow stays.
    ///
    /// A young half-open entry may be another CPU's reservation, whose other entry is about to be inserted. It stays.
    #[inline(never)]
    fn make_room(&mut self) -> bool {
        let (kernel, work) = (self.kernel, &mut *self.work);
        let Some(entry) = kernel.flow(&work.partner_key) else { return true };
        entry.read_to(&mut work.flow.to);
        work.other_key.set_partner(&work.partner_key, &work.flow.to);
        let partner = Partner::find(kernel, &work.partner_key, &work.other_key, &mut work.flow.to);
        if partner.is_own() {
            let is_idle = self.work.reach == Reach::Uplink && entry.state().is_half_open() && !self.is_young(entry);
            if !self.is_over(entry) && !is_idle {
                return false;
            }
            kernel.remove_flow(&self.work.other_key);
        } else if entry.state() == FlowState::New && self.is_young(entry) {
            return false;
        }
        kernel.remove_flow(&self.work.partner_key);
        true
    }

    /// Whether a flow had a packet within the last second, which is many times what an insert takes.
    #[inline(always)]
    fn is_young(&self, entry: K::Flow) -> bool {
        flow::quiet_jiffies(entry.last_seen_jiffies(), self.kernel.now_jiffies()) < self.kernel.second_jiffies()
    }
}
