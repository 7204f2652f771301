//! `explain` agrees with the packet path about random questions over random tables. No privilege.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use lb_agent::dataplane::Tables;
use lb_agent::explain::{Decision, Destination, Explanation, Facts, Sender, explain};
use lb_agent::family::TableAddr;
use lb_common::addr::Proto;
use lb_common::client::PerClient;
use lb_common::table::{
    Backend, Frontend, FrontendKey, FrontendState, Member, MemberKey, MemberSets, MemberState, Mode, Origin, PoolKey,
    Rule, Scope, ScopeFlags, Scopes, SourceRange, SourceRangeKey, bpf_spin_lock,
};
use lb_common::verdict::HookAction;
use lb_tests::cases::{Net, SYN, SYN_ACK};
use lb_tests::machine::{HostMachine, Machine as _, Program};
use lb_tests::packet::{Answer, Described, End, Transport, read};
use lb_tests::random::config;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

/// Connections of a client to one destination: enough to meet every slot of a small pool.
const CONNECTIONS: u16 = 150;

/// The results of a client's first connections.
#[derive(Debug, Default)]
struct Shown {
    backends: BTreeSet<SocketAddr>,
    is_dropped: bool,
    is_hairpin: bool,
}

/// A backend, or an empty slot: hosts 2, 20 and 21; 2 and 20 may be the client.
fn slot() -> impl Strategy<Value = Option<(u8, u16)>> {
    let backend = (prop::sample::select(vec![2_u8, 20, 21]), prop::sample::select(vec![80_u16, 8080]));
    prop_oneof![9 => backend.prop_map(Some), 1 => Just(None)]
}

/// The scope of a kind of client: the action, the slots of its pool, and flags.
type Gets = (u8, Vec<Option<(u8, u16)>>, u8);

fn gets() -> impl Strategy<Value = Gets> {
    let flags = vec![ScopeFlags::SOURCE_RANGES, ScopeFlags::AFFINITY, ScopeFlags::MAGLEV];
    let flags = prop::sample::subsequence(flags, 0..=3).prop_map(|flags| flags.iter().fold(0, |all, flag| all | flag));
    (prop_oneof![3 => Just(1_u8), 1 => Just(0), 1 => Just(2), 1 => Just(3)], vec(slot(), 1..5), flags)
}

/// A frontend at host 100 or 101, the mode and origin of its row, the scopes of the three kinds of clients, and its
/// source ranges by first host and length.
type Row = (Dialled, (Mode, Origin), [Gets; 3], Vec<(u8, u8)>);

/// A host, a port and a protocol.
type Dialled = (u8, u16, Proto);

/// The client's host, whether it is a pod, and whether the question names it; the address that it dials.
type Question = ((u8, bool, bool), Dialled);

fn question() -> impl Strategy<Value = Question> {
    ((prop::sample::select(vec![2_u8, 3, 20]), any::<bool>(), any::<bool>()), dialled())
}

fn dialled() -> impl Strategy<Value = Dialled> {
    let (hosts, ports) = (prop::sample::select(vec![100_u8, 101]), prop::sample::select(vec![80_u16, 8080]));
    (hosts, ports, prop::sample::select(vec![Proto::TCP, Proto::TCP, Proto::UDP, Proto::SCTP]))
}

fn frontend() -> impl Strategy<Value = Row> {
    let modes = prop::sample::select(vec![Mode::VIP, Mode::Proxy, Mode::Split, Mode::Router]);
    let origins = vec![Origin::LoadBalancer, Origin::ExternalIP, Origin::ClusterIP, Origin::NodePort];
    let ranges = vec((prop::sample::select(vec![0_u8, 2, 20, 64]), 1_u8..=8), 0..3);
    (dialled(), (modes, prop::sample::select(origins)), [gets(), gets(), gets()], ranges)
}

/// Writes the tables of one family.
struct Writer<A> {
    tables: Tables,
    octets: fn(Net, u8) -> A,
    net: Net,
    next_pool: u32,
}

