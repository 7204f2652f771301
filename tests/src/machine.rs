//! Two machines that run the same packet cases: the packet path compiled for the host, and the programs in the kernel.

mod host;
mod kernel;

use std::collections::BTreeMap;

use lb_agent::dataplane::Tables;
use lb_common::addr::{Addr, Family};
use lb_common::table::{Counter, Direction, DropKey, Flow, FlowKey, Port};
use lb_common::verdict::HookAction;

use crate::packet::{BRIDGE_MAC, End};

pub use host::{ADDRESS_WORDS, HostMachine, PARKED_MAX};
pub use kernel::{EDGE, KernelMachine};

/// A program, named as in the BPF object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    WorkloadIngress,
    WorkloadEgress,
    UplinkIngress,
    UplinkEgress,
}

impl Program {
    pub const fn name(self) -> &'static str {
        match self {
            Self::WorkloadIngress => "workload_ingress",
            Self::WorkloadEgress => "workload_egress",
            Self::UplinkIngress => "uplink_ingress",
            Self::UplinkEgress => "uplink_egress",
        }
    }
}

/// Flow entries of both families.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    pub v4: BTreeMap<FlowKey<[u8; 4]>, Flow<[u8; 4]>>,
    pub v6: BTreeMap<FlowKey<[u8; 16]>, Flow<[u8; 16]>>,
}

impl Flows {
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The test link, which is no port of a bridge.
pub const UNBRIDGED: Port = Port::unbridged(EDGE);
/// The test link as a port of a bridge that has no interface.
pub const BRIDGED: Port = Port { bridge: 9, mac: BRIDGE_MAC, ..UNBRIDGED };

/// A machine that runs packets.
pub trait Machine {
    /// Replaces the configuration tables.
    fn set_tables(&mut self, tables: &Tables);
    /// Sets the bridge of which the test link is a port; at first it is a port of none.
    fn set_port(&mut self, port: Port);
    /// Sets the interface by which egress packets came to the node; at first 0, a socket of the node.
    fn set_came_by(&mut self, ifindex: u32);
    /// Runs one packet; returns the action and the bytes afterwards.
    fn run(&mut self, program: Program, packet: &[u8]) -> (HookAction, Vec<u8>);
    /// The outcomes of the fragments that were parked for the packet that [`Machine::run`] ran last, in the order of
    /// re-injection.
    fn replayed(&mut self) -> Vec<(HookAction, Vec<u8>)>;
    fn flows(&mut self) -> Flows;
    /// Evicts the entries of one direction, as a full table may.
    fn evict(&mut self, direction: Direction);
    /// Evicts the rows of all headers, as a full table may.
    fn evict_headers(&mut self);
    /// Packets by counter since the tables were emptied, without counters at zero.
    fn counters(&mut self) -> BTreeMap<Counter, u64>;
    /// Source and destination of the last packet of a family that was rejected or dropped for a reason.
    fn dropped(&mut self, family: Family, reason: Counter) -> Option<(End, End)>;
    /// Packets that were refused, rejected or dropped, by frontend, edge and counter.
    fn drop_counts(&mut self) -> BTreeMap<DropKey, u64>;
    /// Makes all flows `secs` seconds older.
    fn age_flows(&mut self, secs: u64);
    /// Whether an outcome tells what is sent on from what is sent back: the programs return the same number for both.
    fn tells_sent_on(&self) -> bool {
        true
    }
}

/// Source and destination of a packet.
fn ends<A: Addr>(key: &FlowKey<A>) -> (End, End) {
    let tuple = key.tuple;
    ((tuple.src.into(), tuple.sport), (tuple.dst.into(), tuple.dport))
}
