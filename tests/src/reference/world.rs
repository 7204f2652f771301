//! The configuration of the small world: six Service ports with two frontends each. Their scopes and backends change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_agent::dataplane::{FamilyTables, Tables};
use lb_common::addr::{Addr, Proto};
use lb_common::table::{
    Action, Backend, Frontend as Row, FrontendKey, FrontendState, Member, MemberKey, MemberSets, MemberState, Mode,
    Origin, PoolKey, Rule, Scope, ScopeFlags, Scopes, SourceRange, SourceRangeKey, bpf_spin_lock,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::policy::{Choice, Frontend, Policy, Prefix};
use crate::cases::Net;
use crate::packet::End;

/// Host and port.
type Place = (u8, u16);

/// A change of one Service port or frontend.
#[derive(Clone, Debug)]
pub enum Change {
    /// A Service port gets new backends, and both scopes balance again.
    Backends(usize, Backends),
    /// One of the cluster's backends terminates, unless it is the only one.
    Terminate(usize, prop::sample::Index),
    /// The terminating backends are removed.
    Drained(usize),
    /// The scope of a frontend for pods becomes fixed; the network's scope keeps its backends.
    Workload(usize, Fixed),
    /// Both scopes of a frontend become fixed.
    All(usize, Fixed),
    /// A frontend is removed.
    Remove(usize),
    /// The source ranges of a frontend change.
    Ranges(usize, Option<Vec<Range>>),
    /// The affinity time-out of a Service port changes; 0: no affinity.
    Affinity(usize, u32),
}

/// A scope without backends.
#[derive(Clone, Copy, Debug)]
pub enum Fixed {
    Pass,
    Reject,
    Drop,
}

/// The backends of a Service port.
#[derive(Clone, Debug)]
pub struct Backends {
    cluster: Vec<Place>,
    /// The backends on this node.
    here: Vec<Place>,
    /// Terminating backends, which keep their established flows.
    draining: Vec<Place>,
    /// The sets for pods and for the network.
    chosen: [Set; 2],
}

/// The backends among which a scope chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Cluster,
    /// The cluster's backends on this node.
    Near,
    /// The backends on this node, whether ready or not.
    Local,
}

/// A range of clients.
#[derive(Clone, Copy, Debug)]
pub enum Range {
    /// The prefix of a host with so many low bits ignored.
    Around(u8, u8),
    /// All addresses whose first bit is this.
    Half(bool),
}

/// The places of the frontends.
const PLACES: [Place; 4] = [(100, 80), (100, 8080), (101, 80), (101, 8080)];
const PROTOS: [Proto; 3] = [Proto::TCP, Proto::UDP, Proto::SCTP];
/// All frontends, by index: every place with every protocol.
const FRONTENDS: usize = PLACES.len() * PROTOS.len();
/// Each Service port has frontends at two places, like a Service with two addresses.
const SERVICES: usize = FRONTENDS / 2;
/// All backends. The first is a client as well; the last two share an address.
const BACKENDS: [Place; 4] = [(2, 8080), (20, 8080), (21, 8080), (21, 8081)];
/// Slots of a Maglev table; other pools have fewer.
const SLOTS_MAX: u32 = 11;
/// Each client alone, both, neither, the endpoints, all addresses, and all addresses in two halves (SR-06).
const RANGES: [Range; 9] = [
    Range::Around(2, 0),
    Range::Around(3, 0),
    Range::Around(2, 1),
    Range::Around(0, 2),
    Range::Around(4, 2),
    Range::Around(16, 4),
    Range::Around(0, 8),
    Range::Half(false),
    Range::Half(true),
];
/// Five more than multiples of seven, so that no sum of waits and pauses comes near them: the reference counts whole
/// seconds.
const AFFINITY_SECS: [u32; 4] = [0, 33, 103, 10_806];

pub fn change() -> impl Strategy<Value = Change> {
    // The frontends that are dialled most change most.
    let service = || prop_oneof![3 => 0..PROTOS.len(), 1 => 0..SERVICES];
    let frontend = || prop_oneof![3 => 0..PROTOS.len(), 1 => 0..FRONTENDS];
    let fixed = || select(vec![Fixed::Pass, Fixed::Reject, Fixed::Drop]);
    prop_oneof![
        6 => (service(), backends()).prop_map(|(service, backends)| Change::Backends(service, backends)),
        4 => (service(), any::<prop::sample::Index>()).prop_map(|(service, index)| Change::Terminate(service, index)),
        3 => service().prop_map(Change::Drained),
        1 => (frontend(), fixed()).prop_map(|(at, fixed)| Change::Workload(at, fixed)),
        2 => (frontend(), fixed()).prop_map(|(at, fixed)| Change::All(at, fixed)),
        1 => frontend().prop_map(Change::Remove),
        3 => (frontend(), ranges()).prop_map(|(at, ranges)| Change::Ranges(at, ranges)),
        2 => (service(), select(AFFINITY_SECS.to_vec())).prop_map(|(service, secs)| Change::Affinity(service, secs)),
    ]
}

