//! The command line, raw: every flag with its unit, its default and what it costs. Parsing has no effect.
//!
//! This is the only reader of the arguments and of the environment. [`crate::config`] makes sense of the values.

mod port_range;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use lb_common::table::Mode;
use tracing_subscriber::EnvFilter;

pub use port_range::PortRange;

use crate::dataplane::{Sizes, Timeouts};
use crate::desired::TableSize;
use crate::interfaces::Globs;
use crate::model::Prefix;
use crate::question::{Destination, Sender};
pub use values::{Healthz, NodePortAddress};
use values::{backends, cidr, healthz, label_value, log_filter, node_port_address, seconds, size, table_size};

/// Service load balancing for Kubernetes nodes in eBPF: decides per address, port and protocol whether a
/// load-balancer IP is shortcut to a pod (ipMode VIP) or left to the balancer (ipMode Proxy).
#[derive(Debug, Parser)]
// The last one of a flag counts: wrappers append to what they are given.
#[command(name = "lb-agent", version, max_term_width = 110, args_override_self = true)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 bad arguments.")]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Program this node and keep it in step with the source.
    Run(Box<RunArgs>),
    /// Print what the dataplane holds; works from the pins, also when no agent runs.
    Show(ShowArgs),
    /// Say what would happen to a packet, and which rule decided.
    Explain(ExplainArgs),
    /// Check whether this machine has what lb-agent needs. Changes nothing.
    Check(CheckArgs),
    /// Remove programs, links and pins.
    Unload(UnloadArgs),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Dataplane")]
pub struct PinArgs {
    /// Folder on a BPF file system for maps and links. The agent makes the folder if it is absent (mode 0700), and
    /// mounts bpffs if necessary. The folder must belong to root. Neither this folder nor one above it may be a link or
    /// writable by others.
    #[arg(long, value_name = "PATH", env = "LB_AGENT_PIN_PATH", default_value = "/sys/fs/bpf/lb-agent")]
    pub pin_path: PathBuf,
}

#[derive(Debug, Args)]
pub struct HttpArgs {
    /// Address that serves /metrics, /healthz, /livez, /readyz, /warnings, /services and /proxyMode. Takes at most 64 connections
    /// of one request each. A connection without a request is closed after 5 s, or earlier if a new connection needs
    /// its place.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10356")]
    pub http: SocketAddr,
}

#[derive(Debug, Args)]
pub struct AskArgs {
    /// Where the running agent listens. Warnings and names of Services come from the agent; everything else is read
    /// from the pins.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10356")]
    pub http: SocketAddr,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub interfaces: InterfaceArgs,
    #[command(flatten)]
    pub pins: PinArgs,
    #[command(flatten)]
    pub sizes: SizeArgs,
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// ICMP answers to rejected packets per second, for each pod and for the whole network together. Further rejected
    /// packets are dropped. A flood uses up only the answers of its own sender.
    #[arg(long, value_name = "PACKETS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rejects_per_sec: u32,
    /// Make the flow of a TCP connection again if a full flow table evicted it and the client sends another segment.
    /// Works only at frontends with --lb-algorithm=maglev, where the hash of the connection names its backend. Works
    /// only for --tcp-established-secs after the table was last seen nearly full (7/8, or less by 128 entries for each
    /// possible CPU, checked every --gc-secs), and only if interface and frontend have been served for longer than
    /// that. A connection through the balancer that is older and has been busy ever since would be sent to a backend:
    /// leave this off if addresses change from Proxy to VIP.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Switch::Off)]
    pub repair_evicted_flows: Switch,
    #[command(flatten)]
    pub health: HealthArgs,
    #[command(flatten)]
    pub observe: ObserveArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Where Services, EndpointSlices and Nodes come from: a folder of Kubernetes YAML or JSON that is watched for
    /// changes (dir:PATH; legacy Endpoints are mirrored), or the Kubernetes API (kube).
    #[arg(long, value_name = "kube|dir:PATH")]
    pub source: String,

    /// Credentials for --source=kube; in-cluster configuration when absent. Not used by dir:PATH.
    #[arg(long, value_name = "PATH")]
    pub kubeconfig: Option<PathBuf>,

