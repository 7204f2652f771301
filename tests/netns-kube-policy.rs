//! Changes of policy through the Kubernetes API, during real connections: endpoints, traffic policies, verdicts, flips.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use lb_tests::address::{BALANCERS, FAMILIES, FAR, Family, vip};
use lb_tests::apiserver::Resource;
use lb_tests::deadline::until_true;
use lb_tests::dial::Outcome;
use lb_tests::lab::{FAR_NAME, Setup, UPLINK_NAME};
use lb_tests::manifest::{NODE, OTHER_NODE, Service, ingress};
use lb_tests::scene::{BALANCER, Scene, empty_slice};
use serde_json::{Value, json};

/// Starts a scene whose agent follows an API server, with these flags.
pub type Start<'a> = &'a dyn Fn(Setup, &[&str]) -> Scene;

pub type Test = fn(Start<'_>);

/// Lists the tests by name, and makes each one on the tests' own server.
macro_rules! on_any_server {
    ($($name:ident,)*) => {
        /// All tests.
        #[allow(dead_code, reason = "listed where a real server runs them")]
        pub const ALL: &[(&str, Test)] = &[$((stringify!($name), $name)),*];

        #[cfg(test)]
        mod on_our_server {
            $(
                #[test]
                fn $name() {
                    super::$name(&super::Scene::on_api);
                }
            )*
        }
    };
}

on_any_server! {
    local_and_cluster_endpoints_follow_the_policy,
    without_endpoints_connections_are_refused,
    open_connections_survive_flips_of_the_mode,
    an_endpoint_and_then_the_service_are_removed,
    pods_roll_while_clients_go_on_dialling,
}

/// A Service in VIP mode, in both families.
fn served(scene: &Scene, number: u8) -> Service {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), "VIP"));
    scene.service(&format!("s{number}"), number, &entries)
}

/// Slices whose endpoint is on another node, at an address that no host has.
fn remote(service: &Service) -> Vec<Value> {
    let address = |family| match family {
        Family::V4 => IpAddr::from([10, 99, 0, 9]),
        Family::V6 => IpAddr::from([0xfd99, 0, 0, 0, 0, 0, 0, 9]),
    };
    FAMILIES.map(|family| empty_slice(service, family).endpoint(address(family), OTHER_NODE).object()).to_vec()
}

/// A client behind an uplink of the node.
fn outside(scene: &Scene, to: SocketAddr, family: Family) -> Outcome {
    scene.dial_from_far().bound(FAR.host(family, 7)).tcp(to)
}

fn apply(scene: &Scene, service: &Service, slices: Vec<Value>) {
    scene.apply("objects", &[vec![service.object()], slices].concat());
}

/// IPM-32, IPM-33: externalTrafficPolicy Local applies to clients from outside only.
fn local_and_cluster_endpoints_follow_the_policy(start: Start<'_>) {
    let uplinks = format!("{UPLINK_NAME},{FAR_NAME}");
    let scene = start(Setup::new("apilocal"), &["--uplink-interfaces", &uplinks]);
    let cluster = served(&scene, 1);
    let local = cluster.clone().spec("externalTrafficPolicy", json!("Local"));
    for policy in [&cluster, &local] {
        apply(&scene, policy, scene.slices(policy, &["a"]));
        for family in FAMILIES {
            let to = vip(family, 1, 80);
            assert_eq!(outside(&scene, to, family).who(), Some("a"), "an endpoint is here");
            assert_eq!(scene.dial().tcp(to).who(), Some("a"));
        }
    }
    // The endpoint is remote now: Local drops connections from outside.
    apply(&scene, &local, remote(&local));
    for family in FAMILIES {
        assert_eq!(outside(&scene, vip(family, 1, 80), family), Outcome::Silence, "dropped");
    }
    apply(&scene, &local, scene.slices(&local, &["b"]));
    for family in FAMILIES {
        assert_eq!(outside(&scene, vip(family, 1, 80), family).who(), Some("b"), "an endpoint is here again");
    }
}

/// IPM-31: without endpoints all connections are refused, until there is one.
fn without_endpoints_connections_are_refused(start: Start<'_>) {
    let scene = start(Setup::new("apireject"), &[]);
    let service = served(&scene, 2);
    for _ in 0..2 {
        apply(&scene, &service, FAMILIES.map(|family| empty_slice(&service, family).object()).to_vec());
        for family in FAMILIES {
            assert_eq!(scene.dial().patient().tcp(vip(family, 2, 80)), Outcome::Refused);
        }
        apply(&scene, &service, scene.slices(&service, &["a"]));
        for family in FAMILIES {
            assert_eq!(scene.dial().tcp(vip(family, 2, 80)).who(), Some("a"));
        }
    }
}

/// IPM-60, IPM-61, through the status of a live Service.
fn open_connections_survive_flips_of_the_mode(start: Start<'_>) {
    let scene = start(Setup::new("apiflip"), &[]);
    let mut open = Vec::new();
    for (mode, who) in [("VIP", "a"), ("Proxy", BALANCER), ("VIP", "a"), ("Proxy", BALANCER)] {
        let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, 3), mode));
        let service = scene.service("s3", 3, &entries);
        apply(&scene, &service, scene.slices(&service, &["a"]));
        for family in FAMILIES {
            let held = scene.dial().held(vip(family, 3, 80));
            assert_eq!(held.answer.who, who, "{mode}");
            open.push(held);
        }
        for held in &mut open {
            held.echo("still here").unwrap_or_else(|error| panic!("a connection to {}: {error}", held.answer.who));
        }
    }
}

