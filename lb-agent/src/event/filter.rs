//! What the filters of `lb-agent monitor` name, as values of its flags.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use lb_common::table::Counter;

use crate::model::Prefix;

/// `shop/web`, or `shop/web:http` for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFilter {
    /// `shop/web`.
    service: String,
    port: Option<String>,
}

impl ServiceFilter {
    /// Whether this is the name of a port of the Service (`shop/web:http`).
    pub fn is_of(&self, name: &str) -> bool {
        let (service, port) = name.split_once(':').unwrap_or((name, ""));
        service == self.service && self.port.as_deref().is_none_or(|wanted| wanted == port)
    }
}

impl FromStr for ServiceFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (service, port) = match text.split_once(':') {
            Some((service, port)) => (service, Some(port.to_owned())),
            None => (text, None),
        };
        let is_named = service
            .split_once('/')
            .is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'));
        if !is_named {
            return Err(format!("{text:?} is not a Service: write NAMESPACE/NAME or NAMESPACE/NAME:PORT"));
        }
        Ok(Self { service: service.to_owned(), port })
    }
}

impl fmt::Display for ServiceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)
    }
}

/// The clients in a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFilter(Prefix);

impl ClientFilter {
    pub fn has(&self, client: IpAddr) -> bool {
        self.0.contains(client)
    }
}

impl FromStr for ClientFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let problem = || format!("{text:?} is no client: write an IP or a prefix such as 10.1.0.0/16");
        let (addr, length) = match text.split_once('/') {
            Some((addr, length)) => (addr, Some(length.parse().map_err(|_| problem())?)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| problem())?;
        let whole = if addr.is_ipv4() { 32 } else { 128 };
        Prefix::new(addr, length.unwrap_or(whole)).map(Self).ok_or_else(problem)
    }
}

/// An address, or one port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressFilter {
    addr: IpAddr,
    port: Option<u16>,
}

impl AddressFilter {
    pub fn is(&self, at: SocketAddr) -> bool {
        self.addr == at.ip() && self.port.is_none_or(|port| port == at.port())
    }
}

impl FromStr for AddressFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(addr) = text.parse() {
            return Ok(Self { addr, port: None });
        }
        let at: SocketAddr = text.parse().map_err(|_| {
            format!("{text:?} is no address: write IP or IP:PORT (an IPv6 address with a port in brackets)")
        })?;
        Ok(Self { addr: at.ip(), port: Some(at.port()) })
    }
}

/// The reason of an event, by the name of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason(Counter);

impl Reason {
    pub const fn name(self) -> &'static str {
        self.0.name()
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let told = |counter: &&Counter| super::kind(**counter).is_some();
        let known = Counter::ALL.iter().filter(told).find(|counter| counter.name() == text);
        known.map(|counter| Self(*counter)).ok_or_else(|| {
            let names: Vec<_> = Counter::ALL.iter().filter(told).map(|counter| counter.name()).collect();
            format!("{text:?} is no reason: one of {}", names.join(", "))
        })
    }
}
