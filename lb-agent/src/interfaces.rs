//! The network interfaces of this namespace, as netlink tells them: what is there, and what each leads to.
//!
//! State and decisions are plain values; only [`watch`] talks to the kernel. sysfs is never read: it may show another
//! namespace.

mod class;
mod facts;
mod globs;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::dataplane::links::Link;

pub use class::{InterfaceRules, Surroundings, classify};
pub use facts::{Kind, LinkFacts};
pub use globs::Globs;

/// One thing that netlink told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link is there, in this form.
    Link(LinkFacts),
    LinkGone(u32),
    Address {
        ifindex: u32,
        addr: IpAddr,
    },
    AddressGone {
        ifindex: u32,
        addr: IpAddr,
    },
    /// The links that the default routes use, all of them.
    DefaultRoutes(BTreeSet<u32>),
    /// Everything, after a start or a lost message: what is not told again is gone.
    Everything {
        links: Vec<LinkFacts>,
        addresses: Vec<(u32, IpAddr)>,
        default_routes: BTreeSet<u32>,
    },
}

/// What is known of all interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    links: BTreeMap<u32, LinkFacts>,
    addresses: BTreeMap<u32, BTreeSet<IpAddr>>,
    default_routes: BTreeSet<u32>,
    listing: Listing,
}

/// Whether the links that are known are all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Listing {
    #[default]
    Incomplete,
    Complete,
}

impl Interfaces {
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::Link(link) => drop(self.links.insert(link.ifindex, link)),
            Event::LinkGone(ifindex) => {
                self.links.remove(&ifindex);
                self.addresses.remove(&ifindex);
                self.default_routes.remove(&ifindex);
            }
            Event::Address { ifindex, addr } => drop(self.addresses.entry(ifindex).or_default().insert(addr)),
            Event::AddressGone { ifindex, addr } => {
                if let Some(addresses) = self.addresses.get_mut(&ifindex) {
                    addresses.remove(&addr);
                }
            }
            Event::DefaultRoutes(links) => self.default_routes = links,
            Event::Everything { links, addresses, default_routes } => {
                *self = Self { default_routes, listing: Listing::Complete, ..Self::default() };
                self.links.extend(links.into_iter().map(|link| (link.ifindex, link)));
                for (ifindex, addr) in addresses {
                    self.addresses.entry(ifindex).or_default().insert(addr);
                }
            }
        }
    }

    /// Whether everything was listed once.
    pub fn is_listed(&self) -> bool {
        self.listing == Listing::Complete
    }

    pub const fn links(&self) -> &BTreeMap<u32, LinkFacts> {
        &self.links
    }

    /// Every address of every interface, apart from link-local ones.
    pub fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.values().flatten()
    }

    /// The links that the dataplane should be attached to, and as what. `node_addresses` are those of the Node object.
    pub fn wanted(&self, rules: &InterfaceRules, node_addresses: &BTreeSet<IpAddr>) -> BTreeMap<u32, Link> {
        let around = Surroundings {
            links: &self.links,
            addresses: &self.addresses,
            default_routes: &self.default_routes,
            node_addresses,
        };
        let class = |link: &LinkFacts| {
            let class = classify(link, &around, rules)?;
            Some((link.ifindex, Link { ifindex: link.ifindex, name: link.name.clone(), class }))
        };
        self.links.values().filter_map(class).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::links::Class;

    fn rules() -> InterfaceRules {
        InterfaceRules { workload: Globs::Auto, uplink: Globs::Auto }
    }

    fn names(interfaces: &Interfaces) -> Vec<(String, Class)> {
        interfaces.wanted(&rules(), &BTreeSet::new()).into_values().map(|link| (link.name, link.class)).collect()
    }

    #[test]
    fn follows_events() {
        let mut interfaces = Interfaces::default();
        interfaces.apply(Event::Link(LinkFacts::pod_veth(2, "veth0")));
        assert_eq!(names(&interfaces), [("veth0".into(), Class::Workload)]);
        interfaces.apply(Event::Link(LinkFacts::pod_veth(2, "renamed")));
        assert_eq!(names(&interfaces), [("renamed".into(), Class::Workload)]);
        interfaces.apply(Event::DefaultRoutes([2].into()));
        assert_eq!(names(&interfaces), [("renamed".into(), Class::Uplink)]);
        interfaces.apply(Event::LinkGone(2));
        assert_eq!(interfaces, Interfaces::default());
    }

    #[test]
    fn addresses_come_and_go() {
        let mut interfaces = Interfaces::default();
        let addr = "192.0.2.1".parse().expect("an address");
        interfaces.apply(Event::Link(LinkFacts { kind: Kind::Hardware, ..LinkFacts::pod_veth(3, "eth0") }));
        assert_eq!(names(&interfaces), []);
        interfaces.apply(Event::Address { ifindex: 3, addr });
        assert_eq!(names(&interfaces), [("eth0".into(), Class::Uplink)]);
        interfaces.apply(Event::AddressGone { ifindex: 3, addr });
        assert_eq!(names(&interfaces), []);
    }

    #[test]
    fn everything_replaces_everything() {
        let mut interfaces = Interfaces::default();
        interfaces.apply(Event::Link(LinkFacts::pod_veth(2, "old")));
        interfaces.apply(Event::Everything {
            links: vec![LinkFacts::pod_veth(3, "new")],
            addresses: Vec::new(),
            default_routes: BTreeSet::new(),
        });
        assert_eq!(names(&interfaces), [("new".into(), Class::Workload)]);
    }
}
