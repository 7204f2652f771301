//! Filters of spec 2.1 through the API: what is asked for, and what becomes of objects that cross them.

use lb_agent::source::claim::Claim;
use lb_tests::apiserver::{ApiServer, Resource};
use lb_tests::manifest::{self, NODE};
use serde_json::{Value, json};

use crate::stage::{Stage, put, service, settings, slice, vip, web};

const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

fn labelled(mut object: Value, name: &str, value: &str) -> Value {
    object["metadata"]["labels"][name] = json!(value);
    object
}

#[test]
fn only_what_is_needed_is_asked_for() {
    let server = ApiServer::start();
    put(&server, [manifest::node(NODE, &[]), manifest::node("another", &[])]);
    let mut stage = Stage::follow(&server);
    stage.until("all is listed", Stage::turn);
    stage.until("all is watched", |_| server.asked().iter().filter(|asked| asked.is_watch).count() >= 3);
    let value = |resource: Resource, is_watch: bool, name: &str| {
        let asked = server.asked();
        let asked = asked.iter().find(|asked| asked.resource == resource && asked.is_watch == is_watch);
        let query = &asked.expect("it was asked for").query;
        query.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    for is_watch in [false, true] {
        assert_eq!(value(Resource::Services, is_watch, "labelSelector"), format!("!{PROXY_NAME}"));
        assert_eq!(value(Resource::Services, is_watch, "fieldSelector"), "spec.clusterIP!=None");
        assert_eq!(value(Resource::EndpointSlices, is_watch, "labelSelector"), "!service.kubernetes.io/headless");
        assert_eq!(value(Resource::Nodes, is_watch, "fieldSelector"), format!("metadata.name={NODE}"));
    }
    assert_eq!(value(Resource::Services, false, "limit"), "3");
    assert_eq!(value(Resource::Services, true, "allowWatchBookmarks"), "true");
}

/// FLT-01, FLT-02.
#[test]
fn a_service_of_another_proxy_is_not_served() {
    let server = ApiServer::start();
    let [service, slice] = service("a", 1);
    put(&server, [labelled(service.clone(), PROXY_NAME, ""), slice]);
    let mut stage = Stage::follow(&server);
    stage.until("all is listed", Stage::turn);
    assert!(!stage.text().contains("192.0.2.1"), "{}", stage.text());
    server.put(service.clone());
    stage.until("the label is gone", |stage| stage.text().contains("192.0.2.1"));
    server.put(labelled(service, PROXY_NAME, "other"));
    stage.until("the label is back", |stage| !stage.text().contains("192.0.2.1"));
}

#[test]
fn a_claimed_proxy_name_is_served_and_nothing_else() {
    let server = ApiServer::start();
    for (name, last, label) in [("ours", 1, Some("lb-agent")), ("theirs", 2, Some("other")), ("nobodys", 3, None)] {
        let [service, slice] = service(name, last);
        put(&server, [label.map_or(service.clone(), |label| labelled(service, PROXY_NAME, label)), slice]);
    }
    let claim = Claim::Named("lb-agent".to_owned());
    let mut stage = Stage::with(lb_agent::source::kube::Settings { claim, ..settings(&server) });
    stage.until("ours is served", |stage| stage.text().contains("192.0.2.1"));
    assert!(!stage.text().contains("192.0.2.2") && !stage.text().contains("192.0.2.3"), "{}", stage.text());
}

/// FLT-03.
#[test]
fn a_headless_service_is_not_served() {
    let server = ApiServer::start();
    put(&server, service("steady", 1));
    let [mut headless, slice] = service("headless", 2);
    headless["spec"]["clusterIP"] = json!("None");
    headless["spec"]["clusterIPs"] = json!(["None"]);
    put(&server, [headless, labelled(slice, "service.kubernetes.io/headless", "")]);
    let mut stage = Stage::follow(&server);
    stage.until_in_step_with(&server);
    assert!(!stage.text().contains("192.0.2.2"), "{}", stage.text());
}

/// FLT-04.
#[test]
fn a_slice_that_becomes_headless_is_gone() {
    let server = ApiServer::start();
    put(&server, service("a", 1));
    let mut stage = Stage::follow(&server);
    stage.until("it balances", |stage| stage.text().contains("10.244.0.1"));
    server.put(labelled(slice("a", "1", &[1]).object(), "service.kubernetes.io/headless", ""));
    stage.until("no endpoints: REJECT", |stage| stage.text().contains("Reject"));
    stage.until_in_step_with(&server);
    server.put(slice("a", "1", &[1]).object());
    stage.until_in_step_with(&server);
}

/// FLT-05.
#[test]
fn a_service_that_becomes_external_name_and_back() {
    let server = ApiServer::start();
    put(&server, service("a", 1));
    let mut stage = Stage::follow(&server);
    stage.until_in_step_with(&server);
    let external = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "example.com"},
    });
    server.put(external);
    stage.until("nothing is served", |stage| !stage.text().contains("192.0.2.1"));
    put(&server, service("a", 1));
    stage.until_in_step_with(&server);
    assert!(stage.text().contains("192.0.2.1"), "{}", stage.text());
}

