//! The only access to the kernel's tables and programs: a plan is a list of [`Op`]s, and a [`Dataplane`] performs them.
//!
//! [`fake::FakeDataplane`] replaces the kernel in tests and can fail on purpose.

pub mod addresses;
mod ages;
pub mod bpf;
pub mod bpf_log;
pub mod clsact;
mod door;
pub mod driver;
pub mod drop_counts;
pub mod drops;
mod error;
pub mod fake;
mod folder;
pub mod garbage;
pub mod hooks;
pub mod lease;
pub mod links;
mod mapped;
pub mod maps;
pub mod memory;
pub mod monitor;
pub mod mounts;
mod new_frontends;
pub mod object;
mod op;
mod pinned;
pub mod pins;
mod pools;
pub mod probe;
pub mod removal;
mod replaced;
mod scopes;
mod shares;
mod sock_diag;
pub mod sockets;
mod sys;
pub mod tcx;
mod threads;
pub mod transit;
mod uplinks;

use std::path::PathBuf;

use lb_common::table::maps::Rows;
use lb_common::way::SnatPorts;

pub use door::Dataplane;
pub use driver::Xdp;
pub use error::{Distrust, Error, Refusal};
pub use hooks::AttachBy;
pub use lb_common::host::{FamilyTables, Tables};
pub use op::{FamilyOp, Op, Write};
pub use sockets::SocketLb;
pub use sys::{Card, Hook, ask_socket, card, give_back_memory, netns_cookie};
pub use uplinks::UplinkRows;

/// How to set up the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub pin_path: PathBuf,
    pub sizes: Sizes,
    pub timeouts: Timeouts,
    /// ICMP answers to rejected packets, per second and edge.
    pub rejects_per_sec: u32,
    pub repair: Repair,
    pub monitor: Monitor,
    pub bpf_log: BpfLog,
    pub sockets: SocketLb,
    pub attach: AttachBy,
    pub xdp: Xdp,
    /// The source ports of what is forwarded to endpoints of other nodes; None: nothing is.
    pub snat_ports: Option<SnatPorts>,
}

/// Whether segments of flows that a full table evicted get their flow back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    Off,
    On,
}

/// Whether the programs log each packet that may concern a Service. Only those that were built with the feature can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BpfLog {
    #[default]
    Off,
    On,
}

/// Whether the programs tell `lb-agent monitor` what happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Monitor {
    /// While the command runs.
    #[default]
    Auto,
    /// Always: they look whether the command runs.
    On,
    Off,
}

/// The most rows that the tables hold, per family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub frontends_max: u32,
    pub backends_max: u32,
    pub source_ranges_max: u32,
    /// Clients whose backend is remembered.
    pub affinity_max: u32,
    /// Entries; a flow has two.
    pub flows_max: u32,
    /// A pod's largest share, in percent, of the flow entries that other edges leave free. 100 means no bound.
    pub pod_flows_percent: u32,
    /// Half-open flows.
    pub embryos_max: u32,
    /// Fragments parked until the first one of their datagram arrives, for both families together.
    pub parked_max: u32,
    /// Rows for UDP sockets; a socket has two for each address that it sends to.
    pub sockets_max: u32,
}

impl Sizes {
    /// The value of the setting that sizes a map.
    pub const fn asked(&self, rows: Rows) -> u32 {
        match rows {
            Rows::Frontends | Rows::FrontendIds => self.frontends_max,
            Rows::Backends | Rows::PoolElements | Rows::AddressWords => self.backends_max,
            Rows::SourceRanges => self.source_ranges_max,
            Rows::AffinityClients => self.affinity_max,
            Rows::Flows | Rows::Previous => self.flows_max,
            Rows::Headers | Rows::EmbryosOfCpu => self.embryos_max,
            Rows::Parked => self.parked_max,
            Rows::Sockets => self.sockets_max,
            Rows::Fixed(rows) => rows,
        }
    }
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            frontends_max: 1 << 16,
            backends_max: 1 << 18,
            source_ranges_max: 1 << 16,
            affinity_max: 1 << 16,
            flows_max: 1 << 18,
            pod_flows_percent: 50,
            embryos_max: 1 << 14,
            parked_max: 1 << 10,
            sockets_max: 1 << 14,
        }
    }
}

/// A flow expires if it was quiet for longer than this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub tcp_syn_secs: u32,
    pub tcp_established_secs: u32,
    pub tcp_closing_secs: u32,
    pub udp_secs: u32,
}

impl Default for Timeouts {
    /// SYN and closing as in nf_conntrack; established one day, as kube-proxy sets it; UDP streams 120 s.
    fn default() -> Self {
        Self { tcp_syn_secs: 60, tcp_established_secs: 86_400, tcp_closing_secs: 10, udp_secs: 120 }
    }
}
