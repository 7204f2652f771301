//! The command line, raw: every flag with its unit, its default and what it costs. Parsing has no effect.
//!
//! This is the only reader of the arguments and of the environment. [`crate::config`] makes sense of the values.

mod bundle;
mod check;
mod completion;
mod inspect;
mod layers;
mod man;
mod monitor;
mod numbers;
mod policy;
mod port_range;
mod run;
mod settings;
mod sizes;
mod top;
mod unload;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::version;
pub use bundle::BundleArgs;
pub use check::CheckArgs;
pub use completion::CompletionArgs;
pub use inspect::{AskArgs, ExplainArgs, FilterArgs, ShowArgs, Subject};
pub use layers::{Error, Mistake};
pub use man::ManArgs;
pub use monitor::{EventFilterArgs, MonitorArgs, StreamOutput};
pub use policy::{Algorithm, ExternalIps, Forwarding, IpMode, PolicyArgs, ProxyProtocol, Services, SocketLb};
pub use port_range::PortRange;
pub use run::{
    Attach, ConfigArgs, HealthArgs, HealthCheckNodePorts, HttpArgs, InterfaceArgs, LogFormat, MetricsArgs,
    MonitorSwitch, ObserveArgs, RunArgs, SourceArgs, Xdp,
};
pub use settings::{Origin, Setting, Settings};
pub use sizes::{SizeArgs, TimeoutArgs};
pub use top::TopArgs;
pub use unload::UnloadArgs;
pub use values::{Healthz, MetricsAddress, NodePortAddress};

/// Service load balancing for Kubernetes nodes in eBPF: decides per address, port and protocol whether a
/// load-balancer IP is shortcut to a pod (ipMode VIP) or left to the balancer (ipMode Proxy).
#[derive(Debug, Parser)]
// The last one of a flag counts: wrappers append to what they are given.
#[command(name = "lb-agent", version = version::short(), long_version = version::long(), max_term_width = 110, args_override_self = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 failed, 2 bad arguments. Each flag of `run` can also be given by the environment \
    (LB_AGENT_UDP_SECS for --udp-secs) and by a file (--config)."
)]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,
}

/// Reads the arguments, and for `run` the environment and the file that is named.
pub fn parse() -> Result<(Command, Settings), Error> {
    let (line, settings) = layers::parse::<CommandLine>(std::env::args_os(), std::env::vars_os().collect())?;
    Ok((line.command, settings))
}

/// The variables of the environment that concern lb-agent.
pub fn environment() -> Vec<(String, String)> {
    layers::ours(std::env::vars_os().collect())
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Program this node and keep it in step with the source.
    Run(Box<RunArgs>),
    /// Print what the dataplane holds; works from the pins, also when no agent runs.
    Show(ShowArgs),
    /// Show the traffic of each Service live, on the whole terminal.
    Top(TopArgs),
    /// Say what would happen to a packet, and which rule decided.
    Explain(ExplainArgs),
    /// Print drops, rejects, new flows, connections that are left alone, and changes of frontends, as they happen. The
    /// programs tell only while this runs, so a running agent is needed (--monitor).
    Monitor(Box<MonitorArgs>),
    /// Check whether this machine has what lb-agent needs. Changes nothing.
    Check(Box<CheckArgs>),
    /// Remove programs, links and pins.
    Unload(UnloadArgs),
    /// Collect what a report of a fault needs into an archive, without secrets.
    Bundle(BundleArgs),
    /// Print the completion for a shell.
    Completion(CompletionArgs),
    /// Print the manual page, or write one for each subcommand.
    Man(ManArgs),
}

/// The heading of flags about what the kernel holds.
const DATAPLANE: &str = "Dataplane";

#[derive(Debug, Args)]
#[command(next_help_heading = DATAPLANE)]
pub struct PinArgs {
    /// Folder on a BPF file system for maps and links. The agent makes the folder if it is absent (mode 0700), and
    /// mounts bpffs if necessary. The folder must belong to root. Neither this folder nor one above it may be a link or
    /// writable by others.
    #[arg(long, value_name = "PATH", env = "LB_AGENT_PIN_PATH", default_value = "/sys/fs/bpf/lb-agent")]
    pub pin_path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// What a person needs; on a terminal, what fits.
    Table,
    /// All columns.
    Wide,
    /// One document: docs/reference/json.md.
    Json,
    /// The same as YAML.
    Yaml,
}

#[cfg(test)]
mod tests;
