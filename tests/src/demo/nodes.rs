//! The second act: three nodes with an agent each, and nginx on the third one only.

use super::Step;
use super::checks::{self, EDIT_LIMIT, counted};
use super::report::Report;
use super::stage::{CURL_LIMIT, FAMILY, Shop, curl};
use crate::address::{CLUSTER, UPLINK};
use crate::deadline;
use crate::haproxy::{Announce, Haproxy, Listener};
use crate::manifest::{Service, THIRD_NODE, ingress};
use crate::netns::Netns;
use crate::nginx::{Nginx, PLAIN_PORT, PROXY_PORT, Request};
use crate::nodes::{Cluster, OUTSIDE, node_port};
use crate::process::{Finished, finish};
use serde_json::json;

/// Its backend requires a PROXY header; connections go by the balancer.
const STORE: Shop = Shop { name: "store", address: 40, port: 80, backend_port: PROXY_PORT };
/// A plain one, in mode VIP.
const SITE: Shop = Shop { name: "site", address: 50, port: 80, backend_port: PLAIN_PORT };
/// Added to the number of an address: the node port.
const NODE_PORTS: u16 = 30_000;

/// The cluster and its programs. Fields are dropped in this order.
struct Scenery {
    haproxy: Haproxy,
    nginx: Nginx,
    cluster: Cluster,
}

/// Plays both steps.
pub fn across(report: &mut Report, sabotage: Option<Step>) {
    let scenery = Scenery::set(sabotage);
    from_outside(&scenery, report);
    from_a_node(&scenery, report);
}

/// (g) The balancer chooses a node that has no pod of the Service.
fn from_outside(scenery: &Scenery, report: &mut Report) {
    report
        .step(Step::G, "a client outside -> haproxy -> node 1, which has no nginx -> node 3: the PROXY header arrives");
    let (before, logged) = (scenery.haproxy.connections(STORE.name), scenery.nginx.requests().len());
    let result = ask(&scenery.cluster.outside, &STORE);
    checks::succeeds(report, Step::G, "curl outside", &result, &STORE);
    counted(&scenery.haproxy, report, Step::G, &STORE, before, 1);
    let (node, client) = (scenery.cluster.node(1).address(FAMILY), UPLINK.host(FAMILY, OUTSIDE));
    checks::logged(report, Step::G, || scenery.logged_since(logged), (node, Some(client)));
}

/// (h) A process of a node dials both Services.
fn from_a_node(scenery: &Scenery, report: &mut Report) {
    report
        .step(Step::H, "a process of node 2 dials: a Service in VIP mode directly, one in Proxy mode by the balancer");
    let (node, itself) = (scenery.cluster.node(2), scenery.cluster.node(2).address(FAMILY));
    let way = scenery.cluster.node(1).address(FAMILY);
    // Node 1 may forward already, unless the step before was sabotaged.
    publish(&scenery.cluster, &STORE, "Proxy", "Cluster");
    deadline::within(EDIT_LIMIT, || (ask(&node.netns, &STORE).code == Some(0)).then_some(()));
    for (shop, by_balancer, wanted) in [(&SITE, 0, (itself, None)), (&STORE, 1, (way, Some(itself)))] {
        let (before, logged) = (scenery.haproxy.connections(shop.name), scenery.nginx.requests().len());
        checks::succeeds(report, Step::H, "curl on the node", &ask(&node.netns, shop), shop);
        counted(&scenery.haproxy, report, Step::H, shop, before, by_balancer);
        checks::logged(report, Step::H, || scenery.logged_since(logged), wanted);
    }
}

impl Scenery {
    /// Starts everything. When this returns, all agents have programmed their first state.
    fn set(sabotage: Option<Step>) -> Self {
        let mut cluster = Cluster::bare("demo", &["--services", "all"]);
        let nginx = Nginx::start(&cluster.node(3).pod("a").netns, "nginx", cluster.folder());
        // The balancer knows of no node but the first, which has no nginx.
        let haproxy = Haproxy::start(&cluster.cloud, cluster.folder(), &[&STORE, &SITE].map(listener));
        // A node that may not forward, or the other modes: the step must notice.
        let policy = if sabotage == Some(Step::G) { "Local" } else { "Cluster" };
        let plain = if sabotage == Some(Step::H) { "Proxy" } else { "VIP" };
        publish(&cluster, &STORE, "Proxy", policy);
        publish(&cluster, &SITE, plain, "Cluster");
        cluster.start_agents();
        Self { haproxy, nginx, cluster }
    }

    fn logged_since(&self, before: usize) -> Vec<Request> {
        self.nginx.requests().split_off(before)
    }
}

fn ask(netns: &Netns, shop: &Shop) -> Finished {
    finish(netns, &mut curl(shop, "/"), CURL_LIMIT)
}

const fn port_of(shop: &Shop) -> u16 {
    NODE_PORTS + shop.address as u16
}

fn listener(shop: &Shop) -> Listener {
    let announce = if shop.backend_port == PROXY_PORT { Announce::ProxyHeader } else { Announce::Nothing };
    Listener { name: shop.name, address: shop.at(), backends: vec![node_port(1, FAMILY, port_of(shop))], announce }
}

fn publish(cluster: &Cluster, shop: &Shop, mode: &str, policy: &str) {
    let port = json!({
        "name": "http", "protocol": "TCP", "port": shop.port, "targetPort": shop.backend_port, "nodePort": port_of(shop),
    });
    let service = Service::new(shop.name)
        .cluster_ips(&[CLUSTER.host(FAMILY, shop.address)])
        .spec("ports", json!([port]))
        .spec("externalTrafficPolicy", json!(policy))
        .ingress(ingress(shop.at().ip(), mode));
    let slice = service.slice("0").port("http", "TCP", shop.backend_port);
    let slice = slice.endpoint(cluster.node(3).pod("a").address(FAMILY), THIRD_NODE);
    cluster.manifests.write(shop.name, &[service.object(), slice.object()]);
}
