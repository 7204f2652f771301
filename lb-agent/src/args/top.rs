//! The flags of `top`.

use clap::Args;

use super::{AskArgs, PinArgs};

#[derive(Debug, Args)]
pub struct TopArgs {
    /// Seconds between two readings.
    #[arg(long, value_name = "SECS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub interval_secs: u64,

    #[command(flatten)]
    pub pins: PinArgs,

    #[command(flatten)]
    pub http: AskArgs,
}
