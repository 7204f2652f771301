//! The rows of `show interfaces`: every interface, its class, and the programs attached to it.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::{EDGE_SOCKETS, EDGE_UPLINK};
use schemars::JsonSchema;
use serde::Serialize;

use super::names::SOCKETS;
use crate::ask::Judgements;
use crate::dataplane::Hook;
use crate::dataplane::driver::Mode;
use crate::dataplane::hooks::Way;
use crate::dataplane::links::{Ahead, Attachment};
use crate::dataplane::pins::Pins;
use crate::dataplane::sockets::SocketHook;
use crate::filter::{Facet, Facets, Filtered};
use crate::interfaces::{Globs, InterfaceRules, Interfaces, Judgement, Kind, LinkFacts, watch};
use crate::losses::{Loss, Losses};
use crate::render::{Item, Row};

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct InterfaceRow {
    /// The name, or `(sockets)` for the cgroup hooks.
    pub interface: String,
    /// The cgroup hooks have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    pub kind: &'static str,
    /// `workload`, `uplink` or `host` (sockets). Absent if no program of ours is attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<&'static str>,
    pub hooks: Vec<&'static str>,
    /// `tcx` or `clsact`. Absent if no program of ours is attached to an interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_by: Option<&'static str>,
    /// Who handles packets of known flows of an interface towards the network: its driver (`native`), the kernel before it
    /// makes anything of them (`generic`), or `tc`. Absent with --xdp=off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp: Option<&'static str>,
    /// Why it is `tc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp_why: Option<String>,
    /// Other programs that run before ours.
    pub before_ours: Vec<String>,
    /// The rule that decided the class, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Of the interfaces of pods, of all interfaces towards the network together, and of sockets.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// What the clients behind an interface do. Absent for interfaces that have none of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Traffic {
    /// Flows that are being translated. Sockets have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
    /// Packets answered with an ICMP error, and dials that were refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejects: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drops: Option<Vec<Loss>>,
}

impl Traffic {
    fn dropped(&self) -> Option<u64> {
        self.drops.as_ref().map(|drops| drops.iter().map(|loss| loss.packets).sum())
    }
}

impl Item for InterfaceRow {
    const KIND: &'static str = "Interfaces";
}

impl Filtered for InterfaceRow {
    const FACETS: &'static [Facet] = &[Facet::Interface];

    fn facets(&self) -> Facets<'_> {
        Facets { interface: Some(&self.interface), ..Facets::default() }
    }
}

impl Row for InterfaceRow {
    const TITLES: &'static [&'static str] =
        &["INDEX", "INTERFACE", "KIND", "CLASS", "ATTACHED", "BEFORE-OURS", "FLOWS", "REJECTS", "DROPS", "WHY"];

    fn cells(&self) -> Vec<String> {
        let hooks = match (self.hooks.as_slice(), self.attached_by) {
            ([], _) => "-".into(),
            (hooks, Some("clsact")) => format!("{} (clsact)", hooks.join(", ")),
            (hooks, _) => hooks.join(", "),
        };
        let attached = match self.xdp {
            Some(mode @ ("native" | "generic")) => format!("{hooks}, XDP ({mode})"),
            Some(_) | None => hooks,
        };
        let why = self.why.iter().cloned().chain(self.xdp_why.iter().map(|why| format!("no XDP: {why}")));
        let why = why.collect::<Vec<_>>().join("; ");
        let before = if self.before_ours.is_empty() { "-".into() } else { self.before_ours.join(", ") };
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let number = |number: Option<u64>| known(number.map(|number| number.to_string()));
        vec![
            known(self.ifindex.map(|index| index.to_string())),
            self.interface.clone(),
            self.kind.into(),
            known(self.class.map(Into::into)),
            attached,
            before,
            number(self.traffic.flows),
            number(self.traffic.rejects),
            number(self.traffic.dropped()),
            known(Some(why).filter(|why| !why.is_empty())),
        ]
    }

    const EXPENDABLE: &'static [&'static str] = &["INDEX", "KIND"];
}

