//! `cargo xtask bench`: the cost of the dataplane, compared with plain routing and with kube-proxy's rules.
//!
//! Figures that are compared come from the same run, in turns, several times; medians and ranges are printed.
//! Everything shares one processor, so that a rate shows the cost of the work and not the scheduler's placement.

#![allow(clippy::cast_precision_loss, reason = "counts and nanoseconds are far below 2^52")]

mod control_plane;
mod driver;
mod figures;
mod floor;
mod forward;
mod header;
mod kube_proxy;
mod load;
mod network;
mod packet;
mod plot;
mod program;
mod ring;
mod rules;
mod table_size;
mod uplink;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use figures::Figure;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Measure the dataplane; needs root")]
struct Args {
    #[command(subcommand)]
    task: Option<Task>,
    /// Turns of every measurement; the figures are their medians
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// What to measure; the whole table takes some minutes
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// A kube-proxy: connections and bulk traffic are measured by its own rules (nftables mode) as well
    #[arg(long, value_name = "PATH")]
    kube_proxy: Option<PathBuf>,
    /// Folder for the table (.txt) and the plot (.svg)
    #[arg(long, global = true, default_value = "target/bench")]
    out: PathBuf,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Measure the agent on the Kubernetes API, from objects to the kernel's tables
    ControlPlane(control_plane::Args),
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    All,
    /// What a packet costs in the programs, by test-run.
    Programs,
    /// What a packet costs that is forwarded to another node, by test-run.
    Forward,
    /// What a packet costs from its driver on, in XDP, tc and nftables, by frames of test-run.
    Driver,
    /// What they cost under live traffic, as the kernel clocks it.
    Live,
    /// Connections and bulk traffic.
    Network,
    /// Connections of sockets that are translated when they dial.
    Sockets,
    /// Connections and bulk traffic of a client in the network.
    Uplinks,
    /// Connections to a backend that requires a PROXY header: by the shortcut, and through haproxy.
    Header,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (name, figures) = match &args.task {
        Some(Task::ControlPlane(args)) => ("control-plane", control_plane::measure(args)?),
        None => ("bench", dataplane(&args)?),
    };
    let table = figures::table(&figures);
    print!("\n{table}");
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    std::fs::write(args.out.join(name).with_extension("txt"), &table)?;
    let picture = args.out.join(name).with_extension("svg");
    plot::svg(&picture, &figures)?;
    println!("\nplot: {}", picture.display());
    Ok(())
}

fn dataplane(args: &Args) -> Result<Vec<Figure>> {
    stay_on_last_processor()?;
    let mut figures: Vec<Figure> = Vec::new();
    if matches!(args.part, Part::All | Part::Programs) {
        println!("programs: {} rounds of test-run", args.rounds);
        figures.extend(program::measure(args.rounds)?);
        println!("flow tables: {} rounds of test-run", args.rounds);
        figures.extend(table_size::measure(args.rounds)?);
    }
    if matches!(args.part, Part::All | Part::Forward) {
        println!("forwarding: {} rounds of test-run", args.rounds);
        figures.extend(forward::measure(args.rounds)?);
    }
    if matches!(args.part, Part::All | Part::Driver) {
        figures.extend(driver::measure(args.rounds)?);
    }
    if matches!(args.part, Part::All | Part::Sockets) {
        figures.extend(network::sockets(args.rounds)?);
    }
    if matches!(args.part, Part::All | Part::Uplinks) {
        figures.extend(uplink::measure(args.rounds, args.kube_proxy.as_deref())?);
    }
    if matches!(args.part, Part::All | Part::Header) {
        figures.extend(header::measure(args.rounds)?);
    }
    match args.part {
        Part::All | Part::Network => figures.extend(network::measure(args.rounds, args.kube_proxy.as_deref())?),
        Part::Live => figures.extend(network::live(args.rounds)?),
        Part::Programs | Part::Forward | Part::Driver | Part::Sockets | Part::Uplinks | Part::Header => {}
    }
    Ok(figures)
}

/// Keeps this thread, and all threads and processes that it starts, on one processor: the last, because the first
/// serves most interrupts.
fn stay_on_last_processor() -> Result<()> {
    let own = Pid::from_raw(0);
    let allowed = sched_getaffinity(own)?;
    let last = (0..CpuSet::count()).rev().find(|processor| allowed.is_set(*processor).unwrap_or(false));
    let mut only = CpuSet::new();
    only.set(last.context("a running program is allowed on some processor")?)?;
    Ok(sched_setaffinity(own, &only)?)
}
