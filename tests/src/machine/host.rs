//! The packet path on the host, over ordinary maps. Obvious rather than fast.

mod entry;
mod fragments;
mod in_memory;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use lb_agent::dataplane::{FamilyTables, Tables};
use lb_common::addr::{Addr, Family};
use lb_common::flow::Timeouts;
use lb_common::forward::{Client, Edge, Env, Event, InsertError, Tables as PathTables, Whose, Work};
use lb_common::fragment::Parked;
use lb_common::packet::ETHERNET_LEN;
use lb_common::path::{self, Limits};
use lb_common::reject::Unreachable;
use lb_common::share::{Occupancy, UNBOUNDED_PERCENT};
use lb_common::table::{
    Affinity, AffinityKey, Counter, Direction, EDGE_UPLINK, EmbryoBudget, EndpointKey, Flow, FlowKey, Fragment,
    FragmentKey, FrontendKey, MemberKey, PoolKey, Port, Scope, SourceRangeKey,
};
use lb_common::verdict::Action;

use self::entry::Entry;
use self::in_memory::InMemory;
use super::{EDGE, Flows, Machine, Program, UNBRIDGED};

/// Flows that may be half open: as many as on a [`KernelMachine`](super::KernelMachine) of two CPUs, as seen from one.
const EMBRYOS_MAX: usize = 2_048;
/// Fragments that may wait, as on a [`KernelMachine`](super::KernelMachine).
pub const PARKED_MAX: u32 = 16;
/// Elements of a table of addresses, as on a [`KernelMachine`](super::KernelMachine).
pub const ADDRESS_WORDS: u32 = 1 << 11;

/// Ticks per second of the host machine's clock, which has run for a while, as a kernel's has.
const TICKS_PER_SEC: u64 = 100;
const STARTED_JIFFIES: u64 = 1_000_000;

/// Entries are leaked: one that the path holds outlives its removal, as in the kernel, and tests are short.
type FlowTable<A> = RefCell<BTreeMap<FlowKey<A>, &'static RefCell<Flow<A>>>>;

type NoteTable<A> = RefCell<BTreeMap<FragmentKey<A>, &'static RefCell<Fragment<A>>>>;

/// The tables of one family.
struct FamilyState<A: 'static> {
    config: FamilyTables<A>,
    flows: FlowTable<A>,
    affinity: RefCell<BTreeMap<AffinityKey<A>, Affinity<A>>>,
    fragments: NoteTable<A>,
    /// Half-open flows that may still be made, and the latest ones.
    embryos: Cell<EmbryoBudget>,
    noted: RefCell<VecDeque<FlowKey<A>>>,
    /// Flows that may go.
    spent: RefCell<VecDeque<FlowKey<A>>>,
    /// What the last packet has left there: the records of the kernel's programs are as little emptied.
    work: Cell<Option<Work<A>>>,
}

impl<A> Default for FamilyState<A> {
    fn default() -> Self {
        Self {
            config: FamilyTables::default(),
            flows: RefCell::default(),
            affinity: RefCell::default(),
            fragments: RefCell::default(),
            embryos: Cell::new(EmbryoBudget { tokens: 0, refilled_jiffies: 0, noted: 0 }),
            noted: RefCell::default(),
            spent: RefCell::default(),
            work: Cell::new(None),
        }
    }
}

/// Which of the two states is that of a family.
trait HostFamily: Unreachable {
    fn state(machine: &HostMachine) -> &FamilyState<Self>;
}

impl HostFamily for [u8; 4] {
    fn state(machine: &HostMachine) -> &FamilyState<Self> {
        &machine.v4
    }
}

impl HostFamily for [u8; 16] {
    fn state(machine: &HostMachine) -> &FamilyState<Self> {
        &machine.v6
    }
}

/// The packet path on the host.
pub struct HostMachine {
    v4: FamilyState<[u8; 4]>,
    v6: FamilyState<[u8; 16]>,
    scopes: BTreeMap<u32, lb_common::table::Scopes>,
    counters: RefCell<BTreeMap<Counter, u64>>,
    hairpins: Cell<bool>,
    client_ports: RefCell<BTreeMap<u32, u64>>,
    now_jiffies: Cell<u64>,
    walked_jiffies: Cell<u64>,
    /// Entries that the flow tables hold, of which a pod may have half; none: as many as it likes.
    flow_entries: Option<u64>,
    random: Cell<u64>,
    /// Half-open flows that there may be.
    embryos_max: usize,
    offload: bool,
    /// Links have no header.
    is_bare: bool,
    port: Port,
    /// What packets that go out came to the node by.
    came_by: Cell<u32>,
    /// Whom the frame is for that is being looked at.
    frame_mac: Cell<[u8; 6]>,
    parked: Vec<Parked>,
    /// Tickets drawn so far.
    tickets: Cell<u32>,
    /// What became of what came to the hook again, but for the first.
    replayed: Vec<(Action, Vec<u8>)>,
    /// `--repair-evicted-flows`, and what it asks.
    pub repairs: Option<Repairs>,
    /// What another CPU runs as soon as a tuple is reserved, and what became of it.
    meanwhile: RefCell<Option<(Program, Vec<u8>)>>,
    outcome_meanwhile: RefCell<Option<Action>>,
}

