//! Tasks that are programs of the tests package: prepares the machine, builds the program, and passes the rest of the
//! command line to it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine;
use crate::setup;
use crate::workspace;

/// What is passed on.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Passed to the program; --help lists its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the program `name` with the rest of the command line, and fails if the program fails.
pub fn run(name: &str, profile: Profile, args: &Args) -> Result<()> {
    let program = prepare(name, profile)?;
    let done = command(&program).args(&args.arguments).status()?;
    if !done.success() {
        bail!("the {name} failed ({done})");
    }
    Ok(())
}

/// How the host's programs are compiled. The kernel's programs are always optimised.
#[derive(Clone, Copy)]
pub enum Profile {
    /// Shared with the tests, which saves a second build when speed is not measured.
    Debug,
    /// As released.
    Release,
}

impl Profile {
    /// The profile's name for cargo, and its folder below the target folder.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Debug => ("dev", "debug"),
            Self::Release => ("release", "release"),
        }
    }
}

/// Prepares the machine, and builds the program `name` with the agent beside it.
pub fn prepare(name: &str, profile: Profile) -> Result<PathBuf> {
    if !machine::is_root() {
        bail!("{name} loads BPF programs: run this as root");
    }
    if let Some(lack) = machine::kernel_lacks() {
        bail!("{name} cannot run here: {lack}");
    }
    build(name, profile)
}

/// Builds the program `name` with the agent beside it, also where this machine cannot run it.
pub fn build(name: &str, profile: Profile) -> Result<PathBuf> {
    setup::ensure()?;
    let (profile, folder) = profile.names();
    let built = workspace::cargo()
        // The whole workspace, as for the tests: a part of it would select other features.
        .args(["build", "--profile", profile, "--workspace", "--exclude", "lb-ebpf"])
        .args(["--bin", "lb-agent", "--bin", name])
        .status()?;
    if !built.success() {
        bail!("the build failed");
    }
    Ok(workspace::target().join(folder).join(name))
}

/// A program that was built, started at the top of the source tree.
pub fn command(program: &std::path::Path) -> Command {
    workspace::program(&program.to_string_lossy())
}
