//! The programs in the kernel, run by `BPF_PROG_TEST_RUN`. Needs root; attaches nothing and leaves no pins.

mod driver;
mod replays;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use aya::maps::{PerCpuArray, PerCpuValues, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions};
use lb_agent::dataplane::addresses::address_words;
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::drop_counts::Drops;
use lb_agent::dataplane::maps::Table;
use lb_agent::dataplane::{
    AttachBy, BpfLog, Dataplane as _, FamilyOp, FamilyTables, Monitor, Op, Repair, Settings, Sizes, SocketLb, Tables,
    Timeouts, UplinkRows, Write, Xdp, monitor, object, removal,
};
use lb_common::addr::{Addr, Family};
use lb_common::packet::PARKED_LEN_MAX;
use lb_common::table::maps::{PRIVATE4, PRIVATE6, SHARED};
use lb_common::table::{
    Affinity, AffinityKey, Counter, Direction, DropKey, Fragment, FragmentKey, Port, TableType, Told, Uplink,
};
use lb_common::verdict::HookAction;
use lb_common::way::SnatPorts;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use self::replays::{Replays, UPLINK};
use super::host::{ADDRESS_WORDS, PARKED_MAX};
use super::{Flows, Machine, Program, UNBRIDGED, ends};
use crate::packet::{BRIDGE_MAC, End, NODE_MAC};

/// The edge of a test run at a workload: the loopback device, always the first of a network namespace.
pub const EDGE: u32 = 1;

/// A dataplane of its own, with its programs and maps.
pub struct KernelMachine {
    dataplane: BpfDataplane,
    baseline: BTreeMap<Counter, u64>,
    replays: Replays,
    replayed: Vec<(HookAction, Vec<u8>)>,
    came_by: u32,
    /// Packets that the program of a driver dealt with; `None` if there is no such program.
    driven: Option<u64>,
    /// Whether the driver sees the packets of histories.
    histories: bool,
    port: Port,
    uplinks: UplinkRows,
}

impl KernelMachine {
    /// Loads the programs. The pins are removed at once: file descriptors keep programs and maps alive until this value
    /// is dropped.
    pub fn load(name: &str) -> Self {
        Self::load_with(name, |_| ())
    }

    /// As [`Self::load`], with a limit of half-open flows for each CPU.
    pub fn load_with_embryos(name: &str, of_a_cpu: usize) -> Self {
        Self::load_with(name, |settings| settings.sizes.embryos_max = embryos(of_a_cpu))
    }

    /// As [`Self::load_with_embryos`], for a node that forwards from these ports.
    pub fn load_forwarding(name: &str, embryos_of_a_cpu: usize, ports: SnatPorts) -> Self {
        Self::load_with(name, |settings| {
            settings.sizes.embryos_max = embryos(embryos_of_a_cpu);
            settings.snat_ports = Some(ports);
        })
    }

    /// As [`Self::load`], with changed settings.
    pub fn load_with(name: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let pin_path = format!("/sys/fs/bpf/lb-test-{name}-{}", std::process::id()).into();
        let sizes = Sizes {
            frontends_max: 1024,
            backends_max: 4096,
            flows_max: 1 << 16,
            pod_flows_percent: 100,
            embryos_max: 1 << 12,
            parked_max: PARKED_MAX,
            ..Sizes::default()
        };
        assert_eq!(address_words(&sizes), ADDRESS_WORDS, "as on the host");
        let mut settings = Settings {
            pin_path,
            sizes,
            timeouts: Timeouts::default(),
            rejects_per_sec: 1_000_000,
            repair: Repair::Off,
            monitor: Monitor::default(),
            bpf_log: BpfLog::Off,
            sockets: SocketLb::Off,
            attach: AttachBy::Auto,
            xdp: Xdp::Off,
            snat_ports: None,
        };
        change(&mut settings);
        let dataplane = BpfDataplane::open(&settings);
        removal::remove_pins(&settings.pin_path).expect("removing the pins");
        let dataplane = dataplane.expect("loading the programs (root, Linux 6.6 or newer)");
        Self {
            dataplane,
            baseline: BTreeMap::new(),
            replays: Replays::open(),
            replayed: Vec::new(),
            came_by: 0,
            driven: None,
            histories: false,
            port: UNBRIDGED,
            uplinks: UplinkRows::new(),
        }
    }

