//! Sockets of the node: a dial is translated before the socket has a route, a source port or a packet.
//!
//! As with packets, the decision depends only on tables, time and chance. TCP sockets, and UDP sockets that connect,
//! get their backend once. Each datagram of an unconnected socket is decided again, and the socket keeps its backend
//! while that belongs to the Service.
//!
//! The backend is noted at the socket itself, and ends with the socket. A note has room for one address; a UDP socket that
//! sends to further addresses has rows in a table for these, which forgets.

use crate::addr::{Addr, Proto};
use crate::client::Client;
use crate::forward::{Event, Services, Sighting};
use crate::selection::{self, Spread};
use crate::table::{
    Action, Affinity, AffinityKey, Backend, Counter, Dialled, Direction, DropKey, EDGE_SOCKETS, FrontendKey, MemberKey,
    PoolKey, Scope, ScopeFlags, SocketCookie, SocketKey, SocketPeer, SourceRangeKey, Tuple,
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
    pub way: Way,
}

/// How a socket dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Connect,
    Datagram,
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
    /// Copies the note of a socket. False if it has none.
    fn read_note(&self, socket: SocketCookie, to: &mut Dialled<A>) -> bool;
    /// Whether the note of a socket is of another address. Without a copy of the note: the stack is small.
    fn has_note_of_another(&self, socket: SocketCookie, to: &Backend<A>) -> bool;
    /// Writes the note of a socket. False if there is no memory for it.
    fn write_note(&self, socket: SocketCookie, note: &Dialled<A>) -> bool;
    fn forget_note(&self, socket: SocketCookie);
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
    pub const fn new(peer: &Backend<A>, way: Way, frontend: u32) -> Self {
        Self { addr: peer.addr, port: peer.port, connected: matches!(way, Way::Connect) as u16, frontend }
    }

    #[inline(always)]
    pub const fn address(&self) -> Backend<A> {
        Backend { addr: self.addr, port: self.port }
    }

    const fn unknown(addr: A) -> Self {
        Self { addr, port: 0, connected: 0, frontend: 0 }
    }
}

impl<A: Addr> Dialled<A> {
    #[inline(always)]
    const fn new(to: &Backend<A>, backend: &Backend<A>, frontend: u32) -> Self {
        Self { addr: to.addr, backend: backend.addr, port: to.port, backend_port: backend.port, frontend }
    }

    /// Room for a note.
    pub const fn unknown(addr: A) -> Self {
        Self { addr, backend: addr, port: 0, backend_port: 0, frontend: 0 }
    }

    /// Whether the socket dialled this address.
    #[inline(always)]
    pub fn is_to(&self, to: &Backend<A>) -> bool {
        self.port == to.port && self.addr.is(&to.addr)
    }

    /// The address that the socket dialled, if this is its backend.
    #[inline(always)]
    pub fn shown_as(&self, peer: &Backend<A>) -> Option<Backend<A>> {
        let is_backend = self.backend_port == peer.port && self.backend.is(&peer.addr);
        if is_backend { Some(Backend { addr: self.addr, port: self.port }) } else { None }
    }
}

/// Decides a dial.
#[inline(always)]
pub fn dial<A: Addr, S: Sockets<A>>(dial: &Dial<A>, tables: &S) -> DialAction<A> {
    let key = FrontendKey { addr: dial.to.addr, port: dial.to.port, proto: dial.proto, pad: 0 };
    let Some(frontend) = tables.frontend(&key) else { return leave(dial, tables) };
    let scope = tables.scope(frontend, dial.client);
    if matches!(dial.client, Client::Workload) && !is_for_sockets_of_pods(scope) {
        return leave(dial, tables);
    }
    if dial.proto == Proto::UDP
        && let Some(backend) = known_backend(dial, frontend, scope, tables)
    {
        // The note has the address that a socket is connected to.
        let is_noted = dial.way == Way::Datagram || note(dial, &backend, frontend, tables);
        return if is_noted { DialAction::Translate(backend) } else { DialAction::Deny };
    }
    if scope.has(ScopeFlags::SOURCE_RANGES) && !is_source_allowed(dial, frontend, tables) {
        return refused(dial, frontend, Counter::DropSourceRange, tables);
    }
    match scope.action {
        Action::Pass => {
            tables.count(Counter::PassedProxy);
            tables.count_frontend(frontend, Event::Passed);
            tell(dial, frontend, Counter::PassedProxy, None, tables);
            leave(dial, tables)
        }
        Action::Reject => {
            refused(dial, frontend, Counter::SocketRefused, tables);
            DialAction::Refuse
        }
        Action::Drop => refused(dial, frontend, Counter::DropNoLocalEndpoint, tables),
        Action::Balance => open(dial, frontend, scope, tables),
    }
}

/// Counts a dial that fails, and tells who listens.
#[inline(always)]
fn refused<A: Addr, S: Sockets<A>>(dial: &Dial<A>, frontend: u32, reason: Counter, tables: &S) -> DialAction<A> {
    tables.count(reason);
    outcome(dial, frontend, reason, None, tables);
    DialAction::Deny
}

