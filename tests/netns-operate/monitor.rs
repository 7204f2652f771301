//! What `lb-agent monitor` prints of real packets, and what `show` counts of them, while connections go on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use aya::programs::loaded_programs;
use lb_agent::dataplane::pins::Pins;
use lb_tests::address::{BALANCERS, FAMILIES, Family, vip};
use lb_tests::agent::program;
use lb_tests::deadline;
use lb_tests::dial::{Dial, Outcome};
use lb_tests::lab::Setup;
use lb_tests::manifest::ingress;
use lb_tests::process::Process;
use lb_tests::scene::Scene;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::switched::Talk;

const SHOP: u8 = 61;
const LEFT: u8 = 62;
const EMPTY: u8 = 63;
const CLOSED: u8 = 64;

/// A command that prints what happens.
struct Watch(Process);

impl Watch {
    fn start(scene: &Scene, name: &str, words: &[&str]) -> Self {
        let mut command = Command::new(program());
        command.arg("monitor").args(words).arg("--pin-path").arg(scene.agent.pin_path());
        Self(Process::start(&scene.lab.node, name, scene.lab.folder(), &mut command))
    }

    fn events(&self) -> Vec<Value> {
        let output = self.0.output();
        output.lines().filter(|line| line.starts_with('{')).map(|line| line.parse().expect("an object")).collect()
    }

    /// Waits for an event in which all these fields are so.
    #[track_caller]
    fn expect(&self, wanted: &Value) -> Value {
        let is_it = |event: &&Value| {
            let mut fields = wanted.as_object().expect("an object").iter();
            fields.all(|(field, value)| event[field] == *value)
        };
        let mut found = None;
        deadline::until_true(&format!("{wanted} to be told"), || {
            found = self.events().iter().find(is_it).cloned();
            found.is_some()
        });
        found.expect("it was found")
    }
}

/// The translated size of each of our programs, by ID.
fn programs(scene: &Scene) -> BTreeMap<u32, u32> {
    let ids = scene.lab.node.inside(|| {
        let pins = Pins::open(scene.agent.pin_path()).expect("the pins are there");
        pins.hooks().expect("they can be read").program_ids()
    });
    let known = loaded_programs().filter_map(Result::ok).filter(|program| ids.contains(&program.id()));
    known.map(|program| (program.id(), program.size_translated().expect("the kernel says it"))).collect()
}

fn sizes(programs: &BTreeMap<u32, u32>) -> BTreeSet<u32> {
    programs.values().copied().collect()
}

/// A Service in VIP mode, one in Proxy mode, one without endpoints, and one that no pod may dial.
fn publish(scene: &Scene) {
    scene.publish("shop", SHOP, "VIP", &["a"]);
    scene.publish("left", LEFT, "Proxy", &["a"]);
    scene.publish("empty", EMPTY, "VIP", &[]);
    let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, CLOSED), "VIP"));
    let service = scene.service("closed", CLOSED, &entries).spec("loadBalancerSourceRanges", json!(["192.0.2.250/32"]));
    let mut objects = vec![service.object()];
    objects.extend(scene.slices(&service, &["a"]));
    scene.apply("closed", &objects);
}

/// A connection for each Service, from a pod, and one from the node to the Service without endpoints.
fn dial_all(scene: &Scene) {
    for (number, who) in [(SHOP, Some("a")), (LEFT, Some("balancer")), (EMPTY, None), (CLOSED, None)] {
        let outcome = scene.dial().tcp(vip(Family::V4, number, 80));
        assert_eq!(outcome.who(), who, "{number}: {outcome:?}");
    }
    assert_eq!(Dial::from(&scene.lab.node).tcp(vip(Family::V4, EMPTY, 80)), Outcome::Refused);
}

#[test]
fn monitor_tells_what_happens_and_costs_nothing_afterwards() {
    let scene = Scene::start(Setup::new("opmonitor"));
    publish(&scene);
    let talks = FAMILIES.map(|family| Talk::over(scene.dial().held(vip(family, SHOP, 80))));
    let silent = programs(&scene);
    let mut watch = Watch::start(&scene, "watch", &["-o", "json"]);
    deadline::until_true("the programs to be exchanged", || programs(&scene).keys().all(|id| !silent.contains_key(id)));
    assert!(sizes(&programs(&scene)) != sizes(&silent), "they tell what happens");
    dial_all(&scene);
    let interface = scene.lab.pod("client").interface.clone();
    let to = |number| vip(Family::V4, number, 80).to_string();
    let pod = |event: &str, reason: &str, number, service: &str| {
        json!({ "schema": "lb-agent.io/v1", "kind": "Event", "event": event, "reason": reason, "proto": "tcp",
                "address": to(number), "service": format!("default/{service}:web"), "interface": interface })
    };
    let flow = watch.expect(&pod("flow", "flow_created", SHOP, "shop"));
    let backend = format!("{}:", scene.lab.pod_address("a", Family::V4));
    assert!(flow["backend"].as_str().is_some_and(|at| at.starts_with(&backend)), "{flow}");
    let client = scene.lab.pod_address("client", Family::V4).to_string();
    assert!(flow["client"].as_str().is_some_and(|at| at.starts_with(&client)), "{flow}");
    watch.expect(&pod("pass", "passed_proxy", LEFT, "left"));
    watch.expect(&pod("reject", "rejected", EMPTY, "empty"));
    watch.expect(&pod("drop", "drop_source_range", CLOSED, "closed"));
    let refused = json!({ "event": "reject", "reason": "socket_refused", "interface": "(sockets)" });
    assert_eq!(watch.expect(&refused)["address"], to(EMPTY));
    scene.publish("shop", SHOP, "Proxy", &["a"]);
    let flip = watch.expect(&json!({ "event": "change", "reason": "mode_changed", "address": to(SHOP) }));
    assert_eq!(flip["detail"], "VIP -> Proxy (ipMode)", "{flip}");
    scene.publish("shop", SHOP, "VIP", &["a"]);

    let other = scene.agent.ask(&["monitor", "--limit", "1"]);
    assert!(other.code == Some(1) && other.stderr.contains("another `lb-agent monitor`"), "{}", other.stderr);
    watch.0.crash();
    // The lease lasts for some seconds more: programs that tell are still there.
    only_what_is_wanted(&scene);
    what_is_lost_is_told(&scene);
    deadline::until_true("silent programs to be back", || sizes(&programs(&scene)) == sizes(&silent));
    assert!(programs(&scene).keys().all(|id| !silent.contains_key(id)), "other programs of the same size");
    for talk in talks {
        let words = talk.stop().expect("the connection went on");
        assert!(words > 100, "it was silent: {words}");
    }
    what_is_counted_has_an_address(&scene, &interface);
}