    /// Puts the program of a driver in front of the one at uplink ingress.
    pub fn behind_driver(mut self) -> Self {
        driver::load(self.dataplane.ebpf());
        self.driven = Some(0);
        self
    }

    /// The same for histories, which happen on a port of a bridge.
    pub fn behind_driver_of_histories(self) -> Self {
        Self { histories: true, ..self.behind_driver() }
    }

    /// Packets that the program of a driver dealt with.
    pub fn driven(&self) -> u64 {
        self.driven.unwrap_or(0)
    }

    /// Empties all tables and resets the counters.
    pub fn reset(&mut self) {
        self.set_tables(&Tables::default());
        self.set_port(UNBRIDGED);
        self.set_came_by(0);
        self.forget_flows();
        self.change_embryos(|budget| budget.fill(0));
        self.baseline = self.counted();
    }

    /// Moves the calling thread to a namespace whose uplink leads to all endpoints, with these addresses of the node.
    pub fn lead_out(&mut self, nodes: [IpAddr; 2]) {
        let [IpAddr::V4(v4), IpAddr::V6(v6)] = nodes else { panic!("one of each family: {nodes:?}") };
        self.replays.enter();
        Replays::lead_out(nodes);
        let uplink = nix::net::if_::if_nametoindex(UPLINK).expect("it has just been made");
        let flags = if self.driven.is_some() { Uplink::SENDS_FRAMES } else { 0 };
        let row = Uplink { source4: v4.octets(), source6: v6.octets(), flags };
        self.uplinks = [(EDGE, row), (uplink, row)].into();
        self.dataplane.set_uplinks(&self.uplinks).expect("writing the table of uplinks");
    }

    /// From now on, the driver of no uplink sends frames of another interface.
    pub fn stop_sending_frames(&mut self) {
        self.uplinks.values_mut().for_each(|uplink| uplink.flags = 0);
        self.dataplane.set_uplinks(&self.uplinks).expect("writing the table of uplinks");
    }

    /// Pins the calling thread to one CPU, so that limits and counters of a CPU apply once.
    pub fn stay_on_one_cpu() {
        let mut cpus = CpuSet::new();
        cpus.set(0).expect("a CPU");
        sched_setaffinity(Pid::from_raw(0), &cpus).expect("choosing a CPU");
    }

    /// Changes the budgets of half-open flows: tokens, time of the last refill, and flows recorded so far.
    fn change_embryos(&mut self, change: impl Fn(&mut [u64; 3])) {
        for name in [PRIVATE4.embryos, PRIVATE6.embryos] {
            let map = self.dataplane.ebpf().map_mut(name).expect("a map of the object");
            let mut budgets: PerCpuArray<_, [u64; 3]> = PerCpuArray::try_from(map).expect("an array by CPU");
            let mut values: Vec<_> = budgets.get(&0, 0).expect("reading a budget").iter().copied().collect();
            values.iter_mut().for_each(&change);
            let values = PerCpuValues::try_from(values).expect("a value for each CPU");
            budgets.set(0, values, 0).expect("writing a budget");
        }
    }

    /// Empties the tables of what flows leave behind.
    pub fn forget_flows(&mut self) {
        self.evict_headers();
        let flows = self.flows();
        let maps = self.dataplane.maps();
        maps.v4.flows.delete(&flows.v4.into_keys().collect::<Vec<_>>()).expect("deleting flows");
        maps.v6.flows.delete(&flows.v6.into_keys().collect::<Vec<_>>()).expect("deleting flows");
        forget(&maps.v4.affinity);
        forget(&maps.v6.affinity);
        forget(&maps.v4.fragments);
        forget(&maps.v6.fragments);
    }

