//! The packet path on the host, as a machine of the tests.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use lb_agent::dataplane::Tables;
use lb_common::addr::{Addr, Family};
use lb_common::flow::Timeouts;
use lb_common::forward::{Edge, Hook};
use lb_common::host::{Host, HostFamily, InMemory, Settings, TICKS_PER_SEC};
use lb_common::packet::ETHERNET_LEN;
use lb_common::path;
use lb_common::table::{Counter, Direction, DropKey, Port, Told};
use lb_common::verdict::HookAction;
use lb_common::way::SnatPorts;

use super::{EDGE, Flows, Machine, Program, UNBRIDGED, ends};
use crate::packet::{End, NODE_MAC};

/// The limit of half-open flows: as many as one CPU may make on a [`KernelMachine`](super::KernelMachine) with two
/// CPUs.
const EMBRYOS_MAX: usize = 2_048;
/// How many fragments may be parked, as on a [`KernelMachine`](super::KernelMachine).
pub const PARKED_MAX: u32 = 16;
/// Elements of a table of addresses, as on a [`KernelMachine`](super::KernelMachine).
pub const ADDRESS_WORDS: u32 = 1 << 11;

/// The packet path on the host.
pub struct HostMachine {
    pub host: Host,
    /// Packets come from local sockets whose device completes the L4 checksum.
    offload: bool,
    /// Links have no header.
    is_bare: bool,
    /// The outcomes of re-injected packets, except the first.
    replayed: Vec<(HookAction, Vec<u8>)>,
    /// The outcome of the packet that another CPU ran in between.
    outcome_meanwhile: Rc<Cell<Option<HookAction>>>,
}

impl Default for HostMachine {
    fn default() -> Self {
        let settings = Settings {
            timeouts: timeouts(),
            embryos_max: EMBRYOS_MAX,
            flow_entries: None,
            parked_max: PARKED_MAX,
            address_words: ADDRESS_WORDS,
            repairs: None,
        };
        let mut host = Host::new(Arc::default(), settings);
        host.port = UNBRIDGED;
        Self { host, offload: false, is_bare: false, replayed: Vec::new(), outcome_meanwhile: Rc::default() }
    }
}

