//! What the network complains of on the way between a client and a backend, heard by the right socket.

use lb_tests::address::{BALANCERS, CLUSTER, FAMILIES, Family, flag, vip};
use lb_tests::dial::Outcome;
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, Service, ingress};
use lb_tests::scene::Scene;

/// Narrower than any other link here, and wide enough for IPv6.
const NARROW: &str = "1300";
/// Bytes that are sent and come back: many full segments.
const TRANSFER: usize = 1 << 20;
/// A port that no pod serves.
const CLOSED: u16 = 9;

/// Narrows the node's side of a pod's link, so that the node is the hop that complains.
fn narrow(scene: &Scene, pod: &str) {
    scene.lab.node.ip(&[format!("link set {} mtu {NARROW}", scene.lab.pod(pod).interface)]);
}

/// The width of the path to the frontend, as the client's stack has learned it.
fn learned_width(scene: &Scene, family: Family) -> Option<String> {
    let to = vip(family, 1, 80).ip().to_string();
    let route = scene.lab.pod("client").netns.run("ip", &[flag(family), "route", "get", &to]);
    let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
    words.nth(1).map(ToOwned::to_owned)
}

#[test]
fn pr_02_the_client_learns_of_a_narrow_link_before_the_backend() {
    let scene = Scene::start(Setup::new("pmtubackend"));
    scene.publish("s1", 1, "VIP", &["a"]);
    narrow(&scene, "a");
    for family in FAMILIES {
        let mut held = scene.dial().hold(vip(family, 1, 80)).expect("it is answered");
        held.transfer(TRANSFER).unwrap_or_else(|error| panic!("{family:?}: {error}"));
        assert_eq!(learned_width(&scene, family).as_deref(), Some(NARROW), "{family:?}: the path to the frontend");
    }
}

#[test]
fn pr_02_the_backend_learns_of_a_narrow_link_before_the_client() {
    let scene = Scene::start(Setup::new("pmtuclient"));
    scene.publish("s1", 1, "VIP", &["a"]);
    narrow(&scene, "client");
    for family in FAMILIES {
        let mut held = scene.dial().hold(vip(family, 1, 80)).expect("it is answered");
        held.transfer(TRANSFER).unwrap_or_else(|error| panic!("{family:?}: {error}"));
    }
}

/// The socket is connected to the frontend, and hears of no other address.
#[test]
fn pr_03_a_closed_port_refuses_the_datagram() {
    let scene = Scene::start(Setup::new("closedport"));
    let addresses = FAMILIES.map(|family| CLUSTER.host(family, 1));
    let service = FAMILIES
        .iter()
        .fold(Service::new("s1").cluster_ips(&addresses).port("dns", "UDP", 80, CLOSED), |service, family| {
            service.ingress(ingress(BALANCERS.host(*family, 1), "VIP"))
        });
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let suffix = format!("{family:?}").to_lowercase();
        let slice = service.slice(&suffix).address_type(family).port("dns", "UDP", CLOSED);
        objects.push(slice.endpoint(scene.lab.pod_address("a", family), NODE).object());
    }
    scene.apply("s1", &objects);
    for family in FAMILIES {
        assert_eq!(scene.dial().udp(vip(family, 1, 80)), Outcome::Refused, "{family:?}");
    }
}
