//! A small universe of objects: small enough that random edits meet each other, rich enough to reach every rule.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_agent::model::{
    Change, Conditions, Endpoint, EndpointSlice, IngressEntry, IpMode, Kind, Node, Object, ObjectName, ObjectRef,
    Prefix, Service, ServicePort, ServiceType, SlicePort, SourceRange, TrafficPolicy,
};
use lb_common::addr::{Family, Proto};
use proptest::prelude::*;

const SERVICES: u8 = 4;
const SLICES: u8 = 6;

/// One change of the world.
#[derive(Clone, Debug)]
pub enum Edit {
    Service {
        number: u8,
        created: Option<i64>,
        entries: Vec<(u8, u8)>,
        ports: u8,
        fields: Fields,
    },
    NoService(u8),
    Slice {
        number: u8,
        service: u8,
        v6: bool,
        endpoints: Vec<(u8, u8)>,
    },
    NoSlice(u8),
    /// The agent's own node, with one of two sets of addresses for node ports.
    Node(u8),
    NoNode,
    /// Another node, with one of two addresses.
    OtherNode(u8),
    NoOtherNode,
}

/// Further fields of a Service.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    has_node_ports: bool,
    external_ip: Option<u8>,
    external_policy: TrafficPolicy,
    internal_policy: TrafficPolicy,
    algorithm: Option<&'static str>,
    /// One of several lists of source ranges.
    ranges: u8,
}

fn fields() -> impl Strategy<Value = Fields> {
    // A Service without an annotation gets Maglev as well: that is the policy of these tests.
    let algorithm = prop::sample::select(vec![None, Some("maglev"), Some("random"), Some("random")]);
    // Addresses of a balancer, of a Service's cluster address, and of another node: the last two are refused.
    let external_ip = prop::option::of(prop::sample::select(vec![1u8, 1, 2, 10, 11, 20]));
    (any::<[bool; 3]>(), external_ip, algorithm, 0u8..8).prop_map(|(switches, external_ip, algorithm, ranges)| {
        let [has_node_ports, is_external_local, is_internal_local] = switches;
        Fields {
            has_node_ports,
            external_ip,
            external_policy: policy(is_external_local),
            internal_policy: policy(is_internal_local),
            algorithm,
            ranges,
        }
    })
}

fn annotations(algorithm: Option<&str>) -> BTreeMap<Arc<str>, Arc<str>> {
    algorithm.map(|algorithm| ("lb-agent.io/lb-algorithm".into(), algorithm.into())).into_iter().collect()
}

/// Any edit.
pub fn edits() -> impl Strategy<Value = Edit> {
    let service =
        (0..SERVICES, prop::option::of(0i64..3), prop::collection::vec((0u8..5, 0u8..4), 0..3), 1u8..4, fields())
            .prop_map(|(number, created, entries, ports, fields)| Edit::Service {
                number,
                created,
                entries,
                ports,
                fields,
            });
    let slice = (0..SLICES, 0..SERVICES, prop::bool::weighted(0.2), prop::collection::vec((0u8..6, 0u8..6), 0..5))
        .prop_map(|(number, service, v6, endpoints)| Edit::Slice { number, service, v6, endpoints });
    prop_oneof![
        4 => service,
        1 => (0..SERVICES).prop_map(Edit::NoService),
        5 => slice,
        1 => (0..SLICES).prop_map(Edit::NoSlice),
        1 => (2u8..4).prop_map(Edit::Node),
        1 => Just(Edit::NoNode),
        1 => (2u8..4).prop_map(Edit::OtherNode),
        1 => Just(Edit::NoOtherNode),
    ]
}

/// Edits after which no object is left.
pub fn nothing() -> Vec<Edit> {
    (0..SERVICES)
        .map(Edit::NoService)
        .chain((0..SLICES).map(Edit::NoSlice))
        .chain([Edit::NoNode, Edit::NoOtherNode])
        .collect()
}

impl Edit {
    /// The Services that it may affect; `None` if that is all of them.
    pub fn services(&self) -> Option<Vec<ObjectName>> {
        match self {
            Self::Service { number, .. } | Self::NoService(number) => Some(vec![service_name(*number)]),
            Self::Slice { number, .. } | Self::NoSlice(number) => Some(vec![owner(*number, 0), owner(*number, 1)]),
            Self::Node(_) | Self::NoNode | Self::OtherNode(_) | Self::NoOtherNode => None,
        }
    }

    pub fn change(&self) -> Change {
        let remove = |kind, name: ObjectName| Change::Remove(ObjectRef { kind, name });
        let apply = |object| Change::Apply { object, warnings: Vec::new() };
        match self {
            Self::NoService(number) => remove(Kind::Service, service_name(*number)),
            Self::NoSlice(number) => remove(Kind::EndpointSlice, slice_name(*number)),
            Self::Node(last) => apply(Object::Node(node(*last))),
            Self::OtherNode(last) => apply(Object::Node(other_node(*last))),
            Self::NoOtherNode => Change::Remove(Object::Node(other_node(2)).reference()),
            Self::NoNode => Change::Remove(Object::Node(node(2)).reference()),
            Self::Service { number, created, entries, ports, fields } => {
                apply(Object::Service(service(*number, *created, entries, *ports, *fields)))
            }
            Self::Slice { number, service, v6, endpoints } => {
                apply(Object::EndpointSlice(slice(*number, *service, *v6, endpoints)))
            }
        }
    }
}