/// Joins the pinned attachments with the links of this namespace and the agent's judgements.
pub fn read(pins: &Pins, judgements: Option<&Judgements>) -> anyhow::Result<Vec<InterfaceRow>> {
    let attached = pins.hooks()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut interfaces = Interfaces::default();
    interfaces.apply(runtime.block_on(watch::list_once())?);
    let why = judgements.map_or_else(|| by_default(&interfaces), |judgements| judgements.why.clone());
    let mut rows = rows(interfaces.links(), &attached.ways(), &attached.ahead(), &why);
    let left_to_tc = judgements.map(|judgements| &judgements.left_to_tc);
    tell_xdp(&mut rows, &pins.drivers()?, left_to_tc.unwrap_or(&BTreeMap::new()));
    rows.extend(uplinks(&rows));
    rows.push(sockets(&pins.socket_hooks()?));
    let (flows, mut losses) = (pins.edge_flows()?, Losses::by(&pins.drop_counts()?, |row| row.edge));
    for row in &mut rows {
        let Some(edge) = edge(row) else { continue };
        let Losses { rejects, drops } = losses.remove(&edge).unwrap_or_default();
        let has_flows = edge != EDGE_SOCKETS;
        let flows = has_flows.then(|| flows.get(&edge).copied().unwrap_or(0));
        row.traffic = Traffic { flows, rejects: Some(rejects), drops: Some(drops) };
    }
    Ok(rows)
}

/// What a row is in the tables. The interfaces towards the network are one, which has a row of its own.
fn edge(row: &InterfaceRow) -> Option<u32> {
    match (row.class?, row.ifindex) {
        ("uplink", None) => Some(EDGE_UPLINK),
        ("host", _) => Some(EDGE_SOCKETS),
        ("workload", ifindex) => ifindex,
        _ => None,
    }
}

/// The row of all interfaces towards the network, if there are any.
fn uplinks(rows: &[InterfaceRow]) -> Option<InterfaceRow> {
    let names: Vec<_> =
        rows.iter().filter(|row| row.class == Some("uplink")).map(|row| row.interface.as_str()).collect();
    (!names.is_empty()).then(|| InterfaceRow {
        interface: "(uplinks)".into(),
        ifindex: None,
        kind: "edge",
        class: Some("uplink"),
        hooks: Vec::new(),
        attached_by: None,
        xdp: None,
        xdp_why: None,
        before_ours: Vec::new(),
        why: Some(format!("together: {}", names.join(", "))),
        traffic: Traffic::default(),
    })
}

/// The row of the cgroup hooks, which serve sockets of no particular interface.
fn sockets(hooks: &[SocketHook]) -> InterfaceRow {
    let is_served = !hooks.is_empty();
    let why = if is_served { "--socket-lb" } else { "--socket-lb=off, or the root of the cgroup v2 tree is missing" };
    InterfaceRow {
        interface: SOCKETS.into(),
        ifindex: None,
        kind: "cgroup",
        class: is_served.then_some("host"),
        hooks: hooks.iter().map(|hook| hook.program()).collect(),
        attached_by: None,
        xdp: None,
        xdp_why: None,
        before_ours: Vec::new(),
        why: Some(why.into()),
        traffic: Traffic::default(),
    }
}

/// The judgements without flags and without a Node object.
fn by_default(interfaces: &Interfaces) -> BTreeMap<u32, String> {
    let rules = InterfaceRules { workload: Globs::Auto, uplink: Globs::None };
    let judged = interfaces.judged(&rules, &BTreeSet::new());
    let told = |judgement: &Judgement| format!("no agent answers; by default: {}", judgement.why);
    judged.iter().map(|(ifindex, judgement)| (*ifindex, told(judgement))).collect()
}

