//! Services over the three nodes, as the tests of this program write them.

use lb_tests::address::{BALANCERS, CLUSTER, EXTERNAL_IPS, FAMILIES, Family};
use lb_tests::manifest::{Service, Slice, ingress, suffix};
use lb_tests::nodes::{Cluster, NAMES};
use lb_tests::scene::TARGET;
use serde_json::{Value, json};

/// Added to a Service's number: its node port, and its health check node port.
pub const NODE_PORTS: u16 = 30_000;
pub const CHECKS: u16 = 31_000;

/// A Service of type LoadBalancer on port 80 of both families, with a node port and an externalIP.
pub fn service(number: u8, mode: &str) -> Service {
    service_on(80, number, mode)
}

/// The same on another port.
pub fn service_on(port: u16, number: u8, mode: &str) -> Service {
    let port = |name: &str, protocol: &str| {
        let node_port = NODE_PORTS + u16::from(number);
        json!({"name": name, "protocol": protocol, "port": port, "targetPort": TARGET, "nodePort": node_port})
    };
    let service = Service::new(&format!("s{number}"))
        .cluster_ips(&FAMILIES.map(|family| CLUSTER.host(family, number)))
        .spec("ports", json!([port("web", "TCP"), port("dns", "UDP")]))
        .spec("externalIPs", json!(FAMILIES.map(|family| EXTERNAL_IPS.host(family, number))));
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), mode));
    entries.into_iter().fold(service, Service::ingress)
}

/// The same with externalTrafficPolicy Local and its health check.
pub fn local(number: u8, mode: &str) -> Service {
    service(number, mode)
        .spec("externalTrafficPolicy", json!("Local"))
        .spec("healthCheckNodePort", json!(CHECKS + u16::from(number)))
}

/// A slice of one family with pods, each named by its letter and its node: `a2`.
pub fn slice(cluster: &Cluster, service: &Service, family: Family, pods: &[&str]) -> Slice {
    let slice = service.slice(suffix(family)).address_type(family);
    let slice = slice.port("web", "TCP", TARGET).port("dns", "UDP", TARGET);
    pods.iter().fold(slice, |slice, pod| {
        let (letter, number) = pod.split_at(1);
        let number: u8 = number.parse().expect("a node's number");
        let address = cluster.node(number).pod(letter).address(family);
        slice.endpoint(address, NAMES[usize::from(number) - 1])
    })
}

/// Writes a Service with pods as its endpoints.
#[track_caller]
pub fn publish(cluster: &Cluster, service: &Service, pods: &[&str]) {
    let mut objects: Vec<Value> = vec![service.object()];
    objects.extend(FAMILIES.map(|family| slice(cluster, service, family, pods).object()));
    let name = service.object()["metadata"]["name"].as_str().expect("a name").to_owned();
    cluster.apply(&name, &objects);
}
