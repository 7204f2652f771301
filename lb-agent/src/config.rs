//! The validated settings of `run`, with units in the names and no `Option` that means "default".

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::args::{
    self, HealthArgs, HealthCheckNodePorts, Healthz, MetricsAddress, MetricsArgs, NodePortAddress, PolicyArgs, RunArgs,
    Services, Settings as Given, SizeArgs, SourceArgs, Switch, TimeoutArgs,
};
use crate::dataplane::bpf_log;
use crate::dataplane::{AttachBy, BpfLog, Monitor, Repair, Settings, Sizes, SocketLb, Timeouts, Xdp};
use crate::desired::{
    self, AnnotationMatch, HeadersFrom, HealthCheckPorts, NodePortAddresses, Policy, Selection, TableLimits, TableSize,
    VendorAnnotations,
};
use crate::guard::Guarding;
use crate::interfaces::{Globs, InterfaceRules};
use crate::metrics::{Place, Published};
use crate::source::claim::Claim;
use crate::source::kube::{Pace, Settings as KubeSettings};
use crate::source::names;

/// All settings of `run`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub source: Source,
    pub policy: Policy,
    pub limits: TableLimits,
    pub interfaces: InterfaceRules,
    pub dataplane: Settings,
    pub times: Times,
    pub guard: Guarding,
    pub http: SocketAddr,
    pub metrics: Published,
    /// `--healthz`; `None`: off.
    pub healthz: Option<SocketAddr>,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder of Kubernetes YAML and JSON.
    Directory { path: PathBuf, claim: Claim },
    /// The Kubernetes API.
    Kube(KubeSettings),
}

impl Source {
    /// Which Services it delivers.
    pub const fn claim(&self) -> &Claim {
        match self {
            Self::Kube(settings) => &settings.claim,
            Self::Directory { claim, .. } => claim,
        }
    }
}

/// Time intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Between two applies.
    pub apply_interval: Duration,
    /// Between two audits.
    pub audit_interval: Duration,
    /// Between two scans for expired flows.
    pub gc_interval: Duration,
    /// How long after a start unclaimed frontends are kept while some objects cannot be read.
    pub keep_unclaimed: Duration,
}

/// Why the command line is invalid.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{flag}: {problem}")]
    Invalid { flag: &'static str, problem: String },
}

impl Error {
    /// The flag that is wrong.
    pub const fn flag(&self) -> &'static str {
        let Self::Invalid { flag, .. } = self;
        flag
    }
}

impl Config {
    /// Fills in what follows from other settings or from the host.
    pub fn imply(&self, settings: &mut Given) {
        let services = match self.policy.services {
            desired::Services::LoadBalancers => "--services=lb",
            desired::Services::All => "--services=all",
        };
        settings.imply("node-name", self.policy.node_name.clone(), "the host name");
        settings.imply("uplink-interfaces", self.interfaces.uplink.to_string(), services);
        settings.imply("healthz", self.healthz.map_or_else(|| "off".to_owned(), |at| at.to_string()), services);
    }
}

impl TryFrom<RunArgs> for Config {
    type Error = Error;

    fn try_from(args: RunArgs) -> Result<Self, Error> {
        let RunArgs {
            // What it names is among the other settings.
            config: _,
            source,
            policy,
            interfaces,
            pins,
            sizes,
            timeouts,
            rejects_per_sec,
            repair_evicted_flows,
            health,
            observe,
        } = args;
        let uplink_default = match policy.services {
            // kube-proxy serves the network.
            Services::Lb => Globs::None,
            Services::All => Globs::Auto,
        };
        let guard = match (policy.guard, &source.service_proxy_name) {
            (Switch::On, None) => Guarding::On,
            // kube-proxy serves no Service with this label.
            (Switch::Off, _) | (Switch::On, Some(_)) => Guarding::Off,
        };
        let node_name = node_name(source.node_name.as_deref())?;
        let namespace_percent = sizes.namespace_share;
        let sizes = dataplane_sizes(&sizes);
        Ok(Self {
            source: source_of(source, &node_name)?,
            policy: self::policy(&policy, node_name, health_check_ports(&health, policy.services))?,
            healthz: healthz(&health, policy.services),
            limits: TableLimits { namespace_percent, ..TableLimits::from(&sizes) },
            interfaces: InterfaceRules {
                workload: interfaces.workload_interfaces,
                uplink: interfaces.uplink_interfaces.unwrap_or(uplink_default),
            },
            dataplane: Settings {
                pin_path: pins.pin_path,
                sizes,
                timeouts: dataplane_timeouts(&timeouts),
                rejects_per_sec,
                monitor: monitor(observe.monitor),
                bpf_log: log_of_programs(observe.bpf_log)?,
                repair: match repair_evicted_flows {
                    Switch::On => Repair::On,
                    Switch::Off => Repair::Off,
                },
                sockets: match policy.socket_lb {
                    args::SocketLb::Off => SocketLb::Off,
                    args::SocketLb::Host => SocketLb::Host,
                    args::SocketLb::All => SocketLb::All,
                },
                attach: match interfaces.attach {
                    args::Attach::Auto => AttachBy::Auto,
                    args::Attach::Tcx => AttachBy::Tcx,
                    args::Attach::Clsact => AttachBy::Clsact,
                },
                xdp: interfaces.xdp.into(),
                snat_ports: match policy.forwarding {
                    args::Forwarding::Off => None,
                    args::Forwarding::Snat => Some(policy.snat_ports.0),
                },
            },
            times: Times {
                apply_interval: Duration::from_millis(timeouts.apply_interval_ms.into()),
                audit_interval: Duration::from_secs(timeouts.audit_secs.into()),
                gc_interval: Duration::from_secs(timeouts.gc_secs.into()),
                keep_unclaimed: Duration::from_secs(timeouts.keep_unclaimed_secs.into()),
            },
            guard,
            http: observe.http.http,
            metrics: published(&observe.metrics),
        })
    }
}

