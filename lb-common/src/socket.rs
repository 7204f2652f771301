//! Sockets of the node: a dial is translated before the socket has a route, a source port or a packet.
//!
//! As with packets, the decision depends only on tables, time and chance. TCP sockets, and UDP sockets that connect,
//! get their backend once. Each datagram of an unconnected socket is decided again, and the socket keeps its backend
//! while that belongs to the Service.

use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::forward::{Event, Services};
use crate::selection::{self, Spread};
use crate::table::{
    Action, Affinity, AffinityKey, Backend, Counter, Direction, FrontendKey, MemberKey, PoolKey, Scope, ScopeFlags,
    SocketCookie, SocketKey, SocketPeer, SourceRangeKey, Tuple,
};

/// A socket that connects, or that sends a datagram to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial<A> {
    pub socket: SocketCookie,
    /// [`Client::Host`] or [`Client::Workload`].
    pub client: Client,
    /// The address that the socket is bound to. The unspecified address, if it is bound to none, means this node in
    /// source ranges and session affinity.
    pub source: A,
    pub to: Backend<A>,
    pub proto: Proto,
}

/// What becomes of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialAction<A> {
    /// It keeps its destination.
    Leave,
    Translate(Backend<A>),
    /// The dial fails with ECONNREFUSED.
    Refuse,
    /// The dial fails with EPERM, as if netfilter dropped it.
    Deny,
}

/// The tables as sockets use them.
pub trait Sockets<A: Addr>: Services<A> {
    /// Copies what is known of a socket and address. False if nothing is.
    fn read_peer(&self, key: &SocketKey<A>, to: &mut SocketPeer<A>) -> bool;
    /// Writes it. False if the table refuses the row.
    fn write_peer(&self, key: &SocketKey<A>, peer: &SocketPeer<A>) -> bool;
}

impl<A: Addr> SocketKey<A> {
    #[inline(always)]
    pub const fn new(cookie: SocketCookie, peer: &Backend<A>, direction: Direction) -> Self {
        Self { cookie, addr: peer.addr, port: peer.port, direction, pad: 0 }
    }
}

impl<A: Addr> SocketPeer<A> {
    #[inline(always)]
    pub const fn new(peer: &Backend<A>, frontend: u32) -> Self {
        Self { addr: peer.addr, port: peer.port, pad: 0, frontend }
    }

    #[inline(always)]
    pub const fn address(&self) -> Backend<A> {
        Backend { addr: self.addr, port: self.port }
    }

    const fn unknown(addr: A) -> Self {
        Self { addr, port: 0, pad: 0, frontend: 0 }
    }
}

/// Decides a dial.
#[inline(always)]
pub fn dial<A: Addr, S: Sockets<A>>(dial: &Dial<A>, tables: &S) -> DialAction<A> {
    let key = FrontendKey { addr: dial.to.addr, port: dial.to.port, proto: dial.proto, pad: 0 };
    let Some(frontend) = tables.frontend(&key) else { return DialAction::Leave };
    let scope = tables.scope(frontend, dial.client);
    if matches!(dial.client, Client::Workload) && !is_for_sockets_of_pods(scope) {
        return DialAction::Leave;
    }
    if dial.proto == Proto::UDP
        && let Some(backend) = known_backend(dial, frontend, scope, tables)
    {
        return DialAction::Translate(backend);
    }
    if scope.has(ScopeFlags::SOURCE_RANGES) && !is_source_allowed(dial, frontend, tables) {
        tables.count(Counter::DropSourceRange);
        return DialAction::Deny;
    }
    match scope.action {
        Action::Pass => {
            tables.count(Counter::PassedProxy);
            tables.count_frontend(frontend, Event::Passed);
            DialAction::Leave
        }
        Action::Reject => {
            tables.count(Counter::SocketRefused);
            DialAction::Refuse
        }
        Action::Drop => {
            tables.count(Counter::DropNoLocalEndpoint);
            DialAction::Deny
        }
        Action::Balance => open(dial, frontend, scope, tables),
    }
}

/// Whether the dials of pods are translated. What depends on the pod's address, and what is refused, is left to the
/// programs at the pod's interface.
#[inline(always)]
const fn is_for_sockets_of_pods(scope: Scope) -> bool {
    matches!(scope.action, Action::Balance) && !scope.has(ScopeFlags::SOURCE_RANGES | ScopeFlags::AFFINITY)
}

/// The address that a socket dialled to reach this backend.
#[inline(always)]
pub fn dialled<A: Addr, S: Sockets<A>>(socket: SocketCookie, backend: &Backend<A>, tables: &S) -> Option<Backend<A>> {
    let mut peer = SocketPeer::unknown(backend.addr);
    let is_known = tables.read_peer(&SocketKey::new(socket, backend, Direction::Reply), &mut peer);
    if is_known { Some(peer.address()) } else { None }
}