impl<A: TableAddr> Writer<A> {
    fn add(&mut self, id: u32, ((host, port, proto), (mode, origin), gets, ranges): &Row) {
        let key = FrontendKey { addr: (self.octets)(self.net, *host), port: *port, proto: *proto, pad: 0 };
        let (decided_by, state) = (Rule::IpMode, FrontendState::Active);
        let frontend = Frontend { id, mode: *mode, decided_by, origin: *origin, state, lock: bpf_spin_lock::default() };
        if A::tables(&self.tables).frontends.contains_key(&key) {
            return;
        }
        A::tables_mut(&mut self.tables).frontends.insert(key, frontend);
        let [workload, host, external] = gets.each_ref().map(|gets| self.scope(id, gets));
        for (first, length) in ranges {
            // The tests' network has its hosts in the last eight bits.
            let length = self.net.bits() - length;
            let addr = (self.octets)(self.net, *first);
            A::tables_mut(&mut self.tables)
                .source_ranges
                .insert(SourceRangeKey::of_prefix(id, addr, length), SourceRange { flags: 0 });
        }
        let source_ranges = if ranges.is_empty() { 0 } else { id };
        let scopes =
            Scopes { workload, host, external, service_port: id, affinity_secs: 60, source_ranges, ..Scopes::PASS };
        self.tables.scopes.insert(id, scopes);
    }

    fn scope(&mut self, service_port: u32, (action, slots, flags): &Gets) -> Scope {
        let scope = match action {
            1 => Scope::balance(self.next_pool, slots.len() as u16),
            2 => Scope::REJECT,
            3 => Scope::DROP,
            _ => Scope::PASS,
        };
        for (slot, backend) in (0..).zip(slots) {
            let Some((host, port)) = backend else { continue };
            let addr = (self.octets)(self.net, *host);
            let tables = A::tables_mut(&mut self.tables);
            tables.pools.insert(PoolKey { pool: self.next_pool, slot }, Backend { addr, port: *port });
            let member = Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] };
            tables.members.insert(MemberKey { service_port, addr, port: *port, pad: 0 }, member);
        }
        self.next_pool += slots.len() as u32;
        scope.with_flags(*flags)
    }
}

fn tables_of(net: Net, frontends: &[Row]) -> Tables {
    fn written<A: TableAddr>(net: Net, frontends: &[Row], octets: fn(Net, u8) -> A) -> Tables {
        let mut writer = Writer { tables: Tables::default(), octets, net, next_pool: 1 };
        for (id, frontend) in (1..).zip(frontends) {
            writer.add(id, frontend);
        }
        writer.tables
    }
    fn octets<A: TableAddr>(net: Net, host: u8) -> A {
        A::from_ip(net.host(host)).expect("an address of the family")
    }
    match net {
        Net::V4 => written::<[u8; 4]>(net, frontends, octets),
        Net::V6 => written::<[u8; 16]>(net, frontends, octets),
    }
}

fn facts(tables: Tables) -> Facts {
    let tables = Arc::new(tables.derived(1));
    Facts { tables, address_words: 1, seen: PerClient::same(true), ..Facts::default() }
}

/// A packet from one end to the other.
fn packet(proto: Proto, tcp: Transport, from: End, to: End) -> Vec<u8> {
    let transport = match proto {
        Proto::TCP => tcp,
        Proto::UDP => Transport::Udp,
        Proto::SCTP => Transport::Sctp,
    };
    Described::new(transport, from, to).bytes()
}