fn service(number: u8, created_secs: Option<i64>, entries: &[(u8, u8)], ports: u8, fields: Fields) -> Service {
    let port = |index: u8| ServicePort {
        name: format!("p{index}").into(),
        proto: if index == 2 { Proto::UDP } else { Proto::TCP },
        port: 80 + u16::from(index),
        // Shared as well.
        node_port: fields.has_node_ports.then_some(30_080 + u16::from(index)),
    };
    let entry = |index: usize, (address, mode): (u8, u8)| IngressEntry {
        index: index as u32,
        // Shared by all Services, which compete for it.
        ip: match address {
            3 => IpAddr::from([0xfd01, 0, 0, 0, 0, 0, 0, 3]),
            // The cluster address of another Service, if that exists.
            4 => IpAddr::from([10, 0, 0, 0]),
            _ => IpAddr::from([1, 2, 3, address]),
        },
        ip_mode: match mode {
            0 => Some(IpMode::Proxy),
            1 => None,
            2 => Some(IpMode::Unknown("Router".into())),
            _ => Some(IpMode::VIP),
        },
    };
    Service {
        name: service_name(number),
        created_secs,
        service_type: ServiceType::LoadBalancer,
        served_elsewhere: false,
        annotations: annotations(fields.algorithm),
        labels: Box::default(),
        headless: false,
        has_selector: true,
        cluster_ips: vec![
            IpAddr::from([10, 0, 0, number]),
            IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)]),
        ],
        external_ips: fields.external_ip.map(external_ip).into_iter().collect(),
        ports: (0..ports).map(port).collect(),
        host_names: lb_agent::model::HostNames::Absent,
        ingress: entries.iter().enumerate().map(|(index, known)| entry(index, *known)).collect(),
        external_policy: fields.external_policy,
        internal_policy: fields.internal_policy,
        affinity_secs: None,
        source_ranges: source_ranges(fields.ranges),
        health_check_node_port: None,
    }
}

/// `None`, or ranges of both families; the last list admits no client.
fn source_ranges(list: u8) -> Vec<SourceRange> {
    let v4 = |third| Prefix::new(IpAddr::from([10, 9, third, 0]), 24).map(SourceRange::Prefix);
    let v6 = Prefix::new(IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, 0]), 16).map(SourceRange::Prefix);
    let ranges = match list {
        4 => vec![v4(1), v4(2)],
        5 => vec![v4(1), v4(2), v4(3), v6],
        6 => vec![v4(3), v6],
        7 => vec![Some(SourceRange::Unreadable(Family::V4))],
        _ => Vec::new(),
    };
    ranges.into_iter().flatten().collect()
}

/// Half of the Services are in one namespace, half in the other.
pub fn service_name(number: u8) -> ObjectName {
    ObjectName::new(if number < SERVICES / 2 { "t" } else { "u" }, &format!("s{number}"))
}

fn slice_name(number: u8) -> ObjectName {
    ObjectName::new(if number < SLICES / 2 { "t" } else { "u" }, &format!("e{number}"))
}

/// The Service of a slice: one in its namespace.
pub fn owner(slice: u8, service: u8) -> ObjectName {
    let first = if slice < SLICES / 2 { 0 } else { SERVICES / 2 };
    service_name(first + service % (SERVICES / 2))
}

fn external_ip(kind: u8) -> IpAddr {
    match kind {
        10 | 11 => IpAddr::from([10, 0, 0, kind - 10]),
        20 => IpAddr::from([1, 2, 4, 2]),
        last => IpAddr::from([1, 2, 3, last]),
    }
}

const fn policy(is_local: bool) -> TrafficPolicy {
    if is_local { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

fn node(last: u8) -> Node {
    // One of them is also a balancer's address.
    let addresses = vec![IpAddr::from([1, 2, 3, last]), IpAddr::from([0xfd03, 0, 0, 0, 0, 0, 0, 2])];
    Node { name: "n1".into(), zone: None, addresses, is_leaving: false }
}

fn other_node(last: u8) -> Node {
    Node { name: "n2".into(), zone: None, addresses: vec![IpAddr::from([1, 2, 4, last])], is_leaving: false }
}

fn slice(number: u8, service: u8, v6: bool, endpoints: &[(u8, u8)]) -> EndpointSlice {
    let port = |index: u8| SlicePort {
        name: format!("p{index}").into(),
        proto: if index == 2 { Proto::UDP } else { Proto::TCP },
        port: 8080 + u16::from(index),
    };
    let endpoint = |(address, state): &(u8, u8)| Endpoint {
        addr: if v6 {
            IpAddr::from([0xfd02, 0, 0, 0, 0, 0, 0, u16::from(*address)])
        } else {
            IpAddr::from([10, 1, 0, *address])
        },
        conditions: match state {
            0 => Conditions { ready: false, serving: true, terminating: true },
            1 => Conditions { ready: false, serving: false, terminating: true },
            2 => Conditions { ready: false, serving: false, terminating: false },
            _ => Conditions::READY,
        },
        node: Some(Arc::from(if *state % 2 == 0 { "n1" } else { "n2" })),
        hints: None,
    };
    EndpointSlice {
        name: slice_name(number),
        service: owner(number, service).name,
        family: if v6 { Family::V6 } else { Family::V4 },
        headless: false,
        is_mirror: false,
        triggered_ms: None,
        ports: (0..3).map(port).collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}