    /// Serve only Services whose label service.kubernetes.io/service-proxy-name has this value. Without this flag,
    /// serve only Services without the label, as kube-proxy does.
    #[arg(long, value_name = "NAME", value_parser = label_value)]
    pub service_proxy_name: Option<String>,

    /// Name of this node, as Node objects and endpoints spell it [default: the host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Policy")]
pub struct PolicyArgs {
    /// lb: load-balancer addresses only, beside kube-proxy. all: cluster addresses, externalIPs and node ports as well,
    /// in place of kube-proxy. With all, endpoints on this node see their clients' own addresses, where kube-proxy shows the
    /// node's.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Services::Lb)]
    pub services: Services,

    /// Addresses of this node that serve node ports with --services=all, and at which health check node ports are open.
    /// primary: the first InternalIP (else ExternalIP) of each family in the Node's status. all: all addresses of
    /// interfaces. Or prefixes, separated by commas: the addresses of interfaces in them; all of a family of which no
    /// prefix is listed, as kube-proxy does. Never loopback and link-local addresses. Addresses are followed as they come
    /// and go. Each address takes a frontend (--frontends-max) for each node port.
    #[arg(long, value_name = "primary|all|CIDRS", value_delimiter = ',', default_value = "primary", value_parser = node_port_address)]
    pub nodeport_addresses: Vec<NodePortAddress>,

    /// Which externalIPs of Services are served with --services=all. Everyone who may edit a Service can name any
    /// address there, and gets what is sent to that address (CVE-2020-8554). guarded: all but cluster addresses of
    /// other Services, addresses in --cluster-cidrs, and addresses of known Nodes (kube: this Node; dir:PATH: all Nodes
    /// of the folder). any: all, as kube-proxy does. off: none. With each value, cluster addresses and balancers'
    /// addresses win over externalIPs, and no externalIP takes an address that is served already. No effect with
    /// --services=lb: kube-proxy serves externalIPs then.
    #[arg(long, value_enum, default_value_t = ExternalIps::Guarded)]
    pub external_ips: ExternalIps,

    /// The cluster's own ranges, separated by commas: those of cluster addresses (--service-cluster-ip-range of the API
    /// server) and of pods. A guarded externalIP and a load balancer's status get no address in these ranges. Without
    /// this flag, only the cluster addresses that Services have are protected [default: none].
    #[arg(long, value_name = "CIDRS", value_delimiter = ',', value_parser = cidr)]
    pub cluster_cidrs: Vec<Prefix>,

    /// Mode of a load-balancer address whose ingress entry has no ipMode and that no annotation decides.
    #[arg(long, value_enum, ignore_case = true, default_value_t = IpMode::VIP)]
    pub default_ip_mode: IpMode,

    /// Services with this annotation (and value, if given) are Proxy; repeatable. lb-agent.io/ip-mode on the Service
    /// wins over this flag.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub proxy_annotation: Vec<String>,

    /// Honour the annotations by which known vendors ask for Proxy or VIP. --proxy-annotation wins over these
    /// annotations, and these annotations win over the ipMode of the entry.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Switch::Off)]
    pub vendor_annotations: Switch,

    /// How a backend is chosen for a new flow. random: all backends are equally likely. maglev: by the hash of the
    /// client's address and port and of the frontend (with session affinity, of the client's address alone), over a
    /// table that is the same on all nodes. Every node chooses the same backend, and few flows change their backend
    /// when backends come and go. A client that knows the hash can choose its backend. lb-agent.io/lb-algorithm on a
    /// Service wins over this flag.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Algorithm::Random)]
    pub lb_algorithm: Algorithm,

    /// Slots of the Maglev table of a set of backends, the same on all nodes: 251, 509, 1021, 2039, 4093, 8191, 16381,
    /// 32749 or 65521. With a hundred times as many slots as backends, the shares of the backends differ by at most 1
    /// %, and few flows move except those of a removed backend. Each table takes about 40 B a slot (default: 40 KiB)
    /// and as many entries of --backends-max; there are up to three for each port of a Service and family (endpoints of
    /// the cluster, and those on this node), none for a single endpoint, and equal sets share one.
    #[arg(long, value_name = "SLOTS", default_value_t = TableSize::DEFAULT.slots(), value_parser = table_size)]
    pub maglev_table_size: u16,

