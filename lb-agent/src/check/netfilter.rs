//! Checks for other address translation: kube-proxy's rules in netfilter, and what both claim.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use lb_common::addr::Addr;
use lb_common::table::{FrontendState, Origin};

use super::finding::Finding;
use crate::dataplane::pins::Pins;
use crate::dataplane::{FamilyTables, Tables};
use crate::kube_proxy::{self, Rules};

const CHECK: &str = "kube-proxy";
const SUCCESSION: &str = "hand-over";

const BESIDE: &str = "lb-agent acts on VIPs before kube-proxy, and its guard keeps kube-proxy off addresses that an annotation \
    or a flag leaves to the balancer; addresses of this node, Services without endpoints and Services with source ranges \
    need ipMode: Proxy in the status; docs/kube-proxy.md: how to replace kube-proxy altogether";
/// The order keeps connections: docs/kube-proxy.md has it with all commands.
const FORTH: &str = "to complete the hand-over: end kube-proxy, then remove its rules (kube-proxy --cleanup); to return: \
    restart lb-agent with --services=lb and --uplink-interfaces=auto, and unload once no frontend is draining";
const IPVS: &str = "; with ipvs remove nothing before `ipvsadm -Lnc` is empty: its connections end with its rules";

/// `ipvs` says whether kube-proxy's device is there.
pub fn findings(pin_path: &Path, ipvs: Ipvs) -> Vec<Finding> {
    let rules = kube_proxy::rules();
    let mut findings = match &rules {
        Ok(rules) => vec![kube_proxy(rules), guard()],
        Err(error) => vec![
            Finding::warn(CHECK, format!("the rules of netfilter cannot be read: {error}"), "run as root"),
            no_guard(error),
        ],
    };
    // Without pins nothing is claimed, and another finding says what is wrong with them.
    let claims =
        Pins::open(pin_path).and_then(|pins| pins.tables()).map(|tables| Claims::of(&tables)).unwrap_or_default();
    findings.extend(succession(&claims, &rules.unwrap_or_default(), ipvs));
    findings
}

/// nftables answered, so the guard's table can be written.
fn guard() -> Finding {
    Finding::ok("guard", "nftables can hold overrides of ipMode against kube-proxy's iptables and nftables modes")
}

fn no_guard(error: &io::Error) -> Finding {
    Finding::warn(
        "guard",
        format!("nftables does not answer ({error}): overrides of ipMode do not hold against a kube-proxy here"),
        "load nf_tables, nft_chain_nat and nft_nat, and run with CAP_NET_ADMIN",
    )
}

/// Whether the interface of kube-proxy in ipvs mode exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipvs {
    Absent,
    Present,
}

fn kube_proxy(rules: &BTreeSet<Rules>) -> Finding {
    if rules.is_empty() {
        return Finding::ok(CHECK, "no rules of kube-proxy in netfilter");
    }
    Finding::warn(CHECK, format!("kube-proxy has rules here: {}", names(rules)), BESIDE)
}

fn names(rules: &BTreeSet<Rules>) -> String {
    rules.iter().map(|rules| rules.name()).collect::<Vec<_>>().join(", ")
}

/// What the pinned tables claim, of what kube-proxy claims as well.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claims {
    clusters: BTreeSet<IpAddr>,
    externals: BTreeSet<IpAddr>,
    balancers: BTreeSet<IpAddr>,
    /// Protocol and number.
    node_ports: BTreeSet<(&'static str, u16)>,
}

impl Claims {
    fn of(tables: &Tables) -> Self {
        let mut claims = Self::default();
        claims.add(&tables.v4);
        claims.add(&tables.v6);
        claims
    }

    fn add<A: Addr>(&mut self, tables: &FamilyTables<A>) {
        for (key, frontend) in &tables.frontends {
            if frontend.state == FrontendState::Draining {
                continue;
            }
            let addr = key.addr.into();
            match frontend.origin {
                Origin::ClusterIP => drop(self.clusters.insert(addr)),
                Origin::ExternalIP => drop(self.externals.insert(addr)),
                Origin::LoadBalancer => drop(self.balancers.insert(addr)),
                Origin::NodePort => drop(self.node_ports.insert((key.proto.name(), key.port))),
            }
        }
    }

