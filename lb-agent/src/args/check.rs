//! The arguments of `check`: settings of `run` that it tries.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum as _};

use super::values::healthz;
use super::{AskArgs, Healthz, Output, PinArgs, Xdp};
use crate::interfaces::Globs;

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Also try this source: that the folder can be read, or that the API server answers and lets us list and watch the
    /// three kinds [default: that of the running agent on these pins; none without one].
    #[arg(long, value_name = "kube|dir:PATH", env = "LB_AGENT_SOURCE")]
    pub source: Option<String>,

    /// Credentials for --source=kube; those of the running agent, or in-cluster configuration, when absent.
    #[arg(long, value_name = "PATH", env = "LB_AGENT_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Name of this node, for --source=kube [default: that of the running agent, else the host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// The interfaces of pods, as `run` gets them [default: those of the running agent, else auto].
    #[arg(long, value_name = "GLOBS|auto", env = "LB_AGENT_WORKLOAD_INTERFACES")]
    pub workload_interfaces: Option<Globs>,

    /// The interfaces towards the network, as `run` gets them [default: those of the running agent, else auto].
    #[arg(long, value_name = "GLOBS|auto|none", env = "LB_AGENT_UPLINK_INTERFACES")]
    pub uplink_interfaces: Option<Globs>,

    /// Whether drivers run a program, as `run` gets it [default: that of the running agent, else off].
    #[arg(long, value_enum, ignore_case = true, env = "LB_AGENT_XDP")]
    pub xdp: Option<Xdp>,

    /// Also look whether this address for /healthz is free, or the agent's [default: that of the running agent].
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

impl CheckArgs {
    /// Takes what is not given from the settings of a running agent. Returns the names of these.
    pub fn fill_in(&mut self, settings: &BTreeMap<String, String>) -> Vec<&'static str> {
        let mut taken = Vec::new();
        // Credentials belong to a source.
        if self.source.is_none() {
            fill(&mut taken, settings, ("source", &mut self.source), |text| Some(text.to_owned()));
            fill(&mut taken, settings, ("kubeconfig", &mut self.kubeconfig), |text| Some(text.into()));
        }
        fill(&mut taken, settings, ("node-name", &mut self.node_name), |text| Some(text.to_owned()));
        let globs = |text: &str| text.parse().ok();
        fill(&mut taken, settings, ("workload-interfaces", &mut self.workload_interfaces), globs);
        fill(&mut taken, settings, ("uplink-interfaces", &mut self.uplink_interfaces), globs);
        fill(&mut taken, settings, ("xdp", &mut self.xdp), |text| Xdp::from_str(text, true).ok());
        fill(&mut taken, settings, ("healthz", &mut self.healthz), |text| healthz(text).ok());
        taken
    }
}

fn fill<T>(
    taken: &mut Vec<&'static str>,
    settings: &BTreeMap<String, String>,
    (key, value): (&'static str, &mut Option<T>),
    read: impl Fn(&str) -> Option<T>,
) {
    if value.is_none() {
        *value = settings.get(key).and_then(|text| read(text));
        taken.extend(value.is_some().then_some(key));
    }
}
