//! Checks the network namespace: its interfaces, and the settings that traffic depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Context as _;

use super::driver;
use super::finding::Finding;
use super::hooks;
use super::netfilter::Ipvs;
use crate::dataplane::driver::{can_load, foreign_program};
use crate::dataplane::links::Class;
use crate::dataplane::pins::Pins;
use crate::dataplane::{Xdp, card};
use crate::interfaces::{
    BridgeNetfilter, Globs, IPVS_INTERFACE, InterfaceRules, Interfaces, Judgement, Kind, Unfiltered, watch,
};
use crate::ipsec::Objection;

/// An interface that only Cilium makes.
const CILIUM_INTERFACE: &str = "cilium_host";

/// Whether frames between ports of a bridge traverse the node's netfilter rules.
const BRIDGES: &str = "bridge-netfilter";

/// All interfaces, with their settings.
pub fn interfaces() -> anyhow::Result<Interfaces> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut interfaces = Interfaces::default();
    interfaces.apply(runtime.block_on(watch::list_once()).context("interfaces cannot be listed")?);
    interfaces.follow_netfilter(BridgeNetfilter::of_namespace());
    Ok(interfaces)
}

fn has(interfaces: &Interfaces, name: &str) -> bool {
    interfaces.links().values().any(|link| link.name == name)
}

/// Whether a kube-proxy in ipvs mode made its interface.
pub fn ipvs_of(interfaces: &Interfaces) -> Ipvs {
    if has(interfaces, IPVS_INTERFACE) { Ipvs::Present } else { Ipvs::Absent }
}

pub fn findings(interfaces: &Interfaces, rules: &InterfaceRules, xdp: Option<Xdp>, pin_path: &Path) -> Vec<Finding> {
    let links = interfaces.wanted(&judged(interfaces, rules));
    let mut findings = vec![
        hooks::way(),
        classes(interfaces, rules),
        driver::finding(interfaces, &links, xdp, &can_load(), card, foreign_program),
        forwarding("ipv4", &setting("ipv4/ip_forward"), Needed::Always),
        forwarding("ipv6", &setting("ipv6/conf/all/forwarding"), ipv6_is_needed(interfaces)),
        reverse_path(&strict_interfaces(interfaces)),
        ipsec(crate::ipsec::policies()),
        ipvs(ipvs_of(interfaces)),
        cilium(has(interfaces, CILIUM_INTERFACE)),
    ];
    findings.extend(globs(interfaces, rules));
    findings.extend(bridges(&interfaces.unfiltered(&judged(interfaces, rules))));
    let attached = Pins::open(pin_path).and_then(|pins| pins.hooks());
    let ours = attached.map(|attached| attached.program_ids()).unwrap_or_default();
    findings.extend(interfaces.links().values().flat_map(|link| hooks::foreign(link, &ours, pin_path)));
    findings
}

/// A file below /proc/sys/net, which shows the namespace of this process. Empty if the file does not exist.
fn setting(path: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap_or_default().trim().to_owned()
}

/// The judgement without a Node object.
fn judged(interfaces: &Interfaces, rules: &InterfaceRules) -> BTreeMap<u32, Judgement> {
    interfaces.judged(rules, &BTreeSet::new())
}

/// The globs that match no interface now.
fn globs(interfaces: &Interfaces, rules: &InterfaceRules) -> Vec<Finding> {
    let names = || interfaces.links().values().map(|link| link.name.as_str());
    let flags = [("--workload-interfaces", &rules.workload), ("--uplink-interfaces", &rules.uplink)];
    let unmatched = flags.into_iter().filter_map(|(flag, globs)| match globs {
        Globs::Auto | Globs::None => None,
        Globs::Names(globs) => Some((flag, globs.unmatched(names()))),
    });
    let finding = |(flag, globs): (&str, Vec<&str>)| {
        if globs.is_empty() {
            return Finding::ok("globs", format!("{flag}: each matches an interface"));
        }
        let found = format!("{flag}: no interface is named as {}", globs.join(", "));
        Finding::warn(
            "globs",
            found,
            format!("correct {flag}, or wait for the interface; there are {}", names().collect::<Vec<_>>().join(" ")),
        )
    };
    unmatched.map(finding).collect()
}

fn classes(interfaces: &Interfaces, rules: &InterfaceRules) -> Finding {
    let judged = judged(interfaces, rules);
    let links = interfaces.wanted(&judged);
    let names = |class| {
        let names: Vec<_> = links.values().filter(|link| link.class == class).map(|link| link.name.as_str()).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(" ") }
    };
    let how =
        if (&rules.workload, &rules.uplink) == (&Globs::Auto, &Globs::Auto) { "auto finds" } else { "the flags give" };
    let found = format!("{how} pods at: {}; the network at: {}", names(Class::Workload), names(Class::Uplink));
    let refused = interfaces.links().values().filter(|link| judged[&link.ifindex].why.is_refusal());
    let refused: Vec<_> = refused.map(|link| format!("{}: {}", link.name, judged[&link.ifindex].why)).collect();
    if !refused.is_empty() {
        let remedy = "no program is attached there: let kube-proxy serve the clients behind it";
        return Finding::warn("interfaces", format!("{found}; {}", refused.join("; ")), remedy);
    }
    Finding::ok("interfaces", found)
}

