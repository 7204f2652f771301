//! A random cluster: Services of all types and policies, whose endpoints are anywhere and in any state.

use std::net::IpAddr;

use lb_tests::address::{BALANCERS, CLUSTER, EXTERNAL_IPS, FAMILIES, Family};
use lb_tests::manifest::{Service as Manifest, ingress, suffix};
use lb_tests::nodes::{Cluster, NAMES};
use lb_tests::scene::TARGET;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::publish::{CHECKS, NODE_PORTS};

/// The type of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

/// A traffic policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Cluster,
    Local,
}

/// The place of an endpoint, by the number of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Pod(&'static str, u8),
    /// A pod with `hostNetwork`.
    Host(u8),
}

/// What a slice says of an endpoint: ready, serving, terminating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ready,
    /// It serves until it ends.
    Terminating,
    NotReady,
    /// It does not serve any more.
    Ending,
}

#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    pub place: Place,
    pub state: State,
}

#[derive(Clone, Debug)]
pub struct Service {
    /// Of all its addresses and ports.
    pub number: u8,
    pub kind: Kind,
    pub mode: &'static str,
    pub external: Policy,
    pub internal: Policy,
    /// `loadBalancerSourceRanges`.
    pub ranges: Vec<&'static str>,
    pub has_external_ips: bool,
    /// `allocateLoadBalancerNodePorts`.
    pub allocates: bool,
    pub families: &'static [Family],
    pub endpoints: Vec<Endpoint>,
}

/// Lists of ranges: none; a client outside; pods; nodes, of one family; all; and a list with a blank.
const RANGES: [&[&str]; 6] = [
    &[],
    &["203.0.113.1/32", "2001:db8:113::1/128"],
    &["10.244.0.0/16", "fd00:10:244::/48"],
    &["192.0.2.0/24"],
    &["0.0.0.0/0", "2001:db8:113::2/127"],
    &[" 203.0.113.2/31 ", "10.244.2.0/24", "2001:db8::/32"],
];

/// All places in which an endpoint may be.
const PLACES: [Place; 9] = [
    Place::Pod("a", 1),
    Place::Pod("b", 1),
    Place::Host(1),
    Place::Pod("a", 2),
    Place::Pod("b", 2),
    Place::Host(2),
    Place::Pod("a", 3),
    Place::Pod("b", 3),
    Place::Host(3),
];

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let state = prop_oneof![
        5 => Just(State::Ready),
        2 => Just(State::Terminating),
        1 => Just(State::NotReady),
        1 => Just(State::Ending),
    ];
    // Often none is ready, and often there are only a few.
    let states = prop_oneof![
        3 => proptest::collection::vec(state, PLACES.len()),
        1 => proptest::collection::vec(select(vec![State::Terminating, State::NotReady]), PLACES.len()),
    ];
    (subsequence(PLACES.to_vec(), 0..=4), states).prop_map(|(places, states)| {
        places.into_iter().zip(states).map(|(place, state)| Endpoint { place, state }).collect()
    })
}

/// A Service of this number.
pub fn service(number: u8) -> impl Strategy<Value = Service> {
    let kind = prop_oneof![1 => Just(Kind::ClusterIp), 1 => Just(Kind::NodePort), 4 => Just(Kind::LoadBalancer)];
    let families = prop_oneof![5 => Just(&FAMILIES[..]), 1 => Just(&FAMILIES[..1]), 1 => Just(&FAMILIES[1..])];
    let flags = (any::<bool>(), prop::bool::weighted(0.8));
    let policies = (
        prop_oneof![Just(Policy::Cluster), Just(Policy::Local)],
        prop_oneof![7 => Just(Policy::Cluster), 3 => Just(Policy::Local)],
    );
    let mode = prop_oneof![3 => Just("VIP"), 1 => Just("Proxy")];
    let ranges = prop_oneof![1 => Just(RANGES[0]), 1 => select(&RANGES[..])];
    let all = (kind, mode, policies, flags, ranges, families, endpoints());
    all.prop_map(
        move |(kind, mode, (external, internal), (has_external_ips, allocates), ranges, families, endpoints)| {
            // The API server refuses the policy where nothing reaches the Service from outside.
            let is_reached = kind != Kind::ClusterIp || has_external_ips;
            Service {
                number,
                kind,
                mode,
                external: if is_reached { external } else { Policy::Cluster },
                internal,
                ranges: if kind == Kind::LoadBalancer { ranges.to_vec() } else { Vec::new() },
                has_external_ips,
                allocates,
                families,
                endpoints,
            }
        },
    )
}

