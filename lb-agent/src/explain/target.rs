//! The destinations of a question: one, or each address and port of a Service.

use std::net::IpAddr;

use crate::known::{Known, KnownService};
use crate::question::{Destination, Dialled, ServiceName, proto};

/// What is to be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    pub to: Vec<Destination>,
    pub echo: Option<IpAddr>,
    /// A Service with nothing that could be dialled, and why.
    pub nothing: Option<(String, String)>,
    /// About all answers.
    pub notes: Vec<String>,
}

impl Targets {
    /// The addresses that are dialled.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.to.iter().map(|to| to.addr).chain(self.echo)
    }
}

/// An error if client and destination are addresses of different families.
pub fn of_one_family(dialled: &Dialled, client: Option<IpAddr>) -> anyhow::Result<()> {
    match (client, dialled.addr()) {
        (Some(from), Some(to)) if from.is_ipv4() != to.is_ipv4() => {
            anyhow::bail!("--from {from} and --to {dialled} are of different families")
        }
        _ => Ok(()),
    }
}

/// The destinations for a client, whose family counts if its address is known; [`of_one_family`].
pub fn targets(dialled: &Dialled, client: Option<IpAddr>, known: Option<&Known>) -> anyhow::Result<Targets> {
    let is_of_family = |addr: IpAddr| client.is_none_or(|client| client.is_ipv4() == addr.is_ipv4());
    match dialled {
        Dialled::Port(to) => Ok(Targets { to: vec![*to], ..Targets::default() }),
        Dialled::Echo(addr) => Ok(Targets { echo: Some(*addr), ..Targets::default() }),
        Dialled::Service(name) => of_service(name, is_of_family, known),
    }
}

fn of_service(
    service_name: &ServiceName,
    is_of_family: impl Fn(IpAddr) -> bool,
    known: Option<&Known>,
) -> anyhow::Result<Targets> {
    let ServiceName { namespace, name, port, proto: wanted } = service_name;
    let Some(known) = known else {
        anyhow::bail!(
            "only a running agent knows the Services by name, and none of these pins answers: start one, name its --http, or \
             ask for an address (IP:PORT/tcp)"
        );
    };
    let Some(service) = known.services.first() else {
        anyhow::bail!(
            "the agent's source has no Service {namespace}/{name}: it does not exist, or its label \
             service.kubernetes.io/service-proxy-name gives it to another proxy (`kubectl get service -n {namespace} {name} \
             --show-labels`)"
        );
    };
    let is_port = |text: &str, number: u16, name: &str| text == name || text.parse() == Ok(number);
    let asked = service.named.iter().filter(|named| {
        port.as_deref()
            .is_none_or(|text| is_port(text, named.service_port, &named.port_name) || text.parse() == Ok(named.port))
            && wanted.is_none_or(|wanted| proto(&named.proto) == Some(wanted))
    });
    let asked: Vec<_> = asked.collect();
    if asked.is_empty() && !service.named.is_empty() {
        anyhow::bail!("Service {namespace}/{name} has no such port; its ports are {}", ports(service));
    }
    let of_family = asked.iter().filter(|named| is_of_family(named.address));
    let to: Vec<Destination> = of_family
        .filter_map(|named| Some(Destination { addr: named.address, port: named.port, proto: proto(&named.proto)? }))
        .collect();
    let mut notes = service.remarks.clone();
    if to.len() < asked.len() {
        notes.push(format!("{} address(es) of the other family are left out", asked.len() - to.len()));
    }
    let nothing = to.is_empty().then(|| {
        let reasons = if notes.is_empty() { "it has no address and port".to_owned() } else { notes.join("; ") };
        (
            Dialled::Service(service_name.clone()).to_string(),
            format!("nothing of the Service can be dialled: {reasons}"),
        )
    });
    Ok(Targets { to, echo: None, nothing, notes })
}

/// The ports of a Service, each once: `80/tcp (web), 53/udp`.
pub fn ports(service: &KnownService) -> String {
    let mut ports: Vec<String> = Vec::new();
    for named in &service.named {
        let name = if named.port_name.is_empty() { String::new() } else { format!(" ({})", named.port_name) };
        let port = format!("{}/{}{name}", named.service_port, named.proto);
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports.join(", ")
}

#[cfg(test)]
mod tests;