/// An endpoint is removed: new connections get the other one, established ones to it continue (TCP). Then the Service
/// is deleted.
fn an_endpoint_and_then_the_service_are_removed(start: Start<'_>) {
    let scene = start(Setup::new("apiremove"), &[]);
    let service = served(&scene, 4);
    apply(&scene, &service, scene.slices(&service, &["a"]));
    let mut open = FAMILIES.map(|family| scene.dial().held(vip(family, 4, 80)));
    apply(&scene, &service, scene.slices(&service, &["b"]));
    for family in FAMILIES {
        for _ in 0..16 {
            assert_eq!(scene.dial().tcp(vip(family, 4, 80)).who(), Some("b"));
        }
    }
    assert!(scene.api().delete(Resource::Services, "default", "s4"));
    for family in FAMILIES {
        until_true("the address is nobody's", || scene.dial().tcp(vip(family, 4, 80)).who() == Some(BALANCER));
    }
    for held in &mut open {
        held.echo("still here").expect("the open connection goes on");
    }
}

/// The stage of a pod's life according to its slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    Starting,
    Ready,
    /// Terminating, and still serving.
    Draining,
}

/// Slices with these pods of this node.
fn aged(scene: &Scene, service: &Service, pods: &[(&str, Age)]) -> Vec<Value> {
    let endpoint = |family, (pod, age): &(&str, Age)| {
        let (ready, serving) = (*age == Age::Ready, *age != Age::Starting);
        let conditions = json!({"ready": ready, "serving": serving, "terminating": *age == Age::Draining});
        json!({"addresses": [scene.lab.pod_address(pod, family)], "nodeName": NODE, "conditions": conditions})
    };
    let slice = |family| {
        let slice = empty_slice(service, family);
        pods.iter().fold(slice, |slice, pod| slice.raw_endpoint(endpoint(family, pod))).object()
    };
    FAMILIES.map(slice).to_vec()
}

/// Stops the clients when dropped, also if the test panics.
struct Bell<'a>(&'a AtomicBool);

impl Drop for Bell<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// ETP-03: pods of a Local Service are replaced, drained before they are removed, and no connection fails, from here or
/// from outside. TERM-02: if only a draining one is left, it serves. TERM-06: connections to a draining pod continue.
fn pods_roll_while_clients_go_on_dialling(start: Start<'_>) {
    use Age::{Draining, Ready, Starting};
    let uplinks = format!("{UPLINK_NAME},{FAR_NAME}");
    let scene = start(Setup::new("apiroll"), &["--uplink-interfaces", &uplinks]);
    let service = served(&scene, 5).spec("externalTrafficPolicy", json!("Local"));
    let dial = |family, is_outside| {
        let to = vip(family, 5, 80);
        if is_outside { outside(&scene, to, family) } else { scene.dial().tcp(to) }
    };
    let clients = FAMILIES.into_iter().flat_map(|family| [false, true].map(|is_outside| (family, is_outside)));
    let clients: Vec<(Family, bool)> = clients.collect();
    apply(&scene, &service, aged(&scene, &service, &[("a", Ready)]));
    let mut open = FAMILIES.map(|family| scene.dial().held(vip(family, 5, 80)));
    let (is_over, dialled) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let bell = Bell(&is_over);
        let go_on = |(family, is_outside)| {
            let (is_over, dialled, dial) = (&is_over, &dialled, &dial);
            scope.spawn(move || {
                let mut failures = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    let outcome = dial(family, is_outside);
                    dialled.fetch_add(1, Ordering::SeqCst);
                    failures.extend((!["a", "b"].map(Some).contains(&outcome.who())).then_some(outcome));
                }
                failures
            })
        };
        let going: Vec<_> = clients.iter().map(|client| go_on(*client)).collect();
        for (old, new) in [("a", "b"), ("b", "a")] {
            let stages = [
                (vec![(old, Ready), (new, Starting)], vec![old]),
                (vec![(old, Draining), (new, Starting)], vec![old]),
                (vec![(old, Ready), (new, Ready)], vec![old, new]),
                (vec![(old, Draining), (new, Ready)], vec![new]),
                (vec![(new, Ready)], vec![new]),
            ];
            for (pods, wanted) in stages {
                apply(&scene, &service, aged(&scene, &service, &pods));
                for (family, is_outside) in &clients {
                    let outcome = dial(*family, *is_outside);
                    assert!(outcome.who().is_some_and(|who| wanted.contains(&who)), "{pods:?}: {outcome:?}");
                }
                for held in &mut open {
                    held.echo("still here").expect("the open connection goes on");
                }
                let before = dialled.load(Ordering::SeqCst);
                until_true("clients go on", || dialled.load(Ordering::SeqCst) >= before + 2 * clients.len());
            }
        }
        drop(bell);
        for client in going {
            let failures = client.join().expect("no panic");
            assert!(failures.is_empty(), "{} of {dialled:?}: {failures:?}", failures.len());
        }
    });
}
