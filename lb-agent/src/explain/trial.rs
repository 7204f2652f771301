//! Runs packets through the packet path over dumped rows, just as in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::client::Client;
use lb_common::flow::Timeouts;
use lb_common::forward::{Edge, Hook};
use lb_common::host::{Chance, Host, InMemory, Routes, Settings, TICKS_PER_SEC, Trace};
use lb_common::parse::Parsed;
use lb_common::socket::{Dial, DialAction, Way};
use lb_common::table::{
    Affinity, AffinityKey, Backend, Counter, Direction, FlowKey, PoolKey, Scope, ScopeFlags, SocketCookie, Tuple,
};
use lb_common::verdict::HookAction;
use lb_common::way::SnatPorts;

use super::answer::Decision;
use super::frame::{ACK, INTERFACE_MAC, SYN, SYN_ACK, echo, frame};
use super::{Destination, Sender};
use crate::dataplane::Tables;
use crate::dataplane::pins::{AffinityRows, FlowRows};
use crate::family::TableAddr;

/// The edge of a pod or of the node's sockets: any edge that is not the uplink.
const EDGE: u32 = 1;
/// The client's source port.
const CLIENT_PORT: u16 = 40_000;
/// With Maglev and session affinity, a client's ports do not matter. These are tried to be sure.
const PORTS_MIN: u16 = 64;
/// The client, if the question names none: dummy addresses of RFC 7600 and RFC 6666, which no host has.
const UNKNOWN_CLIENTS: [IpAddr; 2] = [
    IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 0, 8)),
    IpAddr::V6(std::net::Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 8)),
];

/// The result for one packet.
#[derive(Clone, Debug)]
pub struct Outcome<A> {
    pub decision: Decision,
    /// Why the packet is dropped, or left to the stack although its frontend balances.
    pub reason: Option<Counter>,
    /// The rows that decided.
    pub trace: Trace,
    /// The addresses and ports of the packet afterwards.
    pub to: Tuple<A>,
    action: HookAction,
}

/// The possible results for new connections of a client.
#[derive(Debug)]
pub struct Outcomes<A> {
    /// The first packet of the first connection that gets a backend.
    pub opened: Option<Outcome<A>>,
    /// The source of the reply to that packet when it reaches the client; `None` if the reply is not translated.
    pub reply: Option<SocketAddr>,
    pub backends: BTreeSet<SocketAddr>,
    /// Those of them that are on other nodes: this node forwards to them.
    pub forwarded: BTreeSet<SocketAddr>,
    /// One of the backends is the client itself, which then sees the frontend's address as the source.
    pub has_hairpin: bool,
    /// The pool has empty slots.
    pub has_gap: bool,
    /// Backends of the pool to which no uplink leads.
    pub unreachable: usize,
    /// Session affinity leads to the client's last backend.
    pub is_remembered: bool,
}

impl<A> Default for Outcomes<A> {
    fn default() -> Self {
        Self {
            opened: None,
            reply: None,
            backends: BTreeSet::new(),
            forwarded: BTreeSet::new(),
            has_hairpin: false,
            has_gap: false,
            unreachable: 0,
            is_remembered: false,
        }
    }
}

impl<A> Outcomes<A> {
    /// Whether every packet is forwarded to another node.
    pub fn is_forwarded(&self) -> bool {
        !self.forwarded.is_empty() && self.forwarded == self.backends
    }

    /// Whether the client is its only backend: each packet goes back out of the interface that it came in by.
    pub fn is_sent_back(&self) -> bool {
        self.has_hairpin && self.backends.len() == 1
    }
}

/// The tables, and the origin of the packets.
pub struct Trial<A> {
    host: Host,
    edge: Edge,
    proto: Proto,
    to: (A, u16),
    /// What session affinity remembers of the client, if the question names one.
    known: Option<AffinityRows<A>>,
}

/// The ways to endpoints of other nodes.
#[derive(Clone, Debug, Default)]
pub enum Ways {
    /// Every endpoint can be reached: the rows do not show routes.
    #[default]
    Assumed,
    /// This node's address on the uplink that leads to an endpoint. What is not listed is not forwarded to.
    Known(BTreeMap<IpAddr, IpAddr>),
}

fn routes<A: TableAddr>(tables: &Tables, ways: &Ways) -> Routes {
    let remote = match ways {
        Ways::Known(ways) => ways.clone(),
        Ways::Assumed => {
            let backends = A::tables(tables).pools.values();
            backends.map(|backend| (backend.addr.into(), A::new_zeroed().into())).collect()
        }
    };
    Routes { snat_ports: Some(SnatPorts::DEFAULT), remote, ..Routes::default() }
}