    /// Listens, for some seconds, to so many events per second.
    pub fn listen(&mut self, per_sec: u32) {
        let lease = self.dataplane.maps().lease.as_ref().expect("this version has it");
        lease.renew(per_sec).expect("writing the lease");
    }

    /// How many events were lost so far.
    pub fn lost(&mut self) -> u64 {
        self.dataplane.maps().lease.as_ref().expect("this version has it").lost().expect("reading the lease")
    }

    /// What was told since the last call.
    pub fn take_told(&mut self) -> Vec<Told> {
        let ring = self.dataplane.ebpf().map_mut(SHARED.events.name()).expect("a map of the object");
        let mut ring = RingBuf::try_from(ring).expect("a ring");
        let mut told = Vec::new();
        while let Some(item) = ring.next() {
            told.push(monitor::event(&item).expect("an event"));
        }
        told
    }

    /// The dataplane, for tests of what only the kernel has.
    pub fn dataplane(&mut self) -> &mut BpfDataplane {
        &mut self.dataplane
    }

    fn run_once(&mut self, program: Program, packet: &[u8]) -> (HookAction, Vec<u8>) {
        if program == Program::UplinkIngress
            && let Some(outcome) = self.run_driver(packet)
        {
            return outcome;
        }
        let program = object::program_mut(self.dataplane.ebpf(), program.name()).expect("a program of the object");
        let mut out = vec![0; packet.len() + PARKED_LEN_MAX];
        let context = context(self.came_by);
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = program.test_run(options).expect("a test run");
        out.truncate(result.data_size_out as usize);
        // include/uapi/linux: TCX_NEXT, TCX_DROP, TCX_REDIRECT.
        let action = match result.return_value.cast_signed() {
            -1 => HookAction::Next,
            2 => HookAction::Drop,
            7 => HookAction::SendBack,
            other => panic!("the program returned {other}"),
        };
        (action, out)
    }

    /// Runs the program of a driver, if there is one. `None` if the packet is left to tc. Histories happen on a port of a
    /// bridge, which has no such program: for the driver the port is none, and the frames for the bridge are for it.
    fn run_driver(&mut self, packet: &[u8]) -> Option<(HookAction, Vec<u8>)> {
        self.driven?;
        let is_for_bridge = self.histories && packet.starts_with(&BRIDGE_MAC);
        let mut frame = packet.to_vec();
        if is_for_bridge {
            frame[..6].copy_from_slice(&NODE_MAC);
            self.dataplane.set_ports(&[UNBRIDGED]).expect("writing the table of ports");
        }
        let mut outcome = driver::run(self.dataplane.ebpf(), &frame);
        if outcome.is_none() && self.histories {
            // Packets of histories are rare, and the first one in a second to a next hop is left to tc.
            outcome = driver::run(self.dataplane.ebpf(), &frame);
        }
        if is_for_bridge {
            self.dataplane.set_ports(&[self.port]).expect("writing the table of ports");
        }
        let (action, mut bytes) = outcome?;
        let counted = self.counted().get(&Counter::InDriver).copied();
        bytes[..6].copy_from_slice(&packet[..6]);
        self.driven = self.driven.map(|driven| driven + 1);
        assert_eq!(counted, self.driven, "each is counted");
        Some((action, bytes))
    }

    fn replays_counted(&self) -> u64 {
        self.counted().get(&Counter::FragmentReplayed).copied().unwrap_or(0)
    }

    fn counted(&self) -> BTreeMap<Counter, u64> {
        let counters = self.dataplane.maps().counters().expect("reading counters");
        counters.into_iter().map(|(counter, value)| (counter, value.packets)).collect()
    }
}

/// The limit of half-open flows of all CPUs, from that of one.
fn embryos(of_a_cpu: usize) -> u32 {
    let cpus = aya::util::nr_cpus().expect("the number of possible CPUs");
    u32::try_from(of_a_cpu * cpus).expect("few")
}