fn rows(
    links: &BTreeMap<u32, LinkFacts>,
    attached: &BTreeMap<Attachment, Way>,
    ahead: &[Ahead],
    why: &BTreeMap<u32, String>,
) -> Vec<InterfaceRow> {
    let row = |link: &LinkFacts| {
        let ours: Vec<_> = attached.iter().filter(|(attachment, _)| attachment.ifindex == link.ifindex).collect();
        InterfaceRow {
            interface: link.name.clone(),
            ifindex: Some(link.ifindex),
            kind: kind_name(link.kind),
            class: ours.first().map(|(attachment, _)| attachment.class.name()),
            hooks: ours.iter().map(|(attachment, _)| Hook::name(attachment.hook)).collect(),
            attached_by: ours.first().map(|(_, way)| way.name()),
            xdp: None,
            xdp_why: None,
            before_ours: before_ours(link.ifindex, ahead),
            why: why.get(&link.ifindex).cloned(),
            traffic: Traffic::default(),
        }
    };
    links.values().map(row).collect()
}

/// Fills in who handles known flows.
fn tell_xdp(rows: &mut [InterfaceRow], drivers: &BTreeMap<u32, Mode>, left_to_tc: &BTreeMap<u32, String>) {
    for row in rows {
        let Some(ifindex) = row.ifindex else { continue };
        let why = left_to_tc.get(&ifindex);
        row.xdp = drivers.get(&ifindex).map(|mode| mode.name()).or_else(|| why.map(|_| "tc"));
        row.xdp_why = why.filter(|_| row.xdp == Some("tc")).cloned();
    }
}

/// For example `ingress: tailscale (id 12)`.
fn before_ours(ifindex: u32, ahead: &[Ahead]) -> Vec<String> {
    let here = ahead.iter().filter(|ahead| ahead.attachment.ifindex == ifindex);
    let text = |ahead: &Ahead| {
        let hook = ahead.attachment.hook.name();
        ahead.programs.iter().map(|program| format!("{hook}: {program}")).collect::<Vec<_>>()
    };
    here.flat_map(text).collect()
}

const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Loopback => "loopback",
        Kind::Hardware => "hardware",
        Kind::Veth => "veth",
        Kind::Tap => "tap",
        Kind::Bridge => "bridge",
        Kind::Vrf => "vrf",
        Kind::Overlay => "overlay",
        Kind::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::links::{Class, LinkHeader};
    use crate::dataplane::probe::{AttachedProgram, Neighbour};

    #[test]
    fn every_link_with_what_is_attached() {
        let links = [2, 3, 4].map(|ifindex| LinkFacts::pod_veth(ifindex, &format!("veth{ifindex}")));
        let links = links.into_iter().map(|link| (link.ifindex, link)).collect();
        let on = |ifindex| {
            Hook::ALL.map(|hook| Attachment { ifindex, class: Class::Workload, hook, header: LinkHeader::Ethernet })
        };
        let attachments = on(3);
        let attached = attachments.map(|attachment| (attachment, Way::Tcx));
        let attached = attached.into_iter().chain(on(4).map(|attachment| (attachment, Way::Clsact))).collect();
        let other = Neighbour::Program(AttachedProgram { id: 12, name: Some("other".into()) });
        let ahead = [Ahead { attachment: attachments[0], programs: vec![other] }];
        let why = [(3, "a pod".to_owned())].into();
        let mut rows = rows(&links, &attached, &ahead, &why);
        let cells: Vec<_> = rows.iter().map(Row::cells).collect();
        let wanted = [
            ["2", "veth2", "veth", "-", "-", "-", "-", "-", "-", "-"],
            ["3", "veth3", "veth", "workload", "ingress, egress", "ingress: other (id 12)", "-", "-", "-", "a pod"],
            ["4", "veth4", "veth", "workload", "ingress, egress (clsact)", "-", "-", "-", "-", "-"],
        ];
        assert_eq!(cells, wanted);

        tell_xdp(&mut rows, &[(4, Mode::Native)].into(), &[(3, "a port of br0".to_owned())].into());
        assert_eq!([0, 1, 2].map(|row| rows[row].xdp), [None, Some("tc"), Some("native")]);
        let cells = |row: usize, column: usize| rows[row].cells().swap_remove(column);
        assert_eq!((cells(1, 4).as_str(), cells(1, 9).as_str()), ("ingress, egress", "a pod; no XDP: a port of br0"));
        assert_eq!((cells(2, 4).as_str(), cells(2, 9).as_str()), ("ingress, egress (clsact), XDP (native)", "-"));
    }
}