    /// What happens to packets of the network for endpoints on other nodes (externalTrafficPolicy: Cluster). snat: this
    /// node forwards them, with an address of its own and a port of --snat-ports as source; replies come back the same
    /// way. Needs IP forwarding, and an uplink that leads to the other nodes. off: they are balanced to endpoints on this
    /// node, and left to the stack if it has none.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Forwarding::Snat)]
    pub forwarding: Forwarding,

    /// Source ports for what this node forwards: FIRST-LAST. Each endpoint port can have as many connections through this
    /// node at a time. A wider range must be kept from other programs of the node (net.ipv4.ip_local_reserved_ports),
    /// and from the node ports of the cluster.
    #[arg(long, value_name = "FIRST-LAST", default_value_t = PortRange::default())]
    pub snat_ports: PortRange,

    /// Keep kube-proxy's nat rules (iptables and nftables mode) off addresses that an annotation or a flag leaves to
    /// the balancer while the status says VIP or nothing. The guard is an nftables table of its own that holds only
    /// these addresses.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Switch::On)]
    pub guard: Switch,

    /// Whose sockets are translated when they connect or send a datagram (TCP and UDP), before they have a packet. host:
    /// processes of the node and hostNetwork pods, whose packets pass no interface of a pod. all: also those of all other
    /// network namespaces of the machine, pods or not,
    /// which saves the translation of each packet; the programs at the interfaces of pods stay for what is left. A
    /// process then sees the backend only in its packets: getpeername and the source of datagrams show the address that
    /// it dialled. Needs the root of the cgroup v2 tree (in a container, the node's /sys/fs/cgroup).
    #[arg(long, value_enum, ignore_case = true, default_value_t = SocketLb::Host, alias = "host-sockets")]
    pub socket_lb: SocketLb,
}

/// Whether packets of the network are forwarded to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Forwarding {
    Off,
    Snat,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Interfaces")]
pub struct InterfaceArgs {
    /// Interfaces of pods: shell globs separated by commas (not ready until there is an interface that one of them
    /// matches), or auto: veths whose peer is in another network namespace, and taps, that hold no node address and,
    /// unless they are ports of a bridge, no prefix of their own (an address shorter than /32 or /128 makes a network
    /// card of them). `lb-agent show interfaces` prints the reason for each interface.
    #[arg(long, value_name = "GLOBS|auto", default_value = "auto")]
    pub workload_interfaces: Globs,

    /// Interfaces towards the network, and towards other nodes: shell globs separated by commas (as above), auto (those that
    /// hold a node address or have a default route; cards, VLANs, bonds and tunnels between nodes with an address; veths with
    /// a prefix) or none [default: none with --services=lb, auto with --services=all].
    #[arg(long, value_name = "GLOBS|auto|none")]
    pub uplink_interfaces: Option<Globs>,

    /// How programs are attached to interfaces. auto: by tcx if the kernel has it (Linux 6.6), else by clsact. clsact: as
    /// classifiers of traffic control, on a qdisc that the agent adds where there is none (the kernel loses packets of the
    /// interface for some milliseconds while it is added, and when `unload` removes it). Classifiers and qdiscs of
    /// others stay as they are; an interface with the older qdisc ingress cannot be served by clsact. If the value changes
    /// between two runs, packets that enter the node are dropped for some milliseconds, and sent again.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Attach::Auto)]
    pub attach: Attach,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Table sizes, per address family (all tables exist for IPv4 and IPv6)")]
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
    /// flows gets no more of the flow table. At most a sixteenth of --flows-max counts. Allocated at start: 20 B each
    /// for IPv4 and 44 B for IPv6 (default: 0.3 MiB and 0.7 MiB).
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
#[command(next_help_heading = "Times")]
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
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    pub keep_unclaimed_secs: u32,