/// The context of a packet that came to the node by an interface: the first ten words of `struct __sk_buff`
/// (include/uapi/linux/bpf.h). The tenth is `ingress_ifindex`.
fn context(came_by: u32) -> Vec<u8> {
    [[0; 9].as_slice(), &[came_by]].concat().into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Whether the packet is a fragment, for the packets that the tests build.
fn is_fragment(packet: &[u8]) -> bool {
    match packet.get(14).map(|byte| byte >> 4) {
        Some(4) => packet.get(20..22).is_some_and(|bits| bits[0] & 0x3f != 0 || bits[1] != 0),
        // The fragment header, or one before it.
        Some(6) => packet.get(20).is_some_and(|next| matches!(next, 0 | 43 | 44 | 51 | 60)),
        _ => false,
    }
}

fn deletes<A: Copy>(tables: &FamilyTables<A>) -> [FamilyOp<A>; 6] {
    fn all<K: Copy, V>(rows: &BTreeMap<K, V>) -> Write<K, V> {
        Write::Delete(rows.keys().copied().collect())
    }
    [
        FamilyOp::SourceRanges(all(&tables.source_ranges)),
        FamilyOp::Frontends(all(&tables.frontends)),
        FamilyOp::Members(all(&tables.members)),
        FamilyOp::Pools(all(&tables.pools)),
        FamilyOp::Endpoints(all(&tables.endpoints)),
        FamilyOp::Addresses(all(&tables.addresses)),
    ]
}

fn inserts<A: Copy>(tables: &FamilyTables<A>) -> [FamilyOp<A>; 6] {
    [
        FamilyOp::Addresses(all(&tables.addresses)),
        FamilyOp::Endpoints(all(&tables.endpoints)),
        FamilyOp::SourceRanges(all(&tables.source_ranges)),
        FamilyOp::Pools(all(&tables.pools)),
        FamilyOp::Members(all(&tables.members)),
        FamilyOp::Frontends(all(&tables.frontends)),
    ]
}

/// A step that writes all rows.
fn all<K: Copy, V: Copy>(rows: &BTreeMap<K, V>) -> Write<K, V> {
    Write::Upsert(rows.iter().map(|(key, value)| (*key, *value)).collect())
}

impl Machine for KernelMachine {
    fn set_tables(&mut self, tables: &Tables) {
        let (old, tables) = (self.dataplane.dump().expect("dumping the tables"), tables.clone().derived(ADDRESS_WORDS));
        let mut ops: Vec<Op> = deletes(&old.v4).map(Op::V4).into_iter().collect();
        ops.extend(deletes(&old.v6).map(Op::V6));
        ops.push(Op::Scopes(Write::Delete(old.scopes.into_keys().collect())));
        ops.push(Op::Scopes(all(&tables.scopes)));
        ops.extend(inserts(&tables.v4).map(Op::V4));
        ops.extend(inserts(&tables.v6).map(Op::V6));
        for op in ops {
            self.dataplane.perform(&op).expect("writing the tables");
        }
        assert_eq!(self.dataplane.dump().expect("dumping the tables"), tables, "the tables read back");
    }

    fn set_port(&mut self, port: Port) {
        self.port = port;
        self.dataplane.set_ports(&[port]).expect("writing the table of ports");
    }

    fn set_came_by(&mut self, ifindex: u32) {
        self.came_by = ifindex;
    }

    fn run(&mut self, program: Program, packet: &[u8]) -> (HookAction, Vec<u8>) {
        self.replayed.clear();
        if !is_fragment(packet) {
            return self.run_once(program, packet);
        }
        let before = self.replays_counted();
        let (home, replays) = (Replays::home(), &self.replays);
        replays.enter();
        let outcome = self.run_once(program, packet);
        home.enter();
        let mut again = self.replays.take(self.replays_counted() - before).into_iter();
        let Some(first) = again.next() else { return outcome };
        let outcome = self.run(program, &first);
        self.replayed = again.map(|packet| self.run(program, &packet)).collect();
        outcome
    }

    fn replayed(&mut self) -> Vec<(HookAction, Vec<u8>)> {
        std::mem::take(&mut self.replayed)
    }

    fn flows(&mut self) -> Flows {
        let maps = self.dataplane.maps();
        Flows {
            v4: maps.v4.flows.dump().expect("dumping flows").into_iter().collect(),
            v6: maps.v6.flows.dump().expect("dumping flows").into_iter().collect(),
        }
    }

    fn evict(&mut self, direction: Direction) {
        let Flows { v4, v6 } = self.flows();
        let maps = self.dataplane.maps();
        let v4: Vec<_> = v4.into_keys().filter(|key| key.direction == direction).collect();
        let v6: Vec<_> = v6.into_keys().filter(|key| key.direction == direction).collect();
        maps.v4.flows.delete(&v4).expect("deleting flows");
        maps.v6.flows.delete(&v6).expect("deleting flows");
    }

    fn evict_headers(&mut self) {
        let maps = self.dataplane.maps();
        forget(maps.v4.headers.as_ref().expect("this version has it"));
        forget(maps.v6.headers.as_ref().expect("this version has it"));
    }

    fn counters(&mut self) -> BTreeMap<Counter, u64> {
        let mut counters = self.counted();
        for (counter, before) in &self.baseline {
            *counters.entry(*counter).or_default() -= before;
        }
        counters.retain(|_, packets| *packets > 0);
        // No other machine has a driver.
        counters.remove(&Counter::InDriver);
        counters
    }

    fn dropped(&mut self, family: Family, reason: Counter) -> Option<(End, End)> {
        let drops = &self.dataplane.maps().drops;
        match family {
            Family::V4 => drops.last4().expect("reading drops").get(&reason).map(|dropped| ends(&dropped.key)),
            Family::V6 => drops.last6().expect("reading drops").get(&reason).map(|dropped| ends(&dropped.key)),
        }
    }

    fn drop_counts(&mut self) -> BTreeMap<DropKey, u64> {
        let rows = self.dataplane.maps().drop_counts.rows().expect("reading the counts of drops");
        let key = |row: &Drops| DropKey { frontend: row.frontend, edge: row.edge, reason: row.reason as u32 };
        rows.iter().map(|row| (key(row), row.packets)).collect()
    }

    fn tells_sent_on(&self) -> bool {
        false
    }

    fn age_flows(&mut self, secs: u64) {
        let ticks = secs * u64::from(self.dataplane.maps().owner().expect("reading owner").jiffies_per_sec);
        let Flows { mut v4, mut v6 } = self.flows();
        for flow in v4.values_mut() {
            flow.last_seen_jiffies -= ticks;
        }
        for flow in v6.values_mut() {
            flow.last_seen_jiffies -= ticks;
        }
        let maps = self.dataplane.maps();
        maps.v4.flows.upsert(&v4.into_iter().collect::<Vec<_>>(), 0).expect("writing flows");
        maps.v6.flows.upsert(&v6.into_iter().collect::<Vec<_>>(), 0).expect("writing flows");
        age_notes(&maps.v4.fragments, ticks);
        age_notes(&maps.v6.fragments, ticks);
        age_clients(&maps.v4.affinity, secs);
        age_clients(&maps.v6.affinity, secs);
        self.change_embryos(|[_, refilled_jiffies, _]| *refilled_jiffies = refilled_jiffies.wrapping_sub(ticks));
    }
}

fn forget<K: TableType + Debug, V: TableType>(table: &Table<K, V>) {
    let rows = table.dump().expect("dumping a table");
    table.delete(&rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>()).expect("deleting rows");
}

fn age_notes<A: Addr>(notes: &Table<FragmentKey<A>, Fragment<A>>, ticks: u64) {
    let mut rows = notes.dump().expect("dumping notes");
    for (_, note) in &mut rows {
        note.since_jiffies -= ticks;
    }
    notes.upsert(&rows, 0).expect("writing notes");
}

fn age_clients<A: Addr>(clients: &Table<AffinityKey<A>, Affinity<A>>, secs: u64) {
    let mut rows = clients.dump().expect("dumping clients");
    let secs = u32::try_from(secs).expect("not for ages");
    for (_, client) in &mut rows {
        client.last_seen_secs = client.last_seen_secs.saturating_sub(secs);
    }
    clients.upsert(&rows, 0).expect("writing clients");
}
