//! The arguments of `bundle`.

use std::path::PathBuf;

use clap::Args;

use super::{AskArgs, PinArgs};

#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The file to write, which must not exist; - is standard output [default: lb-agent-bundle-TIME.tar.gz here].
    #[arg(short, long, value_name = "FILE.tar.gz")]
    pub output: Option<PathBuf>,

    /// Replace addresses, and names of Services and of the node, by others: each by the same one throughout. Names in
    /// other places (interfaces, file names) stay.
    #[arg(long)]
    pub redact: bool,

    #[command(flatten)]
    pub pins: PinArgs,

    #[command(flatten)]
    pub http: AskArgs,
}
