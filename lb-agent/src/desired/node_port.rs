//! Node ports: on which addresses of this node they are served (docs/contract.md#node-ports).

use lb_common::addr::Family;
use lb_common::table::Origin;

use super::claim::Claim;
use super::endpoint::Here;
use crate::model::{Service, Warning, WarningKind};

/// One address for each family that the node has.
pub fn claims(service: &Service, here: &Here<'_>) -> impl Iterator<Item = Claim> {
    let has_any = service.ports.iter().any(|port| port.node_port.is_some());
    let families = Family::ALL.into_iter().filter(move |_| has_any);
    families.filter_map(|family| here.primary(family)).map(|ip| Claim::of_cluster(ip, Origin::NodePort))
}

/// Warns that no node port of this family is served on this node.
pub fn no_address(node: &str, family: Family) -> Warning {
    let family = family.name();
    Warning::new(
        WarningKind::BadField,
        format!("no {family} address of this node is known, so no node port of the family is served"),
        "give the Node an address of type InternalIP or ExternalIP, or name the right one with --node-name",
    )
    .of(format_args!("Node {node}"))
    .at("status.addresses")
}
