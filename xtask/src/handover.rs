//! Tasks that are programs of the tests package: the machine is prepared, the program built, and run with what was
//! given on the command line.

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
    /// Passed to the program; --help says what it takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the program `name` with the rest of the command line; its failure is ours.
pub fn run(name: &str, profile: Profile, args: &Args) -> Result<()> {
    let program = prepare(name, profile)?;
    let done = command(&program).args(&args.arguments).status()?;
    if !done.success() {
        bail!("the {name} failed ({done})");
    }
    Ok(())
}

/// How the programs of the host are compiled; those of the kernel are always optimised.
#[derive(Clone, Copy)]
pub enum Profile {
    /// Shared with the tests: no second build where speed is not what is shown.
    Debug,
    /// As it is shipped.
    Release,
}

impl Profile {
    /// The name for cargo, and the folder below the target folder.
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
    setup::ensure()?;
    let (profile, folder) = profile.names();
    let built = workspace::cargo()
        // The whole workspace, as the tests are built: other packages would be another set of features.
        .args(["build", "--profile", profile, "--workspace", "--exclude", "lb-ebpf"])
        .args(["--bin", "lb-agent", "--bin", name])
        .status()?;
    if !built.success() {
        bail!("the build failed");
    }
    Ok(workspace::target().join(folder).join(name))
}

/// A program that was built, started where the tasks are.
pub fn command(program: &std::path::Path) -> Command {
    workspace::program(&program.to_string_lossy())
}
