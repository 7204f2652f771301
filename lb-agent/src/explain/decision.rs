//! Answers a question from the tables: the packet path's decision, and the rows behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::client::{Client, PerClient};
use lb_common::table::{Frontend, FrontendState, HeaderVersion, Mode, Origin, Scope, SourceRangeKey};

use super::answer::{Decision, Explanation, FrontendFacts};
use super::trial::{Outcome, Outcomes, Trial, Ways};
use super::words::{WITHOUT_FRONTEND, WITHOUT_PACKETS, netfilter, origin_text, sentence};
use super::{Destination, Sender};
use crate::ask::Services;
use crate::dataplane::Tables;
use crate::dataplane::pins::{AffinityRows, FlowRows};
use crate::family::TableAddr;
use crate::model::{Warning, WarningKind};
use crate::render::{ScopeRow, mode, rule};

/// The most warnings in an answer.
const WARNINGS_MAX: usize = 5;

/// The input of an answer.
#[derive(Default)]
pub struct Facts {
    /// With their derived rows, for this number of words of address bits.
    pub tables: Arc<Tables>,
    pub address_words: u32,
    /// The running agent's names of Services, by their ID in the tables; empty without an agent.
    pub services: Services,
    pub flows4: FlowRows<[u8; 4]>,
    pub flows6: FlowRows<[u8; 16]>,
    pub affinity4: AffinityRows<[u8; 4]>,
    pub affinity6: AffinityRows<[u8; 16]>,
    /// The time, as in the tables of session affinity.
    pub now_secs: u32,
    /// Whether the destination is an address of this node.
    pub is_local: bool,
    /// The warnings of a running agent.
    pub warnings: Vec<Warning>,
    /// Interfaces that are refused although a flag names them, with the reason, from a running agent.
    pub refused: Vec<String>,
    /// Whether programs see the clients: at an interface of any pod, at the cgroup hooks, at an interface towards the
    /// network.
    pub seen: PerClient<bool>,
    /// Whether the client's interface is known, so that no other one needs to be thought of.
    pub is_client_found: bool,
    /// Why no program sees this very client.
    pub unseen: Option<String>,
    /// The address of the node that the socket of a process is bound to.
    pub bound: Option<IpAddr>,
    /// How this node reaches endpoints of others.
    pub ways: Ways,
}

/// Answers a question about the first packet of a connection.
pub fn explain(from: &Sender, to: &Destination, facts: &Facts) -> Explanation {
    match to.addr {
        IpAddr::V4(addr) => explain_in(from, to, addr.octets(), facts, (&facts.flows4, &facts.affinity4)),
        IpAddr::V6(addr) => explain_in(from, to, addr.octets(), facts, (&facts.flows6, &facts.affinity6)),
    }
}

fn explain_in<A: TableAddr>(
    from: &Sender,
    to: &Destination,
    addr: A,
    facts: &Facts,
    (flows, affinity): (&FlowRows<A>, &AffinityRows<A>),
) -> Explanation {
    let known_client = match from {
        // In the tables, the unspecified address means a socket of the node that is bound to none.
        Sender::Host => facts.bound.and_then(A::from_ip).or_else(|| Some(A::new_zeroed())),
        Sender::Pod(addr) | Sender::External(addr) => addr.and_then(A::from_ip),
    };
    let mut trial = Trial::new(from, to, addr, (&facts.tables, facts.address_words), &facts.ways);
    if let Some(client) = known_client {
        trial.recall(client, affinity, facts.now_secs);
    }
    let (client, first) = trial.open(known_client);
    let found = first.trace.frontend.and_then(|id| row::<A>(id, &facts.tables));
    let mut explanation = match found {
        None => without_frontend(from, to, &neighbours(addr, &facts.tables)),
        Some(frontend) => {
            let outcomes = trial.outcomes(client, &first);
            let mut explanation = with_frontend((from, to), frontend, &trial, &first, &outcomes);
            if known_client.is_some() && outcomes.has_hairpin {
                let note = "if the client itself is chosen, the connection seems to come from the frontend's address";
                explanation.notes.push(note.into());
            }
            explanation.notes.extend(ranges_note::<A>(first.trace.source_ranges, &facts.tables));
            if leaves_to_balancer(from, &explanation, frontend, &facts.tables) {
                explanation.sentence = WITHOUT_PACKETS.into();
            }
            if let Some(note) = local_note(explanation.decision, frontend, facts) {
                explanation.sentence =
                    "the packet is left alone, destination untouched, and does not leave the node".into();
                explanation.notes.push(note);
            }
            if let Some(shown) = &mut explanation.frontend {
                let service_port = facts.tables.scopes.get(&frontend.id).map_or(0, |scopes| scopes.service_port);
                shown.service = facts.services.names.get(&service_port).cloned();
                shown.deciding_key = facts.services.deciding_keys.get(&service_port).cloned();
            }
            explanation
        }
    };
    leave_alone_where_unseen(&mut explanation, (from, to), facts);
    let kept = known_client.map_or_else(Vec::new, |client| trial.kept(client, flows));
    explanation.notes.extend(flow_note(&kept));
    let service = explanation.frontend.as_ref().and_then(|frontend| frontend.service.clone());
    explanation.notes.extend(warning_notes(service.as_deref(), &facts.warnings));
    let is_found = facts.unseen.is_none() && facts.is_client_found;
    if explanation.decision == Decision::Balance && !is_found {
        let unless = |refused: &String| format!("unless the packet comes by an interface without programs: {refused}");
        explanation.notes.extend(facts.refused.iter().map(unless));
    }
    explanation
}

