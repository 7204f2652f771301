//! The PROXY headers that connections to ports of a Service begin with.

use lb_common::addr::Proto;
use lb_common::table::HeaderVersion;

use crate::model::{Service, ServicePort};

/// Headers that a Service wants. The first one that applies to a port counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers(pub Vec<Header>);

/// A header, and the ports that get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: HeaderVersion,
    pub ports: Ports,
    /// The annotation that asks for the header.
    pub key: &'static str,
}

/// The ports that get a header; of these, those of TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    All,
    Only(Vec<u16>),
}

impl Headers {
    pub fn of_port(&self, port: &ServicePort) -> Option<&Header> {
        self.0.iter().find(|header| header.applies_to(port))
    }
}

impl Header {
    fn applies_to(&self, port: &ServicePort) -> bool {
        let is_named = match &self.ports {
            Ports::All => true,
            Ports::Only(ports) => ports.contains(&port.port),
        };
        is_named && port.proto == Proto::TCP
    }

    /// Ports that the annotation names and the Service has not.
    pub fn missing(&self, service: &Service) -> impl Iterator<Item = u16> {
        let named: &[u16] = match &self.ports {
            Ports::All => &[],
            Ports::Only(ports) => ports,
        };
        named
            .iter()
            .copied()
            .filter(|named| !service.ports.iter().any(|port| port.port == *named && port.proto == Proto::TCP))
    }
}
