//! From a question and the tables to an answer a person can read.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Addr;
use lb_common::table::{
    Action, Backend, Direction, Flow, FlowKey, Frontend, FrontendKey, FrontendState, Mode, Origin, PoolKey, Scope,
    ScopeFlags, Scopes, SourceRangeKey,
};
use serde::Serialize;

use super::{Caller, Destination};
use crate::ask::Services;
use crate::dataplane::pins::FlowRows;
use crate::dataplane::{FamilyTables, Tables};
use crate::family::TableAddr;
use crate::model::{Warning, WarningKind};
use crate::printable::printable;
use crate::render::{ScopeRow, algorithm, mode, rule};

/// Warnings that an answer repeats.
const WARNINGS_MAX: usize = 5;

/// What the answer is drawn from.
pub struct Facts {
    pub tables: Tables,
    /// What an agent knows of Services, by their id in the tables; empty where none tells.
    pub services: Services,
    pub flows4: FlowRows<[u8; 4]>,
    pub flows6: FlowRows<[u8; 16]>,
    /// Whether the destination is an address of this node itself.
    pub is_local: bool,
    /// What a running agent warns of.
    pub warnings: Vec<Warning>,
    /// Interfaces that are wanted and cannot be attached, and why, where an agent tells.
    pub refused: Vec<String>,
    /// Whether programs are attached to any interface of a pod.
    pub has_workloads: bool,
    /// Whether programs are attached to any interface towards the network.
    pub has_uplinks: bool,
}

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

impl FrontendFacts {
    /// The key, where the rule is not the key itself.
    fn key_in_brackets(&self) -> String {
        let key = self.deciding_key.as_deref().filter(|key| *key != self.decided_by);
        key.map(|key| format!(" ({key})")).unwrap_or_default()
    }
}

/// Answers a question about the first packet of a connection.
pub fn explain(from: &Caller, to: &Destination, facts: &Facts) -> Explanation {
    match to.addr {
        IpAddr::V4(addr) => explain_in(from, to, addr.octets(), facts, &facts.flows4),
        IpAddr::V6(addr) => explain_in(from, to, addr.octets(), facts, &facts.flows6),
    }
}

fn explain_in<A: TableAddr>(
    from: &Caller,
    to: &Destination,
    addr: A,
    facts: &Facts,
    flows: &FlowRows<A>,
) -> Explanation {
    let tables = A::tables(&facts.tables);
    let key = FrontendKey { addr, port: to.port, proto: to.proto, pad: 0 };
    let mut explanation = match tables.frontends.get(&key) {
        None => without_frontend(from, to, &neighbours(addr, &facts.tables)),
        Some(frontend) => {
            let scopes = facts.tables.scopes.get(&frontend.id).copied().unwrap_or(Scopes::PASS);
            let (word, scope) = scope_for(from, &scopes);
            let backends = backends_of::<A>(&facts.tables, scope);
            let mut explanation = with_frontend(from, to, frontend, word, scope, backends);
            if scope.has(ScopeFlags::SOURCE_RANGES) {
                restrict(&mut explanation, from, scopes.source_ranges, tables);
            }
            explanation.notes.extend(local_note(frontend, scope, facts));
            if let Some(frontend) = &mut explanation.frontend {
                frontend.service = facts.services.names.get(&scopes.service_port).cloned();
                frontend.deciding_key = facts.services.deciding_keys.get(&scopes.service_port).cloned();
            }
            explanation
        }
    };
    let unseen = match from {
        Caller::Pod(_) if !facts.has_workloads => {
            Some("no interface of a pod is attached (--workload-interfaces, `lb-agent show interfaces`)")
        }
        Caller::External(_) if !facts.has_uplinks => {
            Some("no interface towards the network is attached (--uplink-interfaces, `lb-agent show interfaces`)")
        }
        // The packet path has no hook there.
        Caller::Host => Some("sockets of the node itself are not translated by this version"),
        Caller::Pod(_) | Caller::External(_) => None,
    };
    if let Some(reason) = unseen
        && explanation.decision != Decision::NotOurs
        && explanation.decision != Decision::Pass
    {
        explanation.notes.insert(0, format!("with a hook there it would be: {}", explanation.sentence));
        explanation.sentence = format!("the packet is left alone, because {reason}");
        explanation.decision = Decision::NotOurs;
        explanation.backends.clear();
    }
    explanation.notes.extend(flow_note(from, &key, flows));
    let service = explanation.frontend.as_ref().and_then(|frontend| frontend.service.clone());
    explanation.notes.extend(warning_notes(service.as_deref(), &facts.warnings));
    if explanation.decision == Decision::Balance {
        let unless = |refused: &String| format!("unless it comes by an interface that is left alone, {refused}");
        explanation.notes.extend(facts.refused.iter().map(unless));
    }
    explanation
}

