//! Rows of `show frontends`.

use std::fmt;
use std::net::SocketAddr;

use lb_common::addr::Addr;
use lb_common::table::{Action, Frontend, FrontendKey, HeaderVersion, Origin, Rule, Scope, ScopeFlags, Scopes};
use schemars::JsonSchema;
use serde::Serialize;

use super::Row;
use super::pool::Backends;
use crate::dataplane::{FamilyTables, Tables};

/// A frontend with its scopes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FrontendRow {
    /// Address and port: `192.0.2.1:80` or `[2001:db8::1]:80`.
    pub address: SocketAddr,
    pub proto: &'static str,
    /// Only a load balancer's address has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The PROXY header that connections begin with: `v1` or `v2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<&'static str>,
    /// The rule that decided the mode. Without a mode, the field of the Service that decides which clients are served.
    pub decided_by: &'static str,
    pub origin: String,
    pub state: String,
    pub frontend_id: u32,
    /// The number of the Service's port in the tables; 0 means none.
    pub service_port_id: u32,
    /// What pods get. Absent if no program sees their packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<ScopeRow>,
    /// What processes of the node get. Absent if no program sees their sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<ScopeRow>,
    /// What clients outside get. Absent if no program sees their packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ScopeRow>,
}

/// The scope of one kind of client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ScopeRow {
    pub action: String,
    /// The pool that the backend is chosen from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool_id: Option<u32>,
    /// The number of backends of the pool.
    pub backend_count: usize,
    /// How a backend is chosen: `random` or `maglev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<&'static str>,
    /// The backend sees an address of this node instead of the client's.
    pub masquerade: bool,
    /// New flows are dropped unless a source range holds their client.
    pub source_ranges: bool,
    /// Clients keep their backend.
    pub affinity: bool,
}

/// All frontends, IPv4 first, sorted by address, port and protocol.
pub fn frontends(tables: &Tables) -> Vec<FrontendRow> {
    let mut rows = family(&tables.v4, tables);
    rows.extend(family(&tables.v6, tables));
    rows
}

fn family<A: Addr>(family: &FamilyTables<A>, tables: &Tables) -> Vec<FrontendRow> {
    let backends = Backends::of(family);
    let rows = family.frontends.iter().map(|(key, frontend)| {
        let scopes = tables.scopes.get(&frontend.id).copied().unwrap_or(Scopes::PASS);
        FrontendRow::of(key, frontend, &scopes, &backends)
    });
    rows.collect()
}

impl FrontendRow {
    fn of<A: Addr>(key: &FrontendKey<A>, frontend: &Frontend, scopes: &Scopes, backends: &Backends) -> Self {
        let scope = |scope: Scope| Some(ScopeRow::of(scope, backends.count(scope.pool)));
        Self {
            address: SocketAddr::new(key.addr.into(), key.port),
            proto: key.proto.name(),
            mode: mode(frontend),
            proxy_protocol: scopes.header().map(HeaderVersion::name),
            decided_by: rule(frontend),
            origin: format!("{:?}", frontend.origin),
            state: format!("{:?}", frontend.state),
            frontend_id: frontend.id,
            service_port_id: scopes.service_port,
            workload: scope(scopes.workload),
            host: scope(scopes.host),
            external: scope(scopes.external),
        }
    }
}

impl FrontendRow {
    /// The mode with the header: `VIP+PROXYv2`.
    pub fn served_as(&self) -> String {
        let mode = self.mode.as_deref().unwrap_or("-");
        self.proxy_protocol.map_or_else(|| mode.to_owned(), |version| format!("{mode}+PROXY{version}"))
    }
}

/// The mode in the spelling of the API. Only load-balancer addresses have one.
pub fn mode(frontend: &Frontend) -> Option<String> {
    match frontend.decided_by {
        Rule::NotApplicable => None,
        _ => Some(format!("{:?}", frontend.mode)),
    }
}

/// The rule that decided the mode, in the words of the documentation. If there is no mode, the field of the Service
/// that decides which clients are served.
pub const fn rule(frontend: &Frontend) -> &'static str {
    match frontend.decided_by {
        Rule::Annotation => "lb-agent.io/ip-mode",
        Rule::ProxyAnnotation => "--proxy-annotation",
        Rule::VendorAnnotation => "--vendor-annotations",
        Rule::IpMode => "ipMode",
        Rule::Default => "--default-ip-mode",
        Rule::ProxyProtocol => "lb-agent.io/proxy-protocol",
        Rule::VendorHeader => "--proxy-protocol=vendor",
        Rule::NotApplicable => match frontend.origin {
            Origin::ClusterIP => "internalTrafficPolicy",
            Origin::NodePort | Origin::ExternalIP | Origin::LoadBalancer => "externalTrafficPolicy",
        },
    }
}

impl ScopeRow {
    /// `backends` counts each backend of the scope's pool once.
    pub fn of(scope: Scope, backends: usize) -> Self {
        let balances = scope.action == Action::Balance;
        Self {
            action: format!("{:?}", scope.action),
            pool_id: balances.then_some(scope.pool),
            backend_count: backends,
            algorithm: balances.then(|| algorithm(scope)),
            masquerade: scope.has(ScopeFlags::MASQUERADE),
            source_ranges: scope.has(ScopeFlags::SOURCE_RANGES),
            affinity: scope.has(ScopeFlags::AFFINITY),
        }
    }
}

/// The algorithm in the spelling of the command line.
pub const fn algorithm(scope: Scope) -> &'static str {
    if scope.has(ScopeFlags::MAGLEV) { MAGLEV } else { "random" }
}

const MAGLEV: &str = "maglev";

impl ScopeRow {
    /// Without the number of the pool.
    pub fn short(&self) -> String {
        let text = self.to_string();
        self.pool_id.map_or_else(|| text.clone(), |pool| text.replace(&format!(" pool {pool}"), ""))
    }
}

impl fmt::Display for ScopeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action)?;
        if let Some(pool) = self.pool_id {
            write!(f, " pool {pool} ({})", self.backend_count)?;
        }
        if self.algorithm == Some(MAGLEV) {
            write!(f, " {MAGLEV}")?;
        }
        if self.masquerade {
            f.write_str(" masquerade")?;
        }
        if self.source_ranges {
            f.write_str(" restricted")?;
        }
        if self.affinity { f.write_str(" affinity") } else { Ok(()) }
    }
}

impl Row for FrontendRow {
    const TITLES: &'static [&'static str] =
        &["ADDRESS", "PROTO", "MODE", "RULE", "ORIGIN", "STATE", "ID", "PORT-ID", "WORKLOAD", "HOST", "EXTERNAL"];

    fn cells(&self) -> Vec<String> {
        let scope = |scope: &Option<ScopeRow>| scope.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        vec![
            self.address.to_string(),
            self.proto.to_owned(),
            self.served_as(),
            self.decided_by.to_owned(),
            self.origin.clone(),
            self.state.clone(),
            self.frontend_id.to_string(),
            self.service_port_id.to_string(),
            scope(&self.workload),
            scope(&self.host),
            scope(&self.external),
        ]
    }
}