/// Tells who listens what became of a dial that does not fail.
#[inline(always)]
fn tell<A: Addr, S: Sockets<A>>(
    dial: &Dial<A>,
    frontend: u32,
    reason: Counter,
    backend: Option<&Backend<A>>,
    tables: &S,
) {
    if tables.monitors() {
        outcome(dial, frontend, reason, backend, tables);
    }
}

/// Counts a dial that fails, and tells of each. A function of its own: its variables would take the stack of all dials.
#[inline(never)]
fn outcome<A: Addr, S: Sockets<A>>(
    dial: &Dial<A>,
    frontend: u32,
    reason: Counter,
    backend: Option<&Backend<A>>,
    tables: &S,
) {
    if !matches!(reason, Counter::SocketTranslated | Counter::PassedProxy) {
        tables.count_drop(&DropKey { frontend, edge: EDGE_SOCKETS, reason: reason as u32 });
    }
    if tables.monitors() {
        // The socket has no port yet.
        let tuple = Tuple { src: dial.source, dst: dial.to.addr, sport: 0, dport: dial.to.port };
        let backend = backend.map(|backend| (&backend.addr, backend.port));
        tables.tell(&Sighting { reason, frontend, edge: EDGE_SOCKETS, proto: dial.proto, tuple: &tuple, backend });
    }
}

/// Leaves a dial alone. A socket that connects has another peer than before.
#[inline(always)]
fn leave<A: Addr, S: Sockets<A>>(dial: &Dial<A>, tables: &S) -> DialAction<A> {
    if dial.way == Way::Connect {
        tables.forget_note(dial.socket);
    }
    DialAction::Leave
}

/// Whether the dials of pods are translated. What depends on the pod's address, and what is refused, is left to the
/// programs at the pod's interface.
#[inline(always)]
const fn is_for_sockets_of_pods(scope: Scope) -> bool {
    // A PROXY header is added to packets.
    let for_packets = ScopeFlags::SOURCE_RANGES | ScopeFlags::AFFINITY | ScopeFlags::HEADER_V1 | ScopeFlags::HEADER_V2;
    matches!(scope.action, Action::Balance) && !scope.has(for_packets)
}

/// The address that a UDP socket dialled to reach this backend.
#[inline(always)]
pub fn dialled<A: Addr, S: Sockets<A>>(socket: SocketCookie, backend: &Backend<A>, tables: &S) -> Option<Backend<A>> {
    let mut note = Dialled::unknown(backend.addr);
    if tables.read_note(socket, &mut note)
        && let Some(dialled) = note.shown_as(backend)
    {
        return Some(dialled);
    }
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
    let mut note = Dialled::unknown(dial.to.addr);
    let backend = if tables.read_note(dial.socket, &mut note) && note.is_to(&dial.to) {
        Backend { addr: note.backend, port: note.backend_port }
    } else {
        let mut peer = SocketPeer::unknown(dial.to.addr);
        if !tables.read_peer(&SocketKey::new(dial.socket, &dial.to, Direction::Request), &mut peer) {
            return None;
        }
        peer.address()
    };
    let is_wanted = match scope.action {
        Action::Pass => true,
        Action::Balance => {
            let service_port = tables.service_port(frontend);
            tables.is_member(&MemberKey { service_port, addr: backend.addr, port: backend.port, pad: 0 })
        }
        Action::Reject | Action::Drop => false,
    };
    if is_wanted { Some(backend) } else { None }
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
        return refused(dial, frontend, Counter::DropNoBackend, tables);
    };
    if !note(dial, &backend, frontend, tables) {
        return refused(dial, frontend, Counter::DropFlowTable, tables);
    }
    tables.count(Counter::SocketTranslated);
    tables.count_frontend(frontend, Event::FlowCreated);
    tell(dial, frontend, Counter::SocketTranslated, Some(&backend), tables);
    DialAction::Translate(backend)
}

/// Notes the backend of a dial. False if a datagram would be answered from an address that the socket does not know. A TCP
/// socket without a note works as well: only `getpeername` shows the backend. A function of its own, as above.
#[inline(never)]
fn note<A: Addr, S: Sockets<A>>(dial: &Dial<A>, backend: &Backend<A>, frontend: u32, tables: &S) -> bool {
    let has_room = dial.way == Way::Connect || !tables.has_note_of_another(dial.socket, &dial.to);
    let is_noted = has_room && tables.write_note(dial.socket, &Dialled::new(&dial.to, backend, frontend));
    if dial.proto == Proto::TCP || (is_noted && dial.way == Way::Datagram) {
        return true;
    }
    let request = SocketKey::new(dial.socket, &dial.to, Direction::Request);
    let reply = SocketKey::new(dial.socket, backend, Direction::Reply);
    // The reply first: an answer must not arrive before its row.
    (is_noted || tables.write_peer(&reply, &SocketPeer::new(&dial.to, dial.way, frontend)))
        && tables.write_peer(&request, &SocketPeer::new(backend, dial.way, frontend))
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
