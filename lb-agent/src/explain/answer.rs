//! The answer to a question, as it is printed.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::rival::Aftermath;
use super::sender::Sending;
use crate::render::Item;

/// The answer.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Explanation {
    pub from: String,
    /// The sender, field by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sending>,
    pub to: String,
    pub decision: Decision,
    /// In one sentence: what happens to the first packet of a connection.
    pub sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend: Option<FrontendFacts>,
    /// The possible backends, if the decision is `balance`.
    pub backends: Vec<SocketAddr>,
    /// The source that replies get, if the decision is `balance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<SocketAddr>,
    pub netfilter: Netfilter,
    /// What a kube-proxy on this node does with a packet that is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_proxy: Option<Aftermath>,
    /// Where this node's routes bring a packet that is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// No agent answers, so the tables are as old as this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen: Option<Frozen>,
    /// Further remarks.
    pub notes: Vec<String>,
}

impl Item for Explanation {
    const KIND: &'static str = "Explanation";
}

/// What happens to the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// No hook sees the packet, or no frontend has its destination.
    #[default]
    NotOurs,
    /// The frontend leaves the packet to the balancer or to the stack.
    Pass,
    Balance,
    Reject,
    Drop,
}

/// What netfilter and conntrack of this node see of the packet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Netfilter {
    pub sees: Sight,
    pub sentence: String,
}

/// How netfilter sees a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// As the client sent it.
    #[default]
    Unchanged,
    /// With the backend's address and port as its destination.
    Translated,
    Never,
}

/// Since when no agent has looked after the tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Frozen {
    /// Since its last walk over the flows. `None`: none has walked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_secs: Option<u64>,
    /// The time of that walk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    pub sentence: String,
}

/// The frontend of the packet's destination.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FrontendFacts {
    pub frontend_id: u32,
    /// `shop/web:http`, if a running agent knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only a load balancer's address has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The PROXY header that connections of this client begin with: `v1` or `v2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<&'static str>,
    /// The rule that decided the mode. Without a mode, the rule that decided which clients are served.
    pub decided_by: &'static str,
    /// The annotation or label that decided, if there was one and a running agent knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deciding_key: Option<String>,
    /// The field of the Service that holds the address.
    pub origin: &'static str,
    pub state: String,
    /// The scope that applies, and its action.
    pub scope: String,
}
