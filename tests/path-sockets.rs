//! The decision about sockets, held against a model of it in random histories of dials and changes. No privilege.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::client::Client;
use lb_common::host::{Chance, Host, TICKS_PER_SEC, Tables};
use lb_common::socket::{Dial, DialAction, Way, dialled};
use lb_common::table::{
    Action, Backend, Frontend, FrontendKey, FrontendState, Member, MemberKey, MemberSets, MemberState, Mode, Origin,
    PoolKey, Rule, Scope, ScopeFlags, Scopes, SocketCookie, SourceRange, SourceRangeKey, bpf_spin_lock,
};
use lb_tests::machine::HostMachine;
use lb_tests::random::config;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

type Address = [u8; 4];

const VIP: Backend<Address> = Backend { addr: [192, 0, 2, 10], port: 80 };
/// The addresses to which sockets are bound; the first means none.
const SOURCES: [Address; 3] = [[0, 0, 0, 0], [192, 0, 2, 1], [198, 51, 100, 9]];
const AFFINITY_SECS: u32 = 100;

/// The Service as the tables hold it.
#[derive(Clone, Debug)]
struct Service {
    action: Action,
    flags: u8,
    /// Backends of new dials.
    active: BTreeSet<u8>,
    /// Backends that known sockets keep.
    draining: BTreeSet<u8>,
    /// Which of [`SOURCES`] the ranges hold.
    allowed: [bool; 3],
}

#[derive(Clone, Debug)]
enum Step {
    /// The last field is the random number, which selects a slot.
    Dial {
        socket: u64,
        proto: Proto,
        source: usize,
        client: Client,
        chance: u32,
    },
    Change(Service),
    Later(u64),
}

fn backend(number: u8) -> Backend<Address> {
    Backend { addr: [10, 0, 0, number], port: 8080 }
}

