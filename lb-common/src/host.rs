//! The packet path on the host: its tables, clock and chance in memory, and packets as bytes.
//!
//! Tests run packets through it. `explain` runs it over the rows that it reads from the pinned maps.

mod entry;
mod fragments;
mod in_memory;
mod known;
mod routes;
mod rows;
mod state;
mod tables;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::in_memory::InMemory;
pub use self::routes::Routes;
pub use self::rows::{FamilyTables, Tables};
use self::state::FamilyState;
use crate::addr::Family;
use crate::flow::Timeouts;
use crate::forward::{Env, Hook, Work};
use crate::fragment::Parked;
use crate::path;
use crate::reject::Answer;
use crate::run::Run;
use crate::share::UNBOUNDED_PERCENT;
use crate::socket::{self, Dial, DialAction};
use crate::spell::Spelled;
use crate::straight;
use crate::table::{
    Affinity, AffinityKey, Counter, Direction, DropKey, EdgeState, Flow, FlowKey, Port, ProxyHeader, Scope, Told,
};
use crate::verdict::HookAction;
use crate::way::SnatPorts;

/// Ticks per second of the host's clock.
pub const TICKS_PER_SEC: u64 = 100;
/// The clock has already run for a while, as a kernel's has.
const STARTED_JIFFIES: u64 = 1_000_000;

/// Flow entries of one family.
pub type Flows<A> = BTreeMap<FlowKey<A>, Flow<A>>;

/// The settings that the agent passes to the programs at load.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// In ticks of [`TICKS_PER_SEC`].
    pub timeouts: Timeouts,
    /// Most half-open flows.
    pub embryos_max: usize,
    /// Entries of the flow tables, of which a pod may have half. None: no bound.
    pub flow_entries: Option<u64>,
    /// Most parked fragments.
    pub parked_max: u32,
    /// Elements of the table of address bits.
    pub address_words: u32,
    /// `--repair-evicted-flows`: the time stamps that it reads. None: off.
    pub repairs: Option<Repairs>,
}

/// Time stamps that decide whether evicted flows are repaired, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Repairs {
    pub evictions_until_jiffies: u64,
    pub attached_jiffies: u64,
    pub balanced_jiffies: u64,
}

/// The source of random numbers.
#[derive(Clone, Copy, Debug)]
pub enum Chance {
    /// A sequence that is the same in each run.
    Sequence(u64),
    /// The same number each time, which selects the slot of a pool for a new flow.
    Always(u32),
}

/// The inputs of the last packet's decision.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// The frontend that was found.
    pub frontend: Option<u32>,
    /// Its scope for the client.
    pub scope: Option<Scope>,
    /// The set of source ranges that was looked up; 0: none.
    pub source_ranges: u32,
    pub counted: Vec<Counter>,
}

/// Runs between the two inserts of a new flow, in place of another CPU.
type Meanwhile = Box<dyn FnOnce(&Host)>;

/// The stages of the path that a packet runs through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// [`straight`], and [`path`] for the packets that need it, as in the kernel.
    Both,
    /// [`path`] alone.
    Second,
}

/// The packet path on the host.
pub struct Host {
    pub settings: Settings,
    pub stages: Stages,
    /// Packets that [`straight`] decided.
    pub straight: Cell<u64>,
    /// Packets that [`path`] decided.
    pub detours: Cell<u64>,
    /// With their derived rows, for [`Settings::address_words`].
    pub tables: Arc<Tables>,
    /// The row of the interface in `ports`.
    pub port: Port,
    v4: FamilyState<[u8; 4]>,
    v6: FamilyState<[u8; 16]>,
    counters: RefCell<BTreeMap<Counter, u64>>,
    trace: RefCell<Trace>,
    hairpins: Cell<bool>,
    /// [`EdgeState::may_have_node_port`].
    node_ports: Cell<u64>,
    client_ports: RefCell<BTreeMap<u32, u64>>,
    now_jiffies: Cell<u64>,
    /// Also the time of the last walk over the flows.
    started_jiffies: u64,
    chance: Cell<Chance>,
    /// The interface by which outgoing packets entered the node.
    came_by: Cell<u32>,
    /// The destination MAC of the current frame.
    frame_mac: Cell<[u8; 6]>,
    parked: Vec<Parked>,
    /// Tickets drawn so far.
    tickets: Cell<u32>,
    meanwhile: RefCell<Option<Meanwhile>>,
    drop_counts: RefCell<BTreeMap<DropKey, u64>>,
    /// Whether a command listens, and what was told so far.
    pub monitors: Cell<bool>,
    told: RefCell<Vec<Told>>,
    /// The ways out of the node.
    pub routes: Routes,
}

