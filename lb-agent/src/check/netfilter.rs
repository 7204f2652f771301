//! Who else translates addresses here: kube-proxy's chains and tables in netfilter, read by netlink.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;

use rtnetlink::packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;
use rtnetlink::sys::{Socket, SocketAddr};

use super::Finding;

// include/uapi/linux/netlink.h, nfnetlink.h and nf_tables.h.
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
/// Family, version and resource of the request: all families.
const NFGENMSG: [u8; 4] = [0; 4];
const HEADER_LEN: usize = 16;

const REMEDY_ANNOTATION: &str = "lb-agent acts first on VIPs; keep kube-proxy off an address by ipMode: Proxy in the \
                                 status (Kubernetes 1.30), an annotation alone does not";

pub fn findings() -> Vec<Finding> {
    let legacy = std::fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    let mut findings = match chains() {
        Ok(chains) => vec![kube_proxy(&chains)],
        // A kernel without nf_tables has none of them.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => vec![kube_proxy(&BTreeSet::new())],
        Err(error) => {
            vec![Finding::warn("kube-proxy", format!("nftables cannot be read: {error}"), "run as root")]
        }
    };
    if legacy.lines().any(|table| table == "nat") {
        let found = "the legacy iptables nat table is in use, its rules were not looked at";
        findings.push(Finding::warn("iptables", found, REMEDY_ANNOTATION));
    }
    findings
}

/// A chain of nftables; iptables-nft makes the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Chain {
    table: String,
    name: String,
}

fn kube_proxy(chains: &BTreeSet<Chain>) -> Finding {
    let check = "kube-proxy";
    if chains.iter().any(|chain| chain.table == "kube-proxy") {
        return Finding::warn(check, "kube-proxy in nftables mode has rules here", REMEDY_ANNOTATION);
    }
    // kubelet makes chains of other names that begin with KUBE as well.
    if chains.iter().any(|chain| chain.name == "KUBE-SERVICES") {
        return Finding::warn(check, "kube-proxy in iptables mode has rules here", REMEDY_ANNOTATION);
    }
    Finding::ok(check, "no rules of kube-proxy in nftables")
}

/// All chains of this network namespace.
fn chains() -> io::Result<BTreeSet<Chain>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    let mut chains = BTreeSet::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if take_datagram(&datagram, &mut chains)? == Dump::Complete {
            return Ok(chains);
        }
    }
}

fn request() -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER_LEN + NFGENMSG.len());
    request.extend(((HEADER_LEN + NFGENMSG.len()) as u32).to_ne_bytes());
    request.extend((NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN).to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence number 1, to the kernel.
    request.extend(1_u32.to_ne_bytes());
    request.extend(0_u32.to_ne_bytes());
    request.extend(NFGENMSG);
    request
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dump {
    Going,
    Complete,
}

fn take_datagram(mut bytes: &[u8], chains: &mut BTreeSet<Chain>) -> io::Result<Dump> {
    while !bytes.is_empty() {
        let message = NetlinkMessage::<Chain>::deserialize(bytes).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(Dump::Complete),
            NetlinkPayload::Error(error) => return Err(error.to_io()),
            NetlinkPayload::InnerMessage(chain) => drop(chains.insert(chain)),
            _ => {}
        }
        // Messages are aligned to four bytes.
        let length = (message.header.length as usize).next_multiple_of(4).max(HEADER_LEN);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(Dump::Going)
}

impl NetlinkDeserializable for Chain {
    type Error = Infallible;

    fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        let mut chain = Self::default();
        let attributes = payload.get(NFGENMSG.len()..).unwrap_or_default();
        for attribute in NlasIterator::new(attributes).flatten() {
            let text = String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned();
            match attribute.kind() {
                NFTA_CHAIN_TABLE => chain.table = text,
                NFTA_CHAIN_NAME => chain.name = text,
                _ => {}
            }
        }
        Ok(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

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

    /// Two chains, then the end, as the kernel writes them.
    #[test]
    fn reads_a_dump() {
        let mut bytes = Vec::new();
        for (table, name) in [("nat", "KUBE-SERVICES"), ("filter", "INPUT")] {
            let mut body = NFGENMSG.to_vec();
            for (kind, text) in [(NFTA_CHAIN_TABLE, table), (2, "12345678"), (NFTA_CHAIN_NAME, name)] {
                body.extend((text.len() as u16 + 5).to_ne_bytes());
                body.extend(kind.to_ne_bytes());
                body.extend(text.as_bytes());
                body.push(0);
                body.resize(body.len().next_multiple_of(4), 0);
            }
            bytes.extend(message(NFNL_SUBSYS_NFTABLES << 8 | 3, &body));
        }
        bytes.extend(message(3, &[0; 4]));
        let mut chains = BTreeSet::new();
        assert_eq!(take_datagram(&bytes, &mut chains).expect("a dump"), Dump::Complete);
        assert_eq!(chains, [chain("nat", "KUBE-SERVICES"), chain("filter", "INPUT")].into());
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER_LEN + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        message
    }
}
