//! The world as the cluster describes it, in our own types, without derived data.
//!
//! This module knows neither the source of an object, nor the time, nor the kernel.

mod annotation;
mod change;
mod cluster_addresses;
mod endpoint;
mod local;
mod name;
mod node;
mod prefix;
mod service;
mod warning;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use annotation::{AnnotationKeys, Kept};
pub use change::{Change, Kind, Object, ObjectRef};
pub use endpoint::{Conditions, Endpoint, EndpointSlice, Endpoints, Hints, SlicePort};
pub use local::Holder;
pub use name::ObjectName;
pub use node::Node;
pub use prefix::Prefix;
pub use service::{
    HostNames, IngressEntry, IpMode, LABELS, Service, ServicePort, ServiceType, SourceRange, TrafficPolicy,
};
pub use warning::{Warning, WarningKind};

use crate::dense;
use cluster_addresses::ClusterAddresses;

/// Everything that the source has reported so far.
#[derive(Debug, Default)]
pub struct World {
    /// Boxed, as are slices, so that the tree is small and soon condensed.
    services: BTreeMap<ObjectName, Box<Service>>,
    slices: BTreeMap<ObjectName, Box<EndpointSlice>>,
    /// Pairs of a Service name and the name of one of its slices.
    slices_of: BTreeSet<(ObjectName, ObjectName)>,
    endpoints: BTreeMap<ObjectName, Endpoints>,
    nodes: BTreeMap<ObjectName, Node>,
    cluster_addresses: ClusterAddresses,
    /// `None`: not known yet.
    local_addresses: Option<BTreeMap<IpAddr, Holder>>,
    object_warnings: BTreeMap<ObjectRef, Vec<Warning>>,
    place_warnings: BTreeMap<String, Vec<Warning>>,
    listed: bool,
}

impl World {
    /// Takes in one change.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Apply { object, warnings } => {
                let reference = object.reference();
                if warnings.is_empty() {
                    self.object_warnings.remove(&reference);
                } else {
                    self.object_warnings.insert(reference.clone(), warnings);
                }
                match object {
                    Object::Service(service) => self.insert_service(service),
                    Object::EndpointSlice(slice) => self.insert_slice(slice),
                    Object::Endpoints(endpoints) => drop(self.endpoints.insert(reference.name, endpoints)),
                    Object::Node(node) => drop(self.nodes.insert(reference.name, node)),
                }
            }
            Change::Remove(reference) => {
                self.object_warnings.remove(&reference);
                match reference.kind {
                    Kind::Service => self.remove_service(&reference.name),
                    Kind::EndpointSlice => self.remove_slice(&reference.name),
                    Kind::Endpoints => drop(self.endpoints.remove(&reference.name)),
                    Kind::Node => drop(self.nodes.remove(&reference.name)),
                }
            }
            Change::Place { place, warnings } if warnings.is_empty() => drop(self.place_warnings.remove(&place)),
            Change::Place { place, warnings } => drop(self.place_warnings.insert(place, warnings)),
            Change::Listed => {
                self.listed = true;
                self.condense();
            }
        }
    }

    fn insert_service(&mut self, service: Service) {
        self.cluster_addresses.add(&service.cluster_ips);
        if let Some(before) = self.services.insert(service.name.clone(), Box::new(service)) {
            self.cluster_addresses.remove(&before.cluster_ips);
        }
    }

    fn remove_service(&mut self, name: &ObjectName) {
        if let Some(service) = self.services.remove(name) {
            self.cluster_addresses.remove(&service.cluster_ips);
        }
    }

    /// Sets the addresses of this node's interfaces.
    pub fn set_local_addresses(&mut self, addresses: BTreeMap<IpAddr, Holder>) {
        self.local_addresses = Some(addresses);
    }

    fn insert_slice(&mut self, slice: EndpointSlice) {
        self.remove_slice(&slice.name);
        self.slices_of.insert((slice.service_name(), slice.name.clone()));
        self.slices.insert(slice.name.clone(), Box::new(slice));
    }

    fn remove_slice(&mut self, name: &ObjectName) {
        if let Some(slice) = self.slices.remove(name) {
            self.slices_of.remove(&(slice.service_name(), slice.name));
        }
    }

    /// Frees unused room, which the first list leaves, before the first step needs much more.
    fn condense(&mut self) {
        dense::fill(&mut self.services);
        dense::fill(&mut self.slices);
        dense::fill_set(&mut self.slices_of);
        self.cluster_addresses.condense();
    }

    /// The slices of a Service.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        let first = (service.clone(), ObjectName::new("", ""));
        let names = self.slices_of.range(first..).take_while(move |(found, _)| found == service);
        names.filter_map(|(_, slice)| self.slices.get(slice)).map(|slice| &**slice)
    }

    /// Whether the first list of every kind is complete. Nothing may be deleted before that.
    pub const fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether all of the input could be read. If not, objects may be missing.
    pub fn is_readable(&self) -> bool {
        let unread = |warning: &Warning| matches!(warning.kind, WarningKind::BadDocument | WarningKind::Source);
        !self.place_warnings.values().flatten().any(unread)
    }

    pub const fn services(&self) -> &BTreeMap<ObjectName, Box<Service>> {
        &self.services
    }

    pub const fn slices(&self) -> &BTreeMap<ObjectName, Box<EndpointSlice>> {
        &self.slices
    }

    /// All nodes that the source reported.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Whether this is a cluster address of another Service.
    pub fn is_cluster_address_of_others(&self, addr: IpAddr, service: &Service) -> bool {
        self.cluster_addresses.count(addr) > service.cluster_ips.iter().filter(|own| **own == addr).count()
    }

    /// The addresses of this node's interfaces. `None` if they are not known yet.
    pub const fn local_addresses(&self) -> Option<&BTreeMap<IpAddr, Holder>> {
        self.local_addresses.as_ref()
    }

    /// Whether an interface of this node has this address, as far as known.
    pub fn is_local_address(&self, addr: IpAddr) -> bool {
        self.local_addresses.as_ref().is_some_and(|addresses| addresses.contains_key(&addr))
    }

    /// Legacy Endpoints objects, by the name of their Service.
    pub const fn endpoints(&self) -> &BTreeMap<ObjectName, Endpoints> {
        &self.endpoints
    }

    /// The slices in effect. Includes the slices that the API server would make of Endpoints, and excludes those that
    /// it made of them earlier.
    pub fn live_slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.live(self.slices.values().map(|slice| &**slice), self.endpoints.values())
    }

    /// The slices of a Service that are in effect.
    pub fn live_slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.live(self.slices_of(service), self.endpoints.get(service).into_iter())
    }

    fn live<'a>(
        &'a self,
        written: impl Iterator<Item = &'a EndpointSlice>,
        endpoints: impl Iterator<Item = &'a Endpoints>,
    ) -> impl Iterator<Item = &'a EndpointSlice> {
        let written = written.filter(|slice| !slice.is_mirror || !self.endpoints.contains_key(&slice.service_name()));
        let has_no_selector = |name: &ObjectName| self.services.get(name).is_some_and(|service| !service.has_selector);
        let mirrored = endpoints.filter(move |endpoints| has_no_selector(&endpoints.name));
        written.chain(mirrored.flat_map(|endpoints| &endpoints.slices)).filter(|slice| !slice.headless)
    }

    /// The node with this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(&ObjectName::new("", name))
    }

    /// The problems of the input in a stable order: places first, then objects.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        self.place_warnings.values().chain(self.object_warnings.values()).flatten()
    }
}

