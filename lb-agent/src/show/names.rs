//! Names for the numbers in the tables: interfaces of this namespace, and Services as the running agent knows them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lb_common::addr::{Addr, Proto};
use lb_common::table::{EDGE_SOCKETS, EDGE_UPLINK, FrontendKey, Scopes};

use crate::ask::Services;
use crate::dataplane::pins::Pins;
use crate::dataplane::{FamilyTables, Tables};

/// Where a packet was seen if no program of a pod's interface saw it.
const UPLINK: &str = "uplink";
/// Where dials of the node's own sockets were seen.
pub const SOCKETS: &str = "(sockets)";

/// The names of interfaces by index. Empty if the pins belong to another network namespace.
#[derive(Default)]
pub struct InterfaceNames(BTreeMap<u32, String>);

impl InterfaceNames {
    pub fn read(pins: &Pins) -> anyhow::Result<Self> {
        if !pins.is_of_this_namespace() {
            return Ok(Self::default());
        }
        let interfaces = nix::net::if_::if_nameindex()?;
        let name =
            |interface: &nix::net::if_::Interface| (interface.index(), interface.name().to_string_lossy().into_owned());
        Ok(Self(interfaces.iter().map(name).collect()))
    }

    /// `uplink`, the name of a pod's interface, or `#17` if there is no such interface any more.
    pub fn of_edge(&self, edge: u32) -> String {
        edge_name(edge, |ifindex| self.0.get(&ifindex).cloned())
    }
}

/// `uplink`, `(sockets)` for dials of the node's own, the name of a pod's interface, or `#17` if it has none any more.
pub fn edge_name(edge: u32, name: impl FnOnce(u32) -> Option<String>) -> String {
    match edge {
        EDGE_UPLINK => UPLINK.into(),
        EDGE_SOCKETS => SOCKETS.into(),
        ifindex => name(ifindex).unwrap_or_else(|| format!("#{ifindex}")),
    }
}

/// The names of Services by frontend.
pub struct ServiceNames<'a> {
    services: &'a Services,
    tables: &'a Tables,
}

impl<'a> ServiceNames<'a> {
    pub const fn new(services: &'a Services, tables: &'a Tables) -> Self {
        Self { services, tables }
    }

    /// `shop/web:http`; `None` if no agent runs, or if it does not know the Service any more.
    pub fn of(&self, frontend_id: u32) -> Option<String> {
        let Scopes { service_port, .. } = self.tables.scopes.get(&frontend_id)?;
        self.services.names.get(service_port).cloned()
    }

    /// The name of the Service at an address.
    pub fn at(&self, address: SocketAddr, proto: Proto) -> Option<String> {
        match address {
            SocketAddr::V4(v4) => self.at_key(&self.tables.v4, v4.ip().octets(), address.port(), proto),
            SocketAddr::V6(v6) => self.at_key(&self.tables.v6, v6.ip().octets(), address.port(), proto),
        }
    }

    fn at_key<A: Addr>(&self, tables: &FamilyTables<A>, addr: A, port: u16, proto: Proto) -> Option<String> {
        self.of(tables.frontends.get(&FrontendKey { addr, port, proto, pad: 0 })?.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_gone_keeps_its_number() {
        let names = InterfaceNames([(17, "veth1".to_owned())].into());
        assert_eq!([EDGE_UPLINK, 17, 18].map(|edge| names.of_edge(edge)), ["uplink", "veth1", "#18"]);
    }
}