/// The frontend with this ID, for the fields that the packet path does not read.
fn row<A: TableAddr>(id: u32, tables: &Tables) -> Option<&Frontend> {
    A::tables(tables).frontends.values().find(|frontend| frontend.id == id)
}

/// Why no program sees the packets of a client, if none does.
fn unseen(from: &Sender, proto: Proto, facts: &Facts) -> Option<String> {
    let general = match from.client() {
        _ if facts.unseen.is_some() => return facts.unseen.clone(),
        client if *facts.seen.get(client) => match (client, proto) {
            (Client::Host, Proto::SCTP) => "SCTP sockets are not translated",
            _ => return None,
        },
        Client::Workload => "no interface of a pod is attached (--workload-interfaces, `lb-agent show interfaces`)",
        Client::Host => "no program is attached to sockets (--socket-lb, `lb-agent show interfaces`)",
        Client::External => {
            "no interface towards the network is attached (--uplink-interfaces, `lb-agent show interfaces`)"
        }
    };
    Some(general.into())
}

/// Without an attached program the packet path decides nothing, so the packet is left alone.
fn leave_alone_where_unseen(explanation: &mut Explanation, (from, to): (&Sender, &Destination), facts: &Facts) {
    let Some(unseen) = unseen(from, to.proto, facts) else { return };
    // A packet that is left alone by the tables needs no program, unless this very client is known to have none.
    let is_left = explanation.decision == Decision::Pass && facts.unseen.is_none();
    if is_left || explanation.decision == Decision::NotOurs {
        explanation.notes.insert(0, unseen);
        return;
    }
    explanation.notes.insert(0, format!("with a program there: {}", explanation.sentence));
    explanation.sentence = format!("the packet is left alone, because {unseen}");
    explanation.decision = Decision::NotOurs;
    explanation.netfilter = netfilter(from, Decision::NotOurs, &Outcomes::<[u8; 4]>::default());
    explanation.backends.clear();
    explanation.reply = None;
}

/// Whether a process of the node goes through the balancer because clients of the frontend get a PROXY header.
fn leaves_to_balancer(from: &Sender, explanation: &Explanation, frontend: &Frontend, tables: &Tables) -> bool {
    let has_header = tables.scopes.get(&frontend.id).is_some_and(|scopes| scopes.header().is_some());
    let is_active = frontend.state == FrontendState::Active && frontend.mode == Mode::VIP;
    has_header && is_active && explanation.decision == Decision::Pass && matches!(from, Sender::Host)
}

/// If the address is the node's own, a packet that is left alone ends on the node.
fn local_note(decision: Decision, frontend: &Frontend, facts: &Facts) -> Option<String> {
    let is_left = decision == Decision::Pass && matches!(frontend.mode, Mode::Proxy | Mode::Split);
    let is_left = is_left && frontend.origin == Origin::LoadBalancer && facts.is_local;
    is_left.then(|| {
        "the address is this node's own: a hostPort or a socket of the node gets the packet, and the guard does not \
         keep a kube-proxy off the address (have the status say ipMode: Proxy)"
            .into()
    })
}

/// The running agent's warnings that may change the outcome: hazards of the Service (`shop/web:http`) and of the node.
fn warning_notes(service: Option<&str>, warnings: &[Warning]) -> Vec<String> {
    let service = service.and_then(|name| name.split(':').next()).map(|name| format!("Service {name}"));
    let is_of_service = |warning: &Warning| service.is_some() && warning.object == service;
    let is_of_node = |warning: &Warning| warning.object.as_ref().is_some_and(|object| object.starts_with("Node "));
    let hazards = warnings.iter().filter(|warning| warning.kind == WarningKind::Hazard);
    let ours = hazards.filter(|warning| is_of_service(warning) || is_of_node(warning));
    ours.take(WARNINGS_MAX).map(|warning| format!("warning: {warning}")).collect()
}

