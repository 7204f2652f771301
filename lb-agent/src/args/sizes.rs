//! Flags of `run` for the sizes of tables, and for times.

use clap::Args;

use super::numbers;
use super::values::{backends, seconds, size};
use crate::dataplane::{Sizes, Timeouts};

#[derive(Debug, Args)]
#[command(
    next_help_heading = "Table sizes, per address family (all tables exist for IPv4 and IPv6); k, M, Ki and Mi are understood"
)]
pub struct SizeArgs {
    /// Entries in the flow table; a flow takes two. Allocated at start: about 120 B each for IPv4 and 168 B for IPv6
    /// (default: 30 MiB and 42 MiB).
    #[arg(long, value_name = "ENTRIES", default_value_t = Sizes::default().flows_max, value_parser = size())]
    pub flows_max: u32,

    /// The share of one pod in the flow table, in percent of the entries that all others leave free. An eighth of the
    /// table (or 128 entries for each possible CPU, if that is more) belongs to no share. If a pod has used up its
    /// share, its new flows replace its own ended connections and answered datagrams. If it has none of these, the new
    /// flow is dropped and counted (drop_edge_flows), and the next walk (--gc-secs) deletes the flows of the pod that
    /// were quiet for longest. Clients in the network may take 90 % together. 100: no bound; a full table evicts the
    /// flow that was quiet for longest, of any pod.
    #[arg(long, value_name = "PERCENT", default_value_t = Sizes::default().pod_flows_percent, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub pod_flows_percent: u32,

    /// Half-open flows: without an answer, or without a packet of the client after the answer. A flood of half-open
    /// flows gets no more of the flow table. At most a sixteenth of --flows-max counts. As many PROXY headers may wait
    /// for their acknowledgement. Allocated at start: about 130 B each for IPv4 and 180 B for IPv6 (default: 2 MiB and 3
    /// MiB).
    #[arg(long, value_name = "FLOWS", default_value_t = Sizes::default().embryos_max, value_parser = size())]
    pub embryos_max: u32,

    /// Frontends (address, port, protocol). About 90 B each when in use; for both families together 144 B each, and 80 B
    /// for each CPU, are allocated at start (default: 9 MiB, and 5 MiB for each CPU).
    #[arg(long, value_name = "FRONTENDS", default_value_t = Sizes::default().frontends_max, value_parser = size())]
    pub frontends_max: u32,

    /// Slots of all pools (a backend has one in each, or many of a Maglev table), and as many endpoints of Services, at most
    /// 2,097,152. For both families together 144 B each are allocated at start, of which 80 B are for pools and those that
    /// replace them, and 4 B to 8 B for each of them and of --frontends-max (default: 38 MiB); endpoints take about 150 B
    /// each when in use.
    #[arg(long, value_name = "BACKENDS", default_value_t = Sizes::default().backends_max, value_parser = backends())]
    pub backends_max: u32,

    /// Prefixes of loadBalancerSourceRanges. Frontends with equal lists share one. About 100 B each when in use,
    /// nothing at start.
    #[arg(long, value_name = "PREFIXES", default_value_t = Sizes::default().source_ranges_max, value_parser = size())]
    pub source_ranges_max: u32,

    /// The share of each of these tables (frontends, backends, source ranges) that the Services of one namespace may
    /// have, in per cent. Growth beyond the share is left out, with a warning; existing rows stay.
    #[arg(long, value_name = "PER CENT", default_value_t = 75, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub namespace_share: u32,

    /// Clients that are remembered for session affinity. A further client replaces the client that has not connected
    /// for longest. Allocated at start: about 90 B each for IPv4 and 120 B for IPv6 (default: 6 MiB and 8 MiB).
    #[arg(long, value_name = "CLIENTS", default_value_t = Sizes::default().affinity_max, value_parser = size())]
    pub affinity_max: u32,

    /// IP fragments that wait up to two seconds for the first fragment of their datagram, which alone has ports. A
    /// further fragment replaces the one that has waited for longest. Fragments longer than 2,048 B pass untranslated.
    /// Allocated at start: 2.1 kB each (default: 2 MiB).
    #[arg(long, value_name = "FRAGMENTS", default_value_t = Sizes::default().parked_max, value_parser = size())]
    pub parked_max: u32,

    /// Rows for UDP sockets of the node: one for each socket that is connected to a Service, and two for each further
    /// address that an unconnected one sends to. A further row replaces the one that was not used for longest: a connected
    /// socket is then not ended with its backend, an unconnected one may get another backend. Allocated at start: about
    /// 90 B each for IPv4 and 120 B for IPv6 (default: 1.4 MiB and 1.9 MiB).
    #[arg(long, value_name = "ROWS", default_value_t = Sizes::default().sockets_max, value_parser = size())]
    pub sockets_max: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Times; 90s, 5m, 2h and 1d are understood")]
pub struct TimeoutArgs {
    /// Seconds after which an idle established TCP flow may be forgotten. At least the idle time-out of the
    /// applications: a forgotten flow is a broken connection.
    #[arg(long, value_name = "SECONDS", default_value_t = Timeouts::default().tcp_established_secs, value_parser = seconds())]
    pub tcp_established_secs: u32,

    /// Seconds that a closed TCP flow is remembered.
    #[arg(long, value_name = "SECONDS", default_value_t = Timeouts::default().tcp_closing_secs, value_parser = seconds())]
    pub tcp_closing_secs: u32,

    /// Seconds that a TCP flow without an answer is remembered.
    #[arg(long, value_name = "SECONDS", default_value_t = Timeouts::default().tcp_syn_secs, value_parser = seconds())]
    pub tcp_syn_secs: u32,

    /// Seconds after which an idle UDP or SCTP flow is forgotten.
    #[arg(long, value_name = "SECONDS", default_value_t = Timeouts::default().udp_secs, value_parser = seconds())]
    pub udp_secs: u32,

    /// Seconds between two walks over the flow tables, which delete expired flows. A walk takes about 0.3 us for each
    /// entry that is in use.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = seconds())]
    pub gc_secs: u32,

    /// Seconds between two audits, which compare the tables and interfaces with the desired state and repair them.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = seconds())]
    pub audit_secs: u32,

    /// Seconds after a start for which frontends stay although no object claims them (or none has endpoints for them),
    /// while part of the input cannot be read. The unread part may hold their objects, and a restart must not lose
    /// working frontends. Each such frontend has a warning meanwhile. 0: none stays.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = numbers::seconds(0..=31_536_000))]
    pub keep_unclaimed_secs: u32,

    /// Milliseconds between two applies. An idle agent applies a change at once; many changes are applied together,
    /// this often.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50, value_parser = numbers::milliseconds(0..=10_000))]
    pub apply_interval_ms: u32,
}
