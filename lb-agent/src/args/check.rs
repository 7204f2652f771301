//! The arguments of `check`: settings of `run` that it tries.

use std::path::PathBuf;

use clap::Args;

use super::values::healthz;
use super::{AskArgs, Healthz, Output, PinArgs};
use crate::interfaces::Globs;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Also try this source: that the folder can be read, or that the API server answers and lets us list and watch the
    /// three kinds.
    #[arg(long, value_name = "kube|dir:PATH", env = "LB_AGENT_SOURCE")]
    pub source: Option<String>,

    /// Credentials for --source=kube; in-cluster configuration when absent.
    #[arg(long, value_name = "PATH", env = "LB_AGENT_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of this node, for --source=kube [default: the host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// The interfaces of pods, as `run` gets them.
    #[arg(long, value_name = "GLOBS|auto", env = "LB_AGENT_WORKLOAD_INTERFACES", default_value = "auto")]
    pub workload_interfaces: Globs,

    /// The interfaces towards the network, as `run` gets them.
    #[arg(long, value_name = "GLOBS|auto|none", env = "LB_AGENT_UPLINK_INTERFACES", default_value = "auto")]
    pub uplink_interfaces: Globs,

    /// Also look whether this address for /healthz is free, or the agent's.
    #[arg(long, value_name = "ADDRESS:PORT|off", env = "LB_AGENT_HEALTHZ", value_parser = healthz)]
    pub healthz: Option<Healthz>,

    /// How to print it.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = Output::Table)]
    pub output: Output,

    #[command(flatten)]
    pub pins: PinArgs,

    #[command(flatten)]
    pub http: AskArgs,
}
