//! EndpointSlices: which endpoints are used, and on which port.

use lb_tests::address::{BALANCERS, CLUSTER, FAMILIES, FAR, Family, vip};
use lb_tests::deadline::until_true;
use lb_tests::dial::Outcome;
use lb_tests::dump::Dump;
use lb_tests::lab::{FAR_NAME, Setup, UPLINK_NAME};
use lb_tests::manifest::{NODE, Service, Slice, ingress};
use lb_tests::scene::{Scene, TARGET, empty_slice};
use lb_tests::serve::Server;
use serde_json::{Value, json};

/// A Service in VIP mode with both families' entries.
fn vip_service(scene: &Scene, number: u8) -> Service {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), "VIP"));
    scene.service(&format!("s{number}"), number, &entries)
}

#[test]
fn eps_01_each_slice_brings_its_own_port_number() {
    let scene = Scene::start(Setup::new("epsport"));
    // This server has another name: the answer shows which port was chosen.
    let port = 8001;
    let _server = Server::tcp(&scene.lab.pod("b").netns, "b:8001", port);
    let service = vip_service(&scene, 1);
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let first = scene.slice(&service, family, &["a"]);
        let suffix = format!("other-{family:?}").to_lowercase();
        let second = service.slice(&suffix).port("web", "TCP", port);
        objects.push(first.object());
        objects.push(second.endpoint(scene.lab.pod_address("b", family), NODE).object());
    }
    scene.apply("s1", &objects);
    for family in FAMILIES {
        scene.expect_all(vip(family, 1, 80), &["a", "b:8001"]);
    }
}

#[test]
fn eps_02_03_absent_conditions_and_second_addresses() {
    let scene = Scene::start(Setup::new("epsnil"));
    let service = vip_service(&scene, 2);
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let [a, b] = ["a", "b"].map(|pod| scene.lab.pod_address(pod, family).to_string());
        objects
            .push(empty_slice(&service, family).raw_endpoint(json!({"addresses": [a, b], "nodeName": NODE})).object());
    }
    scene.apply("s2", &objects);
    for family in FAMILIES {
        for _ in 0..24 {
            assert_eq!(scene.dial().tcp(vip(family, 2, 80)).who(), Some("a"), "EPS-03: only the first address counts");
        }
    }
}

/// Addresses that the API server refuses, and reserved ones: a pod's connections are never sent there.
#[test]
fn what_nobody_can_be_is_no_endpoint() {
    let scene = Scene::start(Setup::new("epsnobody"));
    let service = vip_service(&scene, 3);
    let mut objects = vec![service.object()];
    for (family, nobody) in [
        (Family::V4, &["169.254.169.254", "255.255.255.255", "240.0.0.1", "0.1.2.3", "224.0.0.1"][..]),
        (Family::V6, &["fe80::1", "ff02::1", "::192.0.2.1"]),
    ] {
        let slice = scene.slice(&service, family, &["a"]);
        let add = |slice: Slice, address: &&str| slice.endpoint(address.parse().expect("an address"), NODE);
        objects.push(nobody.iter().fold(slice, add).object());
    }
    scene.apply("s3", &objects);
    for family in FAMILIES {
        for _ in 0..24 {
            assert_eq!(scene.dial().tcp(vip(family, 3, 80)).who(), Some("a"));
        }
    }
    let warnings = scene.agent.rows("warnings");
    assert_eq!(warnings.len(), 8, "{warnings:?}");
}

/// As kubelet registers it, in lower case: in capitals it would match no node, and policy Local would drop everything.
#[test]
fn the_name_of_the_node_counts_in_any_case() {
    let name = NODE.to_uppercase();
    let scene = Scene::with_flags(Setup::new("epsname"), &["--services", "all", "--node-name", &name]);
    let service = scene.service("s6", 6, &[]).spec("internalTrafficPolicy", json!("Local"));
    let mut objects = scene.slices(&service, &["a"]);
    objects.push(service.object());
    scene.apply("s6", &objects);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp((CLUSTER.host(family, 6), 80).into()).who(), Some("a"));
    }
}