impl Service {
    /// A Service of every kind of address and both families, without restrictions, whose endpoints are all ready.
    pub fn plain(number: u8, (internal, external): (Policy, Policy), places: impl IntoIterator<Item = Place>) -> Self {
        Self {
            number,
            kind: Kind::LoadBalancer,
            mode: "VIP",
            external,
            internal,
            ranges: Vec::new(),
            has_external_ips: true,
            allocates: true,
            families: &FAMILIES,
            endpoints: places.into_iter().map(|place| Endpoint { place, state: State::Ready }).collect(),
        }
    }

    pub fn has_node_ports(&self) -> bool {
        match self.kind {
            Kind::ClusterIp => false,
            Kind::NodePort => true,
            Kind::LoadBalancer => self.allocates,
        }
    }

    /// Its health check node port, if it has one.
    pub fn check(&self) -> Option<u16> {
        (self.kind == Kind::LoadBalancer && self.external == Policy::Local).then(|| CHECKS + u16::from(self.number))
    }

    /// Its objects: the Service, and a slice of each of its families.
    pub fn objects(&self, cluster: &Cluster) -> Vec<Value> {
        let number = self.number;
        let ips: Vec<IpAddr> = self.families.iter().map(|family| CLUSTER.host(*family, number)).collect();
        let port = |name: &str, protocol: &str| {
            let mut port = json!({"name": name, "protocol": protocol, "port": 80, "targetPort": TARGET});
            if self.has_node_ports() {
                port["nodePort"] = json!(NODE_PORTS + u16::from(number));
            }
            port
        };
        let policy = |policy| if policy == Policy::Local { "Local" } else { "Cluster" };
        let kind = match self.kind {
            Kind::ClusterIp => "ClusterIP",
            Kind::NodePort => "NodePort",
            Kind::LoadBalancer => "LoadBalancer",
        };
        let mut manifest = Manifest::new(&format!("s{number}"))
            .cluster_ips(&ips)
            .spec("type", json!(kind))
            .spec("ports", json!([port("web", "TCP"), port("dns", "UDP")]))
            .spec("internalTrafficPolicy", json!(policy(self.internal)));
        if self.kind != Kind::ClusterIp || self.has_external_ips {
            manifest = manifest.spec("externalTrafficPolicy", json!(policy(self.external)));
        }
        if self.has_external_ips {
            manifest = manifest.spec("externalIPs", json!(FAMILIES.map(|family| EXTERNAL_IPS.host(family, number))));
        }
        if self.kind == Kind::LoadBalancer {
            manifest = manifest.spec("allocateLoadBalancerNodePorts", json!(self.allocates));
            for family in FAMILIES {
                manifest = manifest.ingress(ingress(BALANCERS.host(family, number), self.mode));
            }
        }
        if !self.ranges.is_empty() {
            manifest = manifest.spec("loadBalancerSourceRanges", json!(self.ranges));
        }
        if let Some(check) = self.check() {
            manifest = manifest.spec("healthCheckNodePort", json!(check));
        }
        let slices = self.families.iter().map(|family| self.slice(cluster, &manifest, *family));
        std::iter::once(manifest.object()).chain(slices).collect()
    }

    fn slice(&self, cluster: &Cluster, manifest: &Manifest, family: Family) -> Value {
        let slice = manifest.slice(suffix(family)).address_type(family);
        let slice = slice.port("web", "TCP", TARGET).port("dns", "UDP", TARGET);
        let endpoints = self.endpoints.iter().map(|endpoint| {
            let (ready, serving, terminating) = match endpoint.state {
                State::Ready => (true, true, false),
                State::Terminating => (false, true, true),
                State::NotReady => (false, false, false),
                State::Ending => (false, false, true),
            };
            json!({
                "addresses": [endpoint.place.address(cluster, family).to_string()],
                "nodeName": NAMES[usize::from(endpoint.place.node()) - 1],
                "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            })
        });
        endpoints.fold(slice, lb_tests::manifest::Slice::raw_endpoint).object()
    }
}

impl Place {
    pub const fn node(self) -> u8 {
        match self {
            Self::Pod(_, node) | Self::Host(node) => node,
        }
    }

    /// Its name in answers.
    pub fn name(self) -> String {
        match self {
            Self::Pod(letter, node) => format!("{letter}{node}"),
            Self::Host(node) => format!("host{node}"),
        }
    }

    pub fn address(self, cluster: &Cluster, family: Family) -> IpAddr {
        let node = cluster.node(self.node());
        match self {
            Self::Pod(letter, _) => node.pod(letter).address(family),
            Self::Host(_) => node.address(family),
        }
    }
}
