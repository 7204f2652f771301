//! The maps as `bpftool map dump` prints them, with readable names, addresses and ports.

use lb_tests::address::{FAMILIES, Family, vip};
use lb_tests::dump::{Dump, octets};
use lb_tests::lab::Setup;
use lb_tests::scene::{Scene, TARGET};

#[test]
fn frontends_are_readable() {
    let scene = Scene::start(Setup::new("readable"));
    scene.publish("direct", 71, "VIP", &["a", "b"]);
    scene.publish("balanced", 72, "Proxy", &["a"]);
    let dump = Dump::of(&scene.agent);
    for family in FAMILIES {
        for (number, mode) in [(71, "VIP"), (72, "Proxy")] {
            for proto in ["TCP", "UDP"] {
                let frontend = dump.frontend(vip(family, number, 80), proto).expect("it is in the map");
                assert_eq!(frontend["value"]["mode"], mode, "{frontend}");
                assert_eq!(frontend["value"]["decided_by"], "IpMode", "{frontend}");
                assert_eq!(frontend["value"]["origin"], "LoadBalancer", "{frontend}");
            }
        }
        let mut slots = dump.slots(vip(family, 71, 80), "TCP");
        slots.sort();
        let mut wanted =
            ["a", "b"].map(|pod| (octets(scene.lab.pod_address(pod, family)).to_string(), u64::from(TARGET)));
        wanted.sort();
        assert_eq!(slots, wanted, "addresses in octets, ports in host order");
    }
}

#[test]
fn flows_and_actions_are_readable() {
    let scene = Scene::start(Setup::new("flows"));
    scene.publish("direct", 73, "VIP", &["a"]);
    let mut held = scene.dial().held(vip(Family::V4, 73, 80));
    held.echo("a flow").expect("it echoes");
    let dump = Dump::of(&scene.agent);
    let frontend = dump.frontend(vip(Family::V4, 73, 80), "TCP").expect("it is in the map");
    let scopes = dump.map("scopes");
    let scopes = scopes.iter().find(|scopes| scopes["key"] == frontend["value"]["id"]).expect("it has scopes");
    assert_eq!(scopes["value"]["workload"]["action"], "Balance", "{scopes}");
    let flows = dump.map("flows4");
    let client = octets(held.answer.client.ip());
    let mine: Vec<_> = flows.iter().filter(|flow| flow.to_string().contains(&client.to_string())).collect();
    assert!(mine.len() >= 2, "request and reply: {flows:?}");
    let text = serde_json::to_string(&mine).expect("values print");
    for word in [format!("{}", held.answer.client.port()), "Request".into(), "Reply".into(), "Established".into()] {
        assert!(text.contains(&word), "{word} is not in {text}");
    }
}
