//! What Services have now, so that a competing claim does not take it from them.

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

/// The current tables, and the Service ports behind their IDs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Incumbents<'a>(Option<(&'a Tables, &'a BTreeMap<ServicePortName, u32>)>);

impl<'a> Incumbents<'a> {
    /// No Service has anything.
    pub const NONE: Self = Self(None);

    /// `service_ports` are the IDs of Service ports that were assigned since the start.
    pub const fn of(tables: &'a Tables, service_ports: &'a BTreeMap<ServicePortName, u32>) -> Self {
        Self(Some((tables, service_ports)))
    }

    /// Whether this Service serves any client at this address, port and protocol.
    pub fn has(&self, (ip, port, proto): (IpAddr, u16, Proto), service: &ObjectName) -> bool {
        let scopes = match ip {
            IpAddr::V4(v4) => self.scopes(&FrontendKey { addr: v4.octets(), port, proto, pad: 0 }),
            IpAddr::V6(v6) => self.scopes(&FrontendKey { addr: v6.octets(), port, proto, pad: 0 }),
        };
        scopes.is_some_and(|scopes| self.is_of(scopes, service))
    }

    /// The scopes of this Service at an address, served or not.
    pub fn row<A: TableAddr>(&self, key: &FrontendKey<A>, service: &ObjectName) -> Option<&'a Scopes> {
        self.element(key).filter(|scopes| self.is_of(scopes, service))
    }

    /// Number of frontends of a family, including draining ones.
    pub fn frontends<A: TableAddr>(&self) -> usize {
        self.0.map_or(0, |(tables, _)| A::tables(tables).frontends.len())
    }

    /// Whether an address has a row of any Service, including draining ones.
    pub fn has_row<A: TableAddr>(&self, key: &FrontendKey<A>) -> bool {
        self.0.is_some_and(|(tables, _)| A::tables(tables).frontends.contains_key(key))
    }

    /// Number of endpoints that the tables hold for a Service port.
    pub fn members<A: TableAddr>(&self, service_port: u32) -> usize {
        let Some((tables, _)) = self.0 else { return 0 };
        let first = MemberKey { service_port, addr: A::new_zeroed(), port: 0, pad: 0 };
        A::tables(tables).members.range(first..).take_while(|(key, _)| key.service_port == service_port).count()
    }

    /// Whether the tables hold this endpoint for the Service port.
    pub fn is_member<A: TableAddr>(&self, service_port: u32, backend: &Backend<A>) -> bool {
        let key = MemberKey { service_port, addr: backend.addr, port: backend.port, pad: 0 };
        self.0.is_some_and(|(tables, _)| A::tables(tables).members.contains_key(&key))
    }

    /// The backends of a scope's pool; sorted, each once.
    pub fn backends<A: TableAddr>(&self, scope: Scope) -> Vec<Backend<A>> {
        let Some((tables, _)) = self.0.filter(|_| scope.pool != 0) else { return Vec::new() };
        let slots = PoolKey { pool: scope.pool, slot: 0 }..=PoolKey { pool: scope.pool, slot: u32::MAX };
        let mut backends: Vec<_> = A::tables(tables).pools.range(slots).map(|(_, backend)| *backend).collect();
        backends.sort_unstable();
        backends.dedup();
        backends
    }

    /// The source ranges that these scopes refer to, sorted; `None` if there are none.
    pub fn source_ranges<A: TableAddr>(&self, scopes: &Scopes) -> Option<Vec<SourcePrefix<A>>> {
        let (tables, _) = self.0.filter(|_| scopes.source_ranges != 0)?;
        let ranges = A::tables(tables).source_ranges_of(scopes.source_ranges);
        let mut prefixes: Vec<_> =
            ranges.map(|(key, _)| SourcePrefix { addr: key.addr, length: key.length() as u8 }).collect();
        prefixes.sort_unstable();
        Some(prefixes)
    }

    /// The scopes at an address, if any client is served there.
    fn scopes<A: TableAddr>(&self, key: &FrontendKey<A>) -> Option<&'a Scopes> {
        let scopes = self.element(key)?;
        let is_served = scopes.per_client().into_array().iter().any(|scope| scope.action != Action::Pass);
        is_served.then_some(scopes)
    }

    fn element<A: TableAddr>(&self, key: &FrontendKey<A>) -> Option<&'a Scopes> {
        let (tables, _) = self.0?;
        let frontend = A::tables(tables).frontends.get(key).filter(|row| row.state == FrontendState::Active)?;
        tables.scopes.get(&frontend.id)
    }

    /// The Service port ID identifies the owner. Directly after a start no IDs are known, so the tag in the tables
    /// decides.
    fn is_of(&self, scopes: &Scopes, service: &ObjectName) -> bool {
        let Some((_, service_ports)) = self.0 else { return false };
        if service_ports.is_empty() {
            return scopes.owner == service.tag();
        }
        ports_of(service_ports, service).any(|(_, id)| id == scopes.service_port)
    }
}

/// The ports of a Service, and their IDs.
pub fn ports_of<'a>(
    service_ports: &'a BTreeMap<ServicePortName, u32>,
    service: &ObjectName,
) -> impl Iterator<Item = (&'a ServicePortName, u32)> {
    let first = ServicePortName { service: Arc::new(service.clone()), port_name: "".into(), proto: Proto::TCP };
    let from_first = service_ports.range(first.clone()..);
    from_first.take_while(move |(name, _)| name.service == first.service).map(|(name, id)| (name, *id))
}