/// Whether the node must forward packets of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Always,
    /// No interface has an address of the family.
    Never,
}

fn ipv6_is_needed(interfaces: &Interfaces) -> Needed {
    let has_ipv6 = interfaces.addresses().any(|addr| matches!(addr, IpAddr::V6(v6) if !v6.is_loopback()));
    if has_ipv6 { Needed::Always } else { Needed::Never }
}

fn forwarding(family: &'static str, value: &str, needed: Needed) -> Finding {
    let check = if family == "ipv4" { "forwarding4" } else { "forwarding6" };
    match (value, needed) {
        ("1" | "2", _) => Finding::ok(check, "the node routes"),
        (_, Needed::Never) => Finding::ok(check, "the node does not route, and has no address of this family"),
        (_, Needed::Always) => {
            let setting = if family == "ipv4" { "net.ipv4.ip_forward" } else { "net.ipv6.conf.all.forwarding" };
            Finding::warn(check, "the node does not route: packets of pods end here", format!("sysctl {setting}=1"))
        }
    }
}

/// Interfaces with strict reverse path filtering. The larger of the `all` value and the interface's own value applies.
fn strict_interfaces(interfaces: &Interfaces) -> Vec<String> {
    let all = setting("ipv4/conf/all/rp_filter");
    let is_strict = |name: &str| match (all.as_str(), setting(&format!("ipv4/conf/{name}/rp_filter")).as_str()) {
        ("2", _) | (_, "2") => false,
        (all, own) => all == "1" || own == "1",
    };
    let names = interfaces.links().values().filter(|link| link.kind != Kind::Loopback).map(|link| link.name.clone());
    names.filter(|name| is_strict(name)).collect()
}

fn reverse_path(strict: &[String]) -> Finding {
    if strict.is_empty() {
        return Finding::ok("rp_filter", "no interface is strict");
    }
    let found = format!(
        "strict on {}: works if requests and replies of a client use one interface; lb-agent translates no others",
        strict.join(" ")
    );
    Finding::ok("rp_filter", found)
}

fn bridges(unfiltered: &[Unfiltered]) -> Vec<Finding> {
    if unfiltered.is_empty() {
        return vec![Finding::ok(BRIDGES, "packets between pods of one bridge traverse the rules of the node")];
    }
    unfiltered.iter().map(|found| Finding::warn(BRIDGES, found.to_string(), found.remedy())).collect()
}

fn ipvs(device: Ipvs) -> Finding {
    if device == Ipvs::Absent {
        return Finding::ok("ipvs", "kube-proxy is not in ipvs mode");
    }
    Finding::warn(
        "ipvs",
        format!(
            "kube-proxy in ipvs mode binds VIPs to {IPVS_INTERFACE}: an IP that is VIP for one Service is local for all"
        ),
        "use kube-proxy in nftables or iptables mode where Services with different modes share an IP, or where an \
         annotation or a flag overrides ipMode: the guard does not cover ipvs",
    )
}

fn ipsec(policies: io::Result<u32>) -> Finding {
    match policies.map(Objection::Policies) {
        Ok(Objection::Policies(0)) => Finding::ok("ipsec", "no policy: packets may be forwarded to other nodes"),
        Ok(objection) => Finding::warn(
            "ipsec",
            format!(
                "{objection}: with --forwarding=snat nothing new is forwarded to other nodes, since it would bypass them"
            ),
            "set --forwarding=off, and let kube-proxy serve clients of the network where endpoints are elsewhere",
        ),
        Err(error) => Finding::warn("ipsec", format!("the policies cannot be counted: {error}"), "run as root"),
    }
}

fn cilium(is_there: bool) -> Finding {
    if !is_there {
        return Finding::ok("cni", "no CNI that is known to bypass the hooks of pods");
    }
    Finding::warn(
        "cni",
        "Cilium runs here: with host routing in eBPF, replies to pods bypass the egress hook, and translated \
         connections of pods hang",
        "set bpf.hostLegacyRouting=true in Cilium, or leave its pods out by --workload-interfaces",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    #[test]
    fn routing_is_wanted_where_there_are_addresses() {
        assert_eq!(forwarding("ipv4", "0", Needed::Always).verdict, Verdict::Warn);
        assert_eq!(forwarding("ipv4", "1", Needed::Always).verdict, Verdict::Ok);
        assert_eq!(forwarding("ipv6", "0", Needed::Never).verdict, Verdict::Ok);
        assert_eq!(forwarding("ipv6", "", Needed::Always).verdict, Verdict::Warn);
    }

    #[test]
    fn company_is_a_warning_with_a_remedy() {
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        for finding in [ipvs(Ipvs::Present), cilium(true), ipsec(Ok(1)), ipsec(denied())] {
            assert_eq!(finding.verdict, Verdict::Warn);
            assert!(!finding.remedy.is_empty());
        }
        for finding in [ipvs(Ipvs::Absent), cilium(false), ipsec(Ok(0))] {
            assert_eq!(finding.verdict, Verdict::Ok);
        }
        assert!(reverse_path(&["eth0".into()]).found.contains("eth0"));
    }
}
