//! The common start of all cases: addresses of one family, the tables of a Service, and a machine.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_agent::dataplane::{FamilyTables, Tables};
use lb_common::addr::{Family, Proto};
use lb_common::table::{
    Backend, Counter, Frontend, FrontendKey, FrontendState, Member, MemberKey, MemberSets, MemberState, Mode, Origin,
    PoolKey, Rule, Scope, ScopeFlags, Scopes, SourceRange, SourceRangeKey, bpf_spin_lock,
};
use lb_common::verdict::HookAction;

use crate::machine::{Machine, Program};
use crate::packet::{Answer, Described, End, Read, Transport, read};

/// An address family of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    V4,
    V6,
}

impl Net {
    /// The address of host `host` in the tests' network.
    pub fn host(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => IpAddr::from([10, 180, 0, host]),
            Self::V6 => IpAddr::from([0xfd, 0, 0, 0xa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]),
        }
    }

    /// Bits of an address.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    pub fn client(self) -> End {
        (self.host(2), 40_000)
    }

    pub fn vip(self) -> End {
        (self.host(100), 80)
    }

    pub fn other_vip(self) -> End {
        (self.host(101), 80)
    }

    pub fn backend(self) -> End {
        (self.host(20), 8080)
    }

    pub fn other_backend(self) -> End {
        (self.host(21), 8081)
    }
}

pub const SYN: Transport = Transport::Tcp(0x02);
pub const SYN_ACK: Transport = Transport::Tcp(0x12);
pub const ACK: Transport = Transport::Tcp(0x10);
pub const FIN: Transport = Transport::Tcp(0x11);
pub const RST: Transport = Transport::Tcp(0x04);
pub const UDP: Transport = Transport::Udp;

/// A machine with tables, in one family.
pub struct Scene<'a> {
    pub net: Net,
    machine: &'a mut dyn Machine,
    tables: Tables,
    /// The first slot of the next pool.
    next_pool: u32,
}

impl<'a> Scene<'a> {
    pub fn new(net: Net, machine: &'a mut dyn Machine) -> Self {
        Self { net, machine, tables: Tables::default(), next_pool: 1 }
    }

    /// Adds a frontend with the same scope for all clients. Its ID is also its Service port.
    pub fn frontend(&mut self, id: u32, end: End, proto: Proto, scope: Scope) {
        self.frontend_scopes(id, end, proto, [scope; 3]);
    }

    /// Adds a frontend with scopes for workloads, the host and the network.
    pub fn frontend_scopes(&mut self, id: u32, end: End, proto: Proto, [workload, host, external]: [Scope; 3]) {
        let frontend = Frontend {
            id,
            mode: Mode::VIP,
            decided_by: Rule::IpMode,
            origin: Origin::LoadBalancer,
            state: FrontendState::Active,
            lock: bpf_spin_lock::default(),
        };
        match end.0 {
            IpAddr::V4(addr) => insert_frontend(&mut self.tables.v4, addr.octets(), end.1, proto, frontend),
            IpAddr::V6(addr) => insert_frontend(&mut self.tables.v6, addr.octets(), end.1, proto, frontend),
        }
        let scopes = Scopes { workload, host, external, service_port: id, affinity_secs: 0, ..Scopes::PASS };
        self.tables.scopes.insert(id, scopes);
        self.machine.set_tables(&self.tables);
    }

    /// Adds a pool of these backends, which become the members of a Service port; returns the scope that balances over
    /// it.
    pub fn pool(&mut self, service_port: u32, backends: &[End]) -> Scope {
        let count = u16::try_from(backends.len()).expect("a small pool");
        let pool = self.next_pool;
        self.next_pool += u32::from(count);
        match self.net {
            Net::V4 => insert_pool(&mut self.tables.v4, pool, service_port, backends, octets4),
            Net::V6 => insert_pool(&mut self.tables.v6, pool, service_port, backends, octets6),
        }
        self.machine.set_tables(&self.tables);
        Scope::balance(pool, count)
    }

    /// Adds a second pool to a Service port, with members of its own in these sets.
    pub fn more_pool(&mut self, service_port: u32, backends: &[End], sets: u8) -> Scope {
        let (v4, v6) = (self.tables.v4.members.clone(), self.tables.v6.members.clone());
        let scope = self.pool(service_port, backends);
        self.tables.v4.members.values_mut().for_each(|member| member.sets = sets);
        self.tables.v6.members.values_mut().for_each(|member| member.sets = sets);
        self.tables.v4.members.extend(v4);
        self.tables.v6.members.extend(v6);
        self.machine.set_tables(&self.tables);
        scope
    }

    /// Sets the affinity time-out of a frontend.
    pub fn keep_clients(&mut self, frontend: u32, secs: u32) {
        self.tables.scopes.get_mut(&frontend).expect("the frontend was written").affinity_secs = secs;
        self.machine.set_tables(&self.tables);
    }

    /// Adds a frontend of this transport at the usual address that balances over these backends.
    pub fn service(&mut self, transport: Transport, backends: &[End]) {
        let scope = self.pool(1, backends);
        self.frontend(1, self.net.vip(), proto(transport), scope);
    }

