//! What the tables should say: no IDs, no clock, no kernel.
//!
//! The rows of each Service are a pure function of its objects and a few facts (`service_rows.rs`). The catalogue keeps
//! them, decides contests (`contest.rs`) and shares out scarce room (`grant.rs`). [`assign`](crate::assign) adds the IDs.

mod access;
mod annotations;
mod applicant;
mod build;
mod catalogue;
mod claim;
mod claims;
mod contender;
mod contest;
mod demand;
mod endpoint;
mod facts;
mod grant;
mod hazard;
mod header;
mod health_check;
mod incumbent;
mod keep;
mod ledger;
mod local;
mod maglev;
mod mode;
mod named;
mod node_name;
mod node_port;
mod policy;
mod port_rows;
mod protected;
mod proxy_protocol;
mod scope;
mod selection;
mod service_rows;
mod table;
mod usable;
mod vendor;
mod warnings;

pub use access::{Access, SourcePrefix};
pub use annotations::annotation_keys;
pub use catalogue::{Catalogue, Extent};
pub use health_check::{HealthCheck, HealthChecks};
pub use incumbent::{Incumbents, ports_of};
pub use maglev::TableSize;
pub use named::{Act, Named, Rivalry, named, remarks};
pub use node_port::NodePorts;
pub use policy::{
    AnnotationMatch, ExternalIps, Forwarding, HeadersFrom, HealthCheckPorts, NodePortAddresses, Policy, Services,
    TableLimits, VendorAnnotations,
};
pub use selection::{Algorithm, Selection};
pub use service_rows::ServiceRows;
pub use table::{
    Desired, DesiredFrontend, DesiredMember, DesiredScope, FamilyDesired, KubeProxy, PoolIndex, ServicePortIndex,
    ServicePortName,
};
pub use usable::POOL_MAX;

use crate::model::{Service, ServicePort, Warning, World};
use endpoint::Here;

/// The tables of a world, computed from nothing.
pub fn desired(world: &World, policy: &Policy, limits: &TableLimits, incumbents: &Incumbents<'_>) -> Desired {
    let mut catalogue = Catalogue::default();
    catalogue.refresh(&Extent::Everything, world, policy);
    catalogue.resolve(limits, incumbents);
    Desired { warnings: catalogue.warnings(policy).collect(), ..catalogue.tables(&Extent::Everything) }
}

/// At which addresses of this node node ports are served.
pub fn node_ports(world: &World, policy: &Policy) -> NodePorts {
    NodePorts::of(world, policy, &Here::of(world, &policy.node_name))
}

/// Warnings about settings that do not fit this node.
pub fn setting_warnings(world: &World, policy: &Policy) -> Vec<Warning> {
    node_name::unknown_node(world, policy).into_iter().chain(node_port::warnings(world, policy)).collect()
}

/// The annotation or label that decides the mode of a Service's addresses at a port, if one does.
pub fn deciding_key<'a>(service: &Service, port: &ServicePortName, policy: &'a Policy) -> Option<&'a str> {
    let of_mode = mode::of_service(service, policy).map(|decision| decision.key);
    let is_asked = |of: &&ServicePort| of.name == port.port_name && of.proto == port.proto;
    match (proxy_protocol::of_service(service, policy), service.ports.iter().find(is_asked)) {
        (Some(header), Some(port)) => header.key_of(port, of_mode),
        _ => of_mode,
    }
}

#[cfg(test)]
pub mod tests;
