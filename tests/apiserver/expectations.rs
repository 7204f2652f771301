//! Expectations of every API server, the tests' own and a real one: objects become tables, whatever fields the server
//! adds.

use std::net::IpAddr;

use lb_agent::model::Kind;
use lb_agent::source::claim::Claim;
use lb_agent::source::connection::Phase;
use lb_tests::api::Api;
use lb_tests::apiserver::Resource;
use lb_tests::manifest::{self, NODE, Service};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::stage::{Stage, put, service, settings, slice, vip, web};

/// An expectation of a server without objects of other tests.
pub type Expectation = fn(&mut dyn Api);

/// Lists the expectations by name, and makes each a test on the tests' own server.
macro_rules! expectations {
    ($($name:ident,)*) => {
        /// All expectations.
        #[allow(dead_code, reason = "listed where a real server runs them")]
        pub const ALL: &[(&str, $crate::expectations::Expectation)] = &[$((stringify!($name), $name)),*];

        #[cfg(test)]
        mod on_our_server {
            $(
                #[test]
                fn $name() {
                    super::$name(&mut lb_tests::apiserver::ApiServer::start());
                }
            )*
        }
    };
}

expectations! {
    first_list_and_changes_are_programmed,
    a_list_of_many_pages_is_read_whole,
    the_last_state_stays_while_the_server_is_away,
    a_service_of_another_proxy_is_not_served,
    a_claimed_proxy_name_is_served_and_nothing_else,
    a_headless_service_is_not_served,
    a_slice_that_becomes_headless_is_gone,
    a_service_that_becomes_external_name_and_back,
    the_own_nodes_zone_is_followed,
    every_kind_of_address_follows_its_objects,
    any_edits_end_in_what_the_objects_ask_for,
}

/// The label of Services that another proxy serves.
pub const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

pub fn labelled(mut object: Value, name: &str, value: &str) -> Value {
    object["metadata"]["labels"][name] = json!(value);
    object
}

fn first_list_and_changes_are_programmed(server: &mut dyn Api) {
    let mut stage = Stage::with_two(server);
    put(server, service("new", 3));
    stage.until_in_step_with(server);
    server.put(slice("other", "1", &[2, 4, 6]).object());
    stage.until_in_step_with(server);
    server.delete(Resource::Services, "default", "other");
    stage.until_in_step_with(server);
    assert!(!stage.text().contains("192.0.2.2"), "{}", stage.text());
}

fn a_list_of_many_pages_is_read_whole(server: &mut dyn Api) {
    put(server, (1..12).flat_map(|last| service(&format!("s{last}"), last)));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    let all: Vec<String> = (1..12).map(|last| format!("192.0.2.{last}:80")).collect();
    stage.keep(&all.iter().map(String::as_str).collect::<Vec<_>>());
    stage.restart();
    stage.until_in_step_with(server);
}

fn the_last_state_stays_while_the_server_is_away(server: &mut dyn Api) {
    let mut stage = Stage::with_two(server);
    stage.keep(&["192.0.2.2:80"]);
    let before = stage.text();
    server.stop();
    stage.until("all kinds are tried again", |stage| {
        stage.connections().iter().all(|connection| connection.phase == Phase::Retrying && connection.failures > 3)
    });
    assert_eq!(stage.text(), before);
    server.resume();
    put(server, service("new", 3));
    stage.until_in_step_with(server);
    stage.until("all kinds are watched again", |stage| {
        stage.connections().iter().all(|connection| connection.phase == Phase::Watching)
    });
}

/// FLT-01, FLT-02.
fn a_service_of_another_proxy_is_not_served(server: &mut dyn Api) {
    let [service, slice] = service("a", 1);
    put(server, [labelled(service.clone(), PROXY_NAME, ""), slice]);
    let mut stage = Stage::follow(server);
    stage.until("all is listed", Stage::turn);
    assert!(!stage.text().contains("192.0.2.1"), "{}", stage.text());
    server.put(service.clone());
    stage.until("the label is gone", |stage| stage.text().contains("192.0.2.1"));
    server.put(labelled(service, PROXY_NAME, "other"));
    stage.until("the label is back", |stage| !stage.text().contains("192.0.2.1"));
}

