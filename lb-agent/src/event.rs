//! What `lb-agent monitor` prints: one event, as a line for people and as JSON.

mod filter;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use lb_common::table::{Counter, Told};
use schemars::JsonSchema;
use serde::Serialize;

use crate::render::Item;

pub use filter::Reason;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Event {
    /// When it happened, RFC 3339.
    pub time: String,
    pub event: EventKind,
    /// The counter of the packet (`lb-agent show counters`), or what has changed.
    pub reason: String,
    pub proto: &'static str,
    /// The sender of the packet. A socket of the node has no address yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Where the packet was sent to, or the address of the frontend that has changed.
    pub address: SocketAddr,
    /// The backend that the connection got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<SocketAddr>,
    /// `shop/web:http`. Known only while an agent runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Where the client is: `uplink`, `(sockets)` for processes of the node, or the interface of a pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The length of the packet; 0 for a dial.
    pub bytes: u32,
    /// What has changed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A packet was dropped, or a dial failed without an answer.
    Drop,
    /// A packet was answered with an ICMP error, or a dial was refused.
    Reject,
    /// A connection got a backend.
    Flow,
    /// A connection was left alone, to the external balancer or the stack.
    Pass,
    /// A frontend came, went, or changed its mode or what its clients get.
    Change,
}

impl EventKind {
    /// The word in the output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Flow => "flow",
            Self::Pass => "pass",
            Self::Change => "change",
        }
    }
}

/// Events that were not told: too many in a second, or the reader was too slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lost {
    pub time: String,
    pub events: u64,
}

impl Item for Lost {
    const KIND: &'static str = "LostEvents";
}

impl Item for Event {
    const KIND: &'static str = "Event";
}

/// The kind of event that a counter is; `None` if the programs do not tell of it.
pub const fn kind(counter: Counter) -> Option<EventKind> {
    Some(match counter {
        Counter::FlowCreated | Counter::FlowRepaired | Counter::SocketTranslated => EventKind::Flow,
        Counter::PassedProxy | Counter::PassedNoRoute => EventKind::Pass,
        Counter::Rejected | Counter::SocketRefused | Counter::TooLong | Counter::HopsExceeded => EventKind::Reject,
        Counter::DropRejectLimit
        | Counter::DropNoLocalEndpoint
        | Counter::DropNoBackend
        | Counter::DropNoPort
        | Counter::DropFlowTable
        | Counter::DropSourceRange
        | Counter::DropEdgeFlows
        | Counter::DropNoRoute
        | Counter::DropHeaderForged
        | Counter::DropHeaderLost => EventKind::Drop,
        Counter::RequestTranslated
        | Counter::ReplyTranslated
        | Counter::PassedFragment
        | Counter::DropRewrite
        | Counter::DropRedirect
        | Counter::IcmpTranslated
        | Counter::DirectNoted
        | Counter::FlowCollected
        | Counter::EmbryoEvicted
        | Counter::FragmentTranslated
        | Counter::DropFragment
        | Counter::FragmentParked
        | Counter::FragmentReplayed
        | Counter::DropParked
        | Counter::EdgeFlowEvicted
        | Counter::HeaderSent
        | Counter::HeaderAcknowledged
        | Counter::InDriver
        | Counter::Forwarded => return None,
    })
}

/// What a record of the programs names by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub time: String,
    pub service: Option<String>,
    pub interface: String,
}

impl Event {
    /// The event of a record; `None` if this version does not know its reason.
    pub fn of(told: &Told, names: Names) -> Option<Self> {
        let counter = *Counter::ALL.iter().find(|counter| **counter as u32 == told.reason)?;
        let addr = |bytes: [u8; 16]| {
            let [a, b, c, d, ..] = bytes;
            if told.version == 4 { IpAddr::from([a, b, c, d]) } else { IpAddr::from(bytes) }
        };
        let client = SocketAddr::new(addr(told.src), told.sport);
        let backend = SocketAddr::new(addr(told.backend), told.backend_port);
        let Names { time, service, interface } = names;
        Some(Self {
            time,
            event: kind(counter)?,
            reason: counter.name().to_owned(),
            proto: told.proto.name(),
            client: (!client.ip().is_unspecified()).then_some(client),
            address: SocketAddr::new(addr(told.dst), told.dport),
            backend: (!backend.ip().is_unspecified()).then_some(backend),
            service,
            interface: Some(interface),
            bytes: told.bytes,
            detail: None,
        })
    }

    /// The titles over [`Self::line`].
    pub fn titles() -> String {
        columns(["TIME", "EVENT", "REASON", "PROTO", "CLIENT", "ADDRESS", "BACKEND", "SERVICE", "INTERFACE"])
    }

    /// The event in columns that are wide enough for most.
    pub fn line(&self) -> String {
        let known = |at: Option<SocketAddr>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let (client, address, backend) = (known(self.client), self.address.to_string(), known(self.backend));
        let mut line = columns([
            &self.time,
            self.event.name(),
            &self.reason,
            self.proto,
            &client,
            &address,
            &backend,
            self.service.as_deref().unwrap_or("?"),
            self.interface.as_deref().unwrap_or("-"),
        ]);
        if let Some(detail) = &self.detail {
            line.push_str("  ");
            line.push_str(detail);
        }
        line
    }
}

/// Cells in columns. Longer ones push the rest to the right.
fn columns(cells: [&str; 9]) -> String {
    const WIDTHS: [usize; 9] = [24, 6, 22, 5, 21, 21, 21, 20, 0];
    let mut line = String::new();
    for (cell, width) in cells.into_iter().zip(WIDTHS) {
        let space = if line.is_empty() { "" } else { "  " };
        // Writing to a string does not fail.
        let _ = write!(line, "{space}{cell:width$}");
    }
    line
}

#[cfg(test)]
mod tests;
