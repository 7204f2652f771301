//! The reference: the whole packet path once more, as slow and as obvious as the design describes it.
//!
//! It shares no code with `lb-common` but the rows of the configuration tables, which are its input: connections are
//! one record each in a list that is searched, packets are written anew with every checksum made from all bytes. Where
//! chance decides (which backend, which source port) it is told what the kernel chose, and says whether that was one of
//! the right choices; everything else it foretells, byte for byte.

mod connection;
mod error;
mod history;
mod judge;
mod run;
mod wire;
mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;

use connection::Connection;
pub use history::{Step, history, history_of};
pub use judge::Outcome;
use lb_agent::dataplane::{FamilyTables, Tables};
use lb_common::addr::Proto;
use lb_common::table::{Direction, FlowKey, FrontendKey, MemberKey, PoolKey, Scope};
pub use run::{Compared, play};
pub use wire::{Wire, internet_sum};

use crate::machine::Flows;
use crate::packet::End;

/// What the packet path knows.
#[derive(Debug, Default)]
pub struct Reference {
    tables: Tables,
    connections: Vec<Connection>,
    now_secs: u64,
    /// Whether a pod has ever reached itself.
    has_hairpins: bool,
    /// What the flow tables hold after the packet that is being judged.
    held: Held,
}

/// An entry of the flow tables: a packet as it is seen, and what it becomes.
type Entry = (u32, Direction, Proto, (End, End), (End, End));

/// All entries.
#[derive(Debug, Default)]
struct Held(BTreeSet<Entry>);

impl Reference {
    /// A reference that has seen a pod reach itself, if so.
    pub fn new(has_hairpins: bool) -> Self {
        Self { has_hairpins, ..Self::default() }
    }

    /// The configuration changes.
    pub fn set_tables(&mut self, tables: &Tables) {
        self.tables = tables.clone();
    }

    /// What the flow tables hold after the packet that is judged next.
    pub fn set_held(&mut self, flows: &Flows) {
        let mut held = BTreeSet::new();
        held.extend(
            flows.v4.iter().map(|(key, flow)| entry(key, (flow.to.src, flow.to.sport), (flow.to.dst, flow.to.dport))),
        );
        held.extend(
            flows.v6.iter().map(|(key, flow)| entry(key, (flow.to.src, flow.to.sport), (flow.to.dst, flow.to.dport))),
        );
        self.held = Held(held);
    }

    /// Time passes without a packet.
    pub fn wait(&mut self, secs: u64) {
        self.now_secs += secs;
    }

    /// The tables lose what they know of one direction.
    pub fn evict(&mut self, direction: Direction) {
        for connection in &mut self.connections {
            match direction {
                Direction::Request => connection.knows_request = false,
                Direction::Reply => connection.knows_reply = false,
            }
        }
        self.connections.retain(|known| known.knows_request || known.knows_reply);
    }

    /// Where the flow tables and the connections disagree; nothing if all is well.
    pub fn disagreement(&self) -> Option<String> {
        let expected: BTreeSet<Entry> = self.connections.iter().flat_map(entries).collect();
        let missing: Vec<_> = expected.difference(&self.held.0).collect();
        let surplus: Vec<_> = self.held.0.difference(&expected).collect();
        let agree = missing.is_empty() && surplus.is_empty();
        (!agree).then(|| format!("not in the tables: {missing:?}; only in the tables: {surplus:?}"))
    }

    fn frontend(&self, end: End, proto: Proto) -> Option<u32> {
        fn find<A: Copy + Ord>(tables: &FamilyTables<A>, addr: A, port: u16, proto: Proto) -> Option<u32> {
            tables.frontends.get(&FrontendKey { addr, port, proto, pad: 0 }).map(|frontend| frontend.id)
        }
        match end.0 {
            IpAddr::V4(addr) => find(&self.tables.v4, addr.octets(), end.1, proto),
            IpAddr::V6(addr) => find(&self.tables.v6, addr.octets(), end.1, proto),
        }
    }

    fn scope(&self, frontend: u32, is_workload: bool) -> Scope {
        let scopes = &self.tables.scopes[&frontend];
        if is_workload { scopes.workload } else { scopes.external }
    }

    fn service_port(&self, frontend: u32) -> u32 {
        self.tables.scopes[&frontend].service_port
    }

    fn pool(&self, scope: Scope, is_v4: bool) -> Vec<End> {
        let keys = (0..u32::from(scope.count)).map(|slot| PoolKey { pool: scope.pool, slot });
        if is_v4 {
            keys.map(|key| self.tables.v4.pools[&key]).map(|backend| (backend.addr.into(), backend.port)).collect()
        } else {
            keys.map(|key| self.tables.v6.pools[&key]).map(|backend| (backend.addr.into(), backend.port)).collect()
        }
    }

    /// Of any Service, whatever its protocol.
    fn is_endpoint(&self, (addr, port): End) -> bool {
        let (v4, v6) = (&self.tables.v4.members, &self.tables.v6.members);
        v4.keys().any(|key| (IpAddr::from(key.addr), key.port) == (addr, port))
            || v6.keys().any(|key| (IpAddr::from(key.addr), key.port) == (addr, port))
    }

    fn is_member(&self, service_port: u32, (addr, port): End) -> bool {
        match addr {
            IpAddr::V4(addr) => {
                self.tables.v4.members.contains_key(&MemberKey { service_port, addr: addr.octets(), port, pad: 0 })
            }
            IpAddr::V6(addr) => {
                self.tables.v6.members.contains_key(&MemberKey { service_port, addr: addr.octets(), port, pad: 0 })
            }
        }
    }
}

impl Held {
    fn holds(&self, connection: &Connection) -> bool {
        entries(connection).any(|entry| self.0.contains(&entry))
    }
}

fn entry<A: Copy + Into<IpAddr>>(key: &FlowKey<A>, from: (A, u16), to: (A, u16)) -> Entry {
    let end = |(addr, port): (A, u16)| (addr.into(), port);
    let tuple = &key.tuple;
    let seen = (end((tuple.src, tuple.sport)), end((tuple.dst, tuple.dport)));
    (key.edge, key.direction, key.proto, seen, (end(from), end(to)))
}

fn entries(connection: &Connection) -> impl Iterator<Item = Entry> {
    let Connection { edge, proto, client, service, backend, seen, knows_request, knows_reply, .. } = *connection;
    let request = (edge, Direction::Request, proto, (client, service), (seen, backend));
    let reply = (edge, Direction::Reply, proto, (backend, seen), (service, client));
    [(knows_request, request), (knows_reply, reply)]
        .into_iter()
        .filter(|(is_known, _)| *is_known)
        .map(|(_, entry)| entry)
}