/// Time stamps that decide whether evicted flows are repaired, in ticks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Repairs {
    pub evictions_until_jiffies: u64,
    pub attached_jiffies: u64,
    pub balanced_jiffies: u64,
}

impl Default for HostMachine {
    fn default() -> Self {
        Self {
            v4: FamilyState::default(),
            v6: FamilyState::default(),
            scopes: BTreeMap::new(),
            counters: RefCell::default(),
            hairpins: Cell::new(false),
            client_ports: RefCell::default(),
            now_jiffies: Cell::new(STARTED_JIFFIES),
            walked_jiffies: Cell::new(STARTED_JIFFIES),
            flow_entries: None,
            random: Cell::new(0),
            embryos_max: EMBRYOS_MAX,
            offload: false,
            is_bare: false,
            port: UNBRIDGED,
            came_by: Cell::new(0),
            frame_mac: Cell::default(),
            parked: (0..PARKED_MAX).map(|_| fragments::nobodys_place()).collect(),
            tickets: Cell::new(0),
            replayed: Vec::new(),
            repairs: None,
            meanwhile: RefCell::default(),
            outcome_meanwhile: RefCell::default(),
        }
    }
}

impl HostMachine {
    /// Packets come from local sockets whose device finishes the L4 checksum; here it does so after the path.
    pub fn with_checksum_offload() -> Self {
        Self { offload: true, ..Self::default() }
    }

    /// Packets come and go without their Ethernet header, as on tun or WireGuard.
    pub fn without_link_headers() -> Self {
        Self { is_bare: true, ..Self::default() }
    }

    /// The flow tables hold so many entries, of which a pod may have half of what others leave.
    pub fn with_flow_entries(entries: u64) -> Self {
        Self { flow_entries: Some(entries), ..Self::default() }
    }

    /// So many flows may be half open.
    pub fn with_embryos(embryos_max: usize) -> Self {
        Self { embryos_max, ..Self::default() }
    }

    /// Another CPU runs this packet between the two inserts of the next new flow.
    pub fn meanwhile(&mut self, program: Program, packet: &[u8]) {
        self.meanwhile = RefCell::new(Some((program, packet.to_vec())));
    }

    /// What became of it.
    pub fn outcome_meanwhile(&mut self) -> Option<Action> {
        self.outcome_meanwhile.take()
    }

    /// The next packets are another CPU's, whose clock is behind by so many ticks.
    pub fn fall_behind(&mut self, jiffies: u64) {
        self.now_jiffies.set(self.now_jiffies.get() - jiffies);
    }

    /// How many flows got a source port of their own, which is drawn at random.
    pub fn drawn_ports(&self) -> usize {
        fn drawn<A: Addr>(state: &FamilyState<A>) -> usize {
            let flows = state.flows.borrow();
            let requests = flows.iter().filter(|(key, _)| key.direction == Direction::Request);
            requests.filter(|(key, flow)| key.tuple.sport != flow.borrow().to.sport).count()
        }
        drawn(&self.v4) + drawn(&self.v6)
    }
}

impl<A: HostFamily> PathTables<A> for HostMachine {
    type Flow = Entry<A>;

    fn frontend(&self, key: &FrontendKey<A>) -> Option<u32> {
        A::state(self).config.frontends.get(key).map(|frontend| frontend.id)
    }
    fn scope(&self, frontend: u32, client: Client) -> Scope {
        let Some(scopes) = self.scopes.get(&frontend) else { return Scope::PASS };
        match client {
            Client::Workload => scopes.workload,
            Client::Host => scopes.host,
            Client::External => scopes.external,
        }
    }
    fn service_port(&self, frontend: u32) -> u32 {
        self.scopes.get(&frontend).map_or(0, |scopes| scopes.service_port)
    }
    fn read_backend(&self, key: &PoolKey, addr: &mut A) -> Option<u16> {
        let backend = A::state(self).config.pools.get(key)?;
        *addr = backend.addr;
        Some(backend.port)
    }
    fn is_member(&self, key: &MemberKey<A>) -> bool {
        A::state(self).config.members.contains_key(key)
    }
    fn member_sets(&self, key: &MemberKey<A>) -> u8 {
        A::state(self).config.members.get(key).map_or(0, |member| member.sets)
    }
    fn source_ranges(&self, frontend: u32) -> u32 {
        self.scopes.get(&frontend).map_or(0, |scopes| scopes.source_ranges)
    }

