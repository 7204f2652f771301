//! Cluster addresses with endpoints that are unusual: none, the node itself, the client itself, others than before.

use lb_tests::address::{BALANCERS, FAMILIES, UPLINK, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::Outcome;
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, ingress};
use lb_tests::scene::{BALANCER, FINDING_OUT, Scene, TARGET, empty_slice};
use lb_tests::serve::Server;
use serde_json::json;

use crate::all_services::{ALL, Endpoints, HERE, NOWHERE, addresses, cluster, publish};

/// The name of a process of the node in answers.
const HOST: &str = "host";

/// Also at the other kinds of address, and for UDP.
#[test]
fn cip_10_rej_04_a_service_refuses_until_its_first_endpoint_comes() {
    let scene = Scene::with_flags(Setup::new("ciprefuse"), &ALL);
    for (endpoints, expected) in [(NOWHERE, None), (HERE, Some("a")), (NOWHERE, None), (HERE, Some("a"))] {
        publish(&scene, 40, &json!({}), endpoints);
        for to in FAMILIES.into_iter().flat_map(|family| addresses(family, 40)) {
            for (client, dial) in [("pod", scene.dial()), ("node", scene.dial_from_node())] {
                for outcome in [dial.tcp(to), dial.udp(to)] {
                    match expected {
                        None => assert_eq!(outcome, Outcome::Refused, "{client} at {to}"),
                        Some(who) => assert_eq!(outcome.who(), Some(who), "{client} at {to}: {outcome:?}"),
                    }
                }
            }
        }
    }
}

#[test]
fn cip_16_a_service_with_a_known_cluster_address_has_its_own_endpoints() {
    let scene = Scene::with_flags(Setup::new("ciprenew"), &ALL);
    publish(&scene, 41, &json!({}), HERE);
    let mut held: Vec<_> = FAMILIES.map(|family| scene.dial().held(cluster(family, 41))).into();
    scene.manifests.remove("s41");
    for family in FAMILIES {
        let is_gone = || scene.dial().unasked(FINDING_OUT).tcp(cluster(family, 41)).who().is_none();
        until_true("the Service to go", is_gone);
    }
    publish(&scene, 41, &json!({}), Endpoints { here: &["b"], elsewhere: false });
    for family in FAMILIES {
        for dial in [scene.dial(), scene.dial_from_node()] {
            assert_eq!(dial.tcp(cluster(family, 41)).who(), Some("b"));
        }
    }
    for held in &mut held {
        held.echo("still a").expect("a connection stays with its endpoint");
    }
}

/// An endpoint with `hostNetwork` has the address of the node. CIP-02: it sees an address of the node as its client, if
/// the node dials.
#[test]
fn cip_13_hp_04_a_process_of_the_node_is_an_endpoint() {
    let scene = Scene::with_flags(Setup::new("ciphost"), &ALL);
    let _server = Server::tcp(&scene.lab.node, HOST, TARGET);
    let service = scene.service("host", 42, &[]);
    let slices = FAMILIES.map(|family| empty_slice(&service, family).endpoint(UPLINK.host(family, 2), NODE).object());
    scene.apply("host", &[vec![service.object()], slices.to_vec()].concat());
    for family in FAMILIES {
        let clients = [
            (scene.client_address(UPLINK.host(family, 2)), scene.dial()),
            (UPLINK.host(family, 2), scene.dial_from_node()),
        ];
        for (client, dial) in clients {
            let outcome = dial.tcp(cluster(family, 42));
            let Outcome::Answered(answer) = outcome else { panic!("{client}: {outcome:?}") };
            assert_eq!((answer.who.as_str(), answer.client.ip()), (HOST, client));
        }
    }
}

/// HP-03: an address in mode Proxy is the balancer's business also for a pod behind it.
#[test]
fn hp_02_a_pod_reaches_itself_with_external_policy_local() {
    let scene = Scene::with_flags(Setup::new("ciplocal"), &ALL);
    let modes = [("VIP", 43, "a"), ("Proxy", 44, BALANCER)];
    for (mode, number, _) in modes {
        let (name, entries) =
            (format!("s{number}"), FAMILIES.map(|family| ingress(BALANCERS.host(family, number), mode)));
        let service = scene.service(&name, number, &entries).spec("externalTrafficPolicy", json!("Local"));
        scene.apply(&name, &[vec![service.object()], scene.slices(&service, &["a"])].concat());
    }
    for family in FAMILIES {
        for (mode, number, who) in modes {
            let outcome = scene.dial_from("a").tcp(vip(family, number, 80));
            assert_eq!(outcome.who(), Some(who), "{mode}: {outcome:?}");
        }
    }
}
