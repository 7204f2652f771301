//! A Service's proxy and type change while it is served. Every address follows at once, and established connections
//! continue.

use std::net::{IpAddr, SocketAddr};

use lb_tests::address::{BALANCERS, CLUSTER, FAMILIES, FAR, Family, UPLINK, add_address, host_prefix, vip};
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::Setup;
use lb_tests::manifest::{Service, ingress};
use lb_tests::scene::{BALANCER, Scene};
use serde_json::json;

const ALL: [&str; 4] = ["--services", "all", "--uplink-interfaces", "up0,up1"];
const NUMBER: u8 = 60;
const NODE_PORT: u16 = 30_060;
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// A Service on every kind of address.
fn service(scene: &Scene, mode: &str) -> Service {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, NUMBER), mode));
    let port = |name, protocol| json!({"name": name, "protocol": protocol, "port": 80, "nodePort": NODE_PORT});
    scene.service("s60", NUMBER, &entries).spec("ports", json!([port("web", "TCP"), port("dns", "UDP")]))
}

fn apply(scene: &Scene, service: &Service) {
    let mut objects = vec![service.object()];
    objects.extend(scene.slices(service, &["a"]));
    scene.apply("s60", &objects);
}

fn balancer(family: Family) -> SocketAddr {
    vip(family, NUMBER, 80)
}

fn cluster(family: Family) -> SocketAddr {
    (CLUSTER.host(family, NUMBER), 80).into()
}

fn node_port(family: Family) -> SocketAddr {
    (UPLINK.host(family, 2), NODE_PORT).into()
}

/// Checks which server answers a new connection and a datagram, to each kind of address, from a pod and from the
/// network.
#[track_caller]
fn expect(scene: &Scene, what: &str, to_balancer: Option<&str>, to_cluster: Option<&str>, to_node: Option<&str>) {
    for family in FAMILIES {
        let far = scene.dial_from_far().bound(FAR.host(family, 9));
        for (whose, dial) in [("a pod", scene.dial()), ("the network", far)] {
            for (to, who) in
                [(balancer(family), to_balancer), (cluster(family), to_cluster), (node_port(family), to_node)]
            {
                for outcome in [dial.tcp(to), dial.udp(to)] {
                    assert_eq!(outcome.who(), who, "{what}: {to} from {whose}: {outcome:?}");
                }
            }
        }
    }
}

/// FLT-01, FLT-02: the label of another proxy, from the start or added later, and removed again.
#[test]
fn flt_01_flt_02_a_service_of_another_proxy_is_left_alone() {
    let scene = Scene::with_flags(Setup::new("proxyname"), &ALL);
    let ours = service(&scene, "VIP");
    let theirs = ours.clone().metadata("labels", json!({PROXY_NAME: "another"}));
    apply(&scene, &theirs);
    expect(&scene, "FLT-01", Some(BALANCER), None, None);
    apply(&scene, &ours);
    expect(&scene, "the label is gone", Some("a"), Some("a"), Some("a"));
    let addresses = || FAMILIES.into_iter().flat_map(|family| [balancer(family), cluster(family), node_port(family)]);
    let mut open: Vec<_> = addresses().map(|to| (to, scene.dial().held(to))).collect();
    for (what, service, [to_balancer, to_cluster, to_node]) in [
        ("FLT-02: the label is added", &theirs, [Some(BALANCER), None, None]),
        ("FLT-02: the label is removed", &ours, [Some("a"); 3]),
    ] {
        apply(&scene, service);
        expect(&scene, what, to_balancer, to_cluster, to_node);
        for (to, held) in &mut open {
            held.echo(what).unwrap_or_else(|error| panic!("{what}: the open connection to {to}: {error}"));
        }
    }
}

/// IPM-65: the type is no longer LoadBalancer, and the API server clears the status with it.
#[test]
fn ipm_65_a_service_that_is_no_balancer_any_more_keeps_its_cluster_address() {
    let scene = Scene::with_flags(Setup::new("typechange"), &ALL);
    let before = service(&scene, "VIP");
    apply(&scene, &before);
    expect(&scene, "LoadBalancer", Some("a"), Some("a"), Some("a"));
    let mut open = FAMILIES.map(|family| scene.dial().held(balancer(family)));
    let plain_ports = json!([
        {"name": "web", "protocol": "TCP", "port": 80}, {"name": "dns", "protocol": "UDP", "port": 80}
    ]);
    let after = scene.service("s60", NUMBER, &[]).spec("type", json!("ClusterIP")).spec("ports", plain_ports);
    apply(&scene, &after);
    expect(&scene, "ClusterIP", Some(BALANCER), Some("a"), None);
    for held in &mut open {
        held.transfer(1 << 20).expect("the open connection goes on");
    }
    apply(&scene, &before);
    expect(&scene, "LoadBalancer again", Some("a"), Some("a"), Some("a"));
}

/// IPM-52, if node ports are on the node's own addresses: a balancer's address that is local to the node is none of
/// them, and its ports are the host's. kube-proxy in iptables mode serves the node port there (kubernetes#111863).
#[test]
fn ipm_52_the_node_port_at_a_local_balancers_address_is_the_hosts() {
    let scene = Scene::with_flags(Setup::new("lbonlo"), &ALL);
    apply(&scene, &service(&scene, "Proxy"));
    let _host = lb_tests::serve::Server::tcp(&scene.lab.node, "host", NODE_PORT);
    for family in FAMILIES {
        let address: IpAddr = balancer(family).ip();
        scene.lab.node.ip(&[add_address(family, &host_prefix(address), "lo")]);
        let to = SocketAddr::new(address, NODE_PORT);
        // A worker of the kernel adds the route a moment after the address.
        lb_tests::deadline::until_true("the node reaches itself", || {
            Dial::from(&scene.lab.node).tcp(to).who() == Some("host")
        });
        let far = scene.dial_from_far().bound(FAR.host(family, 9));
        for (whose, dial) in [("a pod", scene.dial()), ("the network", far)] {
            let outcome = dial.tcp(to);
            assert_eq!(outcome.who(), Some("host"), "{to} from {whose}: {outcome:?}");
            let outcome = dial.tcp(node_port(family));
            assert_eq!(outcome.who(), Some("a"), "the node port at the node's address from {whose}: {outcome:?}");
            assert_eq!(dial.udp(to), Outcome::Refused, "{to} from {whose}: the host serves no such datagrams");
        }
    }
}