    fn affinity_secs(&self, frontend: u32) -> u32 {
        self.scopes.get(&frontend).map_or(0, |scopes| scopes.affinity_secs)
    }
    fn evictions_until_jiffies(&self) -> u64 {
        self.repairs.map_or(0, |repairs| repairs.evictions_until_jiffies)
    }
    fn attached_jiffies(&self, _: u32) -> u64 {
        self.repairs.map_or(0, |repairs| repairs.attached_jiffies)
    }
    fn balanced_jiffies(&self, _: u32) -> u64 {
        self.repairs.map_or(0, |repairs| repairs.balanced_jiffies)
    }
    fn read_affinity(&self, key: &AffinityKey<A>, to: &mut Affinity<A>) -> bool {
        A::state(self).affinity.borrow().get(key).map(|known| *to = *known).is_some()
    }
    fn write_affinity(&self, key: &AffinityKey<A>, affinity: &Affinity<A>) {
        A::state(self).affinity.borrow_mut().insert(*key, *affinity);
    }
    fn is_source_allowed(&self, client: &SourceRangeKey<A>) -> bool {
        let is_in = |range: &SourceRangeKey<A>| range.set == client.set && range.contains(&client.addr);
        A::state(self).config.source_ranges.keys().any(is_in)
    }
    fn is_endpoint(&self, key: &EndpointKey<A>) -> bool {
        let members = &A::state(self).config.members;
        members.keys().any(|member| (member.addr, member.port) == (key.addr, key.port))
    }
    fn flow(&self, key: &FlowKey<A>) -> Option<Entry<A>> {
        A::state(self).flows.borrow().get(key).map(|entry| Entry(entry))
    }
    fn insert_flow(&self, key: &FlowKey<A>, flow: &Flow<A>) -> Result<(), InsertError> {
        let mut flows = A::state(self).flows.borrow_mut();
        if flows.contains_key(key) {
            return Err(InsertError::Exists);
        }
        flows.insert(*key, Box::leak(Box::new(RefCell::new(*flow))));
        drop(flows);
        if key.direction == Direction::Reply
            && let Some((program, bytes)) = self.meanwhile.take()
        {
            let (action, _) = self.run_frame(program, InMemory::new(&bytes));
            self.outcome_meanwhile.replace(Some(action));
        }
        Ok(())
    }
    fn remove_flow(&self, key: &FlowKey<A>) {
        A::state(self).flows.borrow_mut().remove(key);
    }
    fn occupancy(&self, edge: u32) -> Occupancy {
        let flows = A::state(self).flows.borrow();
        let of_edge = flows.keys().filter(|key| key.edge == edge).count();
        Occupancy { edge: of_edge as u64, all: flows.len() as u64 }
    }
    fn walked_jiffies(&self) -> u64 {
        self.walked_jiffies.get()
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
        let has_token = budget.take(self.now_jiffies(), self.embryos_max as u64, self.timeouts().tcp_syn_jiffies);
        A::state(self).embryos.set(budget);
        has_token
    }
    fn give_embryo(&self) {
        let mut budget = A::state(self).embryos.get();
        budget.give(self.embryos_max as u64);
        A::state(self).embryos.set(budget);
    }
    fn note_embryo(&self, key: &FlowKey<A>, oldest: &mut FlowKey<A>) -> bool {
        let mut noted = A::state(self).noted.borrow_mut();
        noted.push_back(*key);
        let is_full = noted.len() > self.embryos_max;
        if is_full {
            *oldest = noted.pop_front().expect("it is full");
        }
        is_full
    }
    fn has_hairpins(&self, _: u32) -> bool {
        self.hairpins.get()
    }
    fn note_hairpin(&self, _: u32) {
        self.hairpins.set(true);
    }
    fn client_ports(&self, edge: u32) -> u64 {
        self.client_ports.borrow().get(&edge).copied().unwrap_or(0)
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
    fn count(&self, counter: Counter) {
        *self.counters.borrow_mut().entry(counter).or_default() += 1;
    }
    fn count_frontend(&self, _: u32, _: Event) {}
}

impl Env for HostMachine {
    fn now_jiffies(&self) -> u64 {
        self.now_jiffies.get()
    }
    fn random(&self) -> u32 {
        // An LCG (Knuth, MMIX): any sequence will do, the same in each run.
        let next = self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random.set(next);
        (next >> 32) as u32
    }
    fn second_jiffies(&self) -> u64 {
        TICKS_PER_SEC
    }
    fn pod_flows_percent(&self) -> u32 {
        if self.flow_entries.is_some() { 50 } else { UNBOUNDED_PERCENT }
    }
    fn flow_entries_usable(&self) -> u64 {
        self.flow_entries.unwrap_or(u64::MAX)
    }
    fn repairs_evicted_flows(&self) -> bool {
        self.repairs.is_some()
    }
    fn timeouts(&self) -> Timeouts {
        let timeouts = lb_agent::dataplane::Timeouts::default();
        let ticks = |secs: u32| u64::from(secs) * TICKS_PER_SEC;
        Timeouts {
            tcp_syn_jiffies: ticks(timeouts.tcp_syn_secs),
            tcp_established_jiffies: ticks(timeouts.tcp_established_secs),
            tcp_closing_jiffies: ticks(timeouts.tcp_closing_secs),
            udp_jiffies: ticks(timeouts.udp_secs),
            second_jiffies: TICKS_PER_SEC,
        }
    }
}

impl Limits for HostMachine {
    fn may_reject(&self, _: u32) -> bool {
        true
    }
}

impl HostMachine {
    /// Runs a frame, without its header where links have none.
    fn run_frame(&self, program: Program, mut frame: InMemory<ETHERNET_LEN>) -> (Action, InMemory<ETHERNET_LEN>) {
        if !self.is_bare {
            let action = self.run_packet(program, &mut frame);
            return (action, frame);
        }
        let mut packet = frame.bare();
        let action = self.run_packet(program, &mut packet);
        (action, packet.framed(action))
    }