impl<A: TableAddr> Trial<A> {
    /// `tables` have their derived rows, for this number of words of address bits.
    pub fn new(
        from: &Sender,
        to: &Destination,
        addr: A,
        (tables, address_words): (&Arc<Tables>, u32),
        ways: &Ways,
    ) -> Self {
        let edge = match from.client() {
            Client::Workload => Edge::workload(EDGE),
            Client::Host => Edge { id: EDGE, client: Client::Host },
            Client::External => Edge::uplink(),
        };
        let mut host = Host::new(Arc::clone(tables), settings(address_words));
        host.routes = routes::<A>(tables, ways);
        Self { host, edge, proto: to.proto, to: (addr, to.port), known: None }
    }

    /// Takes in what session affinity remembers of the client that the question names.
    pub fn recall(&mut self, client: A, affinity: &AffinityRows<A>, now_secs: u32) {
        self.known = Some(affinity.iter().filter(|(key, _)| key.client == client).copied().collect());
        self.host.set_now_jiffies(u64::from(now_secs) * TICKS_PER_SEC);
    }

    /// Runs the first packet of a connection, and returns its client as well. If the question names no client and the
    /// source ranges drop the packet, a client within the ranges is taken.
    pub fn open(&self, client: Option<A>) -> (A, Outcome<A>) {
        let unknown = || UNKNOWN_CLIENTS.into_iter().find_map(A::from_ip).unwrap_or_else(A::new_zeroed);
        let first = client.unwrap_or_else(unknown);
        let outcome = self.open_from(first, CLIENT_PORT, self.known());
        if client.is_some() || outcome.reason != Some(Counter::DropSourceRange) {
            return (first, outcome);
        }
        let mut ranges = A::tables(&self.host.tables).source_ranges_of(outcome.trace.source_ranges);
        let Some((range, _)) = ranges.next() else { return (first, outcome) };
        (range.addr, self.open_from(range.addr, CLIENT_PORT, self.known()))
    }

    /// Runs the first packet of a connection that has no flow, if session affinity remembers these clients.
    fn open_from(&self, client: A, sport: u16, remembered: &[(AffinityKey<A>, Affinity<A>)]) -> Outcome<A> {
        self.host.forget::<A>();
        for (key, affinity) in remembered {
            self.host.put_affinity(*key, *affinity);
        }
        let tuple = Tuple { src: client, dst: self.to.0, sport, dport: self.to.1 };
        self.run(SYN, tuple, self.edge, Direction::Request)
    }

    /// Whether an ICMP echo request to the destination passes unchanged.
    pub fn passes_echo(&self, client: A) -> bool {
        if self.is_of_host() {
            // The hooks see neither raw sockets nor those of ping.
            return true;
        }
        let sent = echo(client, self.to.0);
        let mut packet = InMemory::new(&sent, INTERFACE_MAC);
        let action = self.host.run(&mut packet, Hook { edge: self.edge, direction: Direction::Request });
        action == HookAction::Next && packet.finish() == sent
    }

    /// What session affinity remembers of the client that the question names.
    fn known(&self) -> &[(AffinityKey<A>, Affinity<A>)] {
        self.known.as_deref().unwrap_or_default()
    }

    /// The row of a client that has just used a backend.
    fn latest(&self, frontend: u32, client: A, backend: &Backend<A>) -> (AffinityKey<A>, Affinity<A>) {
        let last_seen_secs = (self.host.now_jiffies() / TICKS_PER_SEC) as u32;
        let affinity = Affinity { addr: backend.addr, port: backend.port, pad: 0, last_seen_secs };
        (AffinityKey { service_port: self.service_port(frontend), client }, affinity)
    }

    /// Whether the client is a socket of the node, which has no packet yet.
    const fn is_of_host(&self) -> bool {
        matches!(self.edge.client, Client::Host)
    }

    fn service_port(&self, frontend: u32) -> u32 {
        self.host.tables.scopes.get(&frontend).map_or(0, |scopes| scopes.service_port)
    }