/// Filters, the limit, and the table.
fn only_what_is_wanted(scene: &Scene) {
    let client = scene.lab.pod_address("client", Family::V4).to_string();
    let words = ["--service", "default/empty", "--client", &client, "--kind", "reject,flow", "--limit", "2"];
    let mut watch = Watch::start(scene, "wanted", &words);
    deadline::until_true("the titles", || watch.0.output().contains("ADDRESS"));
    dial_all(scene);
    dial_all(scene);
    let status = watch.0.wait();
    let output = watch.0.output();
    assert!(status.success(), "{output}");
    let lines: Vec<_> = output.lines().skip(1).filter(|line| !line.contains("lost")).collect();
    assert_eq!(lines.len(), 2, "{output}");
    for line in lines {
        assert!(
            ["reject", "rejected", "default/empty:web", &client].iter().all(|word| line.contains(word)),
            "{output}"
        );
    }
}

/// More events than are wanted are counted.
fn what_is_lost_is_told(scene: &Scene) {
    let mut watch = Watch::start(scene, "lossy", &["--events-per-sec", "1", "-o", "json"]);
    deadline::until_true("events to be lost", || {
        dial_all(scene);
        watch.events().iter().any(|event| event["kind"] == "LostEvents" && event["events"].as_u64() > Some(0))
    });
    watch.0.signal(Signal::SIGINT);
    assert!(watch.0.wait().success(), "{}", watch.0.output());
}

fn what_is_counted_has_an_address(scene: &Scene, interface: &str) {
    let frontends = scene.agent.rows("frontends");
    let frontend = |number| {
        let address = vip(Family::V4, number, 80).to_string();
        let is_it = |row: &&Value| row["address"] == address && row["proto"] == "tcp";
        frontends.iter().find(is_it).expect("it was published")
    };
    assert!(frontend(EMPTY)["rejects"].as_u64() > Some(1), "{}", frontend(EMPTY));
    assert_eq!(frontend(EMPTY)["drops"], json!([]));
    let drop = &frontend(CLOSED)["drops"][0];
    assert_eq!(drop["reason"], "drop_source_range");
    assert!(drop["packets"].as_u64() > Some(0) && drop["bytes"].as_u64() > Some(0), "{drop}");
    assert_eq!((&frontend(LEFT)["rejects"], &frontend(LEFT)["drops"]), (&json!(0), &json!([])));
    let interfaces = scene.agent.rows("interfaces");
    let named = |name: &str| {
        let is_it = |row: &&Value| row["interface"] == name;
        interfaces.iter().find(is_it).unwrap_or_else(|| panic!("{name} is missing"))
    };
    let pod = named(interface);
    assert!(pod["rejects"].as_u64() > Some(0) && pod["flows"].as_u64() > Some(0), "{pod}");
    assert_eq!(pod["drops"][0]["reason"], "drop_source_range", "{pod}");
    assert!(named("(sockets)")["rejects"].as_u64() > Some(0), "{}", named("(sockets)"));
}

/// The same by clsact; and an agent that is not to tell says so.
#[test]
fn programs_are_exchanged_at_classifiers_too() {
    let mut scene = Scene::with_flags(Setup::new("opmonclsact"), &["--attach", "clsact"]);
    scene.publish("shop", SHOP, "VIP", &["a"]);
    let talks = FAMILIES.map(|family| Talk::over(scene.dial().held(vip(family, SHOP, 80))));
    let silent = programs(&scene);
    let mut watch = Watch::start(&scene, "watch", &["-o", "json"]);
    deadline::until_true("the programs to be exchanged", || programs(&scene).keys().all(|id| !silent.contains_key(id)));
    assert_eq!(scene.dial().tcp(vip(Family::V4, SHOP, 80)).who(), Some("a"));
    watch.expect(&json!({ "event": "flow", "service": "default/shop:web" }));
    watch.0.signal(Signal::SIGTERM);
    assert!(watch.0.wait().success());
    deadline::until_true("silent programs to be back", || sizes(&programs(&scene)) == sizes(&silent));
    for talk in talks {
        assert!(talk.stop().expect("the connection went on") > 100);
    }
    scene.agent.terminate();
    scene.agent.set_flags(&["--attach", "clsact", "--monitor", "off"]);
    scene.agent.start();
    let refused = scene.agent.ask(&["monitor"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--monitor=off"), "{}", refused.stderr);
}
