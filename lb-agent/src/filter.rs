//! Filters of `show`: which rows are printed, and what to say if none is. `monitor` names Services and addresses alike.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::likely::likely;
use crate::model::Prefix;

/// What rows can be chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Facet {
    Service,
    Address,
    Client,
    Mode,
    Interface,
}

impl Facet {
    pub const fn flag(self) -> &'static str {
        match self {
            Self::Service => "--service",
            Self::Address => "--address",
            Self::Client => "--client",
            Self::Mode => "--mode",
            Self::Interface => "--interface",
        }
    }
}

/// What filters compare of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facets<'a> {
    /// `shop/web:http`, or `shop/web`.
    pub service: Option<&'a str>,
    pub address: Option<SocketAddr>,
    pub client: Option<IpAddr>,
    pub mode: Option<&'a str>,
    pub interface: Option<&'a str>,
}

/// A row that can be chosen.
pub trait Filtered {
    /// What rows of this type have.
    const FACETS: &'static [Facet];

    fn facets(&self) -> Facets<'_>;
}

/// `NAMESPACE/NAME` or `NAMESPACE/NAME:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(String);

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self(text.to_owned()))
            }
            _ => Err("write NAMESPACE/NAME or NAMESPACE/NAME:PORT, as shop/web or shop/web:http".to_owned()),
        }
    }
}

impl ServiceName {
    /// Whether this is the name of the Service, or of one of its ports that is meant.
    fn is(&self, name: &str) -> bool {
        if name.contains(':') { self.is_of(name) } else { without_port(&self.0) == name }
    }

    /// Whether this is the name of a port that is meant (`shop/web:http`).
    pub fn is_of(&self, port: &str) -> bool {
        if self.0.contains(':') { self.0 == port } else { self.0 == without_port(port) }
    }
}

fn without_port(service: &str) -> &str {
    service.split(':').next().unwrap_or_default()
}

/// `IP` or `IP:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPattern {
    addr: IpAddr,
    port: Option<u16>,
}

impl FromStr for AddressPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // As `explain --to` has it.
        let text = text.split_once('/').map_or(text, |(address, _)| address);
        if let Ok(addr) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self { addr, port: None });
        }
        let address = text.parse::<SocketAddr>();
        let address = address.map_err(|_| "write IP or IP:PORT, as 192.0.2.1:80 or [2001:db8::1]:80".to_owned())?;
        Ok(Self { addr: address.ip(), port: Some(address.port()) })
    }
}

impl AddressPattern {
    pub fn is(&self, address: SocketAddr) -> bool {
        self.addr == address.ip() && self.port.is_none_or(|port| port == address.port())
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.addr, port).fmt(f),
            None => self.addr.fmt(f),
        }
    }
}

/// The filters that were given. A row must pass all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub service: Option<ServiceName>,
    pub address: Option<AddressPattern>,
    pub client: Option<Prefix>,
    pub mode: Option<String>,
    pub interface: Option<String>,
}

impl Filter {
    /// What the filters ask for.
    pub fn asked(&self) -> impl Iterator<Item = Facet> {
        let given = [
            self.service.as_ref().map(|_| Facet::Service),
            self.address.map(|_| Facet::Address),
            self.client.map(|_| Facet::Client),
            self.mode.as_ref().map(|_| Facet::Mode),
            self.interface.as_ref().map(|_| Facet::Interface),
        ];
        given.into_iter().flatten()
    }

    pub fn passes(&self, row: &Facets<'_>) -> bool {
        self.service.as_ref().is_none_or(|wanted| row.service.is_some_and(|service| wanted.is(service)))
            && self.address.is_none_or(|wanted| row.address.is_some_and(|address| wanted.is(address)))
            && self.client.is_none_or(|wanted| row.client.is_some_and(|client| wanted.contains(client)))
            && self.mode.as_ref().is_none_or(|wanted| row.mode.is_some_and(|mode| wanted.eq_ignore_ascii_case(mode)))
            && self.interface.as_ref().is_none_or(|wanted| row.interface == Some(wanted))
    }

    /// Why no row passes, with the names that may have been meant. `None` if there is no filter or no row.
    pub fn in_vain<R: Filtered>(&self, rows: &[R]) -> Option<String> {
        self.asked().next()?;
        if rows.is_empty() {
            return None;
        }
        let facets = || rows.iter().map(Filtered::facets);
        if let Some(ServiceName(wanted)) = &self.service
            && !facets().any(|row| self.service.as_ref().zip(row.service).is_some_and(|(wanted, name)| wanted.is(name)))
        {
            if facets().all(|row| row.service.is_none()) {
                return Some("no row has the name of a Service: only a running agent knows the names (--http)".into());
            }
            let known = facets().filter_map(|row| row.service);
            let alike = |name| if wanted.contains(':') { name } else { without_port(name) };
            return Some(unmatched(Facet::Service, wanted, known.map(alike)));
        }
        if let Some(wanted) = &self.interface
            && !facets().any(|row| row.interface == Some(wanted))
        {
            return Some(unmatched(Facet::Interface, wanted, facets().filter_map(|row| row.interface)));
        }
        if let Some(wanted) = self.address
            && !facets().any(|row| row.address.is_some_and(|address| wanted.is(address)))
        {
            let addresses: Vec<String> = facets().filter_map(|row| Some(row.address?.to_string())).collect();
            return Some(unmatched(Facet::Address, &wanted.to_string(), addresses.iter().map(String::as_str)));
        }
        Some(format!("none of {} rows passes the filters", rows.len()))
    }
}

fn unmatched<'a>(facet: Facet, wanted: &str, known: impl Iterator<Item = &'a str>) -> String {
    let meant = likely(wanted, known).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    format!("no row matches {} {wanted}{meant}", facet.flag())
}

#[cfg(test)]
mod tests;
