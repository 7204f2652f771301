//! Explains what would happen to a packet, and which rule decided: runs the packet path itself over the dumped tables.
//!
//! Reads the pins, and routes and rules of the node, so it works without a running agent. What only the agent knows
//! (whose an address is, what Services name) is asked of it.

mod answer;
mod decision;
mod echo;
mod frame;
mod inquiry;
mod reason;
mod rival;
mod sender;
mod target;
mod trial;
mod words;

pub use crate::question::{Destination, Sender};
pub use answer::{Decision, Explanation, Netfilter, Sight};
pub use decision::{Facts, explain};
pub use trial::Ways;

use std::net::IpAddr;

use crate::args::{ExplainArgs, Output};
use crate::interfaces::survey::{Hop, Way};
use crate::print::print;
use crate::question::Dialled;
use crate::render;
use inquiry::Inquiry;

/// The kind of the JSON document that explains each address of a Service.
pub const EXPLANATIONS: &str = "Explanations";

/// Prints the answer, or one for each address of a Service.
pub fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let explanations = answers(Inquiry::read(args)?);
    match (args.output, &args.to, explanations.as_slice()) {
        (Output::Table | Output::Wide, _, all) => {
            print(&all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
        (Output::Json, Dialled::Port(_) | Dialled::Echo(_), [only]) => print(&render::json_of_one(only)),
        (Output::Yaml, Dialled::Port(_) | Dialled::Echo(_), [only]) => print(&render::yaml_of_one(only)),
        (Output::Yaml, _, all) => print(&render::yaml_of_many(EXPLANATIONS, all)),
        (Output::Json, _, all) => print(&render::json_of_many(EXPLANATIONS, all)),
    }
}

fn answers(mut inquiry: Inquiry) -> Vec<Explanation> {
    let targets = std::mem::take(&mut inquiry.targets);
    let mut explanations = Vec::new();
    for to in &targets.to {
        let explanation = of_port(&mut inquiry, to);
        explanations.push(finished(&inquiry, to.addr, explanation));
    }
    if let Some(addr) = targets.echo {
        let explanation = echo::explain(&inquiry.located.sender, addr, &inquiry.facts);
        explanations.push(finished(&inquiry, addr, explanation));
    }
    for explanation in &mut explanations {
        explanation.notes.extend(targets.notes.iter().cloned());
    }
    explanations.extend(targets.nothing.map(|(to, sentence)| {
        let (from, sender) = (inquiry.located.text.clone(), Some(inquiry.located.sending.clone()));
        Explanation { from, sender, to, sentence, ..Explanation::default() }
    }));
    explanations
}

/// The answer for a port, with what the tables do not show.
fn of_port(inquiry: &mut Inquiry, to: &Destination) -> Explanation {
    let sender = inquiry.located.sender;
    let way = inquiry.around.survey.ways.get(&to.addr);
    inquiry.facts.is_local = way == Some(&Way::Here);
    let own = if let Some(Way::By(hop)) = way { hop.source } else { None };
    let mut explanation = explain(&sender, to, &inquiry.facts);
    if let Some(bound) = inquiry.located.bound {
        inquiry.facts.bound = Some(bound);
        let otherwise = explain(&sender, to, &inquiry.facts);
        inquiry.facts.bound = None;
        if (otherwise.decision, &otherwise.backends) != (explanation.decision, &explanation.backends) {
            let note = format!("a socket that is bound to {bound} before it dials: {}", otherwise.sentence);
            explanation.notes.insert(0, note);
        }
    }
    let known = inquiry.around.known.as_ref();
    if explanation.frontend.is_none() {
        explanation.notes.extend(reason::reasons(to, known));
    }
    if explanation.netfilter.sees == Sight::Unchanged {
        let addr = sender.addr().or(inquiry.located.bound).or(own.filter(|_| sender == Sender::Host));
        let (seen_from, is_here) = (inquiry.located.seen_from, inquiry.facts.is_local);
        let face = rival::Face { client: sender.client(), addr, seen_from, is_here };
        explanation.kube_proxy = rival::aftermath(face, to, known, &inquiry.rival);
    }
    explanation
}

/// Adds who asks, where the packet goes, and how old the tables are.
fn finished(inquiry: &Inquiry, to: IpAddr, mut explanation: Explanation) -> Explanation {
    let Inquiry { located, around, frozen, .. } = inquiry;
    explanation.from.clone_from(&located.text);
    explanation.sender = Some(located.sending.clone());
    explanation.notes.extend(located.notes.iter().cloned());
    explanation.frozen.clone_from(frozen);
    if explanation.netfilter.sees == Sight::Unchanged {
        let name = |hop: &Hop| {
            let link = around.survey.interfaces.links().get(&hop.ifindex);
            link.map_or_else(|| format!("#{}", hop.ifindex), |link| link.name.clone())
        };
        explanation.route = around.survey.ways.get(&to).map(|way| match way {
            Way::Here => "the address is this node's own: the packet ends here".into(),
            Way::By(hop) => match hop.gateway {
                Some(gateway) => format!("the node's route leads by {} to {gateway}", name(hop)),
                None => format!("the node's route leads by {}", name(hop)),
            },
            Way::Nowhere => "this node has no route to the address".into(),
        });
    }
    explanation
}