impl Host {
    /// A host without flows.
    pub fn new(tables: Arc<Tables>, settings: Settings) -> Self {
        Self {
            settings,
            stages: Stages::Both,
            straight: Cell::new(0),
            detours: Cell::new(0),
            tables,
            port: Port::unbridged(0),
            v4: FamilyState::default(),
            v6: FamilyState::default(),
            counters: RefCell::default(),
            trace: RefCell::default(),
            hairpins: Cell::new(false),
            node_ports: Cell::new(0),
            client_ports: RefCell::default(),
            now_jiffies: Cell::new(STARTED_JIFFIES),
            started_jiffies: STARTED_JIFFIES,
            chance: Cell::new(Chance::Sequence(0)),
            came_by: Cell::new(0),
            frame_mac: Cell::default(),
            parked: (0..settings.parked_max).map(|_| state::nobodys_place()).collect(),
            tickets: Cell::new(0),
            meanwhile: RefCell::default(),
            drop_counts: RefCell::default(),
            monitors: Cell::new(false),
            told: RefCell::default(),
            routes: Routes::default(),
        }
    }

    /// Notes that answers of other nodes to this port of the node may arrive.
    pub fn expect_answers_to(&self, port: u16) {
        self.node_ports.set(self.node_ports.get() | EdgeState::client_port_bit(port));
    }

    /// Runs a packet at a hook.
    pub fn run<const LINK_LEN: usize>(&self, packet: &mut InMemory<LINK_LEN>, hook: Hook) -> HookAction {
        *self.trace.borrow_mut() = Trace::default();
        match path::family(packet) {
            Some(Family::V4) => self.run_family::<[u8; 4], _>(packet, hook),
            Some(Family::V6) => self.run_family::<[u8; 16], _>(packet, hook),
            None => HookAction::Next,
        }
    }

    fn run_family<A: HostFamily, const LINK_LEN: usize>(
        &self,
        packet: &mut InMemory<LINK_LEN>,
        hook: Hook,
    ) -> HookAction {
        self.frame_mac.set(packet.mac());
        let first = match self.stages {
            Stages::Second => None,
            Stages::Both => straight::run::<A, _>(packet, hook, self),
        };
        let count = if first.is_some() { &self.straight } else { &self.detours };
        count.set(count.get() + 1);
        let mut work = A::state(self).work.get().unwrap_or_else(Work::new);
        let mut run = Run { packet, hook, kernel: self, work: &mut work };
        let action = match first.unwrap_or_else(|| run.handle()) {
            HookAction::Header => run.header(),
            action => action,
        };
        let action = if action == HookAction::Forward { run.forward() } else { action };
        A::state(self).work.set(Some(work));
        action
    }

    /// Decides a dial of a socket.
    pub fn dial<A: HostFamily>(&self, dial: &Dial<A>) -> DialAction<A> {
        *self.trace.borrow_mut() = Trace::default();
        socket::dial(dial, self)
    }

    /// The inputs of the last decision.
    pub fn trace(&self) -> Trace {
        self.trace.borrow().clone()
    }

    /// Packets by counter, without those at zero.
    pub fn counters(&self) -> BTreeMap<Counter, u64> {
        self.counters.borrow().clone()
    }

    /// Packets and dials that were refused, rejected or dropped, by frontend, edge and reason.
    pub fn drop_counts(&self) -> BTreeMap<DropKey, u64> {
        self.drop_counts.borrow().clone()
    }

    /// What was told since the last call.
    pub fn take_told(&self) -> Vec<Told> {
        self.told.take()
    }

    pub fn set_chance(&self, chance: Chance) {
        self.chance.set(chance);
    }

    /// Sets the interface by which outgoing packets entered the node; 0: a socket of the node.
    pub fn set_came_by(&self, ifindex: u32) {
        self.came_by.set(ifindex);
    }

    pub fn now_jiffies(&self) -> u64 {
        self.now_jiffies.get()
    }

    /// Sets the clock. It may go back: another CPU's clock may be behind.
    pub fn set_now_jiffies(&self, now_jiffies: u64) {
        self.now_jiffies.set(now_jiffies);
    }

    /// Runs this between the two inserts of the next new flow, as another CPU might.
    pub fn meanwhile(&self, run: impl FnOnce(&Self) + 'static) {
        self.meanwhile.replace(Some(Box::new(run)));
    }

