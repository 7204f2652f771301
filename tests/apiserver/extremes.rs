//! Extreme objects of real clusters, on the tests' server and on a real one: large, duplicated, moved and unusual ones.

use std::net::IpAddr;

use lb_agent::render::{self, FrontendRow};
use lb_tests::api::Api;
use lb_tests::apiserver::Resource;
use lb_tests::manifest::{self, NODE};
use serde_json::{Value, json};

use crate::expectations::labelled;
use crate::stage::{Stage, put, service, slice, vip, web};

expectations! {
    a_service_of_a_hundred_ports,
    a_slice_of_a_thousand_endpoints,
    endpoints_without_conditions_are_ready,
    an_endpoint_in_two_slices_is_one,
    a_slice_that_changes_its_service,
    a_service_that_is_made_anew,
    an_object_with_large_annotations,
    an_address_beside_a_hostname,
    an_address_in_another_notation,
    slices_of_both_families,
    a_mode_that_flips_alone,
}

/// The scope of each frontend on this address for pods, by port.
fn actions(stage: &Stage, address: &str) -> Vec<(u16, String, usize)> {
    let rows = render::frontends(&stage.dataplane.tables).into_iter();
    let rows = rows.filter(|row| row.address.ip().to_string() == address);
    let scope = |row: FrontendRow| row.workload.map(|scope| (row.address.port(), scope.action, scope.backend_count));
    rows.filter_map(scope).collect()
}

/// Whether port 80 of this address balances over so many endpoints for pods.
fn balances_over(stage: &Stage, address: &str, backends: usize) -> bool {
    actions(stage, address).contains(&(80, "Balance".to_owned(), backends))
}