/// The source ranges that the packet path looked up, as the Service has them. Ranges that include the node have rows for
/// what it sends itself (SR-03), the unspecified address among them.
fn ranges_note<A: TableAddr>(set: u32, tables: &Tables) -> Option<String> {
    if set == 0 {
        return None;
    }
    let tables_of = A::tables(tables);
    let all: Vec<_> = tables_of.source_ranges_of(set).map(|(key, _)| key).collect();
    let is_host = |range: &SourceRangeKey<A>| range.length() as usize == size_of::<A>() * 8;
    let has_node = all.iter().any(|range| is_host(range) && range.addr == A::new_zeroed());
    let of_set = |id| tables.scopes.get(&id).is_some_and(|scopes| scopes.source_ranges == set);
    let is_dialled = |addr| tables_of.frontends.iter().any(|(key, row)| key.addr == addr && of_set(row.id));
    let is_implied = |range: &SourceRangeKey<A>| {
        has_node && is_host(range) && (range.addr == A::new_zeroed() || is_dialled(range.addr))
    };
    let written = all.iter().filter(|range| !is_implied(range));
    let texts: Vec<String> = written.map(|range| format!("{}/{}", range.addr.into(), range.length())).collect();
    let node = if has_node { ", which include this node" } else { "" };
    Some(format!("only clients of these ranges are allowed: {}{node}", texts.join(", ")))
}

/// The other frontends at the same address, as text.
pub fn neighbours<A: TableAddr>(addr: A, tables: &Tables) -> Vec<String> {
    let at_address = A::tables(tables).frontends.iter().filter(|(key, _)| key.addr == addr);
    let ports = at_address.map(|(key, frontend)| {
        let port = format!("{}/{}", key.port, key.proto.name());
        match mode(frontend) {
            Some(mode) if frontend.origin == Origin::LoadBalancer => format!("{port} ({mode})"),
            _ => port,
        }
    });
    ports.collect()
}

fn without_frontend(from: &Sender, to: &Destination, neighbours: &[String]) -> Explanation {
    let note = if neighbours.is_empty() {
        "no Service of the source is served at this address".to_owned()
    } else {
        format!("served at this address: {}", neighbours.join(", "))
    };
    Explanation {
        from: from.to_string(),
        to: to.to_string(),
        decision: Decision::NotOurs,
        sentence: WITHOUT_FRONTEND.into(),
        frontend: None,
        backends: Vec::new(),
        reply: None,
        netfilter: netfilter(from, Decision::NotOurs, &Outcomes::<[u8; 4]>::default()),
        notes: vec![note],
        ..Explanation::default()
    }
}

fn with_frontend<A: TableAddr>(
    (from, to): (&Sender, &Destination),
    frontend: &Frontend,
    trial: &Trial<A>,
    first: &Outcome<A>,
    outcomes: &Outcomes<A>,
) -> Explanation {
    // While a pool is being replaced, one connection may meet an empty slot and the next one a backend.
    let decided = outcomes.opened.as_ref().unwrap_or(first);
    let scope = decided.trace.scope.unwrap_or(Scope::PASS);
    let is_torn = decided.decision == Decision::Balance && outcomes.has_gap;
    let torn = "the pool is being replaced: a packet that meets an empty slot of it is dropped and counted";
    Explanation {
        from: from.to_string(),
        to: to.to_string(),
        decision: decided.decision,
        sentence: sentence(from, frontend, scope, (decided.decision, decided.reason), outcomes),
        frontend: Some(FrontendFacts {
            frontend_id: frontend.id,
            service: None,
            mode: mode(frontend),
            proxy_protocol: scope.header().map(HeaderVersion::name),
            decided_by: rule(frontend),
            deciding_key: None,
            origin: origin_text(frontend.origin),
            state: format!("{:?}", frontend.state),
            scope: format!("{}: {}", from.client().name(), ScopeRow::of(scope, trial.pool(scope).len())),
        }),
        backends: outcomes.backends.iter().copied().collect(),
        reply: outcomes.reply,
        netfilter: netfilter(from, decided.decision, outcomes),
        notes: is_torn.then(|| torn.into()).into_iter().chain(unreachable_note(outcomes)).collect(),
        ..Explanation::default()
    }
}

/// Endpoints that this node cannot forward to.
fn unreachable_note<A>(outcomes: &Outcomes<A>) -> Option<String> {
    let Outcomes { unreachable, backends, .. } = outcomes;
    (*unreachable > 0 && !backends.is_empty()).then(|| {
        format!(
            "no uplink leads to {unreachable} further backend(s), which are not chosen as long as 32 tries find another \
             one (else: passed_no_route)"
        )
    })
}

/// Known flows keep their backend. A note says so if the client has any.
fn flow_note(kept: &[SocketAddr]) -> Option<String> {
    let to = kept.first()?;
    Some(format!("{} flow(s) of this client are known here and keep their backend (one goes to {to})", kept.len()))
}

#[cfg(test)]
mod tests;
