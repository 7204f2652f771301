//! The text of an answer: the packet path's decision, and the field of the Service behind it.

use std::fmt;

use lb_common::table::{Counter, Frontend, FrontendState, Mode, Origin, Scope, ScopeFlags};

use super::Sender;
use super::answer::{Decision, Explanation, FrontendFacts, Netfilter, Sight};
use super::trial::Outcomes;
use crate::printable::printable;
use crate::render::algorithm;

pub const WITHOUT_FRONTEND: &str =
    "no frontend has this address, port and protocol: the packet is left alone and routed to its destination";

pub const WITHOUT_PACKETS: &str = "a PROXY header is added to packets at interfaces, and a socket of the node has none: the \
                                   connection is left alone and goes through the external balancer, which adds its own";

/// In one sentence: what happens to a packet that meets a frontend.
pub fn sentence<A>(
    from: &Sender,
    frontend: &Frontend,
    scope: Scope,
    (decision, reason): (Decision, Option<Counter>),
    outcomes: &Outcomes<A>,
) -> String {
    match decision {
        Decision::Balance => {
            let is_balancers = frontend.origin == Origin::LoadBalancer;
            let unseen = if is_balancers { "; the balancer never sees it" } else { "" };
            let place = place(from);
            let choice = choice(scope, outcomes);
            if matches!(from, Sender::Host) {
                return format!(
                    "the socket is connected to {choice} instead{unseen}; the process sees the address that it dialled"
                );
            }
            let reply = match outcomes.reply {
                Some(source) => format!("; replies get the source {source} back at {place}"),
                None => "; replies are not translated back".into(),
            };
            let forwarded = if outcomes.is_forwarded() {
                "; it is forwarded to another node, with an address of this node as its source"
            } else if outcomes.forwarded.is_empty() {
                ""
            } else {
                "; to an endpoint of another node it is forwarded, with an address of this node as its source"
            };
            format!("the packet is DNATed to {choice} here{unseen}{forwarded}{reply}")
        }
        Decision::Reject if matches!(from, Sender::Host) => {
            "there is no endpoint anywhere: the dial fails with ECONNREFUSED".into()
        }
        Decision::Reject => "there is no endpoint anywhere: the packet is answered with ICMP port unreachable".into(),
        Decision::Drop => dropped(from, frontend, reason),
        Decision::Pass if reason == Some(Counter::PassedNoRoute) => {
            "no uplink leads to any endpoint, and none is on this node: the packet is left to the stack (and kube-proxy, \
             where it runs)"
                .into()
        }
        Decision::Pass | Decision::NotOurs => passed(from, frontend).into(),
    }
}

/// The interface whose programs see the packet.
const fn place(from: &Sender) -> &'static str {
    match from {
        Sender::Pod(_) => "the pod's interface",
        Sender::Host => "the socket",
        Sender::External(_) => "the uplink",
    }
}

/// What netfilter sees: the programs run before its first hook for a packet that comes in, and after its last one for a
/// packet that leaves.
pub fn netfilter<A>(from: &Sender, decision: Decision, outcomes: &Outcomes<A>) -> Netfilter {
    let place = place(from);
    let (sees, sentence) = match decision {
        Decision::Balance if matches!(from, Sender::Host) => {
            (Sight::Translated, "sees a connection of this node to the backend, from its first packet on".into())
        }
        Decision::Reject | Decision::Drop if matches!(from, Sender::Host) => {
            (Sight::Never, "never sees a packet: the dial fails before there is one".into())
        }
        Decision::Pass | Decision::NotOurs => {
            (Sight::Unchanged, "sees the packet as the client sent it, and may translate it by its own rules".into())
        }
        Decision::Balance if outcomes.is_sent_back() => {
            (Sight::Never, format!("never sees the packet: the pod gets it back at once, at {place}"))
        }
        Decision::Balance if outcomes.is_forwarded() => {
            (Sight::Never, format!("never sees the packet: it is forwarded at {place}"))
        }
        Decision::Balance => (Sight::Translated, translated(from, place, outcomes)),
        Decision::Reject => (Sight::Never, format!("never sees the packet: it is answered at {place}")),
        Decision::Drop => (Sight::Never, format!("never sees the packet: it is dropped at {place}")),
    };
    Netfilter { sees, sentence }
}

fn translated<A>(from: &Sender, place: &str, outcomes: &Outcomes<A>) -> String {
    let client = from.addr().map_or_else(|| "the client".into(), |addr| addr.to_string());
    let mut backends = outcomes.backends.iter();
    let backend = match (backends.next(), backends.next()) {
        (Some(only), None) => only.to_string(),
        _ => "the chosen backend".into(),
    };
    // `Port::unfiltered_bits4` in lb-common.
    let unless = match from {
        Sender::Pod(_) => ", unless the pod's bridge bypasses netfilter (`lb-agent show interfaces`)",
        Sender::Host | Sender::External(_) => "",
    };
    let except = match outcomes {
        outcomes if outcomes.has_hairpin => "; a connection to the pod itself comes back at once, unseen",
        outcomes if !outcomes.forwarded.is_empty() => "; what is forwarded to other nodes passes unseen",
        _ => "",
    };
    format!(
        "sees a connection from {client} to {backend}{unless}: requests are translated before its hooks, replies are \
         translated back after them, both at {place}{except}"
    )
}

