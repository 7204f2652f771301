//! Known conntrack bugs of kube-proxy, with sockets that keep their port: flows that must move do so at once, and flows
//! of others are unchanged. CT-06 is in `window.rs`, CT-08 in `collisions.rs`.

use std::net::{IpAddr, SocketAddr};

use lb_tests::address::{BALANCERS, CLUSTER, FAMILIES, Family, UPLINK, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::{Asking, Outcome};
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, ingress};
use lb_tests::scene::{OTHER_TARGET, Scene, TARGET, empty_slice};
use lb_tests::serve::Server;
use serde_json::{Value, json};

const ALL: [&str; 2] = ["--services", "all"];
const NUMBER: u8 = 40;
const NODE_PORT: u16 = 30_040;

/// A Service on every kind of address, with endpoints on ports of their own.
fn objects(scene: &Scene, policies: &Value, endpoints: &[(&str, u16)]) -> Vec<Value> {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, NUMBER), "VIP"));
    let port = |name, protocol| json!({"name": name, "protocol": protocol, "port": 80, "nodePort": NODE_PORT});
    let mut service =
        scene.service("s40", NUMBER, &entries).spec("ports", json!([port("web", "TCP"), port("dns", "UDP")]));
    for (field, value) in policies.as_object().expect("policies are an object") {
        service = service.spec(field, value.clone());
    }
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        // Endpoints of one slice share a port number.
        for (index, (pod, port)) in endpoints.iter().enumerate() {
            let suffix = format!("{family:?}-{index}").to_lowercase();
            let slice = service.slice(&suffix).address_type(family).port("web", "TCP", *port).port("dns", "UDP", *port);
            objects.push(slice.endpoint(scene.lab.pod_address(pod, family), NODE).object());
        }
        if endpoints.is_empty() {
            objects.push(empty_slice(&service, family).object());
        }
    }
    objects
}

fn publish(scene: &Scene, policies: &Value, endpoints: &[(&str, u16)]) {
    scene.apply("s40", &objects(scene, policies, endpoints));
}

/// Each kind of address of the Service.
fn addresses(family: Family) -> [SocketAddr; 3] {
    [vip(family, NUMBER, 80), (CLUSTER.host(family, NUMBER), 80).into(), (UPLINK.host(family, 2), NODE_PORT).into()]
}

/// A socket for each address of the Service in each family; each keeps its port throughout the test.
fn sockets(scene: &Scene) -> Vec<(SocketAddr, Asking)> {
    FAMILIES.iter().flat_map(|family| addresses(*family)).map(|to| (to, scene.dial().asking(to))).collect()
}

/// Checks that this pod answers every socket, and then no other.
fn all_move_to(sockets: &[(SocketAddr, Asking)], pod: &str, what: &str) {
    for (to, asking) in sockets {
        // Members are deleted last in an apply, a moment after the new pool is in force.
        until_true(&format!("{what}: {to} is answered by {pod}"), || asking.ask(what).who() == Some(pod));
        for _ in 0..4 {
            let outcome = asking.ask(what);
            assert_eq!(outcome.who(), Some(pod), "{what}: {to}: {outcome:?}");
        }
    }
}

/// CT-01, CT-02: each kind of address, and each policy for traffic from pods.
#[test]
fn ct_01_ct_02_datagrams_of_one_port_follow_a_replaced_backend() {
    let scene = Scene::with_flags(Setup::new("ctreplace"), &ALL);
    for policies in [json!({}), json!({"internalTrafficPolicy": "Local"})] {
        publish(&scene, &policies, &[("a", TARGET)]);
        let sockets = sockets(&scene);
        all_move_to(&sockets, "a", "the first backend");
        publish(&scene, &policies, &[("b", TARGET)]);
        all_move_to(&sockets, "b", "its replacement");
    }
}

/// CT-02: an endpoint that is not ready at first.
#[test]
fn ct_02_datagrams_of_one_port_find_a_backend_that_becomes_ready() {
    let scene = Scene::with_flags(Setup::new("ctunready"), &ALL);
    let with_ready = |ready: bool| {
        let mut objects = objects(&scene, &json!({}), &[("a", TARGET)]);
        for object in objects.iter_mut().filter(|object| object["kind"] == "EndpointSlice") {
            object["endpoints"][0]["conditions"] = json!({"ready": ready, "serving": ready, "terminating": false});
        }
        scene.apply("s40", &objects);
    };
    with_ready(false);
    let sockets = sockets(&scene);
    for (to, asking) in &sockets {
        assert_eq!(asking.ask("early"), Outcome::Refused, "{to}");
    }
    with_ready(true);
    all_move_to(&sockets, "a", "ready now");
}

