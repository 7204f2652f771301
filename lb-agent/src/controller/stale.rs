//! Whose rows must be computed again: what has changed since the last step, and who depends on it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::desired::{Catalogue, Extent};
use crate::model::{Change, Kind, Object, ObjectName, Service, World, api_server};

/// The Services whose rows may differ from those last computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Only these Services, their endpoints, and the Services that claim these addresses.
    Services {
        names: BTreeSet<ObjectName>,
        addresses: BTreeSet<IpAddr>,
    },
    Everything,
}

impl Stale {
    pub const NOTHING: Self = Self::Services { names: BTreeSet::new(), addresses: BTreeSet::new() };

    /// Takes in a change before the world does.
    pub fn add(&mut self, change: &Change, world: &World, node: &str) {
        match change {
            Change::Apply { object: Object::Service(service), .. } => {
                self.add_service(&service.name, &service.cluster_ips, world);
            }
            Change::Apply { object: Object::EndpointSlice(slice), .. } => {
                self.add_slice(&slice.name, Some(slice.service_name()), world);
            }
            Change::Apply { object: Object::Node(changed), .. } if *changed.name != *node => {
                self.add_node(&changed.name, &changed.addresses, world);
            }
            // A taint, for example.
            Change::Apply { object: Object::Node(own), .. }
                if world.node(node).is_some_and(|before| before.forwards_like(own)) => {}
            Change::Apply { object: Object::Endpoints(endpoints), .. } => self.add_mirrored(&endpoints.name),
            Change::Remove(gone) => match gone.kind {
                Kind::Service => self.add_service(&gone.name, &[], world),
                Kind::EndpointSlice => self.add_slice(&gone.name, None, world),
                Kind::Endpoints => self.add_mirrored(&gone.name),
                Kind::Node if *gone.name.name != *node => self.add_node(&gone.name.name, &[], world),
                Kind::Node => *self = Self::Everything,
            },
            // Unreadable objects change no rows.
            Change::Place { .. } | Change::Listed => {}
            Change::Apply { object: Object::Node(_), .. } => *self = Self::Everything,
        }
    }

    /// Adds a Service that from now on has these cluster addresses.
    fn add_service(&mut self, name: &ObjectName, cluster_ips: &[IpAddr], world: &World) {
        let Self::Services { names, .. } = self else { return };
        names.insert(name.clone());
        self.add_addresses(world.services().get(name).map_or(&[][..], |before| &before.cluster_ips), cluster_ips);
    }

    fn add_slice(&mut self, name: &ObjectName, service: Option<ObjectName>, world: &World) {
        let Self::Services { names, .. } = self else { return };
        let before = world.slices().get(name).map(|slice| slice.service_name());
        let touched: Vec<ObjectName> = before.into_iter().chain(service).collect();
        if touched.contains(&api_server()) {
            // The addresses of API servers are refused to all Services, so a change may affect any of them.
            *self = Self::Everything;
            return;
        }
        names.extend(touched);
    }

    /// Adds the Service of this name: the API server would mirror its Endpoints.
    fn add_mirrored(&mut self, name: &ObjectName) {
        let Self::Services { names, .. } = self else { return };
        names.insert(name.clone());
    }

    /// Adds the addresses that another node gains or loses.
    fn add_node(&mut self, name: &str, addresses: &[IpAddr], world: &World) {
        self.add_addresses(world.node(name).map_or(&[][..], |before| &before.addresses), addresses);
    }

    /// Adds the addresses that are in only one of the two sets. Services that claim one of these are stale.
    pub fn add_addresses<'a>(
        &mut self,
        before: impl IntoIterator<Item = &'a IpAddr>,
        after: impl IntoIterator<Item = &'a IpAddr>,
    ) {
        let Self::Services { addresses, .. } = self else { return };
        let (before, after): (BTreeSet<IpAddr>, BTreeSet<IpAddr>) =
            (before.into_iter().copied().collect(), after.into_iter().copied().collect());
        addresses.extend(before.symmetric_difference(&after));
    }

    /// Adds the Services with node ports: their addresses have changed.
    pub fn add_node_ports(&mut self, world: &World) {
        let Self::Services { names, .. } = self else { return };
        let has_any = |service: &Service| {
            service.health_check_node_port.is_some() || service.ports.iter().any(|port| port.node_port.is_some())
        };
        let services = world.services().values().filter(|service| has_any(service));
        names.extend(services.map(|service| service.name.clone()));
    }

    /// Removes the Services whose rows can be computed ahead: they and their endpoints are there. `all` are the Services
    /// whose rows were computed before.
    pub fn take_ready(&mut self, candidates: BTreeSet<ObjectName>, world: &World, known: &Catalogue) -> Extent {
        if *self == Self::Everything {
            let names = world.services().keys().chain(known.names()).cloned().collect();
            *self = Self::Services { names, addresses: BTreeSet::new() };
        }
        let Self::Services { names, .. } = self else { return Extent::Everything };
        let mut ready = candidates;
        ready.retain(|name| {
            let is_there = world.services().contains_key(name) && world.slices_of(name).next().is_some();
            is_there && !known.has(name) && names.remove(name)
        });
        Extent::Services(ready)
    }

    /// The Services.
    pub fn extent(self, world: &World) -> Extent {
        let Self::Services { mut names, addresses } = self else { return Extent::Everything };
        if !addresses.is_empty() {
            let claims = |service: &Service| {
                let external = service.external_ips.iter();
                external.chain(service.ingress.iter().map(|entry| &entry.ip)).any(|ip| addresses.contains(ip))
            };
            names.extend(
                world.services().values().filter(|service| claims(service)).map(|service| service.name.clone()),
            );
        }
        Extent::Services(names)
    }
}
