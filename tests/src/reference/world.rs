//! The configuration of the small world: six frontends of each protocol, whose scopes and backends change.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_agent::dataplane::{FamilyTables, Tables};
use lb_common::addr::Proto;
use lb_common::table::{
    Backend, Frontend, FrontendKey, FrontendState, Member, MemberKey, MemberSets, MemberState, Mode, Origin, PoolKey,
    Rule, Scope, Scopes, bpf_spin_lock,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::cases::Net;
use crate::packet::End;

/// What becomes of one frontend.
#[derive(Clone, Debug)]
pub enum Change {
    /// New backends, by host and port; both kinds of client get them.
    Backends(usize, Vec<(u8, u16)>),
    /// What pods get, while the outside keeps its backends.
    Workload(usize, Fixed),
    /// What everybody gets.
    All(usize, Fixed),
    /// The frontend goes.
    Remove(usize),
}

/// A scope without backends.
#[derive(Clone, Copy, Debug)]
pub enum Fixed {
    Pass,
    Reject,
    Drop,
}

/// The places of the frontends: host and port.
const PLACES: [(u8, u16); 4] = [(100, 80), (100, 8080), (101, 80), (101, 8080)];
const PROTOS: [Proto; 3] = [Proto::TCP, Proto::UDP, Proto::SCTP];
/// All frontends, by index: every place with every protocol.
const FRONTENDS: usize = PLACES.len() * PROTOS.len();
/// All backends. The first is a client as well, the last two share an address.
const BACKENDS: [(u8, u16); 4] = [(2, 8080), (20, 8080), (21, 8080), (21, 8081)];

pub fn change() -> impl Strategy<Value = Change> {
    let fixed = || select(vec![Fixed::Pass, Fixed::Reject, Fixed::Drop]);
    prop_oneof![
        6 => (0..FRONTENDS, subsequence(BACKENDS.to_vec(), 1..=4)).prop_map(|(at, backends)| Change::Backends(at, backends)),
        1 => (0..FRONTENDS, fixed()).prop_map(|(at, fixed)| Change::Workload(at, fixed)),
        2 => (0..FRONTENDS, fixed()).prop_map(|(at, fixed)| Change::All(at, fixed)),
        1 => (0..FRONTENDS).prop_map(Change::Remove),
    ]
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

/// The frontends as they are.
#[derive(Debug)]
pub struct World {
    net: Net,
    services: BTreeMap<usize, Service>,
    pools: u32,
}

#[derive(Debug)]
struct Service {
    pool: u32,
    backends: Vec<(u8, u16)>,
    scopes: [Scope; 2],
}

impl World {
    /// Every frontend balances, most over several backends.
    pub fn new(net: Net) -> Self {
        let mut world = Self { net, services: BTreeMap::new(), pools: 0 };
        for at in 0..FRONTENDS {
            world.change(&Change::Backends(at, BACKENDS[at % 3..=3 - at % 2].to_vec()));
        }
        world
    }

    pub fn change(&mut self, change: &Change) {
        match change {
            Change::Backends(at, backends) => {
                // A pool never changes.
                self.pools += 1;
                let scope = Scope::balance(self.pools, u16::try_from(backends.len()).expect("few"));
                let service = Service { pool: self.pools, backends: backends.clone(), scopes: [scope; 2] };
                self.services.insert(*at, service);
            }
            Change::Workload(at, fixed) => {
                self.services.entry(*at).and_modify(|service| service.scopes[0] = (*fixed).into());
            }
            Change::All(at, fixed) => {
                self.services.entry(*at).and_modify(|service| service.scopes = [(*fixed).into(); 2]);
            }
            Change::Remove(at) => drop(self.services.remove(at)),
        }
    }

    pub fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        for (at, service) in &self.services {
            let id = u32::try_from(*at).expect("few") + 1;
            let (host, port) = PLACES[at / PROTOS.len()];
            let end = (self.net.host(host), port);
            let proto = PROTOS[at % PROTOS.len()];
            let backends = service.backends.iter().map(|(host, port)| (self.net.host(*host), *port));
            match self.net {
                Net::V4 => insert(&mut tables.v4, (id, proto), end, service.pool, backends, |addr| match addr {
                    IpAddr::V4(addr) => addr.octets(),
                    IpAddr::V6(addr) => panic!("{addr} in a world of IPv4"),
                }),
                Net::V6 => insert(&mut tables.v6, (id, proto), end, service.pool, backends, |addr| match addr {
                    IpAddr::V6(addr) => addr.octets(),
                    IpAddr::V4(addr) => panic!("{addr} in a world of IPv6"),
                }),
            }
            let [workload, external] = service.scopes;
            // A Service port has the frontends of both addresses, as one Service with two addresses.
            let service_port = id % 6 + 1;
            tables.scopes.insert(id, Scopes { workload, host: workload, external, service_port, ..Scopes::PASS });
        }
        tables
    }
}

fn insert<A: Ord + Copy>(
    tables: &mut FamilyTables<A>,
    (id, proto): (u32, Proto),
    (addr, port): End,
    pool: u32,
    backends: impl Iterator<Item = End>,
    octets: impl Fn(IpAddr) -> A,
) {
    let frontend = Frontend {
        id,
        mode: Mode::VIP,
        decided_by: Rule::IpMode,
        origin: Origin::LoadBalancer,
        state: FrontendState::Active,
        lock: bpf_spin_lock::default(),
    };
    tables.frontends.insert(FrontendKey { addr: octets(addr), port, proto, pad: 0 }, frontend);
    for (slot, (addr, port)) in (0..).zip(backends) {
        let addr = octets(addr);
        tables.pools.insert(PoolKey { pool, slot }, Backend { addr, port, flags: 0 });
        let key = MemberKey { service_port: id % 6 + 1, addr, port, pad: 0 };
        tables.members.insert(key, Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] });
    }
}
