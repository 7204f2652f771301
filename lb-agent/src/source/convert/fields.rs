//! Reads the fields of one object, and collects a warning with the field's path for each mistake.

use std::net::IpAddr;

use lb_common::addr::Proto;

use crate::model::{ObjectRef, Warning, WarningKind};
use crate::printable::quoted;
use crate::source::{address, names};

/// Collects the warnings about one object.
pub struct Fields {
    object: ObjectRef,
    warnings: Vec<Warning>,
}

impl Fields {
    pub const fn of(object: ObjectRef) -> Self {
        Self { object, warnings: Vec::new() }
    }

    /// An empty collection for the same object.
    pub fn again(&self) -> Self {
        Self::of(self.object.clone())
    }

    /// Takes over the warnings of another collection, with renamed field paths.
    pub fn take(&mut self, other: Self, rename: impl Fn(&str) -> String) {
        self.warnings.extend(other.warnings.into_iter().map(|mut warning| {
            warning.field = warning.field.map(|field| rename(&field));
            warning
        }));
    }

    pub fn into_warnings(self) -> Vec<Warning> {
        self.warnings
    }

    pub fn warn(&mut self, kind: WarningKind, field: impl Into<String>, problem: impl Into<String>, remedy: &str) {
        self.warnings.push(Warning::new(kind, problem, remedy).of(&self.object).at(field));
    }

    /// An IP address in any spelling that the API ever accepted.
    pub fn ip(&mut self, field: impl FnOnce() -> String, text: &str) -> Option<IpAddr> {
        let ip = address::parse(text);
        if ip.is_none() {
            let problem = format!("{} is not an IP address and is left out", quoted(text));
            self.warn(
                WarningKind::BadField,
                field(),
                problem,
                "write an IPv4 or IPv6 address without prefix length or zone",
            );
        }
        ip
    }

    /// Whether the address is reachable. If not, it is left out, and a warning says what it cannot be (`what`) and what
    /// to write.
    pub fn is_usable(&mut self, field: impl FnOnce() -> String, ip: IpAddr, what: &str, remedy: &str) -> bool {
        let reason = address::unusable(ip);
        if let Some(reason) = reason {
            self.warn(WarningKind::BadField, field(), format!("{ip} ({reason}) cannot be {what}"), remedy);
        }
        reason.is_none()
    }

    /// An optional name, if the API server would accept it. Otherwise a warning says the consequence (`what`).
    pub fn name<'a>(
        &mut self,
        field: impl FnOnce() -> String,
        text: &'a str,
        rule: names::Rule,
        what: &str,
    ) -> Option<&'a str> {
        if text.is_empty() || rule.holds_for(text) {
            return Some(text);
        }
        let problem = format!("{} is not a name that the API server accepts; {what}", quoted(text));
        self.warn(WarningKind::BadField, field(), problem, &format!("write {}", rule.spelling));
        None
    }

    /// A port number from 1 to 65535.
    pub fn port(&mut self, field: impl FnOnce() -> String, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            let problem = format!("{number} is not a port number; the port is left out");
            self.warn(WarningKind::BadField, field(), problem, "write a number from 1 to 65535");
        }
        port
    }

    /// A protocol. If absent, TCP.
    pub fn proto(&mut self, field: impl FnOnce() -> String, text: Option<&str>) -> Option<Proto> {
        match text {
            None | Some("TCP" | "") => Some(Proto::TCP),
            Some("UDP") => Some(Proto::UDP),
            Some("SCTP") => Some(Proto::SCTP),
            Some(other) => {
                let problem = format!("{} is not a protocol; the port is left out", quoted(other));
                self.warn(WarningKind::BadField, field(), problem, "write TCP, UDP or SCTP in capitals");
                None
            }
        }
    }
}