    /// Milliseconds between two applies. An idle agent applies a change at once; many changes are applied together,
    /// this often.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub apply_interval_ms: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Health checks, answered to balancers as kube-proxy answers them")]
pub struct HealthArgs {
    /// Whether to listen on the healthCheckNodePort of each Service of type LoadBalancer with externalTrafficPolicy Local,
    /// at the addresses of the node ports (--nodeport-addresses; at all addresses if there all are wanted, or none is
    /// known): 200 if a ready endpoint is on this node, else 503.
    /// auto: on with --services=all, off with --services=lb, where kube-proxy listens. Takes at most 8 connections of one
    /// request each at a port.
    #[arg(long, value_enum, ignore_case = true, default_value_t = HealthCheckNodePorts::Auto)]
    pub health_check_node_ports: HealthCheckNodePorts,

    /// Address that serves /healthz (200 if the node serves and its Node is known and not about to be deleted, else 503: a
    /// folder, --source=dir:PATH, must hold the Node object of this node) and /livez
    /// (503 if writes have failed for a minute); 0.0.0.0 means all addresses of both families. The loop tries again while
    /// another program listens there [default: off with --services=lb, 0.0.0.0:10256 with --services=all].
    #[arg(long, value_name = "ADDRESS:PORT|off", value_parser = healthz)]
    pub healthz: Option<Healthz>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Observation")]
pub struct ObserveArgs {
    #[command(flatten)]
    pub http: HttpArgs,

    /// Least severity that is logged (to standard error): error, warn, info, debug, trace; or directives that name
    /// modules, libraries included, such as `info,aya=debug,lb_agent::interfaces=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log_filter)]
    pub log_level: EnvFilter,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// What to print.
    #[arg(value_enum, ignore_case = true)]
    pub subject: Subject,

    #[command(flatten)]
    pub pins: PinArgs,

    #[command(flatten)]
    pub http: AskArgs,

    /// How to print it.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The client: the IP of a pod on this node (or just `pod`), `host`, or `external[:IP]`.
    #[arg(long, value_name = "pod-ip|host|external[:IP]")]
    pub from: Sender,

    /// The destination: 192.0.2.1:80/tcp, [2001:db8::1]:53/udp.
    #[arg(long, value_name = "IP:PORT/tcp|udp|sctp")]
    pub to: Destination,

    #[command(flatten)]
    pub pins: PinArgs,

    #[command(flatten)]
    pub http: AskArgs,

    /// How to print it.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub pins: PinArgs,

    /// How to print it.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct UnloadArgs {
    #[command(flatten)]
    pub pins: PinArgs,
}

/// Whether health check node ports are listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HealthCheckNodePorts {
    Auto,
    On,
    Off,
}

/// Which kinds of Service address are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Services {
    Lb,
    All,
}

/// Which externalIPs are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExternalIps {
    Guarded,
    Any,
    Off,
}

/// A mode, spelled as in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum IpMode {
    /// Shortcut connections to an endpoint.
    #[value(name = "VIP")]
    VIP,
    /// Leave connections to the external balancer.
    Proxy,
    /// Proxy for traffic that starts on this node, VIP for traffic that the network delivers here.
    Split,
    /// VIP while there are endpoints, else Proxy.
    Router,
}

impl std::convert::From<IpMode> for Mode {
    fn from(mode: IpMode) -> Self {
        match mode {
            IpMode::VIP => Self::VIP,
            IpMode::Proxy => Self::Proxy,
            IpMode::Split => Self::Split,
            IpMode::Router => Self::Router,
        }
    }
}

/// Whose sockets are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketLb {
    Off,
    #[value(alias = "on")]
    Host,
    All,
}

/// How programs are attached to interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    Auto,
    Tcx,
    Clsact,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    Random,
    Maglev,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

/// A subject of `show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// What clients dial, the mode and the rule that decided it, what each kind of client gets, and traffic so far.
    Frontends,
    /// The backends behind the frontends.
    Pools,
    /// The source ranges from which clients may dial frontends.
    SourceRanges,
    /// Connections that are being translated.
    Flows,
    /// Packets and bytes by outcome.
    Counters,
    /// The last packet that was refused, rejected or dropped, for each reason.
    Drops,
    /// Where programs are attached; asks the running agent for the reasons.
    Interfaces,
    /// The addresses that the guard's nftables table keeps kube-proxy off, and for which clients.
    Guard,
    /// Warnings about objects and this node, with remedies; asks the running agent.
    Warnings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}
