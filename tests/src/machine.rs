//! Two machines that run the same packet cases: the packet path compiled for the host, and the programs in the kernel.

mod host;
mod kernel;

use std::collections::BTreeMap;

use lb_agent::dataplane::Tables;
use lb_common::table::{Counter, Direction, Flow, FlowKey, Port};
use lb_common::verdict::Action;

use crate::packet::BRIDGE_MAC;

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

/// The test link as a port of nothing.
pub const UNBRIDGED: Port = Port::unbridged(EDGE);
/// The same as a port of a bridge, of which there is no interface.
pub const BRIDGED: Port = Port { bridge: 9, mac: BRIDGE_MAC, ..UNBRIDGED };

/// Something that packets can be run through.
pub trait Machine {
    /// Makes the configuration tables be these.
    fn set_tables(&mut self, tables: &Tables);
    /// Says what the test link is a port of; nothing until then.
    fn set_port(&mut self, port: Port);
    /// Says what interface the packets that go out came to the node by; 0, a socket of the node, until then.
    fn set_came_by(&mut self, ifindex: u32);
    /// Runs one packet; what becomes of it, and its bytes afterwards.
    fn run(&mut self, program: Program, packet: &[u8]) -> (Action, Vec<u8>);
    /// What became of the fragments that waited for the one that [`Machine::run`] ran last, in the order in which they went
    /// on.
    fn replayed(&mut self) -> Vec<(Action, Vec<u8>)>;
    fn flows(&mut self) -> Flows;
    /// Evicts the entries of one direction, as a full table may.
    fn evict(&mut self, direction: Direction);
    /// Packets by counter since the tables were emptied, those at zero left out.
    fn counters(&mut self) -> BTreeMap<Counter, u64>;
    /// Lets `secs` seconds pass for all flows.
    fn age_flows(&mut self, secs: u64);
}