    /// Sets the source ranges of a frontend.
    pub fn restrict(&mut self, frontend: u32, ranges: &[(IpAddr, u8)]) {
        let scopes = self.tables.scopes.get_mut(&frontend).expect("the frontend was written");
        for scope in [&mut scopes.workload, &mut scopes.host, &mut scopes.external] {
            scope.flags |= ScopeFlags::SOURCE_RANGES;
        }
        // A set of its own.
        scopes.source_ranges = frontend;
        self.tables.v4.source_ranges.retain(|key, _| key.set != frontend);
        self.tables.v6.source_ranges.retain(|key, _| key.set != frontend);
        for (addr, length) in ranges {
            let range = SourceRange { flags: 0 };
            match addr {
                IpAddr::V4(addr) => {
                    let key = SourceRangeKey::of_prefix(frontend, addr.octets(), *length);
                    self.tables.v4.source_ranges.insert(key, range);
                }
                IpAddr::V6(addr) => {
                    let key = SourceRangeKey::of_prefix(frontend, addr.octets(), *length);
                    self.tables.v6.source_ranges.insert(key, range);
                }
            }
        }
        self.machine.set_tables(&self.tables);
    }

    /// Removes a frontend from the tables.
    pub fn remove_frontend(&mut self, end: End) {
        self.tables.v4.frontends.retain(|key, _| (IpAddr::from(key.addr), key.port) != end);
        self.tables.v6.frontends.retain(|key, _| (IpAddr::from(key.addr), key.port) != end);
        self.machine.set_tables(&self.tables);
    }

    pub fn machine(&mut self) -> &mut dyn Machine {
        self.machine
    }

    pub fn counters(&mut self) -> BTreeMap<Counter, u64> {
        self.machine.counters()
    }

    /// Source and destination of the last packet that was rejected or dropped for a reason.
    pub fn dropped(&mut self, reason: Counter) -> Option<(End, End)> {
        let family = if self.net.vip().0.is_ipv4() { Family::V4 } else { Family::V6 };
        self.machine.dropped(family, reason)
    }

    /// Runs a packet; returns the action and the packet afterwards.
    pub fn run(&mut self, program: Program, packet: &Described) -> (HookAction, Read) {
        let (action, bytes) = self.machine.run(program, &packet.bytes());
        (action, read(&bytes))
    }

    /// Runs a packet that must pass; returns its ends afterwards.
    pub fn through(&mut self, program: Program, transport: Transport, from: End, to: End) -> (End, End) {
        let packet = Described::new(transport, from, to);
        let (action, after) = self.run(program, &packet);
        assert_eq!(action, HookAction::Next, "{transport:?} {from:?} -> {to:?}");
        let before = read(&packet.bytes());
        match (before.answer, after.answer) {
            (Answer::Transport { rest: before, .. }, Answer::Transport { from, to, rest }) => {
                assert_eq!(before, rest, "everything but addresses, ports and checksum stays");
                (from, to)
            }
            other => panic!("not two packets with ports: {other:?}"),
        }
    }

    /// A request from the usual client to the usual frontend; returns its ends afterwards.
    pub fn request(&mut self, transport: Transport) -> (End, End) {
        self.through(Program::WorkloadIngress, transport, self.net.client(), self.net.vip())
    }

    /// An answer of a backend to the usual client; returns its ends afterwards.
    pub fn reply(&mut self, transport: Transport, backend: End) -> (End, End) {
        self.through(Program::WorkloadEgress, transport, backend, self.net.client())
    }

    /// Runs a packet that must pass; returns it as read afterwards.
    pub fn onward(&mut self, program: Program, bytes: &[u8]) -> Answer {
        let (action, bytes) = self.machine.run(program, bytes);
        assert_eq!(action, HookAction::Next);
        read(&bytes).answer
    }

    /// Runs a packet that must pass unchanged.
    pub fn untouched(&mut self, program: Program, packet: &Described) {
        let bytes = packet.bytes();
        assert_eq!(self.machine.run(program, &bytes), (HookAction::Next, bytes), "{packet:?}");
    }
}

pub const fn proto(transport: Transport) -> Proto {
    match transport {
        Transport::Tcp(_) => Proto::TCP,
        Transport::Udp | Transport::UdpUnsummed => Proto::UDP,
        Transport::Sctp => Proto::SCTP,
    }
}

fn octets4(addr: IpAddr) -> [u8; 4] {
    match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(addr) => panic!("{addr} in a pool of IPv4"),
    }
}

fn octets6(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V6(addr) => addr.octets(),
        IpAddr::V4(addr) => panic!("{addr} in a pool of IPv6"),
    }
}

fn insert_frontend<A: Ord>(tables: &mut FamilyTables<A>, addr: A, port: u16, proto: Proto, frontend: Frontend) {
    tables.frontends.insert(FrontendKey { addr, port, proto, pad: 0 }, frontend);
}

fn insert_pool<A: Ord + Copy>(
    tables: &mut FamilyTables<A>,
    pool: u32,
    service_port: u32,
    backends: &[End],
    octets: fn(IpAddr) -> A,
) {
    tables.members.retain(|key, _| key.service_port != service_port);
    for (slot, (addr, port)) in (0..).zip(backends) {
        let addr = octets(*addr);
        tables.pools.insert(PoolKey { pool, slot }, Backend { addr, port: *port });
        let member = Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] };
        tables.members.insert(MemberKey { service_port, addr, port: *port, pad: 0 }, member);
    }
}