pub fn ranges() -> impl Strategy<Value = Option<Vec<Range>>> {
    prop::option::weighted(0.75, subsequence(RANGES.to_vec(), 1..=3))
}

fn backends() -> impl Strategy<Value = Backends> {
    let all = || BACKENDS.to_vec();
    let set = || prop_oneof![3 => Just(Set::Cluster), 1 => Just(Set::Near), 1 => Just(Set::Local)];
    (subsequence(all(), 1..=4), subsequence(all(), 0..=4), subsequence(all(), 0..=2), [set(), set()])
        .prop_map(|(cluster, here, draining, chosen)| Backends { cluster, here, draining, chosen })
}

impl From<Fixed> for Scope {
    fn from(fixed: Fixed) -> Self {
        match fixed {
            Fixed::Pass => Self::PASS,
            Fixed::Reject => Self::REJECT,
            Fixed::Drop => Self::DROP,
        }
    }
}

impl From<Fixed> for Choice {
    fn from(fixed: Fixed) -> Self {
        match fixed {
            Fixed::Pass => Self::Pass,
            Fixed::Reject => Self::Reject,
            Fixed::Drop => Self::Drop,
        }
    }
}

impl Range {
    fn prefix(self, net: Net) -> Prefix {
        match self {
            Self::Around(host, bits) => (net.host(host), net.bits() - bits),
            Self::Half(bit) => {
                let first = u8::from(bit) << 7;
                let addr = match net {
                    Net::V4 => IpAddr::from([first, 0, 0, 0]),
                    Net::V6 => IpAddr::from((u128::from(first) << 120).to_be_bytes()),
                };
                (addr, 1)
            }
        }
    }
}

/// The frontends and their Services.
#[derive(Debug)]
pub struct World {
    net: Net,
    /// Whether the network reaches backends on other nodes.
    forwards: bool,
    services: Vec<Service>,
    frontends: BTreeMap<usize, Fixture>,
    /// The first slot of the next pool.
    next_pool: u32,
}

#[derive(Clone, Debug)]
struct Service {
    backends: Backends,
    /// The first slot of its three pools.
    pool: u32,
    affinity_secs: u32,
}

/// A frontend's own settings, beside those of its Service port.
#[derive(Clone, Debug, Default)]
struct Fixture {
    /// The fixed scopes for pods and for the network.
    fixed: [Option<Fixed>; 2],
    ranges: Option<Vec<Range>>,
}

impl World {
    /// Every frontend balances, most over several backends. Some Services have affinity, some frontends have source
    /// ranges.
    pub fn new(net: Net, forwards: bool) -> Self {
        let mut world = Self { net, forwards, services: Vec::new(), frontends: BTreeMap::new(), next_pool: 1 };
        for service in 0..SERVICES {
            let cluster = BACKENDS[service % 3..=3 - service % 2].to_vec();
            let backends = Backends { cluster, here: vec![], draining: vec![], chosen: [Set::Cluster; 2] };
            let affinity_secs = AFFINITY_SECS[service / 3 * (1 + service % 2)];
            world.services.push(Service { backends: backends.clone(), pool: 0, affinity_secs });
            world.change(&Change::Backends(service, backends));
        }
        for at in 6..9 {
            world.change(&Change::Ranges(at, Some(vec![RANGES[0], RANGES[2], RANGES[5]])));
        }
        world
    }

