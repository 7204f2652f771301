//! Health checks from the network over real HTTP: health check node ports of Services, and `--healthz`.

use std::net::SocketAddr;

use lb_tests::address::{FAMILIES, Family, UPLINK};
use lb_tests::deadline::until_true;
use lb_tests::http;
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, Service, node};
use lb_tests::scene::{Scene, empty_slice};
use lb_tests::serve::Server;
use serde_json::{Value, json};

use crate::all_services::{ALL, ELSEWHERE, HERE, node_port, publish};

/// Added to a Service's number: its health check node port.
const CHECKS: u16 = 31_000;
/// The default port of `--healthz`.
const HEALTHZ: u16 = 10_256;

/// An address of the node ports, and whether the balancer gets an answer there, with which status.
fn at(family: Family, port: u16) -> SocketAddr {
    (UPLINK.host(family, 2), port).into()
}

fn status(scene: &Scene, to: SocketAddr, path: &str) -> Option<u16> {
    http::get(&scene.lab.external, to, path).map(|(code, _)| code)
}

/// The statuses of the two families at a Service's port.
fn statuses(scene: &Scene, number: u8) -> [Option<u16>; 2] {
    FAMILIES.map(|family| status(scene, at(family, CHECKS + u16::from(number)), "/"))
}

fn policies(policy: &str, number: u8) -> Value {
    json!({"externalTrafficPolicy": policy, "healthCheckNodePort": CHECKS + u16::from(number)})
}

/// Writes a Service again, whose only endpoint is terminating.
fn drain(scene: &Scene, number: u8) {
    let name = format!("s{number}");
    let node_port = node_port(Family::V4, number).port();
    let service: Service = scene
        .service(&name, number, &[])
        .spec("ports", json!([{"name": "web", "protocol": "TCP", "port": 80, "nodePort": node_port}]))
        .spec("externalTrafficPolicy", json!("Local"))
        .spec("healthCheckNodePort", json!(CHECKS + u16::from(number)));
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        objects.push(
            empty_slice(&service, family)
                .raw_endpoint(json!({
                    "addresses": [scene.lab.pod_address("a", family).to_string()], "nodeName": NODE,
                    "conditions": {"ready": false, "serving": true, "terminating": true},
                }))
                .object(),
        );
    }
    scene.apply(&name, &objects);
}

/// HC-06, HC-08, HC-09, ETP-01 and ETP-02 as well: a node with an endpoint answers 200, one without 503, and only while
/// the Service has a check.
#[test]
fn hc_01_hc_02_ipm_23_a_balancer_learns_which_node_has_endpoints() {
    let scene = Scene::with_flags(Setup::new("hcserve"), &ALL);
    // The entries of the status are in mode Proxy.
    publish(&scene, 1, &policies("Local", 1), HERE);
    publish(&scene, 2, &policies("Local", 2), ELSEWHERE);
    until_true("a node with an endpoint to answer 200", || statuses(&scene, 1) == [Some(200); 2]);
    until_true("a node without one to answer 503", || statuses(&scene, 2) == [Some(503); 2]);
    for family in FAMILIES {
        let (_, text) = http::get(&scene.lab.far, at(family, CHECKS + 1), "/any/path").expect("it listens");
        let told: Value = serde_json::from_str(&text).expect("JSON");
        let service = json!({"namespace": "default", "name": "s1"});
        assert_eq!(told, json!({"service": service, "localEndpoints": 1, "serviceProxyHealthy": true}));
        // HC-10: at the address of the node ports only.
        let loopback = SocketAddr::new(
            if family == Family::V4 { [127, 0, 0, 1].into() } else { [0, 0, 0, 0, 0, 0, 0, 1].into() },
            CHECKS + 1,
        );
        assert_eq!(http::get(&scene.lab.node, loopback, "/"), None);
    }
    publish(&scene, 1, &policies("Local", 1), ELSEWHERE);
    until_true("the last endpoint of the node to go", || statuses(&scene, 1) == [Some(503); 2]);
    publish(&scene, 1, &policies("Cluster", 1), HERE);
    until_true("eTP Cluster to close the port", || statuses(&scene, 1) == [None; 2]);
    publish(&scene, 1, &policies("Local", 5), HERE);
    until_true("eTP Local to open another port", || statuses(&scene, 5) == [Some(200); 2]);
    assert_eq!((statuses(&scene, 1), statuses(&scene, 2)), ([None; 2], [Some(503); 2]));
    scene.manifests.remove("s1");
    until_true("the removed Service to close its port", || statuses(&scene, 5) == [None; 2]);
}

