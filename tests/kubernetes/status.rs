//! A real server's treatment of a Service's status, and the modes that an agent can see
//! (docs/contract.md#what-an-api-server-lets-through).

use lb_tests::api::{Answer, Api, Method};
use lb_tests::apiserver::{Resource, recorded};
use lb_tests::kubernetes::Kubernetes;
use lb_tests::manifest::{self, NODE};
use serde_json::{Value, json};

use super::Test;
use crate::stage::{Stage, put, service, slice, vip, web};

pub const ALL: &[(&str, Test)] = &[
    ("status::a_mode_that_is_not_said_is_vip", a_mode_that_is_not_said_is_vip),
    ("status::a_bad_status_is_refused", a_bad_status_is_refused),
    ("status::the_mode_outlives_changes_of_the_spec", the_mode_outlives_changes_of_the_spec),
    ("status::another_type_has_no_balancer", another_type_has_no_balancer),
    ("status::hostnames_are_nobodys_addresses", hostnames_are_nobodys_addresses),
];

const SERVICE: &str = "/api/v1/namespaces/default/services/a";

fn ingress_of(server: &Kubernetes, name: &str) -> Value {
    let objects = server.objects();
    let found = objects.iter().find(|object| object["kind"] == "Service" && object["metadata"]["name"] == *name);
    found.expect("it was put in")["status"]["loadBalancer"]["ingress"].clone()
}

fn patch_status(server: &Kubernetes, ingress: &Value) -> Answer {
    let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    let body = Some(("application/merge-patch+json", &patch));
    server.admin.ask(&Method::PATCH, &format!("{SERVICE}/status"), body).expect("an answer")
}

fn a_mode_that_is_not_said_is_vip(server: &mut Kubernetes) {
    put(server, [web("a", 1).ingress(json!({"ip": vip(1)})).object(), slice("a", "1", &[2]).object()]);
    assert_eq!(ingress_of(server, "a"), json!([{"ip": vip(1), "ipMode": "VIP"}]));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    // `LoadBalancer` is in each row.
    let row =
        |stage: &Stage| stage.text().lines().find(|line| line.contains("192.0.2.1")).unwrap_or_default().to_owned();
    assert!(row(&stage).contains("Balance pool"), "{}", stage.text());
    // IPM-66: a controller that does not know the field writes the list, and Proxy is lost.
    server.put(web("a", 1).ingress(manifest::ingress(vip(1), "Proxy")).object());
    stage.until("it is left alone", |stage| !row(stage).contains("Balance pool"));
    server.put(web("a", 1).ingress(json!({"ip": vip(1)})).object());
    stage.until("it is balanced again", |stage| row(stage).contains("Balance pool"));
    stage.until_in_step_with(server);
}

/// A status that the server refuses never reaches the agent: the last good state stays.
fn a_bad_status_is_refused(server: &mut Kubernetes) {
    // The server allocates node ports: without an address of the node there would be a warning.
    server.put(manifest::node(NODE, &["172.18.0.2".parse().expect("an address")]));
    put(server, service("a", 1));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    stage.keep(&["192.0.2.1:80"]);
    let text = std::fs::read_to_string(recorded("status-patch-unknown-ipmode.json")).expect("part of the sources");
    // The recorded answer names another Service.
    let text = text.replace(r#"\"s\""#, r#"\"a\""#).replace(r#""name":"s""#, r#""name":"a""#);
    let wanted: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(patch_status(server, &json!([{"ip": vip(1), "ipMode": "Router"}])).json(), wanted);
    for (ingress, reason) in [
        (json!([{"ip": vip(1), "ipMode": "vip"}]), "FieldValueNotSupported"),
        (json!([{"hostname": "a.example", "ipMode": "Proxy"}]), "FieldValueForbidden"),
        (json!([{"hostname": "192.0.2.1"}]), "FieldValueInvalid"),
        (json!([{"ip": "none"}]), "FieldValueInvalid"),
    ] {
        let answer = patch_status(server, &ingress);
        assert_eq!(answer.status, 422, "{ingress}: {}", answer.body);
        assert_eq!(answer.json()["details"]["causes"][0]["reason"], reason, "{ingress}: {}", answer.body);
    }
    assert_eq!(ingress_of(server, "a"), json!([{"ip": vip(1), "ipMode": "VIP"}]));
    stage.until_in_step_with(server);
    assert!(stage.warnings().is_empty(), "{:?}", stage.warnings());
}

/// `Test_ServiceLoadBalancerIPMode` of the API server's own tests; IPM-71.
fn the_mode_outlives_changes_of_the_spec(server: &mut Kubernetes) {
    put(server, [web("a", 1).ingress(manifest::ingress(vip(1), "Proxy")).object(), slice("a", "1", &[2]).object()]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    let patch = json!({"spec": {"ports": [{"name": "http", "port": 81, "protocol": "TCP", "targetPort": 8080}]}});
    let body = Some(("application/merge-patch+json", &patch));
    server.admin.ask(&Method::PATCH, SERVICE, body).expect("an answer").good();
    stage.until("the port has changed", |stage| stage.text().contains("192.0.2.1:81"));
    stage.until_in_step_with(server);
    stage.restart();
    stage.until_in_step_with(server);
    assert_eq!(ingress_of(server, "a"), json!([{"ip": vip(1), "ipMode": "Proxy"}]));
    let row = stage.text().lines().find(|line| line.contains("192.0.2.1:81")).unwrap_or_default().to_owned();
    assert!(row.contains("Pass") && !row.contains("Balance pool"), "{}", stage.text());
}

/// IPM-65: the server clears the status.
fn another_type_has_no_balancer(server: &mut Kubernetes) {
    put(server, service("a", 1));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    let [mut object, _] = service("a", 1);
    object["spec"]["type"] = json!("ClusterIP");
    object["status"].take();
    server.put(object);
    assert_eq!(ingress_of(server, "a"), Value::Null);
    stage.until("the address is nobody's", |stage| !stage.text().contains("192.0.2.1"));
    stage.until_in_step_with(server);
    assert!(stage.text().contains("10.96.1.1"), "the cluster address stays: {}", stage.text());
    assert!(server.delete(Resource::Services, "default", "a"));
    stage.until_in_step_with(server);
}

/// IPM-70.
fn hostnames_are_nobodys_addresses(server: &mut Kubernetes) {
    server.put(manifest::node(NODE, &["172.18.0.2".parse().expect("an address")]));
    let entry = json!({"hostname": "lb.example.com"});
    put(server, [web("a", 1).ingress(entry).object(), slice("a", "1", &[2]).object()]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    assert!(!stage.text().contains("192.0.2"), "{}", stage.text());
    assert!(stage.warnings().is_empty(), "{:?}", stage.warnings());
}