/// The backend of a UDP socket that has sent to this address before. As with packets, the socket changes its backend
/// when the endpoint has gone (CT-01), and keeps it when the address is left to the balancer (IPM-60).
#[inline(always)]
fn known_backend<A: Addr, S: Sockets<A>>(
    dial: &Dial<A>,
    frontend: u32,
    scope: Scope,
    tables: &S,
) -> Option<Backend<A>> {
    let mut peer = SocketPeer::unknown(dial.to.addr);
    if !tables.read_peer(&SocketKey::new(dial.socket, &dial.to, Direction::Request), &mut peer) {
        return None;
    }
    let is_wanted = match scope.action {
        Action::Pass => true,
        Action::Balance => {
            let service_port = tables.service_port(frontend);
            tables.is_member(&MemberKey { service_port, addr: peer.addr, port: peer.port, pad: 0 })
        }
        Action::Reject | Action::Drop => false,
    };
    if is_wanted { Some(peer.address()) } else { None }
}

#[inline(always)]
fn is_source_allowed<A: Addr, S: Sockets<A>>(dial: &Dial<A>, frontend: u32, tables: &S) -> bool {
    let set = tables.source_ranges(frontend);
    let mut key = SourceRangeKey { prefix_len: 0, set, addr: dial.source };
    key.set_client(set, dial.source);
    // Set 0: the restriction was lifted after the scope was read.
    set == 0 || tables.is_source_allowed(&key)
}

/// Gives a dial a backend.
#[inline(always)]
fn open<A: Addr, S: Sockets<A>>(dial: &Dial<A>, frontend: u32, scope: Scope, tables: &S) -> DialAction<A> {
    let Some(backend) = choose(dial, frontend, scope, tables) else {
        tables.count(Counter::DropNoBackend);
        return DialAction::Deny;
    };
    if dial.proto == Proto::UDP {
        let (request, reply) = (
            SocketKey::new(dial.socket, &dial.to, Direction::Request),
            SocketKey::new(dial.socket, &backend, Direction::Reply),
        );
        // The reply first: an answer must not arrive before its row.
        let is_noted = tables.write_peer(&reply, &SocketPeer::new(&dial.to, frontend))
            && tables.write_peer(&request, &SocketPeer::new(&backend, frontend));
        if !is_noted {
            tables.count(Counter::DropFlowTable);
            return DialAction::Deny;
        }
    }
    tables.count(Counter::SocketTranslated);
    tables.count_frontend(frontend, Event::FlowCreated);
    DialAction::Translate(backend)
}

/// The backend that the client used last, else the one of a slot. None if the slot is empty.
#[inline(always)]
fn choose<A: Addr, S: Sockets<A>>(dial: &Dial<A>, frontend: u32, scope: Scope, tables: &S) -> Option<Backend<A>> {
    if !scope.has(ScopeFlags::AFFINITY) {
        return backend_of_slot(selection::slot(tables.random(), scope.count), scope, dial.to.addr, tables);
    }
    let key = AffinityKey { service_port: tables.service_port(frontend), client: dial.source };
    // A division that could panic would not load.
    let now_secs = tables.now_jiffies().checked_div(tables.second_jiffies()).unwrap_or(0) as u32;
    let mut last = Affinity { addr: dial.to.addr, port: 0, pad: 0, last_seen_secs: 0 };
    let is_known = tables.read_affinity(&key, &mut last) && is_kept(&last, now_secs, &key, (frontend, scope), tables);
    if !is_known {
        let backend = backend_of_slot(slot_of_client(dial, scope, tables), scope, dial.to.addr, tables)?;
        (last.addr, last.port) = (backend.addr, backend.port);
    }
    last.last_seen_secs = now_secs;
    tables.write_affinity(&key, &last);
    Some(Backend { addr: last.addr, port: last.port })
}

/// Whether a client returns to its last backend (SA-01 to SA-06).
#[inline(always)]
fn is_kept<A: Addr, S: Sockets<A>>(
    last: &Affinity<A>,
    now_secs: u32,
    key: &AffinityKey<A>,
    (frontend, scope): (u32, Scope),
    tables: &S,
) -> bool {
    let member = MemberKey { service_port: key.service_port, addr: last.addr, port: last.port, pad: 0 };
    // 0 if another CPU's clock is ahead.
    let idle_secs = now_secs.saturating_sub(last.last_seen_secs);
    idle_secs < tables.affinity_secs(frontend) && tables.member_sets(&member) & scope.set() != 0
}

/// With Maglev, a client that was forgotten returns to its backend.
#[inline(always)]
fn slot_of_client<A: Addr, S: Sockets<A>>(dial: &Dial<A>, scope: Scope, tables: &S) -> u32 {
    let number = if scope.has(ScopeFlags::MAGLEV) {
        let tuple = Tuple { src: dial.source, dst: dial.to.addr, sport: 0, dport: dial.to.port };
        selection::flow_hash(&tuple, dial.proto, Spread::Clients)
    } else {
        tables.random()
    };
    selection::slot(number, scope.count)
}

#[inline(always)]
fn backend_of_slot<A: Addr, S: Sockets<A>>(slot: u32, scope: Scope, mut addr: A, tables: &S) -> Option<Backend<A>> {
    let port = tables.read_backend(&PoolKey { pool: scope.pool, slot }, &mut addr)?;
    Some(Backend { addr, port })
}