/// CT-03: the pods stay, and serve another port.
#[test]
fn ct_03_datagrams_of_one_port_follow_the_target_port() {
    let scene = Scene::with_flags(Setup::new("cttarget"), &ALL);
    let port = 9_090;
    let _other = Server::udp(&scene.lab.pod("a").netns, "a:9090", port);
    publish(&scene, &json!({}), &[("a", TARGET)]);
    let sockets = sockets(&scene);
    all_move_to(&sockets, "a", "the first port");
    publish(&scene, &json!({}), &[("a", port)]);
    all_move_to(&sockets, "a:9090", "the second port");
}

/// CT-04: to no endpoint and back, several times.
#[test]
fn ct_04_datagrams_of_one_port_outlive_a_time_without_endpoints() {
    let scene = Scene::with_flags(Setup::new("ctzero"), &ALL);
    publish(&scene, &json!({}), &[("a", TARGET)]);
    let sockets = sockets(&scene);
    for pod in ["a", "b", "a"] {
        publish(&scene, &json!({}), &[(pod, TARGET)]);
        all_move_to(&sockets, pod, "an endpoint");
        publish(&scene, &json!({}), &[]);
        for (to, asking) in &sockets {
            until_true(&format!("{to} is refused"), || asking.ask("anybody") == Outcome::Refused);
        }
    }
}

/// CT-05: with each kind of address.
#[test]
fn ct_05_open_connections_outlive_their_endpoint() {
    let scene = Scene::with_flags(Setup::new("ctremoved"), &ALL);
    publish(&scene, &json!({}), &[("a", TARGET)]);
    let mut open: Vec<_> =
        FAMILIES.iter().flat_map(|family| addresses(*family)).map(|to| (to, scene.dial().held(to))).collect();
    for endpoints in [&[("b", TARGET)][..], &[]] {
        publish(&scene, &json!({}), endpoints);
        for (to, held) in &mut open {
            held.transfer(1 << 18).unwrap_or_else(|error| panic!("the open connection to {to}: {error}"));
        }
    }
    for (to, _) in open {
        assert_eq!(scene.dial().patient().tcp(to), Outcome::Refused, "{to}: there is no endpoint");
    }
}

/// CT-07: a flow to the same port number of another address is unaffected by changes of the node port.
#[test]
fn ct_07_datagrams_to_the_node_port_of_a_stranger_are_left_alone() {
    let scene = Scene::with_flags(Setup::new("ctstranger"), &ALL);
    // A resolver in the network that happens to use the number of the node port.
    let _resolver = Server::udp(&scene.lab.external, "resolver", NODE_PORT);
    let stranger = |family: Family| -> IpAddr { BALANCERS.host(family, 8) };
    publish(&scene, &json!({}), &[("a", TARGET)]);
    let asking = FAMILIES.map(|family| {
        let to = SocketAddr::new(stranger(family), NODE_PORT);
        let source = SocketAddr::new(scene.lab.pod_address("client", family), 33_500);
        (to, scene.dial().bound_to(source).asking(to))
    });
    let turns: [&[(&str, u16)]; 6] =
        [&[("a", TARGET)], &[("b", TARGET)], &[], &[("a", OTHER_TARGET)], &[], &[("a", TARGET), ("b", TARGET)]];
    for (turn, endpoints) in turns.into_iter().enumerate() {
        publish(&scene, &json!({}), endpoints);
        for (to, asking) in &asking {
            for _ in 0..4 {
                let Outcome::Answered(answer) = asking.ask("who") else { panic!("turn {turn}: {to} is not answered") };
                let client = (scene.client_address(to.ip()), 33_500).into();
                assert_eq!((answer.who.as_str(), answer.client), ("resolver", client), "turn {turn}: {to}");
            }
        }
    }
    scene.manifests.remove("s40");
    for (to, asking) in &asking {
        assert_eq!(asking.ask("who").who(), Some("resolver"), "{to}");
    }
    let flows = scene.agent.says(&["show", "flows"]);
    assert!(!flows.contains(":33500"), "a flow of nobody's business is in the table:\n{flows}");
}
