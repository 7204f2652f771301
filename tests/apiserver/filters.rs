//! Which objects count (docs/contract.md#which-objects-count), through the API: the selectors of requests, and objects
//! that cross the filters.

use lb_tests::apiserver::{ApiServer, Resource};
use lb_tests::manifest::{self, NODE};
use serde_json::json;

use crate::expectations::{PROXY_NAME, labelled};
use crate::extremes::with_annotations_of;
use crate::stage::{Stage, put, service, slice, vip, web};

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

/// FLT-03, also if a server allows it a balancer.
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

/// FLT-03, on a server without a field selector for the cluster IP: the agent reads all Services, and filters them
/// itself.
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
    // It was tried once, and the list that followed does not show as a failure for long.
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

/// Four times what the API allows, as etcd could hold it: it costs memory, but has no other effect.
#[test]
fn an_object_of_a_mebibyte_is_read() {
    with_annotations_of(&ApiServer::start(), 1 << 20);
}

/// The API refuses a mode without an address. If such an entry exists all the same, it is not served.
#[test]
fn a_mode_without_an_address_means_nothing() {
    let server = ApiServer::start();
    let bare =
        web("a", 1).ingress(json!({"ipMode": "VIP"})).ingress(json!({"hostname": "a.example", "ipMode": "Proxy"}));
    put(&server, [bare.ingress(manifest::ingress(vip(3), "VIP")).object(), slice("a", "1", &[2]).object()]);
    let mut stage = Stage::follow(&server);
    stage.until_in_step_with(&server);
    assert_eq!(stage.text().matches("192.0.2.").count(), 1, "{}", stage.text());
    assert!(stage.warnings().is_empty(), "{:?}", stage.warnings());
}