    /// The host numbers of all backends.
    pub fn hosts() -> impl Iterator<Item = u8> {
        BACKENDS.into_iter().map(|(host, _)| host)
    }

    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Backends(at, backends) => {
                let service = &mut self.services[*at];
                service.backends = backends.clone();
                // A pool never changes.
                service.pool = self.next_pool;
                self.next_pool += 3 * SLOTS_MAX;
                for frontend in [*at, *at + SERVICES] {
                    self.frontends.entry(frontend).or_default().fixed = [None; 2];
                }
            }
            Change::Terminate(at, index) => {
                let mut backends = self.services[*at].backends.clone();
                if backends.cluster.len() > 1 {
                    let gone = backends.cluster.remove(index.index(backends.cluster.len()));
                    backends.here.retain(|place| *place != gone);
                    backends.draining.push(gone);
                    self.change(&Change::Backends(*at, backends));
                }
            }
            Change::Drained(at) => self.services[*at].backends.draining.clear(),
            Change::Workload(at, fixed) => self.with(*at, |frontend| frontend.fixed[0] = Some(*fixed)),
            Change::All(at, fixed) => self.with(*at, |frontend| frontend.fixed = [Some(*fixed); 2]),
            Change::Remove(at) => drop(self.frontends.remove(at)),
            Change::Ranges(at, ranges) => self.with(*at, |frontend| frontend.ranges.clone_from(ranges)),
            Change::Affinity(at, secs) => self.services[*at].affinity_secs = *secs,
        }
    }

    fn with(&mut self, at: usize, change: impl FnOnce(&mut Fixture)) {
        if let Some(frontend) = self.frontends.get_mut(&at) {
            change(frontend);
        }
    }

    fn end(&self, (host, port): Place) -> End {
        (self.net.host(host), port)
    }

    /// The configuration for the reference.
    pub fn policy(&self) -> Policy {
        let mut policy = Policy::default();
        for (at, fixture) in &self.frontends {
            let service = &self.services[at % SERVICES];
            let choice = |kind: usize| match fixture.fixed[kind] {
                Some(fixed) => fixed.into(),
                None => match service.backends.of(service.backends.chosen[kind]) {
                    (_, backends) if backends.is_empty() => Choice::Drop,
                    (distance, backends) => {
                        let slots = slots(at % SERVICES, backends).into_iter().map(|place| self.end(place));
                        Choice::Balance(service.pool + distance, slots.collect())
                    }
                },
            };
            policy.frontends.push(Frontend {
                id: id(*at),
                end: self.end(PLACES[at / PROTOS.len()]),
                proto: PROTOS[at % PROTOS.len()],
                service: service_port(at % SERVICES),
                for_pods: choice(0),
                for_network: choice(1),
                ranges: fixture
                    .ranges
                    .as_ref()
                    .map(|ranges| ranges.iter().map(|range| range.prefix(self.net)).collect()),
                affinity_secs: service.affinity_secs.into(),
                by_hash: is_maglev(at % SERVICES),
                forwards: self.forwards && service.backends.are_elsewhere(1),
            });
        }
        for at in self.served() {
            let members = self.services[at].backends.members();
            for (place, sets) in members {
                policy.members.push((service_port(at), self.end(place)));
                if sets & MemberSets::CLUSTER != 0 {
                    policy.cluster.push((service_port(at), self.end(place)));
                }
                if sets & MemberSets::NEAR != 0 {
                    policy.near.push((service_port(at), self.end(place)));
                }
            }
        }
        policy
    }

    /// The Service ports that still have a frontend.
    fn served(&self) -> BTreeSet<usize> {
        self.frontends.keys().map(|at| at % SERVICES).collect()
    }

    /// The configuration for the machines.
    pub fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        match self.net {
            Net::V4 => self.family(&mut tables.v4, |addr| match addr {
                IpAddr::V4(addr) => addr.octets(),
                IpAddr::V6(addr) => panic!("{addr} in a world of IPv4"),
            }),
            Net::V6 => self.family(&mut tables.v6, |addr| match addr {
                IpAddr::V6(addr) => addr.octets(),
                IpAddr::V4(addr) => panic!("{addr} in a world of IPv6"),
            }),
        }
        for (at, fixture) in &self.frontends {
            let service = &self.services[at % SERVICES];
            let [workload, mut external] = [0, 1].map(|kind| service.scope(at % SERVICES, kind, fixture));
            if self.forwards && external.action == Action::Balance && service.backends.are_elsewhere(1) {
                external.flags |= ScopeFlags::MASQUERADE;
            }
            let (service_port, affinity_secs) = (service_port(at % SERVICES), service.affinity_secs);
            // Each frontend has a set of its own.
            let source_ranges = if fixture.ranges.is_some() { id(*at) } else { 0 };
            let host = workload;
            let scopes =
                Scopes { workload, host, external, service_port, affinity_secs, source_ranges, ..Scopes::PASS };
            tables.scopes.insert(id(*at), scopes);
        }
        tables
    }

    fn family<A: Addr>(&self, tables: &mut FamilyTables<A>, octets: impl Fn(IpAddr) -> A) {
        for (at, fixture) in &self.frontends {
            let (addr, port) = self.end(PLACES[at / PROTOS.len()]);
            let key = FrontendKey { addr: octets(addr), port, proto: PROTOS[at % PROTOS.len()], pad: 0 };
            tables.frontends.insert(key, row(id(*at)));
            for range in fixture.ranges.iter().flatten() {
                let (addr, length) = range.prefix(self.net);
                let key = SourceRangeKey::of_prefix(id(*at), octets(addr), length);
                tables.source_ranges.insert(key, SourceRange { flags: 0 });
            }
        }
        for at in self.served() {
            let Service { backends, pool, .. } = &self.services[at];
            for set in [Set::Cluster, Set::Near, Set::Local] {
                let (distance, backends) = backends.of(set);
                for (slot, place) in (0..).zip(slots(at, backends)) {
                    let (addr, port) = self.end(place);
                    let key = PoolKey { pool: pool + distance, slot };
                    tables.pools.insert(key, Backend { addr: octets(addr), port });
                }
            }
            for (place, sets) in backends.members() {
                let (addr, port) = self.end(place);
                let state = if sets == 0 { MemberState::Draining } else { MemberState::Active };
                let key = MemberKey { service_port: service_port(at), addr: octets(addr), port, pad: 0 };
                tables.members.insert(key, Member { state, sets, pad: [0; 2] });
            }
        }
    }
}