/// The agent's time-outs, in ticks of the host.
fn timeouts() -> Timeouts {
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

impl HostMachine {
    /// A machine whose packets come from local sockets. The device completes the L4 checksum; here that happens after
    /// the path.
    pub fn with_checksum_offload() -> Self {
        Self { offload: true, ..Self::default() }
    }

    /// A machine whose packets have no Ethernet header, as on tun or WireGuard.
    pub fn without_link_headers() -> Self {
        Self { is_bare: true, ..Self::default() }
    }

    /// A machine whose flow tables hold so many entries. A pod may have half of what others leave.
    pub fn with_flow_entries(entries: u64) -> Self {
        let mut machine = Self::default();
        machine.host.settings.flow_entries = Some(entries);
        machine
    }

    /// A machine that forwards to any endpoint, from this address and these ports, and has done so before.
    #[must_use]
    pub fn forwarding(mut self, node: IpAddr, endpoints: impl IntoIterator<Item = IpAddr>, ports: SnatPorts) -> Self {
        self.host.routes.snat_ports = Some(ports);
        self.host.routes.remote = endpoints.into_iter().map(|endpoint| (endpoint, node)).collect();
        self.host.expect_answers_to(ports.first);
        self
    }

    /// Forgets all flows.
    pub fn forget(&mut self) {
        self.host.forget::<[u8; 4]>();
        self.host.forget::<[u8; 16]>();
    }

    /// Tells from now on what happens.
    pub fn listen(&mut self) {
        self.host.monitors.set(true);
    }

    /// What was told since the last call.
    pub fn take_told(&mut self) -> Vec<Told> {
        self.host.take_told()
    }

    /// A machine with this limit of half-open flows.
    pub fn with_embryos(embryos_max: usize) -> Self {
        let mut machine = Self::default();
        machine.host.settings.embryos_max = embryos_max;
        machine
    }

    /// Lets another CPU run this packet between the two inserts of the next new flow.
    pub fn meanwhile(&mut self, program: Program, packet: &[u8]) {
        let (is_bare, packet, outcome) = (self.is_bare, packet.to_vec(), Rc::clone(&self.outcome_meanwhile));
        self.host.meanwhile(move |host| {
            let (action, _) = run_frame(host, is_bare, program, InMemory::new(&packet, NODE_MAC));
            outcome.set(Some(action));
        });
    }

    /// The outcome of that packet.
    pub fn outcome_meanwhile(&mut self) -> Option<HookAction> {
        self.outcome_meanwhile.take()
    }

    /// Runs the next packets on another CPU, whose clock is so many ticks behind.
    pub fn fall_behind(&mut self, jiffies: u64) {
        self.host.set_now_jiffies(self.host.now_jiffies() - jiffies);
    }

    /// How many flows have a source port that was drawn at random.
    pub fn drawn_ports(&self) -> usize {
        fn drawn<A: Addr + HostFamily>(host: &Host) -> usize {
            let flows = host.flows::<A>();
            let requests = flows.iter().filter(|(key, _)| key.direction == Direction::Request);
            requests.filter(|(key, flow)| key.tuple.sport != flow.to.sport).count()
        }
        drawn::<[u8; 4]>(&self.host) + drawn::<[u8; 16]>(&self.host)
    }
}

/// Runs a frame, without its header if links have none.
fn run_frame(
    host: &Host,
    is_bare: bool,
    program: Program,
    mut frame: InMemory<ETHERNET_LEN>,
) -> (HookAction, InMemory<ETHERNET_LEN>) {
    if !is_bare {
        let action = run_packet(host, program, &mut frame);
        return (action, frame);
    }
    let mut packet = frame.bare();
    let action = run_packet(host, program, &mut packet);
    (action, packet.framed(action))
}

fn run_packet<const LINK_LEN: usize>(host: &Host, program: Program, packet: &mut InMemory<LINK_LEN>) -> HookAction {
    let (workload, uplink) = (Edge::workload(EDGE), Edge::uplink());
    let (edge, direction) = match program {
        Program::WorkloadIngress => (workload, Direction::Request),
        Program::WorkloadEgress => (workload, Direction::Reply),
        Program::UplinkIngress => (uplink, Direction::Request),
        Program::UplinkEgress => (uplink, Direction::Reply),
    };
    match host.run(packet, Hook { edge, direction }) {
        // The port's bridge traverses netfilter.
        HookAction::ToBackend => HookAction::Next,
        action => action,
    }
}

impl Machine for HostMachine {
    fn set_tables(&mut self, tables: &Tables) {
        self.host.tables = Arc::new(tables.clone().derived(ADDRESS_WORDS));
    }

    fn set_port(&mut self, port: Port) {
        self.host.port = port;
    }

    fn set_came_by(&mut self, ifindex: u32) {
        self.host.set_came_by(ifindex);
    }

    fn run(&mut self, program: Program, packet: &[u8]) -> (HookAction, Vec<u8>) {
        let mut packet = InMemory::new(packet, NODE_MAC);
        if self.offload && path::family(&packet).is_some() {
            packet = packet.offload();
        }
        let (action, mut packet) = run_frame(&self.host, self.is_bare, program, packet);
        self.replayed.clear();
        let mut again = std::mem::take(&mut packet.again).into_iter();
        let Some(first) = again.next() else { return (action, packet.finish()) };
        let outcome = self.run(program, &first);
        self.replayed = again.map(|packet| self.run(program, &packet)).collect();
        outcome
    }

    fn replayed(&mut self) -> Vec<(HookAction, Vec<u8>)> {
        std::mem::take(&mut self.replayed)
    }

    fn flows(&mut self) -> Flows {
        Flows { v4: self.host.flows(), v6: self.host.flows() }
    }

    fn evict(&mut self, direction: Direction) {
        self.host.evict(direction);
    }

    fn evict_headers(&mut self) {
        self.host.evict_headers();
    }

    fn counters(&mut self) -> BTreeMap<Counter, u64> {
        self.host.counters()
    }

    fn dropped(&mut self, family: Family, reason: Counter) -> Option<(End, End)> {
        match family {
            Family::V4 => self.host.drops::<[u8; 4]>().get(&reason).map(ends),
            Family::V6 => self.host.drops::<[u8; 16]>().get(&reason).map(ends),
        }
    }

    fn drop_counts(&mut self) -> BTreeMap<DropKey, u64> {
        self.host.drop_counts()
    }

    fn age_flows(&mut self, secs: u64) {
        self.host.set_now_jiffies(self.host.now_jiffies() + secs * TICKS_PER_SEC);
    }
}
