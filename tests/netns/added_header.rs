//! The shortcut with the balancer's PROXY header: this node adds the header, so a backend that requires one is reached
//! directly, and learns the pod's address. The balancer sees nothing of it.

use std::net::SocketAddr;

use lb_tests::address::{FAMILIES, vip};
use lb_tests::deadline::until_true;
use lb_tests::haproxy::{Announce, Haproxy, Listener};
use lb_tests::http;
use lb_tests::lab::{Cni, Setup};
use lb_tests::manifest::{NODE, ingress};
use lb_tests::netns::Netns;
use lb_tests::nginx::{Nginx, PROXY_PORT, Request, SLOW_BYTES};
use lb_tests::scene::Scene;
use serde_json::json;

/// The last part of the balancer's address.
const NUMBER: u8 = 90;
/// The haproxy listeners by family.
const LISTENERS: [&str; 2] = ["shop4", "shop6"];

/// A scene with nginx in the pod `shop`, which requires a header, and a balancer that sends one.
struct Shop {
    scene: Scene,
    nginx: Nginx,
    haproxy: Haproxy,
}

impl Shop {
    fn open(setup: Setup, version: &str) -> Self {
        let scene = Scene::start(setup.pods(&["shop"]));
        let nginx = Nginx::start(&scene.lab.pod("shop").netns, "nginx-shop", scene.lab.folder());
        let listeners = FAMILIES.into_iter().zip(LISTENERS).map(|(family, name)| Listener {
            name,
            address: vip(family, NUMBER, 81),
            backends: vec![SocketAddr::new(scene.lab.pod_address("shop", family), PROXY_PORT)],
            announce: Announce::ProxyHeader,
        });
        let haproxy = Haproxy::start(&scene.lab.external, scene.lab.folder(), &listeners.collect::<Vec<_>>());
        let shop = Self { scene, nginx, haproxy };
        shop.publish(version);
        shop
    }

    /// Publishes the Service. Its status says Proxy.
    fn publish(&self, version: &str) {
        self.publish_at(version, "shop");
    }

    /// As [`Shop::publish`], with another pod as its endpoint.
    fn publish_at(&self, version: &str, pod: &str) {
        let entries = FAMILIES.map(|family| ingress(vip(family, NUMBER, 81).ip(), "Proxy"));
        let port = json!([{"name": "http", "protocol": "TCP", "port": 81}]);
        let annotations = json!({"lb-agent.io/proxy-protocol": version});
        let service =
            self.scene.service("shop", NUMBER, &entries).spec("ports", port).metadata("annotations", annotations);
        let mut objects = vec![service.object()];
        for family in FAMILIES {
            let slice = service.slice(&format!("{family:?}").to_lowercase()).port("http", "TCP", PROXY_PORT);
            objects.push(slice.endpoint(self.scene.lab.pod_address(pod, family), NODE).object());
        }
        self.scene.apply("shop", &objects);
    }

    fn balanced(&self) -> [u64; 2] {
        LISTENERS.map(|listener| self.haproxy.connections(listener))
    }

    /// Gets a page, and what nginx logged about the request.
    fn get(&self, from: &Netns, to: SocketAddr, path: &str) -> (Option<(u16, String)>, Option<Request>) {
        let before = self.nginx.requests().len();
        let got = http::get(from, to, path);
        if got.is_some() {
            until_true("nginx has logged the request", || self.nginx.requests().len() > before);
        }
        (got, self.nginx.requests().into_iter().nth(before))
    }
}

