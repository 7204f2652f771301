//! The flags of `monitor`.

use clap::{Args, ValueEnum};

use super::{AskArgs, PinArgs, values};
use crate::event::{EventKind, Reason};
use crate::filter::{AddressPattern, ServiceName};
use crate::model::Prefix;

#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// Events per second that the programs tell at most. Further ones are counted as lost.
    #[arg(long, value_name = "EVENTS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub events_per_sec: u32,

    /// End after so many events.
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,

    /// How to print it; json prints an object a line.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = StreamOutput::Table)]
    pub output: StreamOutput,

    #[command(flatten)]
    pub filters: EventFilterArgs,

    #[command(flatten)]
    pub pins: PinArgs,

    #[command(flatten)]
    pub http: AskArgs,
}

/// Which events are printed. The lost ones are always told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters: an event is printed if it is of one of the values of each filter")]
pub struct EventFilterArgs {
    /// Events of a Service; the running agent knows the names.
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]")]
    pub service: Vec<ServiceName>,

    /// Packets from a client.
    #[arg(long, value_name = "IP|CIDR", value_parser = values::client)]
    pub client: Vec<Prefix>,

    /// Packets to an address.
    #[arg(long, value_name = "IP[:PORT]")]
    pub address: Vec<AddressPattern>,

    /// Kinds of events.
    #[arg(long, value_enum, ignore_case = true, value_delimiter = ',')]
    pub kind: Vec<EventKind>,

    /// Reasons, by the names in `show counters`, such as drop_source_range.
    #[arg(long, value_name = "REASON", value_delimiter = ',')]
    pub reason: Vec<Reason>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamOutput {
    /// Columns.
    Table,
    /// A document a line: docs/reference/json.md.
    Json,
}
