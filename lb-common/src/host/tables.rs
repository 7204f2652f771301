//! The tables of the packet path, over ordinary maps. Obvious rather than fast.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use super::entry::HeaderRow;
use super::{Host, HostFamily};
use crate::addr::Family;
use crate::client::Client;
use crate::forward::{Event, InsertError, Maps, Services, Sighting, Whose, Work};
use crate::share::Occupancy;
use crate::socket::Sockets;
use crate::table::{
    Affinity, AffinityKey, Backend, Counter, Dialled, Direction, DropKey, EndpointKey, Flow, FlowKey, FrontendKey,
    MemberKey, PoolKey, Port, ProxyHeader, Scope, SocketCookie, SocketKey, SocketPeer, SourceRangeKey, Told,
};
use crate::way::{Reach, Way};

impl<A: HostFamily> Services<A> for Host {
    fn frontend(&self, key: &FrontendKey<A>) -> Option<u32> {
        let found = A::tables(&self.tables).frontends.get(key).map(|frontend| frontend.id);
        self.trace.borrow_mut().frontend = found;
        found
    }
    fn scope(&self, frontend: u32, client: Client) -> Scope {
        let scope = self.tables.scopes.get(&frontend).map_or(Scope::PASS, |scopes| match client {
            Client::Workload => scopes.workload,
            Client::Host => scopes.host,
            Client::External => scopes.external,
        });
        self.trace.borrow_mut().scope = Some(scope);
        scope
    }
    fn service_port(&self, frontend: u32) -> u32 {
        self.tables.scopes.get(&frontend).map_or(0, |scopes| scopes.service_port)
    }
    fn read_backend(&self, key: &PoolKey, addr: &mut A) -> Option<u16> {
        let backend = A::tables(&self.tables).pools.get(key)?;
        *addr = backend.addr;
        Some(backend.port)
    }
    fn is_member(&self, key: &MemberKey<A>) -> bool {
        A::tables(&self.tables).members.contains_key(key)
    }
    fn member_sets(&self, key: &MemberKey<A>) -> u8 {
        A::tables(&self.tables).members.get(key).map_or(0, |member| member.sets)
    }
    fn source_ranges(&self, frontend: u32) -> u32 {
        let set = self.tables.scopes.get(&frontend).map_or(0, |scopes| scopes.source_ranges);
        self.trace.borrow_mut().source_ranges = set;
        set
    }
    fn affinity_secs(&self, frontend: u32) -> u32 {
        self.tables.scopes.get(&frontend).map_or(0, |scopes| scopes.affinity_secs)
    }
    fn read_affinity(&self, key: &AffinityKey<A>, to: &mut Affinity<A>) -> bool {
        A::state(self).affinity.borrow().get(key).map(|known| *to = *known).is_some()
    }
    fn write_affinity(&self, key: &AffinityKey<A>, affinity: &Affinity<A>) {
        A::state(self).affinity.borrow_mut().insert(*key, *affinity);
    }
    fn is_source_allowed(&self, client: &SourceRangeKey<A>) -> bool {
        let mut ranges = A::tables(&self.tables).source_ranges_of(client.set);
        ranges.any(|(range, _)| range.contains(&client.addr))
    }
    fn count(&self, counter: Counter) {
        *self.counters.borrow_mut().entry(counter).or_default() += 1;
        self.trace.borrow_mut().counted.push(counter);
    }
    fn count_frontend(&self, _: u32, _: Event) {}
    fn count_drop(&self, key: &DropKey) {
        *self.drop_counts.borrow_mut().entry(*key).or_default() += 1;
    }
    fn tell(&self, sighting: &Sighting<'_, A>) {
        let Sighting { reason, frontend, edge, proto, tuple, backend } = *sighting;
        let addr = |addr: &A| {
            let mut bytes = [0; 16];
            bytes[..size_of::<A>()].copy_from_slice(addr.as_bytes());
            bytes
        };
        self.told.borrow_mut().push(Told {
            at_ns: 0,
            src: addr(&tuple.src),
            dst: addr(&tuple.dst),
            backend: backend.map_or([0; 16], |(backend, _)| addr(backend)),
            sport: tuple.sport,
            dport: tuple.dport,
            backend_port: backend.map_or(0, |(_, port)| port),
            proto,
            version: if A::FAMILY == Family::V4 { 4 } else { 6 },
            frontend,
            edge,
            reason: reason as u32,
            bytes: 0,
        });
    }
}