    /// The flow entries of a family.
    pub fn flows<A: HostFamily>(&self) -> Flows<A> {
        A::state(self).flows.borrow().iter().map(|(key, flow)| (*key, *flow.borrow())).collect()
    }

    /// The headers that are due.
    pub fn headers<A: HostFamily>(&self) -> BTreeMap<FlowKey<A>, ProxyHeader> {
        A::state(self).headers.borrow().iter().map(|(key, row)| (*key, row.get())).collect()
    }

    /// Evicts the rows of all headers, as a full table might.
    pub fn evict_headers(&self) {
        self.v4.headers.borrow_mut().clear();
        self.v6.headers.borrow_mut().clear();
    }

    /// The last packet that was rejected or dropped for each reason.
    pub fn drops<A: HostFamily>(&self) -> BTreeMap<Counter, FlowKey<A>> {
        A::state(self).drops.borrow().clone()
    }

    /// Inserts a flow entry, as the path left it.
    pub fn put_flow<A: HostFamily>(&self, key: FlowKey<A>, flow: Flow<A>) {
        let ports = [key.tuple.sport, key.tuple.dport, flow.to.sport, flow.to.dport];
        let bits = ports.into_iter().map(EdgeState::client_port_bit).fold(0, |bits, bit| bits | bit);
        *self.client_ports.borrow_mut().entry(key.edge).or_default() |= bits;
        A::state(self).flows.borrow_mut().insert(key, Box::leak(Box::new(RefCell::new(flow))));
    }

    /// Evicts the entries of one direction, as a full table might.
    pub fn evict(&self, direction: Direction) {
        self.v4.flows.borrow_mut().retain(|key, _| key.direction != direction);
        self.v6.flows.borrow_mut().retain(|key, _| key.direction != direction);
    }

    /// Remembers a client, as session affinity does.
    pub fn put_affinity<A: HostFamily>(&self, key: AffinityKey<A>, affinity: Affinity<A>) {
        A::state(self).affinity.borrow_mut().insert(key, affinity);
    }

    /// Forgets all flows and clients of a family.
    pub fn forget<A: HostFamily>(&self) {
        let state = A::state(self);
        state.flows.borrow_mut().clear();
        state.headers.borrow_mut().clear();
        state.affinity.borrow_mut().clear();
        state.notes.borrow_mut().clear();
        state.sockets.borrow_mut().clear();
        state.noted.borrow_mut().clear();
        state.spent.borrow_mut().clear();
    }
}

/// A family whose tables a [`Host`] has.
pub trait HostFamily: Answer + Spelled {
    fn tables(tables: &Tables) -> &FamilyTables<Self>;
    /// Only the host reads it.
    fn state(host: &Host) -> &FamilyState<Self>;
}

impl HostFamily for [u8; 4] {
    fn tables(tables: &Tables) -> &FamilyTables<Self> {
        &tables.v4
    }
    fn state(host: &Host) -> &FamilyState<Self> {
        &host.v4
    }
}

impl HostFamily for [u8; 16] {
    fn tables(tables: &Tables) -> &FamilyTables<Self> {
        &tables.v6
    }
    fn state(host: &Host) -> &FamilyState<Self> {
        &host.v6
    }
}

impl Env for Host {
    fn now_jiffies(&self) -> u64 {
        self.now_jiffies.get()
    }
    fn random(&self) -> u32 {
        match self.chance.get() {
            Chance::Always(number) => number,
            Chance::Sequence(last) => {
                // An LCG (Knuth, MMIX): any sequence will do.
                let next = last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                self.chance.set(Chance::Sequence(next));
                (next >> 32) as u32
            }
        }
    }
    fn second_jiffies(&self) -> u64 {
        TICKS_PER_SEC
    }
    fn pod_flows_percent(&self) -> u32 {
        if self.settings.flow_entries.is_some() { 50 } else { UNBOUNDED_PERCENT }
    }
    fn flow_entries_usable(&self) -> u64 {
        self.settings.flow_entries.unwrap_or(u64::MAX)
    }
    fn forwards(&self) -> bool {
        self.routes.snat_ports.is_some()
    }
    fn snat_ports(&self) -> SnatPorts {
        self.routes.snat_ports.unwrap_or(SnatPorts::DEFAULT)
    }
    fn monitors(&self) -> bool {
        self.monitors.get()
    }
    fn repairs_evicted_flows(&self) -> bool {
        self.settings.repairs.is_some()
    }
    fn timeouts(&self) -> Timeouts {
        self.settings.timeouts
    }
    fn may_reject(&self, _: u32) -> bool {
        true
    }
}