/// Where the address is the node's own, what is left alone goes no further than the node.
fn local_note(frontend: &Frontend, scope: Scope, facts: &Facts) -> Option<String> {
    let is_left = scope.action == Action::Pass && matches!(frontend.mode, Mode::Proxy | Mode::Split);
    let is_left = is_left && frontend.origin == Origin::LoadBalancer && facts.is_local;
    is_left.then(|| {
        "the address is this node's own: a hostPort or a socket of the node has it, and the guard does not keep a \
         kube-proxy off it (have the status say ipMode: Proxy)"
            .into()
    })
}

/// What an agent warns of that may be the reason why it goes otherwise: hazards of the Service (`shop/web:http`), and of
/// the node as a whole.
fn warning_notes(service: Option<&str>, warnings: &[Warning]) -> Vec<String> {
    let service = service.and_then(|name| name.split(':').next()).map(|name| format!("Service {name}"));
    let is_of_service = |warning: &Warning| service.is_some() && warning.object == service;
    let is_of_node = |warning: &Warning| warning.object.as_ref().is_some_and(|object| object.starts_with("Node "));
    let hazards = warnings.iter().filter(|warning| warning.kind == WarningKind::Hazard);
    let ours = hazards.filter(|warning| is_of_service(warning) || is_of_node(warning));
    ours.take(WARNINGS_MAX).map(|warning| format!("warning: {warning}")).collect()
}

/// What the source ranges of a frontend make of it.
fn restrict<A: TableAddr>(explanation: &mut Explanation, from: &Caller, set: u32, tables: &FamilyTables<A>) {
    let ranges: Vec<&SourceRangeKey<A>> = tables.source_ranges_of(set).map(|(key, _)| key).collect();
    let texts: Vec<String> = ranges.iter().map(|range| format!("{}/{}", range.addr.into(), range.length())).collect();
    explanation.notes.push(format!("only clients of these ranges are let in: {}", texts.join(", ")));
    let Some(client) = from.addr().and_then(A::from_ip) else { return };
    if !ranges.iter().any(|range| range.contains(&client)) {
        "the client is in none of the Service's loadBalancerSourceRanges: the packet is dropped silently"
            .clone_into(&mut explanation.sentence);
        explanation.decision = Decision::Drop;
        explanation.backends.clear();
    }
}

/// Frontends at the same address, as text.
fn neighbours<A: TableAddr>(addr: A, tables: &Tables) -> Vec<String> {
    let at_address = A::tables(tables).frontends.iter().filter(|(key, _)| key.addr == addr);
    let ports = at_address.map(|(key, frontend)| {
        let port = format!("{}/{}", key.port, key.proto.name());
        if frontend.origin == Origin::LoadBalancer { format!("{port} ({})", mode(frontend)) } else { port }
    });
    ports.collect()
}