/// TOPO-11: the own node's zone is followed.
#[test]
fn the_own_nodes_zone_is_followed() {
    let server = ApiServer::start();
    let node = |zone: &str| labelled(manifest::node(NODE, &[]), "topology.kubernetes.io/zone", zone);
    let hinted = |last: u8, zone: &str| json!({"addresses": [format!("10.244.0.{last}")], "hints": {"forZones": [{"name": zone}]}});
    let slice = slice("a", "1", &[]).raw_endpoint(hinted(1, "east")).raw_endpoint(hinted(2, "west"));
    put(&server, [web("a", 1).ingress(manifest::ingress(vip(1), "VIP")).object(), slice.object(), node("east")]);
    let mut stage = Stage::follow(&server);
    stage.until("east", |stage| stage.text().contains("10.244.0.1") && !stage.text().contains("10.244.0.2"));
    server.put(node("west"));
    stage.until("west", |stage| stage.text().contains("10.244.0.2") && !stage.text().contains("10.244.0.1"));
    stage.until_in_step_with(&server);
}

/// FLT-03, on a server that knows no field selector for the cluster IP: all is read, and sorted out here.
#[test]
fn a_server_that_cannot_select_by_cluster_ip_is_read_whole() {
    let server = ApiServer::start();
    server.misbehave(|faults| faults.unknown_fields = ["spec.clusterIP"].into());
    put(&server, service("a", 1));
    let headless = |name: &str, last| {
        let object = web(name, last).ingress(manifest::ingress(vip(last), "VIP"));
        object.spec("clusterIP", json!("None")).spec("clusterIPs", json!(["None"])).object()
    };
    put(&server, [headless("b", 2), slice("b", "1", &[2]).object()]);
    let mut stage = Stage::follow(&server);
    stage.until("the other Service is served", |stage| stage.text().contains("192.0.2.1"));
    put(&server, [headless("c", 3), slice("c", "1", &[3]).object()]);
    put(&server, service("d", 4));
    stage.until("changes are followed", |stage| stage.text().contains("192.0.2.4"));
    assert!(!stage.text().contains("192.0.2.2") && !stage.text().contains("192.0.2.3"), "{}", stage.text());
    // It was tried once, and the list that followed is no failure that is shown for long.
    server.compact();
    server.afflict_watches(lb_tests::apiserver::WatchFault::Expired);
    put(&server, service("e", 5));
    stage.until("it is listed anew", |stage| stage.text().contains("192.0.2.5"));
    let selects = |asked: &&lb_tests::apiserver::Asked| {
        asked.resource == Resource::Services && asked.query.iter().any(|(name, _)| name == "fieldSelector")
    };
    assert_eq!(server.asked().iter().filter(selects).count(), 1);
    assert_eq!(stage.connection(lb_agent::model::Kind::Service).lists, 2);
}