    /// Lets a socket of the node dial the destination.
    fn dial(&self, tuple: Tuple<A>) -> Outcome<A> {
        let to = Backend { addr: tuple.dst, port: tuple.dport };
        let (socket, client) = (SocketCookie::of(1), Client::Host);
        let action =
            self.host.dial(&Dial { socket, client, source: tuple.src, to, proto: self.proto, way: Way::Connect });
        let trace = self.host.trace();
        let decision = match action {
            DialAction::Translate(_) => Decision::Balance,
            DialAction::Refuse => Decision::Reject,
            DialAction::Deny => Decision::Drop,
            DialAction::Leave if trace.frontend.is_some() => Decision::Pass,
            DialAction::Leave => Decision::NotOurs,
        };
        let reason = if decision == Decision::Drop { trace.counted.last().copied() } else { None };
        let backend = if let DialAction::Translate(backend) = action { backend } else { to };
        let to = Tuple { dst: backend.addr, dport: backend.port, ..tuple };
        Outcome { decision, reason, to, trace, action: HookAction::Next }
    }

    fn run(&self, tcp: u8, tuple: Tuple<A>, edge: Edge, direction: Direction) -> Outcome<A> {
        if self.is_of_host() {
            return self.dial(tuple);
        }
        let mut packet = InMemory::new(&frame(self.proto, tcp, &tuple), INTERFACE_MAC);
        let action = self.host.run(&mut packet, Hook { edge, direction });
        let trace = self.host.trace();
        let mut after = tuple;
        let has_ports = matches!(A::parse(&packet, &mut after), Parsed::Transport(_));
        let has_counted = |counter| trace.counted.contains(&counter);
        let decision = match action {
            HookAction::Drop => Decision::Drop,
            _ if has_counted(Counter::Rejected) => Decision::Reject,
            _ if has_counted(Counter::RequestTranslated) => Decision::Balance,
            _ if trace.frontend.is_some() => Decision::Pass,
            _ => Decision::NotOurs,
        };
        let reason = match decision {
            Decision::Drop => trace.counted.last().copied(),
            Decision::Pass if has_counted(Counter::PassedNoRoute) => Some(Counter::PassedNoRoute),
            Decision::Pass | Decision::NotOurs | Decision::Balance | Decision::Reject => None,
        };
        Outcome { decision, reason, to: if has_ports { after } else { tuple }, trace, action }
    }

    /// The source of the reply to a packet that was just run, as the client sees it.
    fn reply(&self, opened: &Outcome<A>) -> Option<SocketAddr> {
        if self.is_of_host() {
            // The hooks show a socket what it dialled.
            let (addr, port) = self.to;
            return Some(SocketAddr::new(addr.into(), port));
        }
        let mut tuple = opened.to;
        tuple.set_reversed(&opened.to);
        // The reply of a pod to itself enters by the same hook as its request.
        // So does that of another node's endpoint.
        let enters = matches!(opened.action, HookAction::SendBack | HookAction::SendOut);
        let direction = if enters { Direction::Request } else { Direction::Reply };
        let reply = self.run(SYN_ACK, tuple, self.edge, direction);
        let is_translated = reply.trace.counted.contains(&Counter::ReplyTranslated);
        is_translated.then(|| SocketAddr::new(reply.to.src.into(), reply.to.sport))
    }

    /// The backends in the pool of a scope. With Maglev a backend has many slots.
    pub fn pool(&self, scope: Scope) -> BTreeSet<Backend<A>> {
        self.slots(scope).flatten().collect()
    }

    fn slots(&self, scope: Scope) -> impl Iterator<Item = Option<Backend<A>>> {
        let pools = &A::tables(&self.host.tables).pools;
        (0..u32::from(scope.count)).map(move |slot| pools.get(&PoolKey { pool: scope.pool, slot }).copied())
    }

    /// The possible results for new connections of a client, after the first one met a frontend.
    pub fn outcomes(&self, client: A, first: &Outcome<A>) -> Outcomes<A> {
        let mut outcomes = Outcomes::default();
        let (Some(frontend), Some(scope)) = (first.trace.frontend, first.trace.scope) else { return outcomes };
        // Another slot may have a backend, or a way to it.
        let is_unlucky = matches!(first.reason, Some(Counter::DropNoBackend | Counter::PassedNoRoute));
        if first.decision != Decision::Balance && !is_unlucky {
            return outcomes;
        }
        let pool = self.pool(scope);
        let has_affinity = scope.has(ScopeFlags::AFFINITY);
        let is_known = has_affinity && self.known.is_some();
        if has_affinity && !is_known {
            for backend in &pool {
                let outcome = self.open_from(client, CLIENT_PORT, &[self.latest(frontend, client, backend)]);
                self.add(&mut outcomes, outcome);
            }
        }
        if scope.has(ScopeFlags::MAGLEV) {
            // The hash includes the client's port, so ports are tried until all backends have been found.
            let has_gap = self.slots(scope).any(|slot| slot.is_none());
            for sport in 1..=u16::MAX {
                let is_complete = outcomes.backends.len() == pool.len() && outcomes.has_gap == has_gap;
                if is_complete || (sport > PORTS_MIN && is_known) {
                    break;
                }
                self.add(&mut outcomes, self.open_from(client, sport, self.known()));
            }
        } else {
            for slot in 0..scope.count {
                self.host.set_chance(Chance::Always(number_of_slot(slot, scope.count)));
                self.add(&mut outcomes, self.open_from(client, CLIENT_PORT, self.known()));
            }
        }
        let is_forwarding = scope.has(ScopeFlags::MASQUERADE) && matches!(self.edge.client, Client::External);
        if is_forwarding && !is_known {
            outcomes.unreachable = pool.len() - outcomes.backends.len().min(pool.len());
        }
        outcomes.is_remembered = is_known && self.is_remembered(frontend, client, &pool, &outcomes);
        outcomes
    }