fn without_frontend(from: &Caller, to: &Destination, neighbours: &[String]) -> Explanation {
    let note = if neighbours.is_empty() {
        "no Service of the source is served at this address".to_owned()
    } else {
        format!("served at this address: {}", neighbours.join(", "))
    };
    Explanation {
        from: from.to_string(),
        to: to.to_string(),
        decision: Decision::NotOurs,
        sentence:
            "no frontend has this address, port and protocol: the packet is left alone and goes where routing leads"
                .into(),
        frontend: None,
        backends: Vec::new(),
        notes: vec![note],
    }
}

fn with_frontend(
    from: &Caller,
    to: &Destination,
    frontend: &Frontend,
    word: &str,
    scope: Scope,
    backends: Vec<SocketAddr>,
) -> Explanation {
    let decision = match scope.action {
        Action::Pass => Decision::Pass,
        Action::Balance => Decision::Balance,
        Action::Reject => Decision::Reject,
        Action::Drop => Decision::Drop,
    };
    let mut notes = Vec::new();
    if let Some(addr) = from.addr()
        && backends.iter().any(|backend| backend.ip() == addr)
    {
        notes.push("where the client is chosen itself, it sees the connection come from the frontend's address".into());
    }
    Explanation {
        from: from.to_string(),
        to: to.to_string(),
        decision,
        sentence: sentence(from, frontend, scope, backends.len()),
        frontend: Some(FrontendFacts {
            id: frontend.id,
            service: None,
            mode: mode(frontend),
            decided_by: rule(frontend),
            deciding_key: None,
            origin: origin_text(frontend.origin),
            state: format!("{:?}", frontend.state),
            scope: match from {
                Caller::Host => format!("{word}: not served"),
                Caller::Pod(_) | Caller::External(_) => format!("{word}: {}", ScopeRow::of(scope, backends.len())),
            },
        }),
        backends,
        notes,
    }
}

fn scope_for(from: &Caller, scopes: &Scopes) -> (&'static str, Scope) {
    match from {
        Caller::Pod(_) => ("workload", scopes.workload),
        Caller::Host => ("host", scopes.host),
        Caller::External(_) => ("external", scopes.external),
    }
}

fn backends_of<A: TableAddr>(tables: &Tables, scope: Scope) -> Vec<SocketAddr> {
    let pool = |slot| A::tables(tables).pools.get(&PoolKey { pool: scope.pool, slot });
    // With Maglev a backend has many slots.
    let backends: BTreeSet<_> = (0..u32::from(scope.count)).filter_map(pool).collect();
    backends.into_iter().map(backend_address).collect()
}

/// How a backend is chosen where nothing is remembered of the client.
fn chosen_by(scope: Scope) -> String {
    match algorithm(scope) {
        "random" => "chosen at random".into(),
        algorithm => format!("chosen by {algorithm}: the same one on every node"),
    }
}

/// A backend as a socket address.
fn backend_address<A: Addr>(backend: &Backend<A>) -> SocketAddr {
    SocketAddr::new(backend.addr.into(), backend.port)
}