/// Also one port number with two protocols.
fn a_service_of_a_hundred_ports(server: &mut dyn Api) {
    let ports: Vec<Value> = (0..50)
        .flat_map(|number| {
            ["TCP", "UDP"].map(|protocol| {
                let name = format!("{}-{number}", protocol.to_lowercase());
                json!({"name": name, "protocol": protocol, "port": 1000 + number})
            })
        })
        .collect();
    let object = web("a", 1).ingress(manifest::ingress(vip(1), "VIP"));
    let object = object.spec("allocateLoadBalancerNodePorts", json!(false)).spec("ports", json!(ports)).object();
    let mut endpoints = slice("a", "1", &[2]).object();
    // Each port has a target of its own, so that a mix-up would show.
    endpoints["ports"] = ports
        .iter()
        .zip(2000..)
        .map(|(port, target)| json!({"name": port["name"], "protocol": port["protocol"], "port": target}))
        .collect();
    put(server, [object.clone(), endpoints]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    assert_eq!(actions(&stage, "192.0.2.1").len(), 100, "{}", stage.text());
    // One in the middle is removed.
    let mut fewer = object;
    fewer["spec"]["ports"].as_array_mut().expect("a list").remove(41);
    server.put(fewer);
    stage.until("it is gone", |stage| actions(stage, "192.0.2.1").len() == 99);
    stage.until_in_step_with(server);
}

/// As many as the API allows.
fn a_slice_of_a_thousand_endpoints(server: &mut dyn Api) {
    const MAX: u16 = 1000;
    let many = |count: u16| {
        let address = |number: u16| IpAddr::from([10, 245, (number >> 8) as u8, number as u8]);
        (0..count).fold(slice("a", "1", &[]), |slice, number| slice.endpoint(address(number), NODE)).object()
    };
    put(server, [web("a", 1).ingress(manifest::ingress(vip(1), "VIP")).object(), many(MAX)]);
    put(server, service("steady", 9));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    stage.keep(&["192.0.2.1:80", "192.0.2.9:80"]);
    for count in [MAX - 1, 1, MAX] {
        server.put(many(count));
        stage.until_in_step_with(server);
        assert_eq!(stage.text().matches("10.245.").count(), usize::from(count));
    }
}

/// EPS-02.
fn endpoints_without_conditions_are_ready(server: &mut dyn Api) {
    let bare = slice("a", "1", &[]).raw_endpoint(json!({"addresses": ["10.244.0.7"]}));
    let empty = bare.raw_endpoint(json!({"addresses": ["10.244.0.8"], "conditions": {}}));
    put(server, [web("a", 1).ingress(manifest::ingress(vip(1), "VIP")).object(), empty.object()]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    for address in ["10.244.0.7:8080", "10.244.0.8:8080"] {
        assert!(stage.text().contains(address), "{address}: {}", stage.text());
    }
}

/// EPS-05: it stays until it is removed from the last slice.
fn an_endpoint_in_two_slices_is_one(server: &mut dyn Api) {
    put(server, service("a", 1));
    server.put(slice("a", "2", &[1, 3]).object());
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    assert_eq!(stage.text().matches("10.244.0.1:8080").count(), 1, "{}", stage.text());
    stage.keep(&["192.0.2.1:80"]);
    assert!(server.delete(Resource::EndpointSlices, "default", "a-1"));
    stage.until_in_step_with(server);
    assert!(stage.text().contains("10.244.0.1:8080"), "{}", stage.text());
    server.put(slice("a", "2", &[3]).object());
    stage.until("it is gone", |stage| !stage.text().contains("10.244.0.1:8080"));
    stage.until_in_step_with(server);
}

/// A label names the Service of a slice. A slice without the label belongs to none.
fn a_slice_that_changes_its_service(server: &mut dyn Api) {
    put(server, service("a", 1));
    put(server, service("b", 2));
    let roving = |service: &str| labelled(slice("a", "9", &[7]).object(), "kubernetes.io/service-name", service);
    server.put(roving("a"));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    stage.keep(&["192.0.2.1:80", "192.0.2.2:80"]);
    for (owner, of_a, of_b) in [("a", 2, 1), ("b", 1, 2), ("nobody", 1, 1), ("a", 2, 1), ("", 1, 1)] {
        server.put(roving(owner));
        stage.until(owner, |stage| balances_over(stage, "192.0.2.1", of_a) && balances_over(stage, "192.0.2.2", of_b));
        stage.until_in_step_with(server);
    }
}

/// Another object with the same name: once between two lists, and once seen by a watch.
fn a_service_that_is_made_anew(server: &mut dyn Api) {
    put(server, service("steady", 9));
    put(server, service("a", 1));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    stage.keep(&["192.0.2.9:80"]);
    for round in 0..4_u8 {
        assert!(server.delete(Resource::Services, "default", "a"));
        if round % 2 == 0 {
            stage.until("it is gone", |stage| !stage.text().contains("192.0.2.1:"));
        }
        let port = 81 + u16::from(round);
        let anew = web("a", 1).port("more", "TCP", port, 8080).ingress(manifest::ingress(vip(1), "VIP"));
        server.put(anew.object());
        stage.until("it is back", |stage| stage.text().contains(&format!("192.0.2.1:{port}")));
        stage.until_in_step_with(server);
    }
}

/// The API allows at most a quarter of a MiB for all annotations of an object.
fn an_object_with_large_annotations(server: &mut dyn Api) {
    with_annotations_of(server, 250 << 10);
}

/// A Service with annotations of so many bytes is served, and a small one among them takes effect.
pub fn with_annotations_of(server: &dyn Api, bytes: usize) {
    let large = "x".repeat(bytes);
    let object = web("a", 1).ingress(manifest::ingress(vip(1), "VIP"));
    let object = object.metadata("annotations", json!({"example.com/notes": &large}));
    put(server, [object.object(), slice("a", "1", &[2]).object()]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    assert!(balances_over(&stage, "192.0.2.1", 1), "{}", stage.text());
    let annotations = json!({"lb-agent.io/ip-mode": "Proxy", "example.com/notes": large});
    server.put(object.metadata("annotations", annotations).object());
    stage.until("the small one counts", |stage| !balances_over(stage, "192.0.2.1", 1));
    stage.until_in_step_with(server);
}

/// IPM-07.
fn an_address_beside_a_hostname(server: &mut dyn Api) {
    let entry = |mode: &str| json!({"ip": vip(1), "hostname": "lb.example.com", "ipMode": mode});
    put(server, [web("a", 1).ingress(entry("VIP")).object(), slice("a", "1", &[2]).object()]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    assert!(balances_over(&stage, "192.0.2.1", 1), "{}", stage.text());
    server.put(web("a", 1).ingress(entry("Proxy")).object());
    stage.until("it is left alone", |stage| !balances_over(stage, "192.0.2.1", 1));
    stage.until_in_step_with(server);
}

/// One address in different notations: when the first Service is deleted, the second gets the address.
fn an_address_in_another_notation(server: &mut dyn Api) {
    let dual = |name: &str, last: u8, address: &str| {
        let cluster = [IpAddr::from([10, 96, 1, last]), format!("fd00:10:96::{last}").parse().expect("an address")];
        let service = manifest::Service::new(name).cluster_ips(&cluster).port("http", "TCP", 80, 8080);
        service.ingress(json!({"ip": address, "ipMode": "VIP"})).object()
    };
    let slice6 = |name: &str, last: u8| {
        let slice = manifest::Service::new(name).slice("6").port("http", "TCP", 8080);
        slice.endpoint(format!("fd00:10:244::{last}").parse().expect("an address"), NODE).object()
    };
    put(server, [dual("a", 1, "2001:DB8:0:0:0::7"), slice6("a", 1)]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    assert!(balances_over(&stage, "2001:db8::7", 1), "{}", stage.text());
    put(server, [dual("b", 2, "2001:db8::7"), slice6("b", 2)]);
    stage.until("it is claimed twice", |stage| stage.warnings().iter().any(|text| text.contains("2001:db8::7")));
    assert!(server.delete(Resource::Services, "default", "a"));
    stage.until_in_step_with(server);
    assert!(balances_over(&stage, "2001:db8::7", 1) && stage.text().contains("fd00:10:244::2"), "{}", stage.text());
}

/// EPS-04 and its counterpart: each family has slices of its own.
fn slices_of_both_families(server: &mut dyn Api) {
    let cluster: [IpAddr; 2] = [IpAddr::from([10, 96, 1, 1]), "fd00:10:96::1".parse().expect("an address")];
    let object = manifest::Service::new("a").cluster_ips(&cluster).port("http", "TCP", 80, 8080);
    let object = object.ingress(manifest::ingress(vip(1), "VIP"));
    let object = object.ingress(manifest::ingress("2001:db8::1".parse().expect("an address"), "VIP")).object();
    let slice6 = |last: u8| {
        let slice = manifest::Service::new("a").slice("6").port("http", "TCP", 8080);
        slice.endpoint(format!("fd00:10:244::{last}").parse().expect("an address"), NODE).object()
    };
    put(server, [object, slice("a", "1", &[2]).object(), slice6(3)]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    assert!(
        stage.text().contains("10.244.0.2:8080") && stage.text().contains("[fd00:10:244::3]:8080"),
        "{}",
        stage.text()
    );
    stage.keep(&["192.0.2.1:80"]);
    server.put(slice6(4));
    stage.until("the slice is followed", |stage| stage.text().contains("[fd00:10:244::4]:8080"));
    assert!(server.delete(Resource::EndpointSlices, "default", "a-6"));
    stage.until_in_step_with(server);
    assert_eq!(actions(&stage, "2001:db8::1"), [(80, "Reject".to_owned(), 0)]);
}

/// IPM-60, IPM-61, IPM-63: only the mode in the status changes, repeatedly.
fn a_mode_that_flips_alone(server: &mut dyn Api) {
    put(server, service("a", 1));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    for (mode, balances) in [("Proxy", false), ("VIP", true), ("Proxy", false)] {
        server.put(web("a", 1).ingress(manifest::ingress(vip(1), mode)).object());
        stage.until(mode, |stage| balances_over(stage, "192.0.2.1", 1) == balances);
        stage.until_in_step_with(server);
    }
    // There and back before the agent reads either.
    for mode in ["VIP", "Proxy"] {
        server.put(web("a", 1).ingress(manifest::ingress(vip(1), mode)).object());
    }
    stage.until_in_step_with(server);
}
