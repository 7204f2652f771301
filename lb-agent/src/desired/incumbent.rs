//! What Services have at the moment: it is not taken from them by whoever asks for the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::table::{Action, FrontendKey, FrontendState, Scopes};

use super::table::ServicePortName;
use crate::dataplane::Tables;
use crate::family::TableAddr;
use crate::model::ObjectName;

/// The tables as they are, and who is behind their ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incumbents<'a>(Option<(&'a Tables, &'a BTreeMap<ServicePortName, u32>)>);

impl<'a> Incumbents<'a> {
    /// Nobody has anything.
    pub const NONE: Self = Self(None);

    /// `service_ports` are the ids of Service ports, as far as any were given since the start.
    pub const fn of(tables: &'a Tables, service_ports: &'a BTreeMap<ServicePortName, u32>) -> Self {
        Self(Some((tables, service_ports)))
    }

    /// Whether this Service serves somebody at this address, port and protocol.
    pub fn has(&self, (ip, port, proto): (IpAddr, u16, Proto), service: &ObjectName) -> bool {
        let scopes = match ip {
            IpAddr::V4(v4) => self.scopes(&FrontendKey { addr: v4.octets(), port, proto, pad: 0 }),
            IpAddr::V6(v6) => self.scopes(&FrontendKey { addr: v6.octets(), port, proto, pad: 0 }),
        };
        scopes.is_some_and(|scopes| self.is_of(scopes, service))
    }

    /// What is served at an address.
    fn scopes<A: TableAddr>(&self, key: &FrontendKey<A>) -> Option<&'a Scopes> {
        let (tables, _) = self.0?;
        let frontend = A::tables(tables).frontends.get(key).filter(|row| row.state == FrontendState::Active)?;
        let scopes = tables.scopes.get(&frontend.id)?;
        let is_served =
            [scopes.workload, scopes.host, scopes.external].iter().any(|scope| scope.action != Action::Pass);
        is_served.then_some(scopes)
    }

    /// Who the owner is, says the id. After a start none is known, and the tag in the tables says it.
    fn is_of(&self, scopes: &Scopes, service: &ObjectName) -> bool {
        let Some((_, service_ports)) = self.0 else { return false };
        if service_ports.is_empty() {
            return scopes.owner == service.tag();
        }
        ports_of(service_ports, service).any(|(_, id)| id == scopes.service_port)
    }
}

/// The ports of a Service, and their ids.
pub fn ports_of<'a>(
    service_ports: &'a BTreeMap<ServicePortName, u32>,
    service: &ObjectName,
) -> impl Iterator<Item = (&'a ServicePortName, u32)> {
    let first = ServicePortName { service: Arc::new(service.clone()), port_name: "".into(), proto: Proto::TCP };
    let from_first = service_ports.range(first.clone()..);
    from_first.take_while(move |(name, _)| name.service == first.service).map(|(name, id)| (name, *id))
}