    /// Whether session affinity leads to the only possible backend: if it remembered another one, it would lead there.
    fn is_remembered(&self, frontend: u32, client: A, pool: &BTreeSet<Backend<A>>, outcomes: &Outcomes<A>) -> bool {
        let service_port = self.service_port(frontend);
        let Some((key, row)) = self.known().iter().find(|(key, _)| key.service_port == service_port) else {
            return false;
        };
        let Some(other) = pool.iter().find(|backend| backend.addr != row.addr) else { return false };
        let instead = Affinity { addr: other.addr, port: other.port, ..*row };
        let goes_there = self.open_from(client, CLIENT_PORT, &[(*key, instead)]).to.dst == other.addr;
        let mut backends = outcomes.backends.iter().map(SocketAddr::ip);
        goes_there && (backends.next(), backends.next()) == (Some(row.addr.into()), None)
    }

    fn add(&self, outcomes: &mut Outcomes<A>, outcome: Outcome<A>) {
        outcomes.has_gap |= outcome.reason == Some(Counter::DropNoBackend);
        if outcome.decision != Decision::Balance {
            return;
        }
        outcomes.backends.insert(SocketAddr::new(outcome.to.dst.into(), outcome.to.dport));
        outcomes.has_hairpin |= outcome.action == HookAction::SendBack;
        if outcome.action == HookAction::SendOut {
            outcomes.forwarded.insert(SocketAddr::new(outcome.to.dst.into(), outcome.to.dport));
        }
        if outcomes.opened.is_none() {
            outcomes.reply = self.reply(&outcome);
            outcomes.opened = Some(outcome);
        }
    }

    /// The backends of the client's known flows to this destination, if the next packet of the flow would keep them.
    /// The time is taken to be that of the flow's last packet.
    pub fn kept(&self, client: A, flows: &FlowRows<A>) -> Vec<SocketAddr> {
        self.host.forget::<A>();
        let names = |tuple: &Tuple<A>| tuple.src == client || tuple.dst == client;
        for (key, flow) in flows.iter().filter(|(key, flow)| names(&key.tuple) || names(&flow.to)) {
            self.host.put_flow(*key, *flow);
        }
        let is_asked = |key: &FlowKey<A>| {
            let tuple = &key.tuple;
            key.direction == Direction::Request
                && tuple.src == client
                && ((tuple.dst, tuple.dport), key.proto) == (self.to, self.proto)
        };
        let kept = flows.iter().filter(|(key, _)| is_asked(key)).filter_map(|(key, flow)| {
            self.host.set_now_jiffies(flow.last_seen_jiffies);
            let next = self.run(ACK, key.tuple, Edge::of(key.edge), Direction::Request);
            let is_kept = next.decision == Decision::Balance && !next.trace.counted.contains(&Counter::FlowCreated);
            is_kept.then(|| SocketAddr::new(next.to.dst.into(), next.to.dport))
        });
        kept.collect()
    }
}

/// The smallest random number that selects a slot.
fn number_of_slot(slot: u16, count: u16) -> u32 {
    (u64::from(slot) << 32).div_ceil(u64::from(count)) as u32
}

/// These settings influence neither the first packet of a connection nor the next packet of a young flow.
fn settings(address_words: u32) -> Settings {
    let hour_jiffies = 3_600 * TICKS_PER_SEC;
    let timeouts = Timeouts {
        tcp_syn_jiffies: hour_jiffies,
        tcp_established_jiffies: hour_jiffies,
        tcp_closing_jiffies: hour_jiffies,
        udp_jiffies: hour_jiffies,
        second_jiffies: TICKS_PER_SEC,
    };
    Settings { timeouts, embryos_max: 1 << 10, flow_entries: None, parked_max: 1, address_words, repairs: None }
}