fn the_backend_learns_the_pod_s_address(setup: Setup, version: &str) {
    let shop = Shop::open(setup, version);
    for family in FAMILIES {
        // A pod, and the pod that reaches itself.
        for name in ["client", "shop"] {
            let (got, request) = shop.get(&shop.scene.lab.pod(name).netns, vip(family, NUMBER, 81), "/");
            assert_eq!(got, Some((200, "nginx-shop\n".into())), "{name} {family:?}: {}", shop.scene.agent.log());
            let (request, client) = (request.expect("it is logged"), shop.scene.lab.pod_address(name, family));
            assert_eq!((request.port, request.announced), (PROXY_PORT, Some(client)), "{request:?}");
            if name == "client" {
                assert_eq!(request.peer, client, "it came directly: {request:?}");
            }
        }
        // More than a segment in each direction.
        let (got, _) = shop.get(&shop.scene.lab.pod("client").netns, vip(family, NUMBER, 81), "/slow");
        assert!(got.is_some_and(|(status, body)| status == 200 && body.len() == SLOW_BYTES));
        assert_eq!(shop.balanced(), [0, 0], "the balancer has seen nothing");
    }
    // Processes of the node have no packets that a header could be added to.
    for (family, counted) in FAMILIES.into_iter().zip([[1, 0], [1, 1]]) {
        let (got, request) = shop.get(&shop.scene.lab.node, vip(family, NUMBER, 81), "/");
        assert!(matches!(got, Some((200, _))), "{family:?}: {got:?}");
        assert!(request.is_some_and(|request| request.announced.is_some()));
        assert_eq!(shop.balanced(), counted);
    }
}

#[test]
fn v2_on_links_of_pods() {
    the_backend_learns_the_pod_s_address(Setup::new("added2"), "v2");
}

#[test]
fn v1_on_links_of_pods() {
    the_backend_learns_the_pod_s_address(Setup::new("added1"), "v1");
}

#[test]
fn v2_on_a_bridge() {
    the_backend_learns_the_pod_s_address(Setup::new("addedbr").cni(Cni::Bridge), "v2");
}

/// haproxy closes a connection that does not begin with a header. What it reads there, it says to nginx.
#[test]
fn haproxy_as_the_backend_reads_the_header() {
    let shop = Shop::open(Setup::new("addedha").pods(&["relay"]), "v2");
    let lab = &shop.scene.lab;
    let listeners = FAMILIES.into_iter().zip(LISTENERS).map(|(family, name)| Listener {
        name,
        address: SocketAddr::new(lab.pod_address("relay", family), PROXY_PORT),
        backends: vec![SocketAddr::new(lab.pod_address("shop", family), PROXY_PORT)],
        announce: Announce::ProxyHeaderOfClient,
    });
    let folder = lab.folder().join("backend");
    std::fs::create_dir(&folder).expect("the folder is ours");
    let backend = Haproxy::start(&lab.pod("relay").netns, &folder, &listeners.collect::<Vec<_>>());
    for (version, count) in [("v1", 1), ("v2", 2)] {
        shop.publish_at(version, "relay");
        for (family, listener) in FAMILIES.into_iter().zip(LISTENERS) {
            let (got, request) = shop.get(&lab.pod("client").netns, vip(family, NUMBER, 81), "/");
            assert_eq!(got, Some((200, "nginx-shop\n".into())), "{version} {family:?}");
            let request = request.expect("it is logged");
            assert_eq!(request.announced, Some(lab.pod_address("client", family)), "{request:?}");
            assert_eq!(request.peer, lab.pod_address("relay", family), "{request:?}");
            assert_eq!(backend.connections(listener), count);
        }
    }
}

/// Taking the annotation away leaves connections to the balancer again, and back.
#[test]
fn the_annotation_comes_and_goes() {
    let shop = Shop::open(Setup::new("addedflip"), "v2");
    let client = &shop.scene.lab.pod("client").netns;
    for (version, through_balancer) in [("none", 1), ("v1", 0), ("v2", 0)] {
        shop.publish(version);
        let before = shop.balanced();
        let (got, request) = shop.get(client, vip(FAMILIES[0], NUMBER, 81), "/");
        assert!(matches!(got, Some((200, _))), "{version}: {got:?}");
        assert!(request.is_some_and(|request| request.announced.is_some()), "{version}");
        assert_eq!(shop.balanced()[0] - before[0], through_balancer, "{version}");
    }
}