fn sentence(from: &Caller, frontend: &Frontend, scope: Scope, backends: usize) -> String {
    match (scope.action, frontend.state, frontend.mode) {
        (Action::Balance, ..) if backends == 0 => {
            "the pool is being replaced: the packet is dropped and counted, ask again".into()
        }
        (Action::Balance, ..) => {
            let choice = match (backends, scope.has(ScopeFlags::AFFINITY)) {
                (1, _) => "its only backend".into(),
                (_, false) => format!("one of {backends} backends ({})", chosen_by(scope)),
                (_, true) => format!("one of {backends} backends (the client's last one, else {})", chosen_by(scope)),
            };
            let is_balancers = frontend.origin == Origin::LoadBalancer;
            let unseen = if is_balancers { "; the balancer never sees it" } else { "" };
            format!("the packet is DNATed to {choice} here{unseen}")
        }
        (Action::Reject, ..) => {
            "there is no endpoint anywhere: the packet is answered with ICMP port unreachable".into()
        }
        (Action::Drop, ..) => {
            let policy = match frontend.origin {
                Origin::ClusterIP => "internalTrafficPolicy",
                Origin::LoadBalancer | Origin::ExternalIP | Origin::NodePort => "externalTrafficPolicy",
            };
            format!("{policy} is Local and no endpoint is on this node: the packet is dropped silently")
        }
        (Action::Pass, FrontendState::Draining, _) => {
            "its Service is gone: known connections go on, a new one is left alone and goes where routing leads".into()
        }
        (Action::Pass, FrontendState::Active, Mode::Proxy) => {
            "the packet is left alone: it leaves the node for the external balancer, destination untouched".into()
        }
        (Action::Pass, FrontendState::Active, Mode::Split) if !matches!(from, Caller::External(_)) => {
            "mode Split: what starts on this node is left to the external balancer, destination untouched".into()
        }
        (Action::Pass, FrontendState::Active, Mode::Router) => {
            "mode Router and nothing here can answer: the packet is left alone and follows its route".into()
        }
        (Action::Pass, FrontendState::Active, Mode::VIP | Mode::Split) if matches!(from, Caller::External(_)) => {
            "no endpoint is on this node, and forwarding to other nodes is not available in this version: the packet is \
             left to the stack (and kube-proxy, where it runs)"
                .into()
        }
        (Action::Pass, FrontendState::Active, Mode::VIP | Mode::Split) => {
            "the Service asks for what this version does not enforce (`lb-agent show warnings`): the packet is left to the \
             stack (and kube-proxy, where it runs)"
                .into()
        }
    }
}

/// Flows keep what they got; say so where the client has any.
fn flow_note<A: Addr>(from: &Caller, frontend: &FrontendKey<A>, flows: &FlowRows<A>) -> Option<String> {
    let client = from.addr()?;
    let is_ours = |(key, _): &&(FlowKey<A>, Flow<A>)| {
        let tuple = &key.tuple;
        key.direction == Direction::Request
            && Into::<IpAddr>::into(tuple.src) == client
            && (tuple.dst, tuple.dport, key.proto) == (frontend.addr, frontend.port, frontend.proto)
    };
    let flows: Vec<_> = flows.iter().filter(is_ours).collect();
    let (_, flow) = flows.first()?;
    let to = SocketAddr::new(flow.to.dst.into(), flow.to.dport);
    Some(format!("{} flow(s) of this client are known here and keep their backend (one goes to {to})", flows.len()))
}

/// The field of the Service.
const fn origin_text(origin: Origin) -> &'static str {
    match origin {
        Origin::LoadBalancer => "status.loadBalancer.ingress[].ip",
        Origin::ExternalIP => "spec.externalIPs[]",
        Origin::ClusterIP => "spec.clusterIPs[]",
        Origin::NodePort => "spec.ports[].nodePort",
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from      {}", self.from)?;
        writeln!(f, "to        {}", self.to)?;
        if let Some(frontend) = &self.frontend {
            if let Some(service) = &frontend.service {
                writeln!(f, "service   {}", printable(service))?;
            }
            writeln!(f, "frontend  {} ({}), {}", frontend.id, frontend.origin, frontend.state)?;
            match frontend.mode.as_str() {
                "-" => writeln!(f, "mode      none (not a balancer's address), decided by {}", frontend.decided_by)?,
                mode => {
                    let key = printable(&frontend.key_in_brackets()).into_owned();
                    writeln!(f, "mode      {mode}, decided by {}{key}", frontend.decided_by)?;
                }
            }
            writeln!(f, "scope     {}", frontend.scope)?;
        }
        for backend in &self.backends {
            writeln!(f, "backend   {backend}")?;
        }
        writeln!(f, "result    {}", self.sentence)?;
        for note in &self.notes {
            writeln!(f, "note      {}", printable(note))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
