//! Whether frames between two ports of a bridge traverse netfilter. One of two settings is enough
//! (`br_nf_pre_routing()` in net/bridge/br_netfilter_hooks.c): that of the network namespace
//! (`net.bridge.bridge-nf-call-*`, which exists once br_netfilter is loaded), or that of the bridge
//! (`IFLA_BR_NF_CALL_*`).

use std::{fs, io};

use lb_common::addr::Family;
use rtnetlink::packet_route::link::{InfoBridge, InfoData, LinkInfo};

/// The families whose frames traverse netfilter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeNetfilter {
    pub v4: bool,
    pub v6: bool,
}

impl BridgeNetfilter {
    /// The setting of this process's network namespace.
    pub fn of_namespace() -> Self {
        Self { v4: is_on("bridge-nf-call-iptables"), v6: is_on("bridge-nf-call-ip6tables") }
    }

    /// The setting of a bridge itself.
    pub fn of_bridge(info: &[LinkInfo]) -> Self {
        let mut own = Self::default();
        let data = info
            .iter()
            .filter_map(|info| if let LinkInfo::Data(InfoData::Bridge(data)) = info { Some(data) } else { None });
        for attribute in data.flatten() {
            match attribute {
                InfoBridge::NfCallIpTables(is_on) => own.v4 = *is_on,
                InfoBridge::NfCallIp6Tables(is_on) => own.v6 = *is_on,
                _ => {}
            }
        }
        own
    }

    /// The effective setting of a bridge whose own setting is `own`.
    #[must_use]
    pub const fn or(self, own: Self) -> Self {
        Self { v4: self.v4 || own.v4, v6: self.v6 || own.v6 }
    }

    pub const fn has(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Without br_netfilter the setting does not exist and is off. If it cannot be read, it is taken to be on, the usual
/// setting.
fn is_on(name: &str) -> bool {
    match fs::read_to_string(format!("/proc/sys/net/bridge/{name}")) {
        Ok(value) => value.trim() != "0",
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}
