//! The whole problem and its cure beside kube-proxy: a pod dials an address that kube-proxy's rules would claim. The
//! guard prevents that, and haproxy outside takes the connection and sends the client's address in a PROXY header to a
//! node port. The same rules send that connection to a backend that requires the header.

use std::net::SocketAddr;

use lb_tests::address::{FAMILIES, UPLINK, vip};
use lb_tests::haproxy::{Announce, Haproxy, Listener};
use lb_tests::http;
use lb_tests::lab::{Cni, Setup};
use lb_tests::manifest::ingress;
use lb_tests::nginx::{Nginx, PROXY_PORT};
use lb_tests::scene::Scene;
use serde_json::json;

use crate::kube_proxy::KubeProxy;

/// The last part of the balancer's address.
const NUMBER: u8 = 89;
const NODE_PORT: u16 = 30_089;

/// The client pod's HTTP answer from the balancer's address.
fn page(scene: &Scene, from: SocketAddr) -> Option<(u16, String)> {
    http::get(&scene.lab.pod("client").netns, from, "/")
}

fn the_backend_hears_of_the_client(setup: Setup, kube_proxy: KubeProxy) {
    let mut scene = Scene::without_agent(setup.pods(&["shop"]), &[]);
    let nginx = Nginx::start(&scene.lab.pod("shop").netns, "nginx-shop", scene.lab.folder());
    // The balancer's listeners, one for each family, each with the node port of the family as its only backend.
    let listeners: Vec<Listener> = FAMILIES
        .into_iter()
        .zip(["shop4", "shop6"])
        .map(|(family, name)| Listener {
            name,
            address: vip(family, NUMBER, 81),
            backends: vec![(UPLINK.host(family, 2), NODE_PORT).into()],
            announce: Announce::ProxyHeader,
        })
        .collect();
    let haproxy = Haproxy::start(&scene.lab.external, scene.lab.folder(), &listeners);
    for family in FAMILIES {
        let endpoint = SocketAddr::new(scene.lab.pod_address("shop", family), PROXY_PORT);
        kube_proxy.claim_port(&scene.lab, vip(family, NUMBER, 81), endpoint);
        kube_proxy.serve_node_port(&scene.lab, NODE_PORT, endpoint);
        // The problem: the rules send the pod to the backend, which gets no header.
        let got = page(&scene, vip(family, NUMBER, 81));
        assert_ne!(got.as_ref().map(|(code, _)| *code), Some(200), "{family:?}: {got:?}");
    }
    assert!(nginx.requests().iter().all(|request| request.announced.is_none()), "{:?}", nginx.requests());

    scene.agent.start();
    // The status says VIP, as from an old cloud controller; the annotation is the cluster's choice.
    let entries = FAMILIES.map(|family| ingress(vip(family, NUMBER, 81).ip(), "VIP"));
    let port = json!([{"name": "http", "protocol": "TCP", "port": 81, "nodePort": NODE_PORT}]);
    let service = scene
        .service("shop", NUMBER, &entries)
        .spec("ports", port)
        .metadata("annotations", json!({"lb-agent.io/ip-mode": "Proxy"}));
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let slice = service.slice(&format!("{family:?}").to_lowercase()).port("http", "TCP", PROXY_PORT);
        let address = scene.lab.pod_address("shop", family);
        objects.push(slice.endpoint(address, lb_tests::manifest::NODE).object());
    }
    scene.apply("shop", &objects);
    for (family, listener) in FAMILIES.into_iter().zip(["shop4", "shop6"]) {
        let (before, connections) = (nginx.requests().len(), haproxy.connections(listener));
        let got = page(&scene, vip(family, NUMBER, 81));
        assert_eq!(got, Some((200, "nginx-shop\n".into())), "{family:?}: {}", scene.agent.log());
        assert_eq!(haproxy.connections(listener), connections + 1, "{family:?}: it went by way of the balancer");
        lb_tests::deadline::until_true("nginx has logged it", || nginx.requests().len() == before + 1);
        let request = nginx.requests().pop().expect("there is one");
        let client = scene.lab.pod_address("client", family);
        assert_eq!((request.port, request.announced), (PROXY_PORT, Some(client)), "{request:?}");
        // The rules masquerade connections to a node port: the peer is neither the client nor the balancer.
        assert!(request.peer != client && request.peer != UPLINK.host(family, 1), "{request:?}");
    }
}

#[test]
fn a_backend_hears_of_its_client_beside_nftables_rules() {
    the_backend_hears_of_the_client(Setup::new("headernft"), KubeProxy::Nftables);
}

#[test]
fn a_backend_hears_of_its_client_beside_iptables_rules() {
    the_backend_hears_of_the_client(Setup::new("headeript"), KubeProxy::Iptables);
}

#[test]
fn a_backend_hears_of_its_client_on_a_bridge() {
    the_backend_hears_of_the_client(Setup::new("headerbr").cni(Cni::Bridge), KubeProxy::Nftables);
}

/// Publishes `shop` at the balancer's address, which the status leaves to the balancer, with this annotation.
fn publish(scene: &Scene, proxy_protocol: &str) {
    let entries = FAMILIES.map(|family| ingress(vip(family, NUMBER, 81).ip(), "Proxy"));
    let service = scene
        .service("shop", NUMBER, &entries)
        .spec("ports", json!([{"name": "http", "protocol": "TCP", "port": 81, "nodePort": NODE_PORT}]))
        .metadata("annotations", json!({"lb-agent.io/proxy-protocol": proxy_protocol}));
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let slice = service.slice(&format!("{family:?}").to_lowercase()).port("http", "TCP", PROXY_PORT);
        let address = scene.lab.pod_address("shop", family);
        objects.push(slice.endpoint(address, lb_tests::manifest::NODE).object());
    }
    scene.apply("shop", &objects);
}

/// The node adds the header itself: no balancer runs, and the client is the peer.
fn the_node_announces_the_client(setup: Setup) {
    let mut scene = Scene::without_agent(setup.pods(&["shop"]), &[]);
    let nginx = Nginx::start(&scene.lab.pod("shop").netns, "nginx-shop", scene.lab.folder());
    scene.agent.start();
    for version in ["v1", "v2"] {
        publish(&scene, version);
        for family in FAMILIES {
            for _ in 0..20 {
                let before = nginx.requests().len();
                let got = page(&scene, vip(family, NUMBER, 81));
                assert_eq!(got, Some((200, "nginx-shop\n".into())), "{version} {family:?}: {}", scene.agent.log());
                lb_tests::deadline::until_true("nginx has logged it", || nginx.requests().len() > before);
                let request = nginx.requests().pop().expect("there is one");
                let client = scene.lab.pod_address("client", family);
                assert_eq!((request.peer, request.announced), (client, Some(client)), "{version}: {request:?}");
            }
        }
    }
}

#[test]
fn a_shortcut_announces_its_client() {
    the_node_announces_the_client(Setup::new("announce"));
}
