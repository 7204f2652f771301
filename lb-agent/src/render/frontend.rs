//! Rows of `show frontends`.

use std::fmt;
use std::net::IpAddr;

use lb_common::addr::Addr;
use lb_common::table::{Action, Frontend, FrontendKey, Origin, Rule, Scope, ScopeFlags, Scopes};
use serde::Serialize;

use super::pool::Backends;
use super::{Row, socket};
use crate::dataplane::{FamilyTables, Tables};

/// A frontend with its scopes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrontendRow {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: &'static str,
    /// `-` if the address is not a load balancer's.
    pub mode: String,
    pub decided_by: &'static str,
    pub origin: String,
    pub state: String,
    pub id: u32,
    /// 0 means none.
    pub service_port: u32,
    pub workload: ScopeRow,
    pub host: ScopeRow,
    pub external: ScopeRow,
}

/// The scope of one kind of client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ScopeRow {
    pub action: String,
    /// 0 if the scope does not balance.
    pub pool: u32,
    pub backends: usize,
    /// How a backend is chosen: `random` or `maglev`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub masquerade: bool,
    /// New flows are dropped unless a source range holds their client.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub source_ranges: bool,
    /// Clients keep their backend.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
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
        let scope = |scope: Scope| ScopeRow::of(scope, backends.count(scope.pool));
        Self {
            address: key.addr.into(),
            port: key.port,
            protocol: key.proto.name(),
            mode: mode(frontend),
            decided_by: rule(frontend),
            origin: format!("{:?}", frontend.origin),
            state: format!("{:?}", frontend.state),
            id: frontend.id,
            service_port: scopes.service_port,
            workload: scope(scopes.workload),
            host: scope(scopes.host),
            external: scope(scopes.external),
        }
    }
}

/// The mode in the spelling of the API. Only load-balancer addresses have one.
pub fn mode(frontend: &Frontend) -> String {
    match frontend.decided_by {
        Rule::NotApplicable => "-".to_owned(),
        _ => format!("{:?}", frontend.mode),
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
        Rule::NotApplicable => match frontend.origin {
            Origin::ClusterIP => "internalTrafficPolicy",
            Origin::NodePort | Origin::ExternalIP | Origin::LoadBalancer => "externalTrafficPolicy",
        },
    }
}

impl ScopeRow {
    /// The row for clients that no program sees, whatever the table holds.
    pub fn not_served() -> Self {
        Self { action: NOT_SERVED.to_owned(), ..Self::of(Scope::PASS, 0) }
    }

    /// `backends` counts each backend of the scope's pool once.
    pub fn of(scope: Scope, backends: usize) -> Self {
        Self {
            action: format!("{:?}", scope.action),
            pool: scope.pool,
            backends,
            algorithm: (scope.action == Action::Balance).then(|| algorithm(scope)),
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
const NOT_SERVED: &str = "NotServed";

impl fmt::Display for ScopeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.action == NOT_SERVED {
            return f.write_str("-");
        }
        f.write_str(&self.action)?;
        if self.action == format!("{:?}", Action::Balance) {
            write!(f, " pool {} ({})", self.pool, self.backends)?;
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
        vec![
            socket(self.address, self.port),
            self.protocol.to_owned(),
            self.mode.clone(),
            self.decided_by.to_owned(),
            self.origin.clone(),
            self.state.clone(),
            self.id.to_string(),
            self.service_port.to_string(),
            self.workload.to_string(),
            self.host.to_string(),
            self.external.to_string(),
        ]
    }
}