#[test]
fn eps_04_a_slice_of_a_family_that_the_service_has_not_is_ignored() {
    let scene = Scene::start(Setup::new("epsfamily"));
    let only_v4 = vip_service(&scene, 4).cluster_ips(&[CLUSTER.host(Family::V4, 4)]);
    let mut objects = vec![only_v4.object(), scene.slice(&only_v4, Family::V4, &["a"]).object()];
    objects.push(scene.slice(&only_v4, Family::V6, &["b"]).object());
    scene.apply("s4", &objects);
    for _ in 0..24 {
        assert_eq!(scene.dial().tcp(vip(Family::V4, 4, 80)).who(), Some("a"));
    }
    assert_eq!(scene.dial().tcp(vip(Family::V6, 4, 80)).who(), Some("balancer"));
}

#[test]
fn eps_05_an_endpoint_in_two_slices_is_one_backend_and_not_terminating() {
    let scene = Scene::start(Setup::new("epstwice"));
    let service = vip_service(&scene, 5);
    let mut objects = vec![service.object()];
    for family in FAMILIES {
        let a = scene.lab.pod_address("a", family).to_string();
        let conditions = json!({"ready": false, "serving": true, "terminating": true});
        let terminating = json!({"addresses": [a], "nodeName": NODE, "conditions": conditions});
        let suffix = format!("again-{family:?}").to_lowercase();
        let again = service.slice(&suffix).address_type(family).port("web", "TCP", TARGET).raw_endpoint(terminating);
        objects.push(again.object());
        objects.push(scene.slice(&service, family, &["a", "b"]).object());
    }
    scene.apply("s5", &objects);
    for family in FAMILIES {
        scene.expect_all(vip(family, 5, 80), &["a", "b"]);
        let slots = Dump::of(&scene.agent).slots(vip(family, 5, 80), "TCP");
        assert_eq!(slots.len(), 2, "{slots:?}");
    }
}

#[test]
fn eps_06_a_pod_that_moves_between_slices_is_never_missed() {
    let scene = Scene::start(Setup::new("epsmove"));
    let service = vip_service(&scene, 6);
    // The only endpoint alternates between two slices.
    let objects = |turn: usize| -> Vec<Value> {
        let mut objects = vec![service.object()];
        for family in FAMILIES {
            for half in [0, 1] {
                let suffix = format!("{half}-{family:?}").to_lowercase();
                let slice = service.slice(&suffix).address_type(family).port("web", "TCP", TARGET);
                let has_it = turn % 2 == half;
                let endpoint = has_it.then(|| scene.lab.pod_address("a", family));
                objects.push(endpoint.into_iter().fold(slice, |slice, at| slice.endpoint(at, NODE)).object());
            }
        }
        objects
    };
    scene.apply("s6", &objects(0));
    let mut open = FAMILIES.map(|family| scene.dial().held(vip(family, 6, 80)));
    let diallers = FAMILIES.map(|family| scene.dial().repeatedly(vip(family, 6, 80)));
    for turn in 1..=50 {
        scene.apply("s6", &objects(turn));
        for held in &mut open {
            held.echo("here").expect("the open connection goes on");
        }
    }
    for dialler in diallers {
        let tally = dialler.stop();
        assert!(tally.failures.is_empty(), "{:?}", tally.failures);
        assert_eq!(tally.answered.keys().collect::<Vec<_>>(), ["a"], "{tally:?}");
    }
}

