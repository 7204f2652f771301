//! `loadBalancerSourceRanges` with real sockets: which clients are admitted, pods included, and what happens to
//! established connections.

use lb_common::addr::Proto;
use lb_tests::address::{BALANCERS, FAMILIES, FAR, vip};
use lb_tests::dial::Outcome;
use lb_tests::lab::Setup;
use lb_tests::manifest::ingress;
use lb_tests::scene::Scene;
use serde_json::json;

/// The last part of the balancer's address.
const NUMBER: u8 = 86;

/// Writes the Service with these ranges. Under policy Local, clients in the network keep their address.
fn publish(scene: &Scene, ranges: &[String]) {
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, NUMBER), "VIP"));
    let service = scene
        .service("shop", NUMBER, &entries)
        .spec("loadBalancerSourceRanges", json!(ranges))
        .spec("externalTrafficPolicy", json!("Local"));
    let mut objects = vec![service.object()];
    objects.extend(scene.slices(&service, &["a"]));
    scene.apply("shop", &objects);
}

/// Ranges that contain exactly these pods and far hosts.
fn only(scene: &Scene, pods: &[&str], far: &[u8]) -> Vec<String> {
    FAMILIES
        .into_iter()
        .flat_map(|family| {
            let length = if BALANCERS.host(family, 1).is_ipv4() { 32 } else { 128 };
            let pods = pods.iter().map(move |pod| scene.lab.pod_address(pod, family));
            pods.chain(far.iter().map(move |host| FAR.host(family, *host))).map(move |addr| format!("{addr}/{length}"))
        })
        .collect()
}

/// SR-01, SR-02: a pod outside the ranges gets no answer, like any other client.
#[test]
fn sr_02_pods_are_let_in_by_the_ranges_alone() {
    let scene = Scene::start(Setup::new("rangepod"));
    publish(&scene, &only(&scene, &["client"], &[]));
    for family in FAMILIES {
        let to = vip(family, NUMBER, 80);
        for proto in [Proto::TCP, Proto::UDP] {
            let [inside, outside] = ["client", "b"].map(|pod| {
                let dial = scene.dial_from(pod);
                if proto == Proto::UDP { dial.udp(to) } else { dial.tcp(to) }
            });
            assert_eq!(inside.who(), Some("a"), "{to}");
            assert_eq!(outside, Outcome::Silence, "{to}");
        }
    }
    let counters = scene.agent.says(&["show", "counters"]);
    assert!(counters.contains("drop_source_range"), "{counters}");
    let drops = scene.agent.rows("drops");
    for family in FAMILIES {
        let (from, to) = (scene.lab.pod_address("b", family), vip(family, NUMBER, 80).to_string());
        let row = drops.iter().find(|row| row["reason"] == "drop_source_range" && row["destination"] == to.as_str());
        let row = row.unwrap_or_else(|| panic!("the last drop at {to} is missing: {drops:?}"));
        assert!(row["source"].as_str().is_some_and(|source| source.contains(&from.to_string())), "{row}");
        assert!(row["age_secs"].as_u64().is_some_and(|secs| secs < 60), "{row}");
    }
    publish(&scene, &only(&scene, &["client", "b"], &[]));
    for family in FAMILIES {
        assert_eq!(scene.dial_from("b").tcp(vip(family, NUMBER, 80)).who(), Some("a"));
    }
}

/// SR-01, SR-11: for connections from the network the ranges apply to the source address, which a local endpoint sees.
#[test]
fn sr_01_clients_in_the_network_are_let_in_by_the_ranges() {
    let scene = Scene::with_flags(Setup::new("rangefar"), &["--uplink-interfaces", "up0,up1"]);
    publish(&scene, &only(&scene, &[], &[7]));
    for family in FAMILIES {
        let to = vip(family, NUMBER, 80);
        let from = |host| scene.dial_from_far().bound(FAR.host(family, host)).tcp(to);
        let Outcome::Answered(answer) = from(7) else { panic!("{to}: {:?}", from(7)) };
        assert_eq!((answer.who.as_str(), answer.client.ip()), ("a", FAR.host(family, 7)));
        assert_eq!(from(8), Outcome::Silence, "{to}");
        assert_eq!(scene.dial().tcp(to), Outcome::Silence, "{to} of a pod");
    }
}

/// SR-09: established connections continue when their range is removed, and a restart of the agent still refuses other
/// clients.
#[test]
fn sr_09_open_connections_outlive_their_range() {
    let mut scene = Scene::start(Setup::new("rangeopen"));
    publish(&scene, &only(&scene, &["client"], &[]));
    let mut held = FAMILIES.map(|family| scene.dial().held(vip(family, NUMBER, 80)));
    publish(&scene, &only(&scene, &["b"], &[]));
    scene.agent.crash();
    scene.agent.start();
    for (family, held) in FAMILIES.into_iter().zip(&mut held) {
        held.transfer(1 << 20).expect("it goes on");
        assert_eq!(scene.dial().tcp(vip(family, NUMBER, 80)), Outcome::Silence);
        assert_eq!(scene.dial_from("b").tcp(vip(family, NUMBER, 80)).who(), Some("a"));
    }
    publish(&scene, &[]);
    for family in FAMILIES {
        assert_eq!(scene.dial().tcp(vip(family, NUMBER, 80)).who(), Some("a"), "no range: everybody");
    }
    // The ranges are deleted last, after new clients are admitted.
    lb_tests::deadline::until_true("the ranges are gone", || {
        scene.agent.says(&["show", "source-ranges"]).lines().count() == 1
    });
}
