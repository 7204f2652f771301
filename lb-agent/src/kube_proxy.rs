//! Finds the rules of a kube-proxy in this network namespace: in nftables by netlink, and in the iptables of older kernels
//! by the socket options that iptables itself uses. Changes nothing and runs no program.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd as _;

use lb_common::addr::Family;
use netlink_bindings::nftables::Request;

use crate::dataplane::ask_socket;
use crate::nftables;

/// The chain that every nat rule of kube-proxy's iptables mode is behind. kubelet also makes chains whose names begin
/// with KUBE.
const CHAIN: &str = "KUBE-SERVICES";
/// The table of kube-proxy's nftables mode.
const TABLE: &str = "kube-proxy";

/// Where kube-proxy has rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rules {
    Nftables,
    /// iptables on nftables (iptables-nft).
    Iptables,
    /// The iptables of older kernels (iptables-legacy).
    IptablesLegacy,
}

impl Rules {
    /// For operators.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables mode",
            Self::Iptables => "iptables mode",
            Self::IptablesLegacy => "iptables mode, legacy tables",
        }
    }
}

/// All rules of kube-proxy.
pub fn rules() -> io::Result<BTreeSet<Rules>> {
    let mut found = match chains() {
        Ok(chains) => of_chains(&chains),
        // A kernel without nf_tables has no such chains.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => BTreeSet::new(),
        Err(error) => return Err(error),
    };
    for family in Family::ALL {
        if has_legacy_nat(family) && legacy_nat(family)?.windows(CHAIN.len() + 1).any(is_chain) {
            found.insert(Rules::IptablesLegacy);
        }
    }
    Ok(found)
}

/// A chain of nftables. iptables-nft makes such chains too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Chain {
    table: String,
    name: String,
}

fn of_chains(chains: &BTreeSet<Chain>) -> BTreeSet<Rules> {
    let has = |is_wanted: fn(&Chain) -> bool| chains.iter().any(is_wanted);
    let modes = [
        (Rules::Nftables, has(|chain| chain.table == TABLE)),
        (Rules::Iptables, has(|chain| chain.table == "nat" && chain.name == CHAIN)),
    ];
    modes.into_iter().filter(|(_, is_there)| *is_there).map(|(mode, _)| mode).collect()
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

/// Whether the nat table exists. To ask the kernel for the table would make it.
fn has_legacy_nat(family: Family) -> bool {
    let file = match family {
        Family::V4 => "/proc/net/ip_tables_names",
        Family::V6 => "/proc/net/ip6_tables_names",
    };
    std::fs::read_to_string(file).unwrap_or_default().lines().any(|table| table == "nat")
}

/// The options of both families (include/uapi/linux/netfilter_ipv4/ip_tables.h).
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `struct ipt_getinfo`: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size.
const INFO_BYTES: usize = 84;
const SIZE_OFFSET: usize = 80;
const NAME_BYTES: usize = 32;
/// `struct ipt_get_entries`: name, size, and the entries, which are aligned to eight bytes.
const ENTRIES_OFFSET: usize = 40;
/// Larger tables are not read.
const ENTRIES_MAX: usize = 256 << 20;
/// The table may grow between the two questions.
const TRIES: usize = 5;

/// All entries of the nat table. Chains are entries that hold their name.
fn legacy_nat(family: Family) -> io::Result<Vec<u8>> {
    let (socket, level) = match family {
        Family::V4 => (UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?, libc::SOL_IP),
        Family::V6 => (UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?, libc::SOL_IPV6),
    };
    let mut result = Err(io::ErrorKind::WouldBlock.into());
    for _ in 0..TRIES {
        let mut info = question(INFO_BYTES);
        ask_socket(socket.as_fd(), level, GET_INFO, &mut info)?;
        let size = info[SIZE_OFFSET..].try_into().map_or(0, u32::from_ne_bytes);
        if size as usize > ENTRIES_MAX {
            return Err(io::Error::other(format!("the table is too large to be read: {size} bytes")));
        }
        let mut entries = question(ENTRIES_OFFSET + size as usize);
        entries[NAME_BYTES..NAME_BYTES + 4].copy_from_slice(&size.to_ne_bytes());
        result = ask_socket(socket.as_fd(), level, GET_ENTRIES, &mut entries).map(|_| entries);
        // The size is not that of the table any more.
        let has_changed = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINVAL));
        if !result.as_ref().is_err_and(has_changed) {
            break;
        }
    }
    result
}

/// A value that names the table.
fn question(bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    value[..3].copy_from_slice(b"nat");
    value
}

/// Whether these bytes are the chain's name and its end.
fn is_chain(bytes: &[u8]) -> bool {
    bytes.strip_prefix(CHAIN.as_bytes()) == Some(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(table: &str, name: &str) -> Chain {
        Chain { table: table.into(), name: name.into() }
    }

    #[test]
    fn kube_proxy_is_recognised_by_its_chains() {
        let found = |chains: &[Chain]| of_chains(&chains.iter().cloned().collect()).into_iter().collect::<Vec<_>>();
        assert_eq!(found(&[]), []);
        assert_eq!(found(&[chain("mangle", "KUBE-KUBELET-CANARY"), chain("filter", "INPUT")]), []);
        assert_eq!(found(&[chain("nat", "KUBE-SERVICES")]), [Rules::Iptables]);
        // After a change of the mode, both are there.
        let both = [chain("kube-proxy", "services"), chain("nat", "KUBE-SERVICES")];
        assert_eq!(found(&both), [Rules::Nftables, Rules::Iptables]);
        assert!(is_chain(b"KUBE-SERVICES\0") && !is_chain(b"KUBE-SERVICES2") && !is_chain(b"KUBE-SERVICE\0\0"));
    }
}
