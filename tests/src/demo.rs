//! The demo: the failure that users report with balancers that speak PROXY protocol, and its cure.
//!
//! Verdicts come from curl's exit code, haproxy's statistics and nginx's log, never from counters of the agent.

mod acts;
mod checks;
mod nodes;
mod report;
mod stage;

use std::time::Instant;

use clap::ValueEnum;
use nix::unistd::Uid;

use report::Report;
pub use report::Verdict;
use stage::Stage;

/// A step of the story, by its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Step {
    /// ipMode: VIP, and the failure that users report
    A,
    /// The status edited to Proxy: cured
    B,
    /// The annotation for a PROXY header: the shortcut again, and the node adds the header
    C,
    /// A plain Service in VIP mode
    D,
    /// Two Services on one address
    E,
    /// What the tools show
    F,
    /// A client outside, and a node without the pod
    G,
    /// A process of a node
    H,
}

/// Fails with the requirement that this machine does not meet.
pub fn requirements() -> anyhow::Result<()> {
    if !Uid::effective().is_root() {
        anyhow::bail!("the demo makes network namespaces and loads BPF programs: run it as root");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in ["ip", "curl", "nginx", "haproxy", "bpftool"] {
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            anyhow::bail!("{program} is not installed: run cargo xtask setup");
        }
    }
    Ok(())
}

/// Runs all steps, a sabotaged one included, and reports the result.
pub fn run(sabotage: Option<Step>) -> Verdict {
    let started = Instant::now();
    let mut report = Report::new(sabotage);
    report.introduce();
    let stage = Stage::set(sabotage);
    acts::shortcut(&stage, &mut report);
    acts::cure(&stage, &mut report, sabotage);
    acts::header(&stage, &mut report, sabotage);
    acts::plain(&stage, &mut report);
    acts::neighbours(&stage, &mut report);
    acts::tools(&stage, &mut report, sabotage);
    drop(stage);
    report.introduce_nodes();
    nodes::across(&mut report, sabotage);
    report.conclude(started.elapsed())
}
