//! Every kind of Service address through the API: the same tables as a folder of the same objects makes.

use std::net::IpAddr;

use lb_tests::apiserver::ApiServer;
use lb_tests::manifest::{self, NODE, Service};
use serde_json::{Value, json};

use crate::stage::{Stage, put, slice, vip};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn node(addresses: &[&str]) -> Value {
    manifest::node(NODE, &addresses.iter().map(|text| ip(text)).collect::<Vec<_>>())
}

fn service(node_port: u16, fields: &[(&str, Value)]) -> Value {
    let port = json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": node_port});
    let service = Service::new("a")
        .cluster_ips(&[ip("10.96.0.1"), ip("fd00:96::1")])
        .spec("ports", json!([port]))
        .spec("externalIPs", json!(["198.51.100.7", "2001:db8::7"]))
        .ingress(manifest::ingress(vip(1), "VIP"));
    fields.iter().fold(service, |service, (field, value)| service.spec(field, value.clone())).object()
}

#[test]
fn every_kind_of_address_follows_its_objects() {
    let server = ApiServer::start();
    put(&server, [node(&["172.18.0.2", "fc00:18::2"]), service(30080, &[]), slice("a", "1", &[1, 2]).object()]);
    let mut stage = Stage::follow(&server);
    stage.until_in_step_with(&server);
    for address in ["10.96.0.1:80", "[fd00:96::1]:80", "198.51.100.7:80", "[2001:db8::7]:80", "192.0.2.1:80"] {
        assert!(stage.text().contains(address), "{address}: {}", stage.text());
    }
    for address in ["172.18.0.2:30080", "[fc00:18::2]:30080"] {
        assert!(stage.text().contains(address), "{address}: {}", stage.text());
    }
    let local = json!("Local");
    let policies = [("externalTrafficPolicy", local.clone()), ("internalTrafficPolicy", local)];
    for object in
        [node(&["172.18.0.3", "fc00:18::2"]), service(30081, &[]), service(30081, &policies), node(&["172.18.0.3"])]
    {
        server.put(object);
        stage.until_in_step_with(&server);
    }
    assert!(!stage.text().contains("fc00:18::2"), "{}", stage.text());
    assert!(stage.text().contains("172.18.0.3:30081"), "{}", stage.text());
    let warnings = stage.warnings();
    assert!(warnings.iter().any(|text| text.contains("no IPv6 address of this node")), "{warnings:?}");
}