/// The ID of a frontend.
fn id(at: usize) -> u32 {
    u32::try_from(at).expect("few") + 1
}

/// The ID of a Service port, which differs from the ID of any of its frontends.
fn service_port(at: usize) -> u32 {
    u32::try_from(at).expect("few") + 31
}

/// Half of the Service ports of each protocol use Maglev.
const fn is_maglev(service: usize) -> bool {
    service % 2 == 1
}

/// The slots of a pool. In a Maglev table each backend has its share of slots; which slots does not matter here.
fn slots(service: usize, backends: Vec<Place>) -> Vec<Place> {
    if !is_maglev(service) || backends.is_empty() {
        return backends;
    }
    (0..SLOTS_MAX as usize).map(|slot| backends[slot * 7 % backends.len()]).collect()
}

const fn row(id: u32) -> Row {
    Row {
        id,
        mode: Mode::VIP,
        decided_by: Rule::IpMode,
        origin: Origin::LoadBalancer,
        state: FrontendState::Active,
        lock: bpf_spin_lock { val: 0 },
    }
}

impl Service {
    fn scope(&self, at: usize, kind: usize, fixture: &Fixture) -> Scope {
        let asks = if fixture.ranges.is_some() { ScopeFlags::SOURCE_RANGES } else { 0 };
        if let Some(fixed) = fixture.fixed[kind] {
            // A scope that passes has no source ranges to check.
            return Scope::from(fixed).with_flags(if matches!(fixed, Fixed::Pass) { 0 } else { asks });
        }
        let set = self.backends.chosen[kind];
        let (distance, backends) = self.backends.of(set);
        if backends.is_empty() {
            return Scope::DROP.with_flags(asks);
        }
        let keeps = if self.affinity_secs > 0 { ScopeFlags::AFFINITY } else { 0 };
        let which = match set {
            Set::Cluster => 0,
            Set::Near => ScopeFlags::POOL_NEAR,
            Set::Local => ScopeFlags::POOL_LOCAL,
        };
        let by_hash = if is_maglev(at) { ScopeFlags::MAGLEV } else { 0 };
        let count = u16::try_from(slots(at, backends).len()).expect("few");
        Scope::balance(self.pool + distance, count).with_flags(asks | keeps | by_hash | which)
    }
}

impl Backends {
    /// Whether some backends of a scope are on other nodes.
    fn are_elsewhere(&self, kind: usize) -> bool {
        matches!(self.chosen[kind], Set::Cluster) && self.cluster.iter().any(|place| !self.here.contains(place))
    }

    /// The backends of a set, and how far its pool is behind the first of the three.
    fn of(&self, set: Set) -> (u32, Vec<Place>) {
        match set {
            Set::Cluster => (0, self.cluster.clone()),
            Set::Near => (SLOTS_MAX, self.cluster.iter().copied().filter(|place| self.here.contains(place)).collect()),
            Set::Local => (2 * SLOTS_MAX, self.here.clone()),
        }
    }

    /// All backends, with the sets that contain them.
    fn members(&self) -> impl Iterator<Item = (Place, u8)> {
        let sets =
            [(Set::Cluster, MemberSets::CLUSTER), (Set::Near, MemberSets::NEAR), (Set::Local, MemberSets::LOCAL)];
        BACKENDS.into_iter().filter_map(move |place| {
            let bits =
                sets.iter().filter(|(set, _)| self.of(*set).1.contains(&place)).fold(0, |bits, (_, bit)| bits | bit);
            (bits != 0 || self.draining.contains(&place)).then_some((place, bits))
        })
    }
}
