//! Checks for other address translation: kube-proxy's chains and tables in netfilter, read by netlink.

use std::collections::BTreeSet;
use std::io;

use netlink_bindings::nftables::Request;

use super::finding::Finding;
use crate::nftables;

const REMEDY: &str = "lb-agent acts on VIPs before kube-proxy, and its guard keeps kube-proxy off addresses that an \
    annotation or a flag leaves to the balancer; addresses of this node, Services without endpoints and Services with \
    source ranges need ipMode: Proxy in the status";

pub fn findings() -> Vec<Finding> {
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    let mut findings = match chains() {
        Ok(chains) => vec![kube_proxy(&chains), guard()],
        // A kernel without nf_tables has no such chains.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            vec![kube_proxy(&BTreeSet::new()), no_guard(&error)]
        }
        Err(error) => {
            vec![
                Finding::warn("kube-proxy", format!("nftables cannot be read: {error}"), "run as root"),
                no_guard(&error),
            ]
        }
    };
    if legacy.lines().any(|table| table == "nat") {
        let found = "the legacy iptables nat table is in use, its rules were not read";
        findings.push(Finding::warn("iptables", found, REMEDY));
    }
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

/// A chain of nftables. iptables-nft makes such chains too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Chain {
    table: String,
    name: String,
}

fn kube_proxy(chains: &BTreeSet<Chain>) -> Finding {
    let check = "kube-proxy";
    if chains.iter().any(|chain| chain.table == "kube-proxy") {
        return Finding::warn(check, "kube-proxy in nftables mode has rules here", REMEDY);
    }
    // kubelet also makes chains whose names begin with KUBE.
    if chains.iter().any(|chain| chain.name == "KUBE-SERVICES") {
        return Finding::warn(check, "kube-proxy in iptables mode has rules here", REMEDY);
    }
    Finding::ok(check, "no rules of kube-proxy in nftables")
}

/// All chains of this network namespace.
fn chains() -> io::Result<BTreeSet<Chain>> {
    let mut chains = BTreeSet::new();
    nftables::ask(&Request::new().op_getchain_dump(&nftables::of_family(0)), |(_, chain)| {
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        chains.insert(Chain {
            table: chain.get_table().map(text).unwrap_or_default(),
            name: chain.get_name().map(text).unwrap_or_default(),
        });
    })?;
    Ok(chains)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Verdict;

    fn chain(table: &str, name: &str) -> Chain {
        Chain { table: table.into(), name: name.into() }
    }

    #[test]
    fn kube_proxy_is_told_by_its_chains() {
        let found = |chains: &[Chain]| kube_proxy(&chains.iter().cloned().collect());
        assert_eq!(found(&[]).verdict, Verdict::Ok);
        assert_eq!(found(&[chain("mangle", "KUBE-KUBELET-CANARY"), chain("filter", "INPUT")]).verdict, Verdict::Ok);
        assert!(found(&[chain("nat", "KUBE-SERVICES")]).found.contains("iptables mode"));
        assert!(found(&[chain("kube-proxy", "services")]).found.contains("nftables mode"));
    }
}
