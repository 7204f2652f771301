//! Whose an address is, and which interface its packets come in by: from routes, interfaces and what the agent knows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use super::Sender;
use crate::dataplane::links::Class;
use crate::interfaces::survey::{Hop, Survey, Way};
use crate::interfaces::{Framing, Kind, LinkFacts};
use crate::known::{Known, Resident};
use crate::question::Said;

/// What decides whose an address is.
#[derive(Clone, Debug, Default)]
pub struct Around {
    pub survey: Survey,
    /// The interfaces with programs of ours.
    pub attached: BTreeMap<u32, Class>,
    /// The class that each interface has by itself, whatever the flags say.
    pub by_itself: BTreeMap<u32, Class>,
    /// The rule that decided about each interface.
    pub why: BTreeMap<u32, String>,
    /// `None`: no agent answers.
    pub known: Option<Known>,
}

/// The sender of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    pub sender: Sender,
    pub sending: Sending,
    /// In words.
    pub text: String,
    /// The interface by which netfilter sees its packets come in: a bridge instead of its port.
    pub seen_from: Option<u32>,
    /// Why no program sees its packets.
    pub unseen: Option<String>,
    /// The address of the node that a socket may be bound to.
    pub bound: Option<IpAddr>,
    pub notes: Vec<String>,
}

/// The sender, field by field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Sending {
    /// `pod`, `host` or `external`.
    pub kind: &'static str,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The interface of this node by which its packets come in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The node that it is on, as far as the agent knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A Service of which it is an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How the sender was found: `route`, or `said` if the question says no address.
    pub found_by: &'static str,
}

/// Finds the sender. What the question says counts; if something else was found, a note says so.
pub fn locate(said: &Said, around: &Around) -> Located {
    match said {
        Said::Address(addr) => around.find(*addr),
        Said::Kind(sender) => match sender.addr() {
            None => as_said(sender),
            Some(addr) => {
                let found = around.find(addr);
                if found.sender.client() == sender.client() {
                    return found;
                }
                let mut located = as_said(sender);
                located.notes.push(format!("the question says otherwise, but {}", found.text));
                located.notes.extend(found.unseen);
                located
            }
        },
    }
}

fn as_said(sender: &Sender) -> Located {
    let sending = Sending { kind: kind(sender), client: sender.addr(), found_by: "said", ..Sending::default() };
    Located {
        sender: *sender,
        sending,
        text: sender.to_string(),
        seen_from: None,
        unseen: None,
        bound: None,
        notes: Vec::new(),
    }
}

const fn kind(sender: &Sender) -> &'static str {
    match sender {
        Sender::Pod(_) => "pod",
        Sender::Host => "host",
        Sender::External(_) => "external",
    }
}

impl Located {
    fn text_of_place(&self) -> String {
        format!("behind {}", self.sending.interface.as_deref().unwrap_or("an unknown interface"))
    }
}

impl Around {
    fn find(&self, addr: IpAddr) -> Located {
        let resident = self.known.as_ref().and_then(|known| known.client.as_ref());
        let mut located = match self.survey.ways.get(&addr) {
            Some(Way::Here) => host(addr),
            Some(Way::By(hop)) => self.behind(addr, hop, resident),
            Some(Way::Nowhere) | None => self.nowhere(addr, resident),
        };
        located.sending.node = resident.and_then(|resident| resident.node.clone());
        located.sending.service = resident.and_then(|resident| resident.service.clone());
        located
    }

    /// The address is behind an interface.
    fn behind(&self, addr: IpAddr, hop: &Hop, resident: Option<&Resident>) -> Located {
        let Some(link) = self.survey.interfaces.links().get(&hop.ifindex) else { return self.nowhere(addr, resident) };
        let ports: Vec<&LinkFacts> = match hop.port {
            _ if link.kind != Kind::Bridge => vec![link],
            Some(port) => self.survey.interfaces.links().get(&port).into_iter().collect(),
            None => self.ports(link.ifindex),
        };
        // A bridge to the network has the programs itself.
        let is_of = |link: &LinkFacts, class| {
            self.attached.get(&link.ifindex) == Some(&class)
                || (!self.attached.contains_key(&link.ifindex) && self.by_itself.get(&link.ifindex) == Some(&class))
        };
        if is_of(link, Class::Uplink) || !ports.iter().any(|port| is_of(port, Class::Workload)) {
            return self.outside(addr, link, resident);
        }
        let mut located = self.pod(addr, link, &ports, resident);
        if let Some(gateway) = hop.gateway {
            // The programs take all that comes by a pod's interface for the pod's own.
            located.text = format!("{addr}, routed by the pod {gateway} of this node, {}", located.text_of_place());
        }
        located
    }

    fn ports(&self, bridge: u32) -> Vec<&LinkFacts> {
        self.survey.interfaces.links().values().filter(|link| link.controller == Some(bridge)).collect()
    }

