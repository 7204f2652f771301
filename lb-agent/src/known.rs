//! What the running agent knows and the tables do not hold: whose an address is, and what Services name. Pure functions
//! over the world, for `explain`; every answer is bounded.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::desired::{self, Named, Policy, Services};
use crate::model::{ObjectName, Service, Warning, World};

/// The most Services in an answer, and the most warnings of each.
const SERVICES_MAX: usize = 8;
const WARNINGS_MAX: usize = 5;

/// A question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Whose address is this?
    pub client: Option<IpAddr>,
    /// Which Services name it?
    pub target: Option<Target>,
}

/// What is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address; the port tells whose node port it is.
    Address(IpAddr, Option<u16>),
    Service(ObjectName),
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The pins that the agent serves, as a path on the node.
    pub pin_path: PathBuf,
    /// The name of this node.
    pub node: String,
    /// `--services=all`: no kube-proxy is expected.
    pub serves_all: bool,
    /// `--service-proxy-name`: only Services that kube-proxy ignores are known.
    #[serde(default)]
    pub serves_labelled: bool,
    pub client: Option<Resident>,
    pub services: Vec<KnownService>,
    /// Further Services that name the address.
    pub more: usize,
}

/// The owner of an address, as objects say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// `None`: the endpoint names no node.
    pub node: Option<String>,
    /// A Service of which it is an endpoint. `None`: it is an address of the Node itself.
    pub service: Option<String>,
}

/// A Service that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownService {
    /// `shop/web`.
    pub name: String,
    /// Another proxy serves it, by its label or for the lack of one.
    #[serde(default)]
    pub served_elsewhere: bool,
    /// Why it, or its balancer's address, is not served.
    pub remarks: Vec<String>,
    pub named: Vec<Named>,
    pub warnings: Vec<String>,
}

/// Answers from the world. `warnings` are all of the agent's.
pub fn known(asked: &Asked, world: &World, policy: &Policy, warnings: &[&Warning]) -> Known {
    let mut found: Vec<&Service> = match &asked.target {
        None => Vec::new(),
        Some(Target::Service(name)) => world.services().get(name).map(|service| &**service).into_iter().collect(),
        Some(Target::Address(addr, port)) => naming(*addr, *port, world, policy),
    };
    let more = found.len().saturating_sub(SERVICES_MAX);
    found.truncate(SERVICES_MAX);
    let services = found.into_iter().map(|service| known_service(service, world, policy, warnings));
    Known {
        pin_path: PathBuf::new(),
        node: policy.node_name.clone(),
        serves_all: policy.services == Services::All,
        serves_labelled: false,
        client: asked.client.and_then(|client| resident(client, world)),
        services: services.collect(),
        more,
    }
}

/// The Services with this address in any field, and those with this node port if the address is the node's.
fn naming<'a>(addr: IpAddr, port: Option<u16>, world: &'a World, policy: &Policy) -> Vec<&'a Service> {
    let node = world.node(&policy.node_name);
    let is_here = world.is_local_address(addr) || node.is_some_and(|node| node.addresses.contains(&addr));
    let has_node_port = |service: &Service| {
        is_here && port.is_some() && service.ports.iter().any(|own| own.node_port.is_some() && own.node_port == port)
    };
    let names = |service: &&Service| {
        service.cluster_ips.contains(&addr)
            || service.external_ips.contains(&addr)
            || service.ingress.iter().any(|entry| entry.ip == addr)
            || has_node_port(service)
    };
    world.services().values().map(|service| &**service).filter(names).collect()
}

fn known_service(service: &Service, world: &World, policy: &Policy, warnings: &[&Warning]) -> KnownService {
    let object = format!("Service {}", service.name);
    let own = warnings.iter().filter(|warning| warning.object.as_deref() == Some(object.as_str()));
    KnownService {
        name: service.name.to_string(),
        served_elsewhere: service.served_elsewhere,
        remarks: desired::remarks(service, policy),
        named: desired::named(service, world, policy),
        warnings: own.take(WARNINGS_MAX).map(ToString::to_string).collect(),
    }
}

/// An address of a Node comes first: endpoints of hostNetwork pods have it too.
fn resident(addr: IpAddr, world: &World) -> Option<Resident> {
    if let Some(node) = world.nodes().find(|node| node.addresses.contains(&addr)) {
        return Some(Resident { node: Some(node.name.to_string()), service: None });
    }
    world.live_slices().find_map(|slice| {
        let endpoint = slice.endpoints.iter().find(|endpoint| endpoint.addr == addr)?;
        let node = endpoint.node.as_ref().map(Arc::clone);
        Some(Resident { node: node.map(|node| node.to_string()), service: Some(slice.service_name().to_string()) })
    })
}

#[cfg(test)]
mod tests;