#[test]
fn eps_07_an_endpoint_without_a_node_is_never_local() {
    let uplinks = format!("{UPLINK_NAME},{FAR_NAME}");
    let scene = Scene::with_flags(Setup::new("epsnode"), &["--uplink-interfaces", &uplinks]);
    let service = vip_service(&scene, 7).spec("externalTrafficPolicy", json!("Local"));
    let objects = |endpoint: &dyn Fn(Family) -> Value| -> Vec<Value> {
        let slices = FAMILIES.map(|family| empty_slice(&service, family).raw_endpoint(endpoint(family)).object());
        [vec![service.object()], slices.to_vec()].concat()
    };
    let address = |family| scene.lab.pod_address("a", family).to_string();
    scene.apply("s7", &objects(&|family| json!({"addresses": [address(family)], "nodeName": NODE})));
    let outside = |family| scene.dial_from_far().bound(FAR.host(family, 7)).tcp(vip(family, 7, 80));
    for family in FAMILIES {
        assert_eq!(outside(family).who(), Some("a"), "it is local");
    }
    scene.apply("s7", &objects(&|family| json!({"addresses": [address(family)]})));
    for family in FAMILIES {
        assert_eq!(outside(family), Outcome::Silence, "no endpoint is local");
        assert_eq!(scene.dial().tcp(vip(family, 7, 80)).who(), Some("a"), "pods are not bound to the policy");
    }
}

#[test]
fn endpoints_that_are_not_ready_are_left_out_and_come_back() {
    let scene = Scene::start(Setup::new("epsready"));
    let service = vip_service(&scene, 8);
    let apply = |ready: bool| {
        let mut objects = vec![service.object()];
        for family in FAMILIES {
            let [a, b] = ["a", "b"].map(|pod| scene.lab.pod_address(pod, family));
            let conditions = json!({"ready": ready, "serving": ready, "terminating": false});
            let b = json!({"addresses": [b.to_string()], "nodeName": NODE, "conditions": conditions});
            objects.push(empty_slice(&service, family).endpoint(a, NODE).raw_endpoint(b).object());
        }
        scene.apply("s8", &objects);
    };
    for _ in 0..3 {
        apply(false);
        for family in FAMILIES {
            scene.expect_all(vip(family, 8, 80), &["a"]);
        }
        apply(true);
        for family in FAMILIES {
            scene.expect_all(vip(family, 8, 80), &["a", "b"]);
        }
    }
    scene.manifests.remove("s8");
    let to = vip(Family::V4, 8, 80);
    until_true("the Service is gone", || scene.dial().tcp(to).who() == Some("balancer"));
}

/// TERM-06, with both kinds of selection: a terminating endpoint keeps its connections and gets no new ones.
#[test]
fn term_06_a_terminating_endpoint_keeps_what_it_has() {
    let scene = Scene::with_flags(Setup::new("epsdrain"), &["--maglev-table-size", "251"]);
    for (number, algorithm) in [(9, "random"), (10, "maglev")] {
        let service = vip_service(&scene, number);
        let service = service.metadata("annotations", json!({"lb-agent.io/lb-algorithm": algorithm}));
        let file = format!("s{number}");
        let apply = |is_terminating: bool| {
            let conditions = json!({"ready": !is_terminating, "serving": true, "terminating": is_terminating});
            let mut objects = vec![service.object()];
            for family in FAMILIES {
                let [a, b] = ["a", "b"].map(|pod| scene.lab.pod_address(pod, family));
                let a = json!({"addresses": [a.to_string()], "nodeName": NODE, "conditions": conditions});
                objects.push(empty_slice(&service, family).endpoint(b, NODE).raw_endpoint(a).object());
            }
            scene.apply(&file, &objects);
        };
        apply(false);
        let hold = |family| scene.dial().held(vip(family, number, 80));
        let mut open: Vec<_> = FAMILIES.into_iter().flat_map(|family| (0..24).map(move |_| family)).map(hold).collect();
        let of_a = open.iter().filter(|held| held.answer.who == "a").count();
        assert!(of_a > 0 && of_a < open.len(), "{algorithm}: {of_a} of {} are a's", open.len());
        apply(true);
        for family in FAMILIES {
            for _ in 0..24 {
                assert_eq!(scene.dial().tcp(vip(family, number, 80)).who(), Some("b"), "{algorithm}");
            }
        }
        for held in &mut open {
            held.echo("still here").expect("a connection to the terminating endpoint goes on");
        }
        apply(false);
        for family in FAMILIES {
            scene.expect_all(vip(family, number, 80), &["a", "b"]);
        }
    }
}
