//! The reference: a second packet path, as slow and as obvious as the design describes it.
//!
//! It shares no code with `lb-common`. Its configuration is in plain terms, each connection is one record in a list
//! that is searched, and packets are written anew, with every checksum computed over all bytes. If the kernel chose at
//! random (a backend, a source port), the reference takes the kernel's choice and checks that it was allowed. It
//! predicts everything else byte for byte.

mod client;
mod connection;
mod datagram;
mod embryo;
mod error;
mod hash;
mod history;
mod judge;
mod message;
mod open;
mod policy;
mod rule;
mod run;
mod transit;
mod wire;
mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;

use client::Client;
use connection::Connection;
use datagram::Datagrams;
use embryo::Embryos;
pub use hash::slot;
pub use history::{Step, history_of};
pub use judge::Outcome;
use lb_common::addr::Proto;
use lb_common::table::{Direction, FlowKey};
use policy::Policy;
pub use rule::{Hits, Rule};
pub use run::{Clock, Compared, Start, play};
use transit::Forwarding;
pub use transit::{FEW_PORTS, NODE};
pub use wire::{Wire, internet_sum};

use crate::cases::Net;
use crate::machine::Flows;
use crate::packet::End;

/// A limit of half-open connections that a history exceeds often.
pub const FEW_EMBRYOS: usize = 6;

/// The state of the packet path.
#[derive(Debug)]
pub struct Reference {
    policy: Policy,
    connections: Vec<Connection>,
    clients: Vec<Client>,
    datagrams: Datagrams,
    embryos: Embryos,
    now_secs: u64,
    clock: Clock,
    /// Whether a pod has ever reached itself.
    has_hairpins: bool,
    /// `--forwarding`, of a node that has forwarded before.
    forwarding: Option<Forwarding>,
    /// The flow tables after the packet that is being judged.
    held: Held,
    /// The outcomes of the fragments that were parked for the packet that was judged last.
    replayed: Vec<Outcome>,
    hits: Hits,
}

/// An entry of the flow tables: edge, direction, protocol, the tuple that matches, and the tuple after the rewrite.
type Entry = (u32, Direction, Proto, (End, End), (End, End));

/// All entries.
#[derive(Debug, Default)]
struct Held(BTreeSet<Entry>);

impl Reference {
    /// A reference in the machine's initial state.
    pub fn new(net: Net, Start { has_hairpins, embryos_max, clock, forwards }: Start) -> Self {
        let ports = FEW_PORTS.first..=FEW_PORTS.last;
        Self {
            clock,
            forwarding: forwards.then(|| Forwarding { node: net.host(NODE), ports }),
            policy: Policy::default(),
            connections: Vec::new(),
            clients: Vec::new(),
            datagrams: Datagrams::default(),
            embryos: Embryos::new(embryos_max),
            now_secs: 0,
            has_hairpins,
            held: Held::default(),
            replayed: Vec::new(),
            hits: Hits::default(),
        }
    }

    /// Replaces the configuration.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// How often each rule was met.
    pub const fn hits(&self) -> &Hits {
        &self.hits
    }

    /// The outcomes of the fragments that were parked for the packet that [`Reference::judge`] judged last, in the
    /// order in which they are re-injected.
    pub fn replayed(&self) -> &[Outcome] {
        &self.replayed
    }

    /// Sets the flow tables after the packet that is judged next.
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

    /// Lets time pass without a packet.
    pub fn wait(&mut self, secs: u64) {
        self.now_secs += secs;
    }

    /// Evicts the flow entries of one direction.
    pub fn evict(&mut self, direction: Direction) {
        for connection in &mut self.connections {
            match direction {
                Direction::Request => (connection.knows_request, connection.heard.client) = (false, None),
                Direction::Reply => (connection.knows_reply, connection.heard.backend) = (false, None),
            }
        }
        self.connections.retain(|known| known.knows_request || known.knows_reply);
    }

    /// Where the flow tables and the connections disagree, if they do.
    pub fn disagreement(&self) -> Option<String> {
        let expected: BTreeSet<Entry> = self.connections.iter().flat_map(entries).collect();
        let missing: Vec<_> = expected.difference(&self.held.0).collect();
        let surplus: Vec<_> = self.held.0.difference(&expected).collect();
        let agree = missing.is_empty() && surplus.is_empty();
        (!agree).then(|| format!("not in the tables: {missing:?}; only in the tables: {surplus:?}"))
    }
}

impl Held {
    fn holds(&self, connection: &Connection) -> bool {
        entries(connection).any(|entry| self.0.contains(&entry))
    }

    /// What a request entry makes of packets from one end to the other.
    fn request(&self, edge: u32, proto: Proto, ends: (End, End)) -> Option<(End, End)> {
        let found =
            self.0.iter().find(|entry| (entry.0, entry.1, entry.2, entry.3) == (edge, Direction::Request, proto, ends));
        found.map(|entry| entry.4)
    }

    /// Whether a request entry matches packets from one end to the other.
    fn holds_request(&self, edge: u32, proto: Proto, ends: (End, End)) -> bool {
        self.request(edge, proto, ends).is_some()
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