    fn run_packet<const LINK_LEN: usize>(&self, program: Program, packet: &mut InMemory<LINK_LEN>) -> Action {
        match path::family(packet) {
            Some(Family::V4) => self.run_family::<[u8; 4], _>(program, packet),
            Some(Family::V6) => self.run_family::<[u8; 16], _>(program, packet),
            None => Action::Next,
        }
    }

    fn run_family<A: HostFamily, const LINK_LEN: usize>(
        &self,
        program: Program,
        packet: &mut InMemory<LINK_LEN>,
    ) -> Action {
        let workload = Edge { id: EDGE, client: Client::Workload };
        let uplink = Edge { id: EDGE_UPLINK, client: Client::External };
        self.frame_mac.set(packet.mac());
        let mut work = A::state(self).work.get().unwrap_or_else(Work::new);
        let action = match program {
            Program::WorkloadIngress => path::ingress(packet, workload, self, self, &mut work),
            Program::WorkloadEgress => path::egress(packet, workload, self, self, &mut work),
            Program::UplinkIngress => path::ingress(packet, uplink, self, self, &mut work),
            Program::UplinkEgress => path::egress(packet, uplink, self, self, &mut work),
        };
        A::state(self).work.set(Some(work));
        match action {
            // The port's bridge passes netfilter.
            Action::ToBackend => Action::Next,
            action => action,
        }
    }
}

impl Machine for HostMachine {
    fn set_tables(&mut self, tables: &Tables) {
        self.v4.config = tables.v4.clone();
        self.v6.config = tables.v6.clone();
        self.scopes = tables.scopes.clone();
    }

    fn set_port(&mut self, port: Port) {
        self.port = port;
    }

    fn set_came_by(&mut self, ifindex: u32) {
        self.came_by.set(ifindex);
    }

    fn run(&mut self, program: Program, packet: &[u8]) -> (Action, Vec<u8>) {
        let mut packet = InMemory::new(packet);
        if self.offload && path::family(&packet).is_some() {
            packet = packet.offload();
        }
        let (action, mut packet) = self.run_frame(program, packet);
        self.replayed.clear();
        let mut again = std::mem::take(&mut packet.again).into_iter();
        let Some(first) = again.next() else { return (action, packet.finish()) };
        let outcome = self.run(program, &first);
        self.replayed = again.map(|packet| self.run(program, &packet)).collect();
        outcome
    }

    fn replayed(&mut self) -> Vec<(Action, Vec<u8>)> {
        std::mem::take(&mut self.replayed)
    }

    fn flows(&mut self) -> Flows {
        Flows {
            v4: self.v4.flows.borrow().iter().map(|(key, flow)| (*key, *flow.borrow())).collect(),
            v6: self.v6.flows.borrow().iter().map(|(key, flow)| (*key, *flow.borrow())).collect(),
        }
    }

    fn evict(&mut self, direction: Direction) {
        self.v4.flows.borrow_mut().retain(|key, _| key.direction != direction);
        self.v6.flows.borrow_mut().retain(|key, _| key.direction != direction);
    }

    fn counters(&mut self) -> BTreeMap<Counter, u64> {
        self.counters.borrow().clone()
    }

    fn age_flows(&mut self, secs: u64) {
        self.now_jiffies.set(self.now_jiffies.get() + secs * TICKS_PER_SEC);
    }
}