/// The Service whose endpoints are the API servers.
pub fn api_server() -> ObjectName {
    ObjectName::new("default", "kubernetes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning() -> Warning {
        Warning::new(WarningKind::BadField, "is wrong", "write it right")
    }

    #[test]
    fn warnings_live_as_long_as_their_object() {
        let mut world = World::default();
        let node = Node { name: "n1".into(), zone: None, addresses: Vec::new(), is_leaving: false };
        world.apply(Change::Apply { object: Object::Node(node.clone()), warnings: vec![warning()] });
        assert_eq!(world.warnings().count(), 1);
        world.apply(Change::Apply { object: Object::Node(node.clone()), warnings: Vec::new() });
        assert_eq!(world.warnings().count(), 0);
        world.apply(Change::Apply { object: Object::Node(node.clone()), warnings: vec![warning()] });
        world.apply(Change::Remove(Object::Node(node).reference()));
        assert_eq!(world.warnings().count(), 0);
        assert!(world.node("n1").is_none());
    }

    #[test]
    fn a_service_has_the_slices_that_belong_to_it_now() {
        let slice = |name: &str, service: &str| EndpointSlice {
            name: ObjectName::new("a", name),
            service: service.into(),
            family: lb_common::addr::Family::V4,
            headless: false,
            is_mirror: false,
            triggered_ms: None,
            ports: Vec::new(),
            endpoints: Vec::new(),
        };
        let mut world = World::default();
        for slice in [slice("1", "x"), slice("2", "x"), slice("3", "xx"), slice("2", "y")] {
            world.apply(Change::Apply { object: Object::EndpointSlice(slice), warnings: Vec::new() });
        }
        let names = |world: &World, service: &str| -> Vec<String> {
            let service = ObjectName::new("a", service);
            let slices = world.live_slices_of(&service);
            slices.map(|slice| slice.name.to_string()).collect()
        };
        assert_eq!(names(&world, "x"), ["a/1"]);
        assert_eq!(names(&world, "y"), ["a/2"]);
        world.apply(Change::Remove(ObjectRef { kind: Kind::EndpointSlice, name: ObjectName::new("a", "2") }));
        assert_eq!(names(&world, "y"), [""; 0]);
    }

    #[test]
    fn warnings_of_a_place_are_replaced() {
        let mut world = World::default();
        world.apply(Change::Place { place: "a.yaml".into(), warnings: vec![warning(), warning()] });
        world.apply(Change::Place { place: "a.yaml".into(), warnings: vec![warning()] });
        assert_eq!(world.warnings().count(), 1);
        world.apply(Change::Place { place: "a.yaml".into(), warnings: Vec::new() });
        assert_eq!(world.warnings().count(), 0);
    }
}