fn source_of(args: SourceArgs, node_name: &str) -> Result<Source, Error> {
    let flag = "--source";
    let claim = args.service_proxy_name.map_or(Claim::Unlabelled, Claim::Named);
    if args.source.eq_ignore_ascii_case("kube") {
        let (kubeconfig, node_name) = (args.kubeconfig, node_name.to_owned());
        return Ok(Source::Kube(KubeSettings { kubeconfig, node_name, claim, pace: Pace::default() }));
    }
    match args.source.strip_prefix("dir:") {
        Some("") => Err(Error::Invalid { flag, problem: "dir: without a folder, write dir:PATH".into() }),
        Some(path) => Ok(Source::Directory { path: path.into(), claim }),
        None => {
            let problem = format!("{:?} is not a source, write dir:PATH or kube", args.source);
            Err(Error::Invalid { flag, problem })
        }
    }
}

/// The given name, or the host name from the kernel; in lower case and trimmed, as kubelet and kube-proxy do.
fn node_name(given: Option<&str>) -> Result<String, Error> {
    let invalid = |problem| Error::Invalid { flag: "--node-name", problem };
    let name = match given {
        Some(name) => name.to_owned(),
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_err(|error| invalid(format!("the host name cannot be read ({error}), name the Node")))?,
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        return Err(invalid("the name is empty".into()));
    }
    // A host may have any name. If no Node has the host's name, a warning says so once the Nodes are known.
    if given.is_some() && !names::SUBDOMAIN.holds_for(&name) {
        return Err(invalid(format!("{name:?} is not a Node name, write {}", names::SUBDOMAIN.spelling)));
    }
    Ok(name)
}

fn policy(args: &PolicyArgs, node_name: String, health_checks: HealthCheckPorts) -> Result<Policy, Error> {
    let annotation = |text: &String| {
        text.parse::<AnnotationMatch>().map_err(|problem| Error::Invalid { flag: "--proxy-annotation", problem })
    };
    Ok(Policy {
        node_name,
        services: match args.services {
            Services::Lb => desired::Services::LoadBalancers,
            Services::All => desired::Services::All,
        },
        default_ip_mode: args.default_ip_mode.into(),
        external_ips: match args.external_ips {
            args::ExternalIps::Guarded => desired::ExternalIps::Guarded,
            args::ExternalIps::Any => desired::ExternalIps::Any,
            args::ExternalIps::Off => desired::ExternalIps::Off,
        },
        cluster_ranges: args.cluster_cidrs.clone(),
        proxy_annotations: args.proxy_annotation.iter().map(annotation).collect::<Result<_, _>>()?,
        vendor_annotations: match args.vendor_annotations {
            Switch::On => VendorAnnotations::Honoured,
            Switch::Off => VendorAnnotations::Ignored,
        },
        headers_from: match args.proxy_protocol {
            args::ProxyProtocol::Off => HeadersFrom::Nothing,
            args::ProxyProtocol::Annotation => HeadersFrom::Annotation,
            args::ProxyProtocol::Vendor => HeadersFrom::Vendor,
        },
        selection: selection(args)?,
        health_checks,
        node_ports: node_ports(&args.nodeport_addresses)?,
        forwarding: match args.forwarding {
            args::Forwarding::Off => desired::Forwarding::Off,
            args::Forwarding::Snat => desired::Forwarding::Snat,
        },
    })
}