fn a_claimed_proxy_name_is_served_and_nothing_else(server: &mut dyn Api) {
    for (name, last, label) in [("ours", 1, Some("lb-agent")), ("theirs", 2, Some("other")), ("nobodys", 3, None)] {
        let [service, slice] = service(name, last);
        put(server, [label.map_or(service.clone(), |label| labelled(service, PROXY_NAME, label)), slice]);
    }
    let claim = Claim::Named("lb-agent".to_owned());
    let mut stage = Stage::with(lb_agent::source::kube::Settings { claim, ..settings(server) });
    stage.until("ours is served", |stage| stage.text().contains("192.0.2.1"));
    assert!(!stage.text().contains("192.0.2.2") && !stage.text().contains("192.0.2.3"), "{}", stage.text());
}

/// FLT-03.
fn a_headless_service_is_not_served(server: &mut dyn Api) {
    put(server, service("steady", 1));
    let headless = Service::new("headless").port("http", "TCP", 80, 8080).spec("type", json!("ClusterIP"));
    let headless = headless.spec("clusterIP", json!("None"));
    let slice = slice("headless", "1", &[2]).object();
    put(server, [headless.object(), labelled(slice, "service.kubernetes.io/headless", "")]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    assert!(!stage.text().contains("10.244.0.2"), "{}", stage.text());
    assert_eq!(stage.connection(Kind::Service).failures, 0, "{:?}", stage.connection(Kind::Service));
}

/// FLT-04.
fn a_slice_that_becomes_headless_is_gone(server: &mut dyn Api) {
    put(server, service("a", 1));
    let mut stage = Stage::follow(server);
    stage.until("it balances", |stage| stage.text().contains("10.244.0.1"));
    server.put(labelled(slice("a", "1", &[1]).object(), "service.kubernetes.io/headless", ""));
    stage
        .until("no endpoints: REJECT", |stage| !stage.text().contains("10.244.0.1") && stage.text().contains("Reject"));
    stage.until_in_step_with(server);
    server.put(slice("a", "1", &[1]).object());
    stage.until_in_step_with(server);
}

/// FLT-05.
fn a_service_that_becomes_external_name_and_back(server: &mut dyn Api) {
    put(server, service("a", 1));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    let external = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "example.com"},
    });
    server.put(external);
    stage.until("nothing is served", |stage| !stage.text().contains("192.0.2.1"));
    put(server, service("a", 1));
    stage.until_in_step_with(server);
    assert!(stage.text().contains("192.0.2.1"), "{}", stage.text());
}

