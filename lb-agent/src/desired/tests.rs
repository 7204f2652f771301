//! Tests that are too large for a script case. The rules themselves are specified in `tests/script`.

mod categorize;

use super::policy::Forwarding;
use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::addr::{Family, Proto};
use lb_common::table::Mode;

use super::*;
use crate::model::{
    Change, Conditions, Endpoint, EndpointSlice, IngressEntry, Object, ObjectName, ServicePort, ServiceType, SlicePort,
    TrafficPolicy,
};

pub fn policy() -> Policy {
    Policy {
        node_name: "n1".to_owned(),
        services: Services::LoadBalancers,
        default_ip_mode: Mode::VIP,
        proxy_annotations: Vec::new(),
        vendor_annotations: VendorAnnotations::Ignored,
        headers_from: HeadersFrom::Annotation,
        external_ips: ExternalIps::Guarded,
        cluster_ranges: Vec::new(),
        selection: Selection::default(),
        health_checks: HealthCheckPorts::Left,
        node_ports: NodePortAddresses::Primary,
        forwarding: Forwarding::Snat,
    }
}

/// A load balancer's Service without a policy of its own.
pub fn service(name: &str, ip: [u8; 4]) -> Service {
    Service {
        name: ObjectName::new("t", name),
        created_secs: None,
        service_type: ServiceType::LoadBalancer,
        served_elsewhere: false,
        annotations: BTreeMap::new(),
        labels: Box::default(),
        headless: false,
        has_selector: true,
        cluster_ips: vec![IpAddr::from([10, 0, 0, 1])],
        external_ips: Vec::new(),
        ports: vec![ServicePort { name: "".into(), proto: Proto::TCP, port: 80, node_port: None }],
        host_names: crate::model::HostNames::Absent,
        ingress: vec![IngressEntry { index: 0, ip: ip.into(), ip_mode: None }],
        external_policy: TrafficPolicy::Cluster,
        internal_policy: TrafficPolicy::Cluster,
        affinity_secs: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
    }
}

pub fn published(name: &str, ip: [u8; 4]) -> Change {
    Change::Apply { object: Object::Service(service(name, ip)), warnings: Vec::new() }
}

pub fn slice(service: &str, endpoints: u32) -> Change {
    let endpoint = |number: u32| Endpoint {
        addr: IpAddr::from((0x0a80_0000 + number).to_be_bytes()),
        conditions: Conditions::READY,
        node: None,
        hints: None,
    };
    let slice = EndpointSlice {
        name: ObjectName::new("t", service),
        service: service.into(),
        family: Family::V4,
        headless: false,
        is_mirror: false,
        triggered_ms: None,
        ports: vec![SlicePort { name: "".into(), proto: Proto::TCP, port: 8080 }],
        endpoints: (0..endpoints).map(endpoint).collect(),
    };
    Change::Apply { object: Object::EndpointSlice(slice), warnings: Vec::new() }
}

pub fn world(changes: impl IntoIterator<Item = Change>) -> World {
    let mut world = World::default();
    changes.into_iter().for_each(|change| world.apply(change));
    world
}

#[test]
fn a_pool_of_more_than_65535_is_refused_loudly() {
    let fits = world([published("a", [1, 2, 3, 4]), slice("a", 65_535)]);
    let result = desired(&fits, &policy(), &TableLimits::UNLIMITED, &Incumbents::NONE);
    assert_eq!(result.v4.pools[0].len(), 65_535);
    assert_eq!(result.warnings, []);

    let large = world([published("a", [1, 2, 3, 4]), slice("a", 65_536), published("b", [1, 2, 3, 5])]);
    let result = desired(&large, &policy(), &TableLimits::UNLIMITED, &Incumbents::NONE);
    assert_eq!(result.v4.frontends.len(), 1);
    assert_eq!(result.warnings.len(), 1);
    assert_eq!(
        result.warnings[0].to_string(),
        "Service t/a: port 80 has 65536 endpoints, a pool holds at most 65535; the port is left out; split the Service"
    );
}

#[test]
fn each_limit_is_kept() {
    let world = world((1..=4).flat_map(|n| {
        let name = format!("s{n}");
        [published(&name, [1, 2, 3, n]), slice(&name, u32::from(n))]
    }));
    let frontends = |limits: TableLimits| {
        let result = desired(&world, &policy(), &limits, &Incumbents::NONE);
        (result.v4.frontends.len(), result.warnings.len())
    };
    let all = TableLimits::UNLIMITED;
    assert_eq!(frontends(all), (4, 0));
    assert_eq!(frontends(TableLimits { frontends_max: 3, ..all }), (3, 1));
    assert_eq!(frontends(TableLimits { frontend_ids_max: 2, ..all }), (2, 2));
    assert_eq!(frontends(TableLimits { members_max: 9, ..all }), (3, 1));
    assert_eq!(frontends(TableLimits { pool_rows_max: 3, ..all }), (2, 2));
}
