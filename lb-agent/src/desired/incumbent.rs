//! What Services have at the moment: it is not taken from them by whoever asks for the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::table::{Action, Backend, FrontendKey, FrontendState, MemberKey, PoolKey, Scope, Scopes};

use super::access::SourcePrefix;
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

    /// What this Service has at an address, served or not.
    pub fn row<A: TableAddr>(&self, key: &FrontendKey<A>, service: &ObjectName) -> Option<&'a Scopes> {
        self.element(key).filter(|scopes| self.is_of(scopes, service))
    }

    /// Frontends of a family, those that drain included.
    pub fn frontends<A: TableAddr>(&self) -> usize {
        self.0.map_or(0, |(tables, _)| A::tables(tables).frontends.len())
    }

    /// Whether there is a row of an address, whosoever, and also if it drains.
    pub fn has_row<A: TableAddr>(&self, key: &FrontendKey<A>) -> bool {
        self.0.is_some_and(|(tables, _)| A::tables(tables).frontends.contains_key(key))
    }

    /// Endpoints that the tables hold for a Service port.
    pub fn members<A: TableAddr>(&self, service_port: u32) -> usize {
        let Some((tables, _)) = self.0 else { return 0 };
        let first = MemberKey { service_port, addr: A::new_zeroed(), port: 0, pad: 0 };
        A::tables(tables).members.range(first..).take_while(|(key, _)| key.service_port == service_port).count()
    }

    /// Whether an endpoint is among them.
    pub fn is_member<A: TableAddr>(&self, service_port: u32, backend: &Backend<A>) -> bool {
        let key = MemberKey { service_port, addr: backend.addr, port: backend.port, pad: 0 };
        self.0.is_some_and(|(tables, _)| A::tables(tables).members.contains_key(&key))
    }

    /// The backends that a scope balances over, each once, in order.
    pub fn backends<A: TableAddr>(&self, scope: Scope) -> Vec<Backend<A>> {
        let Some((tables, _)) = self.0.filter(|_| scope.pool != 0) else { return Vec::new() };
        let slots = PoolKey { pool: scope.pool, slot: 0 }..=PoolKey { pool: scope.pool, slot: u32::MAX };
        let mut backends: Vec<_> = A::tables(tables).pools.range(slots).map(|(_, backend)| *backend).collect();
        backends.sort_unstable();
        backends.dedup();
        backends
    }

    /// The source ranges that are asked, in order; `None` where none are.
    pub fn source_ranges<A: TableAddr>(&self, scopes: &Scopes) -> Option<Vec<SourcePrefix<A>>> {
        let (tables, _) = self.0.filter(|_| scopes.source_ranges != 0)?;
        let ranges = A::tables(tables).source_ranges_of(scopes.source_ranges);
        let mut prefixes: Vec<_> =
            ranges.map(|(key, _)| SourcePrefix { addr: key.addr, length: key.length() as u8 }).collect();
        prefixes.sort_unstable();
        Some(prefixes)
    }

    /// What is served at an address.
    fn scopes<A: TableAddr>(&self, key: &FrontendKey<A>) -> Option<&'a Scopes> {
        let scopes = self.element(key)?;
        let is_served =
            [scopes.workload, scopes.host, scopes.external].iter().any(|scope| scope.action != Action::Pass);
        is_served.then_some(scopes)
    }

    fn element<A: TableAddr>(&self, key: &FrontendKey<A>) -> Option<&'a Scopes> {
        let (tables, _) = self.0?;
        let frontend = A::tables(tables).frontends.get(key).filter(|row| row.state == FrontendState::Active)?;
        tables.scopes.get(&frontend.id)
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