impl<A: HostFamily> Maps<A> for Host {
    type Header = HeaderRow;
    fn evictions_until_jiffies(&self) -> u64 {
        self.settings.repairs.map_or(0, |repairs| repairs.evictions_until_jiffies)
    }
    fn attached_jiffies(&self, _: u32) -> u64 {
        self.settings.repairs.map_or(0, |repairs| repairs.attached_jiffies)
    }
    fn balanced_jiffies(&self, _: u32) -> u64 {
        self.settings.repairs.map_or(0, |repairs| repairs.balanced_jiffies)
    }
    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool {
        A::tables(&self.tables).endpoints.contains_key(key)
    }
    fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Result<(), InsertError> {
        let mut flows = A::state(self).flows.borrow_mut();
        if flows.contains_key(key) {
            return Err(InsertError::Exists);
        }
        flows.insert(*key, Box::leak(Box::new(RefCell::new(*flow))));
        drop(flows);
        let is_reserved = key.direction == Direction::Reply;
        if let Some(meanwhile) = is_reserved.then(|| self.meanwhile.take()).flatten() {
            meanwhile(self);
        }
        Ok(())
    }
    fn remove_flow(&self, key: &FlowKey<A>) {
        A::state(self).flows.borrow_mut().remove(key);
    }
    fn header(&self, key: &FlowKey<A>) -> Option<HeaderRow> {
        A::state(self).headers.borrow().get(key).map(|row| HeaderRow(row))
    }
    fn write_header(&self, key: &FlowKey<A>, row: &ProxyHeader) -> bool {
        A::state(self).headers.borrow_mut().insert(*key, Box::leak(Box::new(Cell::new(*row))));
        true
    }
    fn remove_header(&self, key: &FlowKey<A>) {
        A::state(self).headers.borrow_mut().remove(key);
    }
    fn occupancy(&self, edge: u32) -> Occupancy {
        let flows = A::state(self).flows.borrow();
        let of_edge = flows.keys().filter(|key| key.edge == edge).count();
        Occupancy { edge: of_edge as u64, all: flows.len() as u64 }
    }
    fn walked_jiffies(&self) -> u64 {
        self.started_jiffies
    }
    fn note_spent(&self, key: &FlowKey<A>) {
        A::state(self).spent.borrow_mut().push_back(*key);
    }
    fn take_spent(&self, edge: u32, key: &mut FlowKey<A>) -> bool {
        let mut spent = A::state(self).spent.borrow_mut();
        let place = spent.iter().position(|key| key.edge == edge);
        place.and_then(|place| spent.remove(place)).map(|taken| *key = taken).is_some()
    }
    fn take_embryo(&self) -> bool {
        let mut budget = A::state(self).embryos.get();
        let embryos_max = self.settings.embryos_max as u64;
        let has_token = budget.take(self.now_jiffies(), embryos_max, self.settings.timeouts.tcp_syn_jiffies);
        A::state(self).embryos.set(budget);
        has_token
    }
    fn give_embryo(&self) {
        let mut budget = A::state(self).embryos.get();
        budget.give(self.settings.embryos_max as u64);
        A::state(self).embryos.set(budget);
    }
    fn read_oldest_embryo(&self, oldest: &mut FlowKey<A>) -> bool {
        let noted = A::state(self).noted.borrow();
        let is_full = noted.len() >= self.settings.embryos_max;
        if is_full && let Some(first) = noted.front() {
            *oldest = *first;
        }
        is_full
    }
    fn note_embryo(&self, key: &FlowKey<A>) {
        let mut noted = A::state(self).noted.borrow_mut();
        noted.push_back(*key);
        if noted.len() > self.settings.embryos_max {
            noted.pop_front();
        }
    }
    fn note_hairpin(&self, _: u32) {
        self.hairpins.set(true);
    }
    fn note_client_ports(&self, edge: u32, bits: u64) {
        *self.client_ports.borrow_mut().entry(edge).or_default() |= bits;
    }
    fn has_come_back(&self, edge: u32) -> bool {
        let from = self.came_by.get();
        from == edge || (from != 0 && from == self.port.bridge)
    }
    fn whose_frame(&self) -> Whose {
        let Port { bridge, mac, flags, .. } = self.port;
        if bridge == 0 {
            return Whose::Stranger;
        }
        if self.frame_mac.get() == mac || flags & Port::ANY_MAC != 0 { Whose::Node } else { Whose::Neighbour }
    }
    fn is_source_of_uplink(&self, addr: &A) -> bool {
        let addr: IpAddr = (*addr).into();
        self.routes.remote.values().any(|source| *source == addr)
    }
    fn note_node_port(&self, port: u16) {
        self.expect_answers_to(port);
    }
    fn reach(&self, work: &mut Work<A>) -> Reach {
        self.routes.reach(work)
    }
    fn way(&self, work: &mut Work<A>, len_bytes: u16) -> Way {
        self.routes.way(work, len_bytes)
    }
    fn note_drop(&self, reason: Counter, key: &FlowKey<A>) {
        A::state(self).drops.borrow_mut().insert(reason, *key);
    }
}

impl<A: HostFamily> Sockets<A> for Host {
    fn read_note(&self, socket: SocketCookie, to: &mut Dialled<A>) -> bool {
        A::state(self).notes.borrow().get(&socket).map(|known| *to = *known).is_some()
    }
    fn has_note_of_another(&self, socket: SocketCookie, to: &Backend<A>) -> bool {
        A::state(self).notes.borrow().get(&socket).is_some_and(|known| !known.is_to(to))
    }
    fn write_note(&self, socket: SocketCookie, note: &Dialled<A>) -> bool {
        A::state(self).notes.borrow_mut().insert(socket, *note);
        true
    }
    fn forget_note(&self, socket: SocketCookie) {
        A::state(self).notes.borrow_mut().remove(&socket);
    }
    fn read_peer(&self, key: &SocketKey<A>, to: &mut SocketPeer<A>) -> bool {
        A::state(self).sockets.borrow().get(key).map(|known| *to = *known).is_some()
    }
    fn write_peer(&self, key: &SocketKey<A>, peer: &SocketPeer<A>) -> bool {
        A::state(self).sockets.borrow_mut().insert(*key, *peer);
        true
    }
}