/// The balancer turns to another node while the terminating pod still serves.
#[test]
fn hc_03_a_draining_node_answers_503_and_serves() {
    let scene = Scene::with_flags(Setup::new("hcdrain"), &ALL);
    publish(&scene, 3, &policies("Local", 3), HERE);
    until_true("the endpoint to count", || statuses(&scene, 3) == [Some(200); 2]);
    drain(&scene, 3);
    until_true("it to count no more", || statuses(&scene, 3) == [Some(503); 2]);
    for family in FAMILIES {
        assert_eq!(scene.dial_from_far().tcp(node_port(family, 3)).who(), Some("a"));
    }
}

/// A process of the node has the port of one Service, and the port of `--healthz`.
#[test]
fn taken_ports_are_told_and_harm_nothing_else() {
    let mut scene = Scene::without_agent(Setup::new("hctaken"), &ALL);
    let squatters = [CHECKS + 4, HEALTHZ].map(|port| Server::tcp(&scene.lab.node, "squatter", port));
    scene.agent.start();
    publish(&scene, 4, &policies("Local", 4), HERE);
    publish(&scene, 6, &policies("Local", 6), HERE);
    until_true("the other Service to be answered for", || statuses(&scene, 6) == [Some(200); 2]);
    let warnings = || scene.agent.says(&["show", "warnings", "-o", "json"]);
    for word in ["Service default/s4", "31004", "--healthz", "10256"] {
        assert!(warnings().contains(word), "{word}: {}", warnings());
    }
    assert_eq!(scene.dial_from_far().tcp(node_port(Family::V4, 4)).who(), Some("a"), "the Service is served");
    let page = || scene.agent.page("/metrics").expect("it is served").1;
    for line in ["lb_agent_health_listeners{state=\"open\"} 2", "lb_agent_health_listeners{state=\"missing\"} 3"] {
        assert!(page().lines().any(|found| found == line), "{line}: {}", page());
    }
    drop(squatters);
    until_true("the free port to be listened on", || statuses(&scene, 4) == [Some(200); 2]);
    until_true("the node to be answered for", || status(&scene, at(Family::V6, HEALTHZ), "/healthz") == Some(200));
    until_true("the warnings to go", || scene.agent.rows("warnings").is_empty());
}

/// HC-05 as well: the taint concerns `/healthz` only, and the node serves on.
#[test]
fn hz_01_hz_02_hz_03_a_node_that_will_be_deleted_is_not_eligible() {
    let scene = Scene::with_flags(Setup::new("hctaint"), &ALL);
    publish(&scene, 7, &policies("Local", 7), HERE);
    let addresses: Vec<_> = FAMILIES.map(|family| UPLINK.host(family, 2)).to_vec();
    let pages = || FAMILIES.map(|family| ["/healthz", "/livez"].map(|page| status(&scene, at(family, HEALTHZ), page)));
    until_true("the node to be well", || pages() == [[Some(200); 2]; 2]);
    let mut leaving = node(NODE, &addresses);
    leaving["spec"] = json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]});
    scene.manifests.write("node", &[leaving]);
    until_true("the taint to be seen", || pages() == [[Some(503), Some(200)]; 2]);
    assert_eq!(statuses(&scene, 7), [Some(200); 2]);
    assert_eq!(scene.dial_from_far().tcp(node_port(Family::V4, 7)).who(), Some("a"));
    scene.manifests.write("node", &[node(NODE, &addresses)]);
    until_true("the taint to go", || pages() == [[Some(200); 2]; 2]);
}

/// A balancer must not send connections to a node of which the source does not know that it will stay.
#[test]
fn a_folder_without_the_node_leaves_it_ineligible() {
    let mut scene = Scene::without_agent(Setup::new("hcnonode"), &ALL);
    scene.manifests.remove("node");
    scene.agent.start();
    let pages = || FAMILIES.map(|family| ["/healthz", "/livez"].map(|page| status(&scene, at(family, HEALTHZ), page)));
    until_true("the node to be alive only", || pages() == [[Some(503), Some(200)]; 2]);
    scene.manifests.write("node", &[node(NODE, &FAMILIES.map(|family| UPLINK.host(family, 2)))]);
    until_true("the node to be known", || pages() == [[Some(200); 2]; 2]);
    let counted = "lb_agent_health_answers_total{page=\"healthz\",code=\"503\"}";
    assert!(scene.agent.page("/metrics").is_some_and(|(_, text)| text.contains(counted)));
}
