//! Warnings about the node rather than an object: globs without an interface, other programs before ours, bridges
//! without netfilter, refused interfaces, interfaces and drivers that could not be attached, sockets that are not served.

use std::collections::BTreeMap;

use super::attach::Failure;
use crate::config::Config;
use crate::dataplane::links::Ahead;
use crate::interfaces::{Globs, InterfaceRules, Judgement, Kind, LinkFacts, Unfiltered};
use crate::model::{Warning, WarningKind};

/// The most interfaces that a warning names; there may be hundreds.
const NAMES_MAX: usize = 8;

/// The latest state of each check.
pub struct Outlook {
    flags: [Flag; 2],
    sockets: Option<Warning>,
    ahead: Vec<Warning>,
    failed: Vec<Warning>,
    drivers: Vec<Warning>,
    refused: Vec<Warning>,
    unfiltered: Vec<Warning>,
}

/// A flag with globs, and which of them match.
struct Flag {
    name: &'static str,
    globs: Globs,
    /// Whether any glob has ever matched an interface. A node whose last pod has gone is still ready.
    has_matched: bool,
    warnings: Vec<Warning>,
}

impl Outlook {
    pub fn new(config: &Config) -> Self {
        let InterfaceRules { workload, uplink } = &config.interfaces;
        let flag = |name, globs: &Globs| {
            let has_matched = !matches!(globs, Globs::Names(_));
            Flag { name, globs: globs.clone(), has_matched, warnings: Vec::new() }
        };
        Self {
            flags: [flag("--workload-interfaces", workload), flag("--uplink-interfaces", uplink)],
            sockets: None,
            ahead: Vec::new(),
            failed: Vec::new(),
            drivers: Vec::new(),
            refused: Vec::new(),
            unfiltered: Vec::new(),
        }
    }

    /// Checks the globs against the interfaces. Returns whether the warnings changed.
    pub fn look_at_links(&mut self, links: &BTreeMap<u32, LinkFacts>) -> bool {
        let names = || links.values().filter(|link| link.kind != Kind::Loopback).map(|link| link.name.as_str());
        let mut has_changed = false;
        for flag in &mut self.flags {
            let Globs::Names(globs) = &flag.globs else { continue };
            let unmatched = globs.unmatched(names());
            flag.has_matched |= unmatched.len() < globs.count();
            let warnings = unmatched.iter().map(|glob| warning(flag.name, glob, &listed(names()))).collect();
            has_changed |= flag.warnings != warnings;
            flag.warnings = warnings;
        }
        has_changed
    }

    /// Checks for programs before ours. Returns whether the warnings changed.
    pub fn look_at_programs(&mut self, ahead: &[Ahead], links: &BTreeMap<u32, LinkFacts>) -> bool {
        let warnings = ahead.iter().map(|ahead| {
            let ifindex = ahead.attachment.ifindex;
            let interface = links.get(&ifindex).map_or_else(|| ifindex.to_string(), |link| link.name.clone());
            let programs: Vec<_> = ahead.programs.iter().map(ToString::to_string).collect();
            let problem = format!(
                "at {}, others run before the program of lb-agent: {}; packets that they do not pass on (a program by \
                 TCX_NEXT, a classifier by continue) are not balanced, or their replies are not translated back",
                ahead.attachment.hook.name(),
                programs.join(", ")
            );
            let remedy = "let them pass packets on, or attach them behind the program of lb-agent";
            Warning::new(WarningKind::Hazard, problem, remedy).of(format!("interface {interface}"))
        });
        let warnings: Vec<_> = warnings.collect();
        let has_changed = self.ahead != warnings;
        self.ahead = warnings;
        has_changed
    }

    /// Takes the interfaces that could not be attached or detached. Returns whether the warnings changed.
    pub fn look_at_failures(&mut self, failures: &[Failure]) -> bool {
        let warning = |failure: &Failure| {
            let remedy = "remove the reason, and the agent tries again within 30 s; or leave the interface out by \
                --workload-interfaces or --uplink-interfaces";
            Warning::new(WarningKind::Hazard, &failure.reason, remedy).of(format!("interface {}", failure.interface))
        };
        let warnings: Vec<_> = failures.iter().map(warning).collect();
        let has_changed = self.failed != warnings;
        self.failed = warnings;
        has_changed
    }

