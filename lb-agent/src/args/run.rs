//! The flags of `run`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::numbers;
use super::values::{healthz, label_value, log_filter, metrics};
use super::{DATAPLANE, Healthz, MetricsAddress, PinArgs, PolicyArgs, SizeArgs, Switch, TimeoutArgs};
use crate::interfaces::Globs;

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub source: SourceArgs,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub interfaces: InterfaceArgs,
    #[command(flatten)]
    pub pins: PinArgs,
    /// ICMP answers to rejected packets per second, for each pod and for the whole network together. Further rejected
    /// packets are dropped. A flood uses up only the answers of its own sender.
    #[arg(long, help_heading = DATAPLANE, value_name = "PACKETS", default_value_t = 1000, value_parser = numbers::count(0..=1_000_000))]
    pub rejects_per_sec: u32,
    /// Make the flow of a TCP connection again if a full flow table evicted it and the client sends another segment.
    /// Works only at frontends with --lb-algorithm=maglev, where the hash of the connection names its backend. Works
    /// only for --tcp-established-secs after the table was last seen nearly full (7/8, or less by 128 entries for each
    /// possible CPU, checked every --gc-secs), and only if interface and frontend have been served for longer than
    /// that. A connection through the balancer that is older and has been busy ever since would be sent to a backend:
    /// leave this off if addresses change from Proxy to VIP.
    #[arg(long, help_heading = DATAPLANE, value_enum, ignore_case = true, default_value_t = Switch::Off)]
    pub repair_evicted_flows: Switch,
    #[command(flatten)]
    pub sizes: SizeArgs,
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    #[command(flatten)]
    pub health: HealthArgs,
    #[command(flatten)]
    pub observe: ObserveArgs,
}

/// Where further settings are, and what to do with all of them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigArgs {
    /// A YAML file of settings: the flags of `run` without their dashes, each with a value or a list (`udp-secs: 60`). A
    /// flag counts before the environment (LB_AGENT_UDP_SECS), which counts before this file. The file is read at start.
    #[arg(long, value_name = "PATH", env = "LB_AGENT_CONFIG")]
    pub config: Option<PathBuf>,

    /// Print all settings as such a file, with where each value comes from, and end.
    #[arg(long)]
    pub print_config: bool,
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

    /// Name of this node, as Node objects and endpoints spell it [default: $NODE_NAME, else the host name].
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
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

    /// Whether drivers of uplinks also run a program (XDP, Linux 5.18), which handles packets of known flows before the
    /// kernel makes an skb of them. It passes all others to tc, which stays attached. off: none. auto: natively, where the
    /// driver is known to be right for it; `lb-agent show interfaces` prints what is in the way elsewhere. native: wherever
    /// the kernel lets it; the driver must deliver frames with complete checksums (virtual cards do not) and redirect
    /// frames, else packets are lost. generic: in the kernel, behind any driver: for tests, slower than tc. tc alone serves
    /// ports of bridges and bonds, interfaces without an Ethernet header, and those with an XDP program of others. Many
    /// cards lose packets for a moment when the program comes or goes, not when it is exchanged.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Xdp::Off)]
    pub xdp: Xdp,
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

    #[command(flatten)]
    pub metrics: MetricsArgs,

    /// Whether the programs tell `lb-agent monitor` what happens. auto: while it runs, the agent attaches programs that tell
    /// (an exchange takes a second or two and loses no packet). on: always such programs, which look whether it runs. off:
    /// never.
    #[arg(long, value_enum, ignore_case = true, default_value_t = MonitorSwitch::Auto)]
    pub monitor: MonitorSwitch,

    /// Log each packet that may concern a Service, with what the programs did and why, as debug messages of lb_agent::bpf
    /// (--log-level=info,lb_agent::bpf=debug). For faults of the programs: each packet takes the slow way. Only a
    /// program that was built with the cargo feature bpf-log has it.
    #[arg(long, value_enum, ignore_case = true, num_args = 0..=1, require_equals = true, default_value_t = Switch::Off,
        default_missing_value = "on")]
    pub bpf_log: Switch,

    /// Least severity that is logged (to standard error): error, warn, info, debug, trace; or directives that name
    /// modules, libraries included, such as `info,aya=debug,lb_agent::interfaces=debug`.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = log_filter)]
    pub log_level: EnvFilter,

    /// How each event is written, one a line. text: for people. json: an object with timestamp, level, target, message and
    /// the fields of the event.
    #[arg(long, value_enum, ignore_case = true, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Args)]
pub struct HttpArgs {
    /// Address that serves /metrics, /healthz, /livez, /readyz, /warnings, /services, /interfaces, /config, /logs (the last
    /// 256 KiB) and /proxyMode. Takes at most 64 connections
    /// of one request each. A connection without a request is closed after 5 s, or earlier if a new connection needs
    /// its place.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10356")]
    pub http: SocketAddr,
}

#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Address that serves /metrics and nothing else, so that Prometheus can scrape it while --http stays on the loopback.
    /// It publishes counters, sizes and states of this node, and with --service-metrics=on the names of Services. Takes as
    /// many connections as --http, which serves /metrics as well. off: neither serves it [default: at --http only].
    #[arg(long, value_name = "ADDRESS:PORT|off", value_parser = metrics)]
    pub metrics: Option<MetricsAddress>,

    /// Whether /metrics has flows, packets, bytes, rejects and drops for each Service port.
    #[arg(long, value_enum, ignore_case = true, default_value_t = Switch::Off)]
    pub service_metrics: Switch,

    /// Service ports with series of their own (about 0.5 kB a scrape each). Those beyond are summed as `other`, and
    /// lb_agent_service_ports_beyond_max is their number. The ports that were served first come first.
    #[arg(long, value_name = "PORTS", default_value_t = 500, value_parser = numbers::count(1..=100_000))]
    pub service_metrics_max: u32,
}

/// Whether health check node ports are listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HealthCheckNodePorts {
    Auto,
    On,
    Off,
}

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Whether programs tell what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MonitorSwitch {
    Auto,
    On,
    Off,
}

/// How programs are attached to interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    Auto,
    Tcx,
    Clsact,
}

/// Whether drivers run a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Xdp {
    Off,
    Auto,
    Native,
    Generic,
}
