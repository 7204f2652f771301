//! The arguments of `man`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "To read it: lb-agent man | man -l -")]
pub struct ManArgs {
    /// Write a page for lb-agent and for each subcommand into this folder, which must exist.
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}
