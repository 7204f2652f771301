//! What a kube-proxy on this node does with a packet that the programs leave alone: it knows the status, but none of our
//! annotations and flags.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use lb_common::client::Client;
use schemars::JsonSchema;
use serde::Serialize;

use super::Destination;
use crate::desired::{Act, Named, Rivalry};
use crate::guard::GuardRows;
use crate::known::{Known, KnownService};
use crate::kube_proxy::Rules;
use crate::model::Prefix;
use crate::question::proto;
use crate::render;

/// What decides.
#[derive(Clone, Debug, Default)]
pub struct Rival {
    /// The rules of a kube-proxy in this network namespace.
    pub rules: BTreeSet<Rules>,
    pub guard: GuardRows,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Aftermath {
    pub does: Does,
    pub sentence: String,
}

/// What a kube-proxy does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Does {
    Nothing,
    Translate,
    Refuse,
    Drop,
    /// No agent answers, or it knows other Services than kube-proxy; the tables do not hold what kube-proxy knows.
    Unknown,
}

/// The row of the destination in what the agent knows.
pub fn named<'a>(to: &Destination, known: &'a Known) -> Option<&'a Named> {
    let all = known.services.iter().flat_map(|service| &service.named);
    let mut here = all.filter(|named| is_of(named, to));
    let first = here.next()?;
    // Of several Services that name it, kube-proxy serves one that it has a rule for.
    let is_ruled = |named: &&Named| named.kube_proxy != Rivalry::default();
    Some(if is_ruled(&first) { first } else { here.find(is_ruled).unwrap_or(first) })
}

fn is_of(named: &Named, to: &Destination) -> bool {
    (named.address, named.port) == (to.addr, to.port) && proto(&named.proto) == Some(to.proto)
}

/// The sender as netfilter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Face {
    pub client: Client,
    pub addr: Option<IpAddr>,
    /// The interface by which its packets come in.
    pub seen_from: Option<u32>,
    /// What it dials is an address of this node, which is not guarded: a hostPort may be the balancer.
    pub is_here: bool,
}

impl Face {
    /// The kind of client that it is for the guard, which knows the interfaces that have programs.
    fn to_guard(self, guard: &GuardRows) -> Client {
        match (self.client, self.seen_from) {
            (Client::Workload, Some(ifindex)) if !guard.links.contains(&ifindex) => Client::External,
            (client, _) => client,
        }
    }
}

/// What follows for a packet that is left alone. `None` without a kube-proxy.
pub fn aftermath(face: Face, to: &Destination, known: Option<&Known>, rival: &Rival) -> Option<Aftermath> {
    if rival.rules.is_empty() {
        return None;
    }
    let modes: Vec<&str> = rival.rules.iter().map(|rules| rules.name()).collect();
    let kube_proxy = format!("the kube-proxy of this node ({})", modes.join(", "));
    let Some(known) = known else {
        let sentence = format!("{kube_proxy} may act on the packet; only a running agent knows what it has rules for");
        return Some(Aftermath { does: Does::Unknown, sentence });
    };
    if known.serves_labelled {
        let (does, what) = beside_labelled(to, known);
        return Some(Aftermath { does, sentence: format!("{kube_proxy} {what}") });
    }
    let nothing = Rivalry::default();
    let rivalry = named(to, known).map_or(&nothing, |named| &named.kube_proxy);
    let act = if face.client == Client::External { rivalry.outside } else { rivalry.inside };
    let (does, what) = outcome(act, rivalry, face, to, rival);
    Some(Aftermath { does, sentence: format!("{kube_proxy} {what}") })
}

/// With `--service-proxy-name` kube-proxy ignores the Services of this agent, which in turn may not know those of kube-proxy.
fn beside_labelled(to: &Destination, known: &Known) -> (Does, String) {
    let names_it =
        |service: &&KnownService| service.named.iter().any(|named| is_of(named, to)) && !service.served_elsewhere;
    let Some(own) = known.services.iter().find(names_it) else {
        let what = "may act on the packet; the running agent knows only Services with its --service-proxy-name, which \
                    kube-proxy ignores";
        return (Does::Unknown, what.into());
    };
    let what = format!(
        "ignores Service {}, whose label service.kubernetes.io/service-proxy-name names this agent (FLT-01): it has no \
         rule, unless a Service without the label has this address and port as well",
        own.name
    );
    (Does::Nothing, what)
}

fn outcome(act: Act, rivalry: &Rivalry, face: Face, to: &Destination, rival: &Rival) -> (Does, String) {
    match act {
        Act::Nothing => return (Does::Nothing, "has no rule for this destination (IPM-03, IPM-30)".into()),
        Act::Refuse => {
            let what = "refuses the connection: there is no endpoint, and it takes the address for its own; the guard \
                        cannot prevent that (IPM-31; with ipMode Proxy in the status: IPM-30)";
            return (Does::Refuse, what.into());
        }
        Act::Drop => {
            let what =
                "drops the packet: the policy is Local and no endpoint is on this node; clients time out (IPM-32)";
            return (Does::Drop, what.into());
        }
        Act::Translate => {}
    }
    let client = face.to_guard(&rival.guard).name();
    let is_guarded = !face.is_here
        && render::guard(&rival.guard).iter().any(|row| {
            (row.address, row.proto) == (SocketAddr::new(to.addr, to.port), to.proto.name())
                && row.clients.contains(&client)
        });
    if let Some(dropped) = filtered(rivalry, face.addr, is_guarded, rival) {
        return (Does::Drop, dropped);
    }
    if is_guarded {
        return (Does::Nothing, "has a rule, but the guard keeps it off: the packet leaves as it came".into());
    }
    (Does::Translate, "sends the connection to an endpoint".into())
}

/// How it enforces the source ranges (SR-02; IPM-41 holds only if the status says Proxy). In nftables mode it looks at
/// the client. In iptables mode it drops whatever its nat rules have not translated, so also what the guard claims.
fn filtered(rivalry: &Rivalry, addr: Option<IpAddr>, is_guarded: bool, rival: &Rival) -> Option<String> {
    if rivalry.ranges.is_empty() {
        return None;
    }
    let ranges = rivalry.ranges.join(", ");
    let is_iptables = rival.rules.iter().any(|rules| *rules != Rules::Nftables);
    if is_guarded && is_iptables {
        return Some(format!(
            "drops the packet of every client: it enforces loadBalancerSourceRanges ({ranges}) on all that it has not \
             translated; clients time out"
        ));
    }
    let is_allowed =
        |addr: IpAddr| rivalry.ranges.iter().filter_map(|range| prefix(range)).any(|prefix| prefix.contains(addr));
    match addr {
        Some(addr) if is_allowed(addr) => None,
        Some(addr) => Some(format!(
            "drops the packet: {addr} is in none of the loadBalancerSourceRanges ({ranges}), which it enforces although \
             the address is left to the balancer; clients time out"
        )),
        None => Some(format!("drops the packet unless its sender is in loadBalancerSourceRanges ({ranges})")),
    }
}

fn prefix(text: &str) -> Option<Prefix> {
    let (addr, length) = text.split_once('/')?;
    Prefix::new(addr.parse().ok()?, length.parse().ok()?)
}

#[cfg(test)]
mod tests;