    /// Takes the uplinks whose driver could not be attached. Returns whether the warnings changed.
    pub fn look_at_drivers<'a>(&mut self, failures: impl Iterator<Item = &'a Failure>) -> bool {
        let warning = |failure: &Failure| {
            let problem = format!("the driver runs no program of lb-agent, so tc serves: {}", failure.reason);
            let remedy = "remove the reason, and the agent tries again within 30 s; or set --xdp=off";
            Warning::new(WarningKind::Unsupported, problem, remedy).of(format!("interface {}", failure.interface))
        };
        let warnings: Vec<_> = failures.map(warning).collect();
        let has_changed = self.drivers != warnings;
        self.drivers = warnings;
        has_changed
    }

    /// Checks whether sockets are served. Returns whether the warnings changed.
    pub fn look_at_sockets(&mut self, problem: Option<&str>) -> bool {
        let remedy = "let the agent see the root of the cgroup v2 tree (in a container: mount the node's \
            /sys/fs/cgroup), or set --socket-lb=off and let kube-proxy serve the node's own processes";
        let warning = problem.map(|problem| {
            let problem = format!("the node's own sockets are not served: {problem}");
            Warning::new(WarningKind::Unsupported, problem, remedy).at("--socket-lb")
        });
        let has_changed = self.sockets != warning;
        self.sockets = warning;
        has_changed
    }

    /// Checks for refused interfaces. Returns whether the warnings changed.
    pub fn look_at_judgements(&mut self, judged: &BTreeMap<u32, Judgement>, links: &BTreeMap<u32, LinkFacts>) -> bool {
        let refused = judged.iter().filter(|(_, judgement)| judgement.why.is_refusal());
        let warnings = refused.filter_map(|(ifindex, judgement)| {
            let problem =
                format!("no program is attached: {}; packets of the interface are left to the stack", judgement.why);
            let remedy = "use an interface with Ethernet frames or bare IP packets (vxlan, gretap, WireGuard, GRE with \
                a remote address), or let kube-proxy serve its clients and leave the interface out of the flag";
            let interface = links.get(ifindex)?;
            Some(Warning::new(WarningKind::Unsupported, problem, remedy).of(format!("interface {}", interface.name)))
        });
        let warnings: Vec<_> = warnings.collect();
        let has_changed = self.refused != warnings;
        self.refused = warnings;
        has_changed
    }

    /// Checks for bridges whose frames do not traverse netfilter. Returns whether the warnings changed.
    pub fn look_at_bridges(&mut self, unfiltered: &[Unfiltered]) -> bool {
        let warning = |unfiltered: &Unfiltered| {
            Warning::new(WarningKind::Hazard, unfiltered.to_string(), unfiltered.remedy())
                .of(format!("interface {}", unfiltered.bridge))
        };
        let warnings: Vec<_> = unfiltered.iter().map(warning).collect();
        let has_changed = self.unfiltered != warnings;
        self.unfiltered = warnings;
        has_changed
    }

    /// Why the node is not ready: a flag whose globs have never matched an interface.
    pub fn missing(&self) -> Option<String> {
        let flag = self.flags.iter().find(|flag| !flag.has_matched)?;
        let reasons: Vec<_> = flag.warnings.iter().map(ToString::to_string).collect();
        Some(if reasons.is_empty() { format!("{}: not looked at yet", flag.name) } else { reasons.join("\n") })
    }

    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.sockets
            .iter()
            .chain(self.flags.iter().flat_map(|flag| &flag.warnings))
            .chain(&self.ahead)
            .chain(&self.failed)
            .chain(&self.drivers)
            .chain(&self.refused)
            .chain(&self.unfiltered)
    }
}

fn warning(flag: &str, glob: &str, listed: &str) -> Warning {
    let problem = format!("no interface matches {glob}; there are {listed}");
    Warning::new(WarningKind::Hazard, problem, "name interfaces that exist, or write auto").at(flag)
}

/// Some names, and the number of the others.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    let first = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".to_owned(),
        count if count > NAMES_MAX => format!("{first} and {} more", count - NAMES_MAX),
        _ => first,
    }
}