fn service() -> impl Strategy<Value = Service> {
    let action = prop_oneof![
        4 => Just(Action::Balance),
        1 => Just(Action::Pass),
        1 => Just(Action::Reject),
        1 => Just(Action::Drop),
    ];
    let flags =
        prop::sample::subsequence(vec![ScopeFlags::SOURCE_RANGES, ScopeFlags::AFFINITY, ScopeFlags::MAGLEV], 0..4);
    let some = |least| prop::collection::btree_set(1_u8..6, least..4);
    (action, flags, some(1), some(0), any::<[bool; 3]>()).prop_map(|(action, flags, active, draining, allowed)| {
        Service { action, flags: flags.into_iter().fold(0, |all, flag| all | flag), active, draining, allowed }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let proto = prop_oneof![Just(Proto::TCP), Just(Proto::UDP)];
    let client = prop_oneof![5 => Just(Client::Host), 1 => Just(Client::Workload)];
    prop_oneof![
        8 => (0..4_u64, proto, 0..SOURCES.len(), client, any::<u32>())
            .prop_map(|(socket, proto, source, client, chance)| Step::Dial { socket, proto, source, client, chance }),
        2 => service().prop_map(Step::Change),
        // Together they meet the time-out of session affinity exactly.
        2 => prop::sample::select(vec![1, 50, 99, 100]).prop_map(Step::Later),
    ]
}

/// The rows of the Service: one frontend for each protocol, one pool.
fn tables(service: &Service) -> Tables {
    let mut tables = Tables::default();
    for (id, proto) in (1..).zip([Proto::TCP, Proto::UDP]) {
        let key = FrontendKey { addr: VIP.addr, port: VIP.port, proto, pad: 0 };
        let (mode, decided_by, origin) = (Mode::VIP, Rule::IpMode, Origin::LoadBalancer);
        let (state, lock) = (FrontendState::Active, bpf_spin_lock::default());
        tables.v4.frontends.insert(key, Frontend { id, mode, decided_by, origin, state, lock });
        let is_balanced = service.action == Action::Balance;
        let scope = Scope {
            pool: is_balanced.into(),
            count: if is_balanced { service.active.len() as u16 } else { 0 },
            action: service.action,
            flags: service.flags,
        };
        let scopes = Scopes { workload: scope, host: scope, external: scope, ..Scopes::PASS };
        let scopes = Scopes { service_port: 1, affinity_secs: AFFINITY_SECS, source_ranges: 1, ..scopes };
        tables.scopes.insert(id, scopes);
    }
    for (slot, number) in (0..).zip(&service.active) {
        tables.v4.pools.insert(PoolKey { pool: 1, slot }, backend(*number));
    }
    for (numbers, state, sets) in
        [(&service.draining, MemberState::Draining, 0), (&service.active, MemberState::Active, MemberSets::CLUSTER)]
    {
        for number in numbers {
            let Backend { addr, port } = backend(*number);
            let key = MemberKey { service_port: 1, addr, port, pad: 0 };
            tables.v4.members.insert(key, Member { state, sets, pad: [0; 2] });
        }
    }
    for (source, _) in SOURCES.iter().zip(service.allowed).filter(|(_, is_allowed)| *is_allowed) {
        tables.v4.source_ranges.insert(SourceRangeKey::of_prefix(1, *source, 32), SourceRange { flags: 0 });
    }
    tables
}

/// What the decision remembers, as obviously as possible.
#[derive(Default)]
struct Model {
    now_secs: u64,
    /// The backend of a UDP socket.
    sockets: BTreeMap<u64, Backend<Address>>,
    /// The last backend of a client, and when.
    clients: BTreeMap<Address, (Backend<Address>, u64)>,
}

/// What a dial may become.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Leave,
    Refuse,
    Deny,
    /// One of these.
    Translate(BTreeSet<Address>),
}

impl Model {
    fn expect(
        &self,
        service: &Service,
        (socket, proto, source, client): (u64, Proto, usize, Client),
        chance: u32,
    ) -> Expected {
        let has = |flag| service.flags & flag != 0;
        let only = |backend: &Backend<Address>| Expected::Translate([backend.addr].into());
        let is_in = |set: &BTreeSet<u8>, at: &Backend<Address>| set.iter().any(|number| backend(*number) == *at);
        if client == Client::Workload {
            let is_plain =
                service.action == Action::Balance && !has(ScopeFlags::SOURCE_RANGES) && !has(ScopeFlags::AFFINITY);
            if !is_plain {
                return Expected::Leave;
            }
        }
        if proto == Proto::UDP
            && let Some(known) = self.sockets.get(&socket)
        {
            let is_member = is_in(&service.active, known) || is_in(&service.draining, known);
            if service.action == Action::Pass || (service.action == Action::Balance && is_member) {
                return only(known);
            }
        }
        if has(ScopeFlags::SOURCE_RANGES) && !service.allowed[source] {
            return Expected::Deny;
        }
        match service.action {
            Action::Pass => Expected::Leave,
            Action::Reject => Expected::Refuse,
            Action::Drop => Expected::Deny,
            Action::Balance => {
                if has(ScopeFlags::AFFINITY)
                    && let Some((last, at)) = self.clients.get(&SOURCES[source])
                    && self.now_secs - at < u64::from(AFFINITY_SECS)
                    && is_in(&service.active, last)
                {
                    return only(last);
                }
                let backends: Vec<_> = service.active.iter().map(|number| backend(*number)).collect();
                if has(ScopeFlags::AFFINITY) && has(ScopeFlags::MAGLEV) {
                    // By a hash of the client.
                    return Expected::Translate(backends.iter().map(|backend| backend.addr).collect());
                }
                only(&backends[((u64::from(chance) * backends.len() as u64) >> 32) as usize])
            }
        }
    }

    /// Notes the backend of a new dial. A known UDP socket renews nothing.
    fn note(&mut self, service: &Service, socket: u64, proto: Proto, source: usize, to: Backend<Address>) {
        let is_known = proto == Proto::UDP && self.sockets.get(&socket) == Some(&to);
        if proto == Proto::UDP {
            self.sockets.insert(socket, to);
        }
        if service.flags & ScopeFlags::AFFINITY != 0 && service.action == Action::Balance && !is_known {
            self.clients.insert(SOURCES[source], (to, self.now_secs));
        }
    }
}

fn agree(host: &mut Host, service: Service, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (mut service, mut model) = (service, Model::default());
    host.tables = Arc::new(tables(&service));
    for step in steps {
        match step {
            Step::Later(secs) => {
                model.now_secs += secs;
                host.set_now_jiffies(host.now_jiffies() + secs * TICKS_PER_SEC);
            }
            Step::Change(changed) => {
                service = changed;
                host.tables = Arc::new(tables(&service));
            }
            Step::Dial { socket, proto, source, client, chance } => {
                host.set_chance(Chance::Always(chance));
                // A socket has one protocol.
                let cookie = SocketCookie::of(socket | u64::from(proto as u8) << 32);
                let dial = Dial { socket: cookie, client, source: SOURCES[source], to: VIP, proto, way: Way::Datagram };
                let expected = model.expect(&service, (socket, proto, source, client), chance);
                let action = host.dial(&dial);
                let is_expected = match action {
                    DialAction::Leave => expected == Expected::Leave,
                    DialAction::Refuse => expected == Expected::Refuse,
                    DialAction::Deny => expected == Expected::Deny,
                    DialAction::Translate(to) => {
                        matches!(&expected, Expected::Translate(backends) if backends.contains(&to.addr))
                    }
                };
                prop_assert!(is_expected, "{:?}: {:?}, expected {:?}, {:?}", dial, action, expected, service);
                if let DialAction::Translate(to) = action {
                    model.note(&service, socket, proto, source, to);
                    if proto == Proto::UDP {
                        prop_assert_eq!(dialled(cookie, &to, host), Some(VIP), "what the process is shown");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn sockets_get_what_the_model_says() {
    let mut runner = TestRunner::new(config(4_000));
    let result = runner.run(&(service(), vec(step(), 1..60)), |(service, steps)| {
        agree(&mut HostMachine::default().host, service, steps)
    });
    result.expect("the decision and the model agree");
}

/// Each backend is chosen about as often.
#[test]
fn dials_are_spread() {
    let active: BTreeSet<u8> = (1..5).collect();
    let service = Service { action: Action::Balance, flags: 0, active, draining: BTreeSet::new(), allowed: [true; 3] };
    let mut host = HostMachine::default().host;
    host.tables = Arc::new(tables(&service));
    let mut chosen = BTreeMap::<Address, u32>::new();
    for number in 0..4_000 {
        let socket = SocketCookie::of(number);
        let dial =
            Dial { socket, client: Client::Host, source: SOURCES[0], to: VIP, proto: Proto::TCP, way: Way::Connect };
        let DialAction::Translate(to) = host.dial(&dial) else { panic!("{dial:?} is to be translated") };
        *chosen.entry(to.addr).or_default() += 1;
    }
    assert!(chosen.len() == 4 && chosen.values().all(|count| (900..1_100).contains(count)), "{chosen:?}");
}

/// Another port, protocol or address is none of the Service's.
#[test]
fn a_stranger_is_left_alone() {
    let active: BTreeSet<u8> = [1].into();
    let service = Service { action: Action::Reject, flags: 0, active, draining: BTreeSet::new(), allowed: [false; 3] };
    let mut host = HostMachine::default().host;
    host.tables = Arc::new(tables(&service));
    for (to, proto) in [
        (Backend { port: 81, ..VIP }, Proto::TCP),
        (Backend { addr: [192, 0, 2, 11], ..VIP }, Proto::UDP),
        (VIP, Proto::SCTP),
    ] {
        let dial = Dial {
            socket: SocketCookie::of(1),
            client: Client::Host,
            source: SOURCES[0],
            to,
            proto,
            way: Way::Connect,
        };
        assert_eq!(host.dial(&dial), DialAction::Leave, "{dial:?}");
    }
}
