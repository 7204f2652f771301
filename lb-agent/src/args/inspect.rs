//! The flags of commands that look at the dataplane.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::{IpMode, Output, PinArgs, values};
use crate::filter::{AddressPattern, ServiceName};
use crate::model::Prefix;
use crate::question::{Dialled, Said};

#[derive(Debug, Args)]
pub struct AskArgs {
    /// Where the running agent listens. Warnings and names of Services come from the agent; everything else is read
    /// from the pins.
    #[arg(long, value_name = "ADDRESS:PORT", env = "LB_AGENT_HTTP", default_value = "127.0.0.1:10356")]
    pub http: SocketAddr,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// What to print.
    #[arg(value_enum, ignore_case = true)]
    pub subject: Subject,

    /// How to print it.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = Output::Table)]
    pub output: Output,

    /// Print it again every so many seconds (2 if no number is given), until interrupted. JSON is then one document per
    /// line.
    #[arg(long, value_name = "SECS", num_args = 0..=1, require_equals = true, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,

    #[command(flatten)]
    pub filter: FilterArgs,

    #[command(flatten)]
    pub pins: PinArgs,

    #[command(flatten)]
    pub http: AskArgs,
}

// Which rows are printed: those that pass all filters. A doc comment here would describe the subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Rows of this Service, or of one of its ports.
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]")]
    pub service: Option<ServiceName>,

    /// Rows about this address that clients dial; of drops, the destination.
    #[arg(long, value_name = "IP[:PORT]")]
    pub address: Option<AddressPattern>,

    /// Rows about this client or range of clients; of drops, the source.
    #[arg(long, value_name = "IP|CIDR", value_parser = values::client)]
    pub client: Option<Prefix>,

    /// Frontends in this mode.
    #[arg(long, value_enum, ignore_case = true)]
    pub mode: Option<IpMode>,

    /// Rows about this interface.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The client: an IP, of which this node's routes, interfaces and the running agent tell whose it is: a pod of this
    /// node, the node itself (and pods with hostNetwork), a pod of another node, or a client in the network. `pod[:IP]`,
    /// `host` and `external[:IP]` say it; if that is not what is found, the answer says so.
    #[arg(long, value_name = "IP|pod[:IP]|host|external[:IP]")]
    pub from: Said,

    /// The destination: 192.0.2.1:80/tcp, [2001:db8::1]:53/udp; 192.0.2.1/icmp for an echo request; shop/web, shop/web:https
    /// or shop/web:443 for each address of a Service, which needs a running agent.
    #[arg(long, value_name = "IP:PORT/tcp|udp|sctp, IP/icmp or NAMESPACE/NAME[:PORT]")]
    pub to: Dialled,

    /// How to print it.
    #[arg(short, long, value_enum, ignore_case = true, default_value_t = Output::Table)]
    pub output: Output,

    #[command(flatten)]
    pub pins: PinArgs,

    #[command(flatten)]
    pub http: AskArgs,
}

/// A subject of `show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// What clients dial, the mode and the rule that decided it, what each kind of client gets, and traffic so far.
    Frontends,
    /// The backends behind the frontends.
    Pools,
    /// The source ranges from which clients may dial frontends.
    SourceRanges,
    /// Connections that are being translated.
    Flows,
    /// Packets and bytes by outcome.
    Counters,
    /// The last packet that was refused, rejected or dropped, for each reason.
    Drops,
    /// Where programs are attached; asks the running agent for the reasons.
    Interfaces,
    /// The addresses that the guard's nftables table keeps kube-proxy off, and for which clients.
    Guard,
    /// Warnings about objects and this node, with remedies; asks the running agent.
    Warnings,
}