    /// Whether they are those of `--services=all`.
    fn are_all(&self) -> bool {
        !self.clusters.is_empty() || !self.externals.is_empty() || !self.node_ports.is_empty()
    }

    fn listed(&self) -> String {
        let counts = [
            (self.clusters.len(), "cluster address", "es"),
            (self.node_ports.len(), "node port", "s"),
            (self.externals.len(), "externalIP", "s"),
            (self.balancers.len(), "balancer address", "es"),
        ];
        let counts = counts.into_iter().filter(|(count, ..)| *count > 0);
        counts
            .map(|(count, name, many)| format!("{count} {name}{}", if count == 1 { "" } else { many }))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// What both serve, if the tables are those of `--services=all`.
fn succession(claims: &Claims, rules: &BTreeSet<Rules>, ipvs: Ipvs) -> Option<Finding> {
    if !claims.are_all() {
        return None;
    }
    let (mut modes, mut remedy) = (names(rules), FORTH.to_owned());
    if ipvs == Ipvs::Present {
        modes.push_str(if modes.is_empty() { "ipvs mode" } else { ", ipvs mode" });
        remedy.push_str(IPVS);
    }
    if modes.is_empty() {
        return Some(Finding::ok(SUCCESSION, format!("lb-agent serves without kube-proxy: {}", claims.listed())));
    }
    let found = format!(
        "kube-proxy ({modes}) and lb-agent both claim {}: new connections are lb-agent's, which acts first; connections that \
         kube-proxy made depend on its rules, and what lb-agent leaves alone gets to them",
        claims.listed()
    );
    Some(Finding::warn(SUCCESSION, found, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    fn claims(clusters: &[u8]) -> Claims {
        let clusters = clusters.iter().map(|last| IpAddr::from([10, 96, 0, *last])).collect();
        Claims { clusters, ..Claims::default() }
    }

    #[test]
    fn each_mode_of_kube_proxy_is_named() {
        assert_eq!(kube_proxy(&BTreeSet::new()).verdict, Verdict::Ok);
        let found = kube_proxy(&[Rules::Nftables, Rules::IptablesLegacy].into());
        assert_eq!(
            (found.verdict, &*found.found),
            (Verdict::Warn, "kube-proxy has rules here: nftables mode, iptables mode, legacy tables")
        );
    }

    #[test]
    fn what_both_claim_is_named_with_the_order_of_steps() {
        let none = BTreeSet::new();
        assert_eq!(
            succession(&Claims::default(), &[Rules::Nftables].into(), Ipvs::Absent),
            None,
            "kube-proxy serves the rest"
        );
        let balancers = Claims { balancers: [[192, 0, 2, 1].into()].into(), ..Claims::default() };
        assert_eq!(succession(&balancers, &[Rules::Nftables].into(), Ipvs::Present), None);
        let alone = succession(&claims(&[1]), &none, Ipvs::Absent).expect("a finding");
        assert_eq!(
            (alone.verdict, &*alone.found),
            (Verdict::Ok, "lb-agent serves without kube-proxy: 1 cluster address")
        );
        let all = Claims { node_ports: [("tcp", 30_080), ("udp", 30_080)].into(), ..claims(&[1, 2]) };
        let both = succession(&all, &[Rules::Iptables].into(), Ipvs::Absent).expect("a finding");
        assert!(
            both.found
                .starts_with("kube-proxy (iptables mode) and lb-agent both claim 2 cluster addresses, 2 node ports:"),
            "{}",
            both.found
        );
        assert!(both.remedy.contains("--cleanup") && !both.remedy.contains("ipvsadm"), "{}", both.remedy);
        let ipvs = succession(&all, &none, Ipvs::Present).expect("a finding");
        assert!(ipvs.found.contains("(ipvs mode)") && ipvs.remedy.contains("ipvsadm -Lnc"), "{ipvs:?}");
    }
}
