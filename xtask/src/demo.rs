//! `cargo xtask demo`: prepares the machine, builds, and hands over to the demo itself.

use anyhow::{Result, bail};

use crate::machine;
use crate::setup;
use crate::workspace;

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Passed to the demo: --break STEP sabotages a step, --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the demo; its failure is ours.
pub fn run(args: &Args) -> Result<()> {
    if !machine::is_root() {
        bail!("the demo makes network namespaces and loads BPF programs: run it as root");
    }
    if let Some(lack) = machine::kernel_lacks() {
        bail!("the demo cannot run here: {lack}");
    }
    setup::ensure()?;
    println!("building");
    let built = workspace::cargo()
        .args(["build", "--release", "--package", "lb-agent", "--package", "lb-tests", "--bins"])
        .status()?;
    if !built.success() {
        bail!("the build failed");
    }
    let demo = workspace::target().join("release/demo");
    let done = workspace::program(&demo.to_string_lossy()).args(&args.arguments).status()?;
    if !done.success() {
        bail!("the demo failed ({done})");
    }
    Ok(())
}