    /// `ports` are those that the pod may be behind: one, unless its bridge has not seen it lately.
    fn pod(&self, addr: IpAddr, link: &LinkFacts, ports: &[&LinkFacts], resident: Option<&Resident>) -> Located {
        let is_attached = |port: &&&LinkFacts| self.attached.contains_key(&port.ifindex);
        let attached = ports.iter().filter(is_attached).count();
        let interface = match ports {
            [only] => only.name.clone(),
            _ => format!("a port of {}", link.name),
        };
        let unseen = (attached == 0).then(|| self.unattached(ports.first().copied().unwrap_or(link), &interface));
        let mut notes = Vec::new();
        if attached > 0 && attached < ports.len() {
            notes.push(format!(
                "which port of {} leads to {addr} is not known, as the node has not heard of it lately; programs are \
                 attached to {attached} of {} ports, and the answer takes it for one of these",
                link.name,
                ports.len()
            ));
        }
        if let Some(Resident { node: Some(node), .. }) = resident
            && self.known.as_ref().is_some_and(|known| known.node != *node)
        {
            notes.push(format!(
                "objects say that {addr} is on node {node}, but this node's route to it is {}",
                link.name
            ));
        }
        let sender = Sender::Pod(Some(addr));
        let text = format!("pod {addr} on this node, behind {interface}");
        let sending = Sending {
            kind: kind(&sender),
            client: Some(addr),
            interface: Some(interface),
            found_by: "route",
            ..Sending::default()
        };
        Located { sender, sending, text, seen_from: Some(link.ifindex), unseen, bound: None, notes }
    }

    fn outside(&self, addr: IpAddr, link: &LinkFacts, resident: Option<&Resident>) -> Located {
        let mut notes = Vec::new();
        let who = self.foreign(addr, resident, &mut notes);
        let is_attached = self.attached.get(&link.ifindex) == Some(&Class::Uplink);
        let unseen = match &link.framing {
            _ if is_attached => None,
            Framing::Other(_) => Some(self.unattached(link, &link.name)),
            Framing::Known(_) => Some(format!(
                "no program is attached to {}, as --uplink-interfaces does not choose it (`lb-agent show interfaces`)",
                link.name
            )),
        };
        let sender = Sender::External(Some(addr));
        let text = format!("{who}, from the network by {}", link.name);
        let sending = Sending {
            kind: kind(&sender),
            client: Some(addr),
            interface: Some(link.name.clone()),
            found_by: "route",
            ..Sending::default()
        };
        Located { sender, sending, text, seen_from: Some(link.ifindex), unseen, bound: None, notes }
    }

    fn nowhere(&self, addr: IpAddr, resident: Option<&Resident>) -> Located {
        let mut notes = vec![format!("this node has no route to {addr}, so no answer would reach it")];
        let who = self.foreign(addr, resident, &mut notes);
        let sender = Sender::External(Some(addr));
        let sending = Sending { kind: kind(&sender), client: Some(addr), found_by: "route", ..Sending::default() };
        Located {
            sender,
            sending,
            text: format!("{who}, from the network"),
            seen_from: None,
            unseen: None,
            bound: None,
            notes,
        }
    }

    /// Names a client that is not on this node.
    fn foreign(&self, addr: IpAddr, resident: Option<&Resident>, notes: &mut Vec<String>) -> String {
        let here = self.known.as_ref().map(|known| known.node.as_str());
        let Some(Resident { node, service }) = resident else { return addr.to_string() };
        match (node.as_deref(), service) {
            (Some(node), Some(_)) if here == Some(node) => {
                notes.push(format!("objects say that {addr} is a pod of this node, but this node's routes do not"));
                addr.to_string()
            }
            (Some(node), service) => {
                let what = if service.is_some() { "a pod of" } else { "the host" };
                notes.push(format!(
                    "node {node} decides first what becomes of its packets: ask there; this node decides only about \
                     what arrives here untranslated"
                ));
                format!("{addr}, {what} node {node}")
            }
            (None, Some(service)) => format!("{addr}, an endpoint of {service} without a node"),
            (None, None) => addr.to_string(),
        }
    }

    fn unattached(&self, link: &LinkFacts, name: &str) -> String {
        let why = self.why.get(&link.ifindex).map(|why| format!(": {why}")).unwrap_or_default();
        format!("no program is attached to {name}{why} (`lb-agent show interfaces`)")
    }
}

/// A process of the node, or a pod with hostNetwork.
fn host(addr: IpAddr) -> Located {
    let sending = Sending { kind: "host", client: Some(addr), found_by: "route", ..Sending::default() };
    Located {
        sender: Sender::Host,
        sending,
        text: format!("a process of this node or a pod with hostNetwork ({addr} is the node's own)"),
        seen_from: None,
        unseen: None,
        bound: Some(addr),
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
