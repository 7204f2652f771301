//! An answer, as it is printed.

use std::net::SocketAddr;

use serde::Serialize;

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub from: String,
    pub to: String,
    pub decision: Decision,
    /// What happens to a packet that opens a connection, in one sentence.
    pub sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend: Option<FrontendFacts>,
    /// Where a packet may go, where the decision is `balance`.
    pub backends: Vec<SocketAddr>,
    /// The source that replies get back, where the decision is `balance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<SocketAddr>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Nobody looks at it, or nothing is known of its destination.
    NotOurs,
    /// A frontend says that it is left to the balancer or the stack.
    Pass,
    Balance,
    Reject,
    Drop,
}

/// The frontend that the packet meets.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FrontendFacts {
    pub id: u32,
    /// `shop/web:http`, where an agent tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// `-` where it is no load balancer's address.
    pub mode: String,
    /// Which rule decided the mode, or who gets what where there is none.
    pub decided_by: &'static str,
    /// The annotation or label that decided, where one did and an agent tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deciding_key: Option<String>,
    /// Which field of the Service the address comes from.
    pub origin: &'static str,
    pub state: String,
    /// Which of the three scopes applies, and what it says.
    pub scope: String,
}
