//! The arguments of `unload`.

use std::time::Duration;

use clap::Args;

use super::{PinArgs, numbers};

#[derive(Debug, Args)]
pub struct UnloadArgs {
    /// List what would be removed. Changes nothing, and needs no agent to have ended.
    #[arg(long)]
    pub dry_run: bool,

    /// Wait for the agent that uses the pins to end: so many seconds (90s, 5m), or for as long as it takes. Without this
    /// flag, `unload` fails while an agent runs.
    #[arg(
        long, value_name = "SECS", num_args = 0..=1, require_equals = true,
        value_parser = numbers::seconds(0..=315_360_000)
    )]
    #[allow(clippy::option_option, reason = "clap's way to say a flag whose value may be absent")]
    pub wait: Option<Option<u32>>,

    #[command(flatten)]
    pub pins: PinArgs,
}

impl UnloadArgs {
    /// Whether to wait, and for how long at most.
    pub fn patience(&self) -> Option<Option<Duration>> {
        self.wait.map(|secs| secs.map(|secs| Duration::from_secs(secs.into())))
    }
}