/// How a backend is chosen, and whether the client's last one is remembered.
fn choice<A>(scope: Scope, outcomes: &Outcomes<A>) -> String {
    let backends = outcomes.backends.len();
    if outcomes.is_remembered {
        return "the client's last backend, which session affinity remembers".into();
    }
    if backends == 1 {
        return "its only backend".into();
    }
    let chosen = match algorithm(scope) {
        "random" => "chosen at random".into(),
        algorithm => format!("chosen by {algorithm}: the same one on every node"),
    };
    let last = if scope.has(ScopeFlags::AFFINITY) { "the client's last one, else " } else { "" };
    format!("one of {backends} backends ({last}{chosen})")
}

fn dropped(from: &Sender, frontend: &Frontend, reason: Option<Counter>) -> String {
    let (silently, counted) = match from {
        Sender::Host => ("the dial fails with EPERM", "the dial fails with EPERM and is counted"),
        Sender::Pod(_) | Sender::External(_) => ("the packet is dropped silently", "the packet is dropped and counted"),
    };
    match reason {
        Some(Counter::DropSourceRange) => {
            format!("the client is in none of the Service's loadBalancerSourceRanges: {silently}")
        }
        Some(Counter::DropNoLocalEndpoint) => {
            let policy = match frontend.origin {
                Origin::ClusterIP => "internalTrafficPolicy",
                Origin::LoadBalancer | Origin::ExternalIP | Origin::NodePort => "externalTrafficPolicy",
            };
            format!("{policy} is Local and no endpoint is on this node: {silently}")
        }
        Some(Counter::DropNoBackend) => format!("the pool is being replaced: {counted}, ask again"),
        Some(reason) => format!("{counted} as {}: {}", reason.name(), reason.meaning()),
        None => "the packet is dropped".into(),
    }
}

const fn passed(from: &Sender, frontend: &Frontend) -> &'static str {
    let is_external = matches!(from, Sender::External(_));
    match (frontend.state, frontend.mode) {
        (FrontendState::Draining, _) => {
            "its Service is gone: known connections continue, a new one is left alone and routed to its destination"
        }
        (FrontendState::Active, Mode::Proxy) => {
            "the packet is left alone: it leaves the node for the external balancer, destination untouched"
        }
        (FrontendState::Active, Mode::Split) if !is_external => {
            "mode Split: a connection that starts on this node is left to the external balancer, destination untouched"
        }
        (FrontendState::Active, Mode::Router) => {
            "mode Router and nothing here can answer: the packet is left alone and follows its route"
        }
        (FrontendState::Active, Mode::VIP | Mode::Split) if is_external => {
            "no endpoint is on this node, and --forwarding is off: the packet is left to the stack (and kube-proxy, \
             where it runs)"
        }
        (FrontendState::Active, Mode::VIP | Mode::Split) => {
            "the Service asks for a feature that this version does not enforce (`lb-agent show warnings`): the packet \
             is left to the stack (and kube-proxy, where it runs)"
        }
    }
}

/// The field of the Service that an address comes from.
pub const fn origin_text(origin: Origin) -> &'static str {
    match origin {
        Origin::LoadBalancer => "status.loadBalancer.ingress[].ip",
        Origin::ExternalIP => "spec.externalIPs[]",
        Origin::ClusterIP => "spec.clusterIPs[]",
        Origin::NodePort => "spec.ports[].nodePort",
    }
}

impl FrontendFacts {
    /// The key in brackets, unless the rule is the key itself.
    fn key_in_brackets(&self) -> String {
        let key = self.deciding_key.as_deref().filter(|key| *key != self.decided_by);
        key.map(|key| format!(" ({key})")).unwrap_or_default()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from      {}", printable(&self.from))?;
        writeln!(f, "to        {}", printable(&self.to))?;
        if let Some(frontend) = &self.frontend {
            if let Some(service) = &frontend.service {
                writeln!(f, "service   {}", printable(service))?;
            }
            writeln!(f, "frontend  {} ({}), {}", frontend.frontend_id, frontend.origin, frontend.state)?;
            match &frontend.mode {
                None => writeln!(f, "mode      none (not a balancer's address), decided by {}", frontend.decided_by)?,
                Some(mode) => {
                    let key = printable(&frontend.key_in_brackets()).into_owned();
                    writeln!(f, "mode      {mode}, decided by {}{key}", frontend.decided_by)?;
                }
            }
            if let Some(version) = frontend.proxy_protocol {
                writeln!(f, "header    PROXY {version}, added here: it names the client and the dialled address")?;
            }
            writeln!(f, "scope     {}", frontend.scope)?;
        }
        for backend in &self.backends {
            writeln!(f, "backend   {backend}")?;
        }
        writeln!(f, "result    {}", self.sentence)?;
        writeln!(f, "netfilter {}", self.netfilter.sentence)?;
        if let Some(kube_proxy) = &self.kube_proxy {
            writeln!(f, "kubeproxy {}", kube_proxy.sentence)?;
        }
        if let Some(route) = &self.route {
            writeln!(f, "route     {route}")?;
        }
        if let Some(frozen) = &self.frozen {
            writeln!(f, "frozen    {}", frozen.sentence)?;
        }
        for note in &self.notes {
            writeln!(f, "note      {}", printable(note))?;
        }
        Ok(())
    }
}