/// TOPO-11, ND-03: the own node's zone is followed.
fn the_own_nodes_zone_is_followed(server: &mut dyn Api) {
    let node = |zone: &str| labelled(manifest::node(NODE, &[]), "topology.kubernetes.io/zone", zone);
    let hinted = |last: u8, zone: &str| json!({"addresses": [format!("10.244.0.{last}")], "hints": {"forZones": [{"name": zone}]}});
    let slice = slice("a", "1", &[]).raw_endpoint(hinted(1, "east")).raw_endpoint(hinted(2, "west"));
    put(server, [web("a", 1).ingress(manifest::ingress(vip(1), "VIP")).object(), slice.object(), node("east")]);
    let mut stage = Stage::follow(server);
    stage.until("east", |stage| stage.text().contains("10.244.0.1") && !stage.text().contains("10.244.0.2"));
    server.put(node("west"));
    stage.until("west", |stage| stage.text().contains("10.244.0.2") && !stage.text().contains("10.244.0.1"));
    stage.until_in_step_with(server);
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn with_node_port(node_port: u16, fields: &[(&str, Value)]) -> Value {
    let port = json!({"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": node_port});
    let service = Service::new("a")
        .cluster_ips(&[ip("10.96.1.1"), ip("fd00:10:96::1")])
        .spec("ports", json!([port]))
        .spec("externalIPs", json!(["198.51.100.7", "2001:db8::7"]))
        .ingress(manifest::ingress(vip(1), "VIP"));
    fields.iter().fold(service, |service, (field, value)| service.spec(field, value.clone())).object()
}

/// Every kind of Service address: the same tables as from a folder with the same objects.
fn every_kind_of_address_follows_its_objects(server: &mut dyn Api) {
    let node = |texts: &[&str]| manifest::node(NODE, &texts.iter().map(|text| ip(text)).collect::<Vec<_>>());
    put(server, [node(&["172.18.0.2", "fc00:18::2"]), with_node_port(30080, &[]), slice("a", "1", &[1, 2]).object()]);
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    for address in ["10.96.1.1:80", "[fd00:10:96::1]:80", "198.51.100.7:80", "[2001:db8::7]:80", "192.0.2.1:80"] {
        assert!(stage.text().contains(address), "{address}: {}", stage.text());
    }
    for address in ["172.18.0.2:30080", "[fc00:18::2]:30080"] {
        assert!(stage.text().contains(address), "{address}: {}", stage.text());
    }
    let local = json!("Local");
    let policies = [("externalTrafficPolicy", local.clone()), ("internalTrafficPolicy", local)];
    for object in [
        node(&["172.18.0.3", "fc00:18::2"]),
        with_node_port(30081, &[]),
        with_node_port(30081, &policies),
        node(&["172.18.0.3"]),
    ] {
        server.put(object);
        stage.until_in_step_with(server);
    }
    assert!(!stage.text().contains("fc00:18::2"), "{}", stage.text());
    assert!(stage.text().contains("172.18.0.3:30081"), "{}", stage.text());
    let warnings = stage.warnings();
    assert!(warnings.iter().any(|text| text.contains("no IPv6 address of this node")), "{warnings:?}");
}

/// An edit, which causes no error in the server.
#[derive(Clone, Debug)]
enum Edit {
    /// The Service exists, in this mode, with these endpoints.
    Serve(u8, &'static str, Vec<u8>),
    Withdraw(u8),
    /// Its slice is deleted.
    Empty(u8),
    AgentRestarts,
    /// The changes so far are programmed.
    Turn,
}

fn edit() -> impl Strategy<Value = Edit> {
    let number = || 2_u8..6;
    let endpoints = proptest::collection::vec(10_u8..20, 1..4);
    prop_oneof![
        6 => (number(), prop_oneof![Just("VIP"), Just("Proxy")], endpoints)
            .prop_map(|(number, mode, endpoints)| Edit::Serve(number, mode, endpoints)),
        3 => number().prop_map(Edit::Withdraw),
        2 => number().prop_map(Edit::Empty),
        1 => Just(Edit::AgentRestarts),
        4 => Just(Edit::Turn),
    ]
}

/// Property: after any edits the tables equal those of the objects, and a Service that does not change always works.
fn any_edits_end_in_what_the_objects_ask_for(server: &mut dyn Api) {
    let name = |number: u8| format!("s{number}");
    put(server, service("steady", 1));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    stage.keep(&["192.0.2.1:80"]);
    let config = Config { max_shrink_iters: 16, ..lb_tests::random::config(6) };
    // Server and agent continue from one history to the next: together these are one long history.
    let state = std::cell::RefCell::new((server, stage));
    let result = TestRunner::new(config).run(&proptest::collection::vec(edit(), 1..16), |edits| {
        let (server, stage) = &mut *state.borrow_mut();
        for edit in edits {
            match edit {
                Edit::Serve(number, mode, mut endpoints) => {
                    // No server refuses an address that is twice in one slice, and the duplicate has no effect.
                    endpoints.dedup();
                    server.put(web(&name(number), number).ingress(manifest::ingress(vip(number), mode)).object());
                    server.put(slice(&name(number), "1", &endpoints).object());
                }
                Edit::Withdraw(number) => drop(server.delete(Resource::Services, "default", &name(number))),
                Edit::Empty(number) => {
                    server.delete(Resource::EndpointSlices, "default", &format!("{}-1", name(number)));
                }
                Edit::AgentRestarts => stage.restart(),
                Edit::Turn => drop(stage.turn()),
            }
        }
        stage.until_in_step_with(&**server);
        Ok(())
    });
    result.expect("the tables follow the objects");
}