/// One word, or prefixes.
fn node_ports(words: &[NodePortAddress]) -> Result<NodePortAddresses, Error> {
    match words {
        [NodePortAddress::Primary] => Ok(NodePortAddresses::Primary),
        [NodePortAddress::All] => Ok(NodePortAddresses::All),
        words => {
            let prefix = |word: &NodePortAddress| match word {
                NodePortAddress::In(prefix) => Ok(*prefix),
                NodePortAddress::Primary | NodePortAddress::All => Err(Error::Invalid {
                    flag: "--nodeport-addresses",
                    problem: "primary and all go with nothing else: write one of them, or prefixes".into(),
                }),
            };
            Ok(NodePortAddresses::In(words.iter().map(prefix).collect::<Result<_, _>>()?))
        }
    }
}

/// Beside kube-proxy, kube-proxy listens.
const fn health_check_ports(args: &HealthArgs, services: Services) -> HealthCheckPorts {
    match (args.health_check_node_ports, services) {
        (HealthCheckNodePorts::On, _) | (HealthCheckNodePorts::Auto, Services::All) => HealthCheckPorts::Served,
        (HealthCheckNodePorts::Off, _) | (HealthCheckNodePorts::Auto, Services::Lb) => HealthCheckPorts::Left,
    }
}

/// kube-proxy's address, unless a kube-proxy has it.
fn healthz(args: &HealthArgs, services: Services) -> Option<SocketAddr> {
    match (args.healthz, services) {
        (Some(Healthz::At(address)), _) => Some(address),
        (None, Services::All) => Some(([0, 0, 0, 0], 10256).into()),
        (Some(Healthz::Off), _) | (None, Services::Lb) => None,
    }
}

fn published(args: &MetricsArgs) -> Published {
    Published {
        place: match args.metrics {
            None => Place::BesideProbes,
            Some(MetricsAddress::At(address)) => Place::At(address),
            Some(MetricsAddress::Off) => Place::Nowhere,
        },
        service_ports_max: match args.service_metrics {
            Switch::On => Some(args.service_metrics_max as usize),
            Switch::Off => None,
        },
    }
}

fn selection(args: &PolicyArgs) -> Result<Selection, Error> {
    let (flag, slots) = ("--maglev-table-size", args.maglev_table_size);
    let no_prime = || Error::Invalid { flag, problem: format!("{slots} is not a prime") };
    Ok(Selection {
        algorithm: match args.lb_algorithm {
            args::Algorithm::Random => desired::Algorithm::Random,
            args::Algorithm::Maglev => desired::Algorithm::Maglev,
        },
        maglev_table_size: TableSize::new(slots).ok_or_else(no_prime)?,
    })
}

/// The limit of half-open flows, as a divisor of the flow table: a flow has two entries, and twice as many flows may
/// exist while old ones wait for their time-out.
const EMBRYOS_PART: u32 = 16;

fn dataplane_sizes(args: &SizeArgs) -> Sizes {
    Sizes {
        frontends_max: args.frontends_max,
        backends_max: args.backends_max,
        source_ranges_max: args.source_ranges_max,
        affinity_max: args.affinity_max,
        flows_max: args.flows_max,
        pod_flows_percent: args.pod_flows_percent,
        embryos_max: args.embryos_max.min(args.flows_max / EMBRYOS_PART).max(1),
        parked_max: args.parked_max,
        sockets_max: args.sockets_max,
    }
}

impl From<args::Xdp> for Xdp {
    fn from(xdp: args::Xdp) -> Self {
        match xdp {
            args::Xdp::Off => Self::Off,
            args::Xdp::Auto => Self::Auto,
            args::Xdp::Native => Self::Native,
            args::Xdp::Generic => Self::Generic,
        }
    }
}

/// Whether the programs tell what happens.
const fn monitor(switch: args::MonitorSwitch) -> Monitor {
    match switch {
        args::MonitorSwitch::Auto => Monitor::Auto,
        args::MonitorSwitch::On => Monitor::On,
        args::MonitorSwitch::Off => Monitor::Off,
    }
}

/// Whether the programs log packets.
fn log_of_programs(switch: Switch) -> Result<BpfLog, Error> {
    match switch {
        Switch::Off => Ok(BpfLog::Off),
        Switch::On if bpf_log::IS_BUILT => Ok(BpfLog::On),
        Switch::On => Err(Error::Invalid { flag: "--bpf-log", problem: bpf_log::REMEDY.to_owned() }),
    }
}

fn dataplane_timeouts(args: &TimeoutArgs) -> Timeouts {
    Timeouts {
        tcp_syn_secs: args.tcp_syn_secs,
        tcp_established_secs: args.tcp_established_secs,
        tcp_closing_secs: args.tcp_closing_secs,
        udp_secs: args.udp_secs,
    }
}

#[cfg(test)]
mod tests;
