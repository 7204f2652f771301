//! Which checks are answered, and with how many endpoints.

use super::*;
use crate::desired::tests::policy;
use crate::desired::{Catalogue, Extent, Policy};
use crate::model::{Change, Kind, ObjectRef, World};
use crate::source::written::world;

const NODE: &str = "
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}, {type: InternalIP, address: 192.0.2.3},
  {type: InternalIP, address: '2001:db8::2'}]}
";

fn served() -> Policy {
    Policy { health_checks: HealthCheckPorts::Served, ..policy() }
}

/// A Service of both families. `fields` win over those before them.
fn service(name: &str, fields: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  ports: [{{name: web, port: 80}}, {{name: tls, port: 443}}]
{fields}
"
    )
}

const LOCAL: &str = "  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 31000
  clusterIPs: ['10.0.0.1', 'fd00::1']";

fn slice(family: &str, ports: &str, endpoints: &[&str]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|endpoint| format!("- {endpoint}")).collect();
    let endpoints = endpoints.join("\n");
    format!(
        "
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{}, labels: {{kubernetes.io/service-name: web}}}}
addressType: {family}
ports: {ports}
endpoints:
{endpoints}
",
        family.to_lowercase()
    )
}

const BOTH_PORTS: &str = "[{name: web, port: 8080}, {name: tls, port: 8443}]";

fn taken(world: &World, policy: &Policy) -> HealthChecks {
    let mut catalogue = Catalogue::default();
    catalogue.refresh(&Extent::Everything, world, policy);
    catalogue.take_health_checks().unwrap_or_default()
}

/// Address, Service and number of endpoints of each check.
fn checks(yaml: &str) -> Vec<String> {
    let found = taken(&world(yaml), &served());
    assert_eq!(found.warnings, []);
    let checks = found.by_address.iter().map(|(at, check)| {
        assert_eq!(*at, check.at);
        format!("{at} {} {}", check.service, check.local_endpoints)
    });
    checks.collect()
}

#[test]
fn hc_01_hc_07_ready_addresses_of_this_node_count_once() {
    let here = "{addresses: [10.1.0.1], nodeName: n1}";
    let endpoints = [
        here,
        "{addresses: [10.1.0.2], nodeName: n1, conditions: {ready: true}}",
        "{addresses: [10.1.0.3], nodeName: n2}",
        "{addresses: [10.1.0.4]}",
        "{addresses: [10.1.0.5], nodeName: n1, conditions: {ready: false}}",
    ];
    let yaml = service("web", LOCAL) + NODE + &slice("IPv4", BOTH_PORTS, &endpoints);
    assert_eq!(checks(&yaml), ["192.0.2.2:31000 default/web 2", "[2001:db8::2]:31000 default/web 0"]);
    // kube-proxy counts the ports of the slices, not those of the Service.
    let yaml = service("web", LOCAL) + NODE + &slice("IPv4", "[{name: other, port: 1}]", &[here]);
    assert_eq!(checks(&yaml)[0], "192.0.2.2:31000 default/web 1");
    let yaml = service("web", LOCAL) + NODE + &slice("IPv4", "[]", &[here]);
    assert_eq!(checks(&yaml)[0], "192.0.2.2:31000 default/web 0");
}

#[test]
fn hc_02_hc_03_terminating_endpoints_do_not_count() {
    let leaving = "{addresses: [10.1.0.1], nodeName: n1, conditions: {ready: false, serving: true, terminating: true}}";
    let yaml = service("web", LOCAL) + NODE + &slice("IPv4", BOTH_PORTS, &[leaving]);
    assert_eq!(checks(&yaml)[0], "192.0.2.2:31000 default/web 0");
    assert_eq!(checks(&(service("web", LOCAL) + NODE))[0], "192.0.2.2:31000 default/web 0");
}

#[test]
fn hc_08_hc_10_each_family_has_its_listener_and_its_count() {
    let yaml = service("web", LOCAL)
        + NODE
        + &slice("IPv4", BOTH_PORTS, &["{addresses: [10.1.0.1], nodeName: n1}"])
        + &slice("IPv6", BOTH_PORTS, &["{addresses: ['fd01::1'], nodeName: n1}"]);
    assert_eq!(checks(&yaml), ["192.0.2.2:31000 default/web 1", "[2001:db8::2]:31000 default/web 1"]);
    let single = LOCAL.replace(", 'fd00::1'", "");
    assert_eq!(checks(&(service("web", &single) + NODE)), ["192.0.2.2:31000 default/web 0"]);
    // Without a known address of the node: at all addresses.
    assert_eq!(checks(&service("web", LOCAL)), ["0.0.0.0:31000 default/web 0", "[::]:31000 default/web 0"]);
}

#[test]
fn hc_09_ipm_23_the_mode_of_the_address_does_not_matter() {
    for mode in ["VIP", "Proxy"] {
        let status = format!("{LOCAL}\nstatus: {{loadBalancer: {{ingress: [{{ip: 198.51.100.1, ipMode: {mode}}}]}}}}");
        let found = checks(&(service("web", &status) + NODE));
        assert_eq!(found, ["192.0.2.2:31000 default/web 0", "[2001:db8::2]:31000 default/web 0"], "{mode}");
    }
    // IPM-25: node ports do not matter either.
    let portless = format!("{LOCAL}\n  allocateLoadBalancerNodePorts: false");
    assert_eq!(checks(&(service("web", &portless) + NODE)).len(), 2);
}

#[test]
fn hc_06_other_services_have_no_checks() {
    for other in [
        LOCAL.replace("Local", "Cluster"),
        LOCAL.replace("LoadBalancer", "NodePort"),
        LOCAL.replace("31000", "0"),
        LOCAL.replace("['10.0.0.1', 'fd00::1']", "['None']"),
        LOCAL.replace("LoadBalancer", "ExternalName"),
    ] {
        assert_eq!(checks(&(service("web", &other) + NODE)), [""; 0], "{other}");
    }
    let labelled = "web, labels: {service.kubernetes.io/service-proxy-name: other}";
    assert_eq!(checks(&(service(labelled, LOCAL) + NODE)), [""; 0]);
    let world = world(&(service("web", LOCAL) + NODE));
    assert_eq!(taken(&world, &policy()), HealthChecks::default(), "kube-proxy answers");
}

#[test]
fn a_removed_service_has_no_checks_any_more() {
    let mut world = world(&(service("web", LOCAL) + NODE));
    let mut catalogue = Catalogue::default();
    let mut step = |world: &World| {
        catalogue.refresh(&Extent::Everything, world, &served());
        catalogue.take_health_checks().map(|checks| checks.by_address.len())
    };
    assert_eq!(step(&world), Some(2));
    assert_eq!(step(&world), None, "nothing has changed");
    world.apply(Change::Remove(ObjectRef { kind: Kind::Service, name: ObjectName::new("default", "web") }));
    assert_eq!(step(&world), Some(0));
}

#[test]
fn of_two_services_with_one_port_the_older_one_has_it() {
    let at = |secs: &str| format!(", creationTimestamp: '2020-01-01T00:00:{secs}Z'");
    let yaml = service(&format!("a{}", at("02")), LOCAL) + &service(&format!("b{}", at("01")), LOCAL) + NODE;
    let found = taken(&world(&yaml), &served());
    assert!(found.by_address.values().all(|check| check.service.to_string() == "default/b"), "{found:?}");
    let warnings: Vec<String> = found.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "Service default/a: spec.healthCheckNodePort: 31000 is also the port of Service default/b, which is older: the \
          answers there are those of that Service; give each Service a port of its own"
        ]
    );
}