/// Opens a connection from one port, and compares the result with the explanation.
fn dial(
    machine: &mut HostMachine,
    (from, to): (&Sender, &Destination),
    client: End,
    explanation: &Explanation,
    shown: &mut Shown,
) -> Result<(), TestCaseError> {
    let (ingress, egress) = match from {
        Sender::External(_) => (Program::UplinkIngress, Program::UplinkEgress),
        Sender::Pod(_) | Sender::Host => (Program::WorkloadIngress, Program::WorkloadEgress),
    };
    let first = packet(to.proto, SYN, client, (to.addr, to.port));
    let (action, after) = machine.run(ingress, &first);
    match explanation.decision {
        Decision::NotOurs | Decision::Pass => prop_assert_eq!((action, after), (HookAction::Next, first)),
        Decision::Drop => prop_assert_eq!(action, HookAction::Drop),
        Decision::Reject => {
            prop_assert_eq!(action, HookAction::SendBack);
            prop_assert!(matches!(read(&after).answer, Answer::Icmp { .. }), "{:?}", read(&after));
        }
        Decision::Balance if action == HookAction::Drop => shown.is_dropped = true,
        Decision::Balance => {
            let (source, target) = read(&after).ends().ok_or_else(|| TestCaseError::fail("it has no ports"))?;
            shown.backends.insert(SocketAddr::new(target.0, target.1));
            let is_hairpin = action == HookAction::SendBack;
            prop_assert_eq!(is_hairpin, source.0 != client.0);
            shown.is_hairpin |= is_hairpin;
            let reply = packet(to.proto, SYN_ACK, target, source);
            let (_, reply) = machine.run(if is_hairpin { ingress } else { egress }, &reply);
            let source = read(&reply).ends().map(|((addr, port), _)| SocketAddr::new(addr, port));
            prop_assert_eq!(explanation.reply, source);
        }
    }
    Ok(())
}

/// Explains, dials, and compares.
fn compare(net: Net, frontends: &[Row], question: Question) -> Result<Explanation, TestCaseError> {
    let ((host, is_pod, is_named), (to_host, to_port, proto)) = question;
    let tables = tables_of(net, frontends);
    let (has_ranges, has_affinity) = (
        frontends.iter().any(|(.., ranges)| !ranges.is_empty()),
        frontends.iter().any(|(_, _, gets, _)| gets.iter().any(|(.., flags)| flags & ScopeFlags::AFFINITY != 0)),
    );
    // A client that the question leaves open is neither a backend nor, if there are any, in a source range.
    let is_named = is_named || has_ranges;
    let client = net.host(if is_named { host } else { 3 });
    let named = is_named.then_some(client);
    let from = if is_pod { Sender::Pod(named) } else { Sender::External(named) };
    let to = Destination { addr: net.host(to_host), port: to_port, proto };
    let facts = facts(tables);
    let explanation = explain(&from, &to, &facts);
    let mut machine = HostMachine::default();
    machine.set_tables(&facts.tables);
    let mut shown = Shown::default();
    for port in 0..CONNECTIONS {
        dial(&mut machine, (&from, &to), (client, 30_000 + port), &explanation, &mut shown)?;
    }
    let listed: BTreeSet<SocketAddr> = explanation.backends.iter().copied().collect();
    prop_assert!(listed.is_superset(&shown.backends), "{:?} of {:?}", shown, explanation);
    // With affinity, later connections get the backend of the first.
    prop_assert!(has_affinity || listed == shown.backends, "{:?} of {:?}", shown, explanation);
    let says = |words: &str| explanation.notes.iter().any(|note| note.contains(words));
    prop_assert!(!shown.is_dropped || says("empty slot"), "{:?}", explanation);
    prop_assert!(!shown.is_hairpin || says("itself is chosen"), "{:?}", explanation);
    let is_known = frontends.iter().any(|(end, ..)| *end == (to_host, to_port, proto));
    prop_assert_eq!(is_known, explanation.decision != Decision::NotOurs);
    Ok(explanation)
}

#[test]
fn explain_says_what_the_path_does() {
    let mut met = BTreeMap::<String, u32>::new();
    for net in [Net::V4, Net::V6] {
        let met = RefCell::new(&mut met);
        let result = TestRunner::new(config(600)).run(&(vec(frontend(), 1..5), question()), |(frontends, question)| {
            let explanation = compare(net, &frontends, question)?;
            *met.borrow_mut().entry(format!("{:?}", explanation.decision)).or_default() += 1;
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{net:?}: {error}"));
    }
    println!("{met:?}");
    for decision in [Decision::NotOurs, Decision::Pass, Decision::Balance, Decision::Reject, Decision::Drop] {
        let count = met.get(&format!("{decision:?}")).copied().unwrap_or(0);
        assert!(count > 20, "{decision:?} was met {count} times");
    }
}
