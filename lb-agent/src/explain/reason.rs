//! Why a destination is not served, from what the running agent knows of Services.

use super::Destination;
use super::target::ports;
use crate::known::{Known, KnownService};
use crate::question::proto;

/// The reasons, one for each Service that names the address.
pub fn reasons(to: &Destination, known: Option<&Known>) -> Vec<String> {
    let Some(known) = known else {
        return vec!["why it is not served only a running agent knows".into()];
    };
    if known.services.is_empty() {
        return vec![
            "no Service that the agent knows names the address (one whose label service.kubernetes.io/service-proxy-name \
             gives it to another proxy may, and is not followed)"
                .into(),
        ];
    }
    let more = (known.more > 0).then(|| format!("{} more Service(s) name the address", known.more));
    known.services.iter().flat_map(|service| of_service(to, service)).chain(more).collect()
}

fn of_service(to: &Destination, service: &KnownService) -> Vec<String> {
    let name = &service.name;
    let here = || service.named.iter().filter(|named| named.address == to.addr);
    let is_proto = |text: &str| proto(text) == Some(to.proto);
    let Some(named) = here().find(|named| named.port == to.port && is_proto(&named.proto)) else {
        if let Some(other) = here().find(|named| named.port == to.port) {
            return vec![format!("Service {name} has port {} there over {} only (IPM-12)", to.port, other.proto)];
        }
        let has = if here().next().is_some() { "has this address" } else { "has this port as its node port" };
        return vec![format!("Service {name} {has}, but its ports are {}", ports(service))];
    };
    let field = &named.field;
    match &named.reason {
        Some(reason) => vec![format!("Service {name} names it in {field}, but {reason}")],
        // A lost contest, no room: the warnings say so.
        None if !service.warnings.is_empty() => {
            let warnings = service.warnings.iter();
            warnings.map(|warning| format!("Service {name} names it in {field}, but: {warning}")).collect()
        }
        None => vec![format!("Service {name} names it in {field}; the tables may be a moment behind: ask again")],
    }
}

#[cfg(test)]
mod tests;
