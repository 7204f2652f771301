//! The agent from an operator's view: show, explain, check, metrics, probes, refusals, audits. Needs root.

#[path = "netns-operate/attached.rs"]
mod attached;
#[path = "netns-operate/bundled.rs"]
mod bundled;
#[path = "netns-operate/deployed.rs"]
mod deployed;
#[path = "netns-operate/metrics.rs"]
mod metrics;
#[path = "netns-operate/monitor.rs"]
mod monitor;
#[path = "netns-operate/output.rs"]
mod output;
#[path = "netns-operate/pins.rs"]
mod pins;
#[path = "netns-operate/probes.rs"]
mod probes;
#[path = "netns-operate/switched.rs"]
mod switched;
#[path = "netns-operate/terminal.rs"]
mod terminal;
#[path = "netns-operate/unloaded.rs"]
mod unloaded;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::process::Command;

use lb_tests::address::{BALANCERS, Family, vip};
use lb_tests::agent::{self, Agent};
use lb_tests::deadline;
use lb_tests::dial::Dial;
use lb_tests::lab::Setup;
use lb_tests::manifest::ingress;
use lb_tests::printed;
use lb_tests::scene::{Scene, TARGET};
use serde_json::Value;

/// What `show` shows.
const SUBJECTS: [&str; 9] =
    ["frontends", "pools", "source-ranges", "flows", "counters", "drops", "interfaces", "guard", "warnings"];

/// A Service in VIP mode at number 1, with pods `a` and `b`; one in Proxy mode at number 2.
fn two_services(scene: &Scene) {
    let entry = |number, mode| ingress(BALANCERS.host(Family::V4, number), mode);
    let (short, left) = (scene.service("short", 1, &[entry(1, "VIP")]), scene.service("left", 2, &[entry(2, "Proxy")]));
    let mut objects = vec![short.object(), left.object()];
    objects.extend(scene.slices(&short, &["a", "b"]));
    objects.extend(scene.slices(&left, &["a", "b"]));
    scene.apply("services", &objects);
}

fn dial(scene: &Scene, to: SocketAddr) -> Option<String> {
    scene.dial().tcp(to).who().map(str::to_owned)
}

/// The frontend at TCP port 80 of a balancer's number.
#[track_caller]
fn frontend(agent: &Agent, number: u8) -> Value {
    let address = vip(Family::V4, number, 80).to_string();
    let is_it = |row: &&Value| row["address"] == address.as_str() && row["proto"] == "tcp";
    agent.rows("frontends").iter().find(is_it).expect("it was applied").clone()
}

#[test]
fn show_tells_the_same_with_and_without_an_agent() {
    let mut scene = Scene::start(Setup::new("opshow"));
    two_services(&scene);
    assert!(dial(&scene, vip(Family::V4, 1, 80)).is_some());
    assert_eq!(dial(&scene, vip(Family::V4, 2, 80)).as_deref(), Some("balancer"));
    let interfaces: BTreeMap<_, _> = ["client", "a", "b"].map(|pod| (pod, scene.lab.pod(pod).interface.clone())).into();
    // The Services have IPv4 only; the marker of the scene has one of each family.
    let backends = [("a", Family::V4), ("b", Family::V4), ("a", Family::V6)];
    let wanted: BTreeSet<_> =
        backends.map(|(pod, family)| SocketAddr::new(scene.lab.pod_address(pod, family), TARGET).to_string()).into();
    let scene_interface = |pod| interfaces.get(pod).expect("a pod of the scene").clone();
    let check = |agent: &Agent| {
        let short = frontend(agent, 1);
        assert_eq!((&short["mode"], &short["decided_by"]), (&"VIP".into(), &"ipMode".into()));
        assert_eq!((&short["workload"]["action"], &short["flows"]), (&"Balance".into(), &1.into()));
        let left = frontend(agent, 2);
        assert_eq!((&left["mode"], &left["workload"]["action"]), (&"Proxy".into(), &"Pass".into()));
        assert_eq!((&short["host"]["action"], &left["host"]["action"]), (&"Balance".into(), &"Pass".into()));
        assert!(left["passed_packets"].as_u64() > Some(0), "{left}");
        let backends: BTreeSet<_> =
            agent.rows("pools").iter().filter_map(|row| Some(row["backend"].as_str()?.to_owned())).collect();
        assert_eq!(backends, wanted);
        let address = vip(Family::V4, 1, 80).to_string();
        assert!(agent.rows("flows").iter().any(|row| row["address"] == address.as_str()));
        let counted = |name| {
            let rows = agent.rows("counters");
            rows.iter().find(|row| row["counter"] == name).expect("a counter")["packets"].as_u64()
        };
        assert!(counted("request_translated") > Some(0) && counted("passed_proxy") > Some(0));
        let attached = agent.rows("interfaces");
        for pod in ["client", "a", "b"] {
            let interface = scene_interface(pod);
            let row = attached.iter().find(|row| row["interface"] == interface.as_str());
            assert!(row.is_some_and(|row| row["class"] == "workload"), "{pod}: {attached:?}");
        }
    };
    check(&scene.agent);
    // Each document is checked against the schema.
    for subject in SUBJECTS {
        scene.agent.rows(subject);
    }
    choose_and_print(&scene);
    terminal::fits(&scene);
    terminal::top(&scene);
    // Only the running agent knows the names of Services.
    assert_eq!(frontend(&scene.agent, 1)["service"], "default/short:web");
    assert_eq!(scene.agent.rows("warnings"), Vec::<Value>::new());
    scene.agent.terminate();
    check(&scene.agent);
    assert_eq!(frontend(&scene.agent, 1)["service"], Value::Null);
    let refused = scene.agent.ask(&["show", "warnings"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("running agent"), "{}", refused.stderr);
    scene.agent.unload();
    let refused = scene.agent.ask(&["show", "frontends"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("lb-agent run"), "{}", refused.stderr);
}

/// Filters, and the other forms of output.
#[track_caller]
fn choose_and_print(scene: &Scene) {
    let client = scene.lab.pod_address("client", Family::V4).to_string();
    let interface = scene.lab.pod("client").interface.as_str();
    let short = vip(Family::V4, 1, 80).to_string();
    for (subject, flag, value, address) in [
        ("frontends", "--service", "default/short", &short),
        ("frontends", "--service", "default/short:web", &short),
        ("frontends", "--address", &short, &short),
        ("frontends", "--mode", "proxy", &vip(Family::V4, 2, 80).to_string()),
        ("flows", "--client", &client, &short),
        ("flows", "--interface", interface, &short),
    ] {
        let rows = printed::items(&scene.agent.says(&["show", subject, flag, value, "-o", "json"]));
        let addresses: BTreeSet<_> = rows.iter().filter_map(|row| row["address"].as_str()).collect();
        assert!(addresses.contains(address.as_str()), "{flag} {value}: {rows:?}");
        assert!(flag != "--address" || addresses.len() == 1, "{flag} {value}: {rows:?}");
    }
    let flow = printed::items(&scene.agent.says(&["show", "flows", "--address", &short, "-o", "json"])).remove(0);
    assert_eq!((&flow["service"], &flow["interface"]), (&"default/short:web".into(), &interface.into()));
    let misspelt = scene.agent.ask(&["show", "frontends", "--service", "default/shrt"]);
    assert_eq!(misspelt.code, Some(0));
    assert!(misspelt.stderr.contains("did you mean default/short?"), "{}", misspelt.stderr);
    let refused = scene.agent.ask(&["show", "counters", "--mode", "VIP"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("frontends can"), "{refused:?}");
    let [json, yaml] = ["json", "yaml"].map(|output| scene.agent.says(&["show", "pools", "-o", output]));
    let yaml: Value = serde_yaml_ng::from_str(&yaml).expect("YAML");
    assert_eq!(yaml, printed::document(&json));
}

/// `explain` predicts the result of dialling.
#[test]
fn explain_agrees_with_the_wire() {
    let scene = Scene::start(Setup::new("opexplain"));
    two_services(&scene);
    let client = scene.lab.pod_address("client", Family::V4).to_string();
    for (number, port, decision, is_answered_by_balancer) in
        [(1, 80, "balance", false), (2, 80, "pass", true), (1, 443, "not-ours", true)]
    {
        let to = vip(Family::V4, number, port);
        let answer = scene.agent.explains(&client, &format!("{to}/tcp"));
        assert_eq!(answer["decision"], decision, "{answer}");
        assert_eq!(dial(&scene, to).as_deref() == Some("balancer"), is_answered_by_balancer, "{to}");
    }
    let text = scene.agent.says(&["explain", "--from", "external:203.0.113.2", "--to", "198.51.100.1:80/tcp"]);
    assert!(text.contains("result"), "{text}");
}

#[test]
fn metrics_and_probes() {
    let scene = Scene::start(Setup::new("opmetrics"));
    two_services(&scene);
    assert!(dial(&scene, vip(Family::V4, 1, 80)).is_some());
    scene.manifests.write_text("broken", "kind: Service\napiVersion: v1\n");
    let value = |name: &str| {
        let (code, text) = scene.agent.page("/metrics").expect("the agent listens");
        assert_eq!(code, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
    };
    deadline::until_true("the warning to be counted", || value("lb_agent_warnings{kind=\"bad-document\"}") == "1");
    assert_eq!(value("lb_agent_ready"), "1");
    assert_eq!(value("lb_agent_pending_ops"), "0");
    assert_ne!(value("lb_agent_interfaces_attached{class=\"workload\"}"), "0");
    assert_eq!(value("lb_agent_map_capacity{map=\"frontends4\"}"), "1024");
    assert_ne!(value("lb_agent_map_entries{map=\"frontends4\"}"), "0");
    assert_ne!(value("lb_agent_packets_total{what=\"flow_created\"}"), "0");
    assert_eq!(value("lb_agent_drops_total{reason=\"no_backend\"}"), "0");
    for page in ["/livez", "/healthz", "/readyz"] {
        assert_eq!(scene.agent.page(page), Some((200, "ok\n".into())), "{page}");
    }
    let warnings = scene.agent.rows("warnings");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!((&warnings[0]["file"], &warnings[0]["field"]), (&"broken.yaml".into(), &"metadata.name".into()));
}

/// Whatever the folder holds, no output moves a cursor, rings the bell, or has a forged line.
#[test]
fn hostile_text_reaches_no_output() {
    const HOSTILE: &str = "\u{1b}[31m\u{7}\u{9b}2J\u{202e}\u{2028}\u{7f}\nERROR forged";
    let mut scene = Scene::start(Setup::new("ophostile"));
    two_services(&scene);
    let text = |name: &str| format!("x{HOSTILE}{name}");
    let service = |name: &str| scene.service(name, 3, &[ingress(BALANCERS.host(Family::V4, 3), "VIP")]).object();
    let (mut named, mut inside, mut kept) = (service("a"), service("b"), service("c"));
    named["metadata"]["name"] = text("name").into();
    inside["metadata"]["namespace"] = text("namespace").into();
    kept["metadata"]["annotations"] = serde_json::json!({"lb-agent.io/ip-mode": text("mode"), text("key"): "x"});
    kept["spec"]["externalTrafficPolicy"] = text("policy").into();
    kept["spec"]["ports"][0]["protocol"] = text("protocol").into();
    kept["spec"]["ports"].as_array_mut().expect("a list").push(serde_json::json!({"name": text("port"), "port": 81}));
    kept["status"]["loadBalancer"]["ingress"][0]["ipMode"] = text("ipMode").into();
    let mut slice = scene.slices(&scene.service("c", 3, &[]), &["a"]).remove(0);
    slice["endpoints"][0]["nodeName"] = text("node").into();
    let unread =
        serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "d"}, "spec": text("spec")});
    scene.manifests.write(&format!("hostile{}", HOSTILE.replace('\n', "\r")), &[named, inside, kept, slice, unread]);
    deadline::until_true("it is told", || scene.agent.rows("warnings").len() >= 8);
    let client = scene.lab.pod_address("client", Family::V4).to_string();
    let to = format!("{}/tcp", vip(Family::V4, 3, 80));
    let mut outputs = Vec::new();
    for output in ["table", "wide", "json", "yaml"] {
        for subject in SUBJECTS {
            outputs.push(scene.agent.says(&["show", subject, "-o", output]));
        }
        outputs.push(scene.agent.says(&["explain", "--from", &client, "--to", &to, "-o", output]));
        outputs.push(scene.agent.says(&["check", "-o", output]));
    }
    for path in ["/metrics", "/readyz", "/healthz", "/warnings", "/services"] {
        outputs.push(scene.agent.page(path).expect("it listens").1);
    }
    outputs.push(scene.agent.log());
    scene.agent.terminate();
    let said = Command::new(agent::program()).args(["show", "frontends", "--pin-path", &text("pins")]).output();
    outputs.push(String::from_utf8_lossy(&said.expect("the agent starts").stderr).into_owned());
    for output in outputs {
        let is_hostile = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{2028}');
        assert!(!output.contains(is_hostile), "{output:?}");
        assert!(!output.lines().any(|line| line.trim_start().starts_with("ERROR forged")), "{output}");
    }
}

#[test]
fn interfaces_are_served_as_they_come() {
    let mut scene = Scene::start(Setup::new("opattach"));
    two_services(&scene);
    let pins = scene.agent.pin_path().join("links");
    let pinned = || std::fs::read_dir(&pins).expect("the pins are there").count();
    let before = pinned();
    scene.add_pod("late");
    let late = scene.lab.pod("late");
    deadline::until_true("the new pod to be served", || {
        matches!(Dial::from(&late.netns).tcp(vip(Family::V4, 1, 80)).who(), Some("a" | "b"))
    });
    let interface = late.interface.clone();
    let class_of = |agent: &Agent, name: &str| {
        agent.rows("interfaces").iter().find(|row| row["interface"] == name).map(|row| row["class"].clone())
    };
    assert_eq!(class_of(&scene.agent, &interface), Some("workload".into()));
    scene.lab.remove_pod("late");
    deadline::until_true("the pins of the gone interface to go", || pinned() == before);
}

/// SY-03: a row and a program are removed from outside: the audit restores both.
#[test]
fn an_audit_repairs_what_others_broke() {
    let scene = Scene::with_flags(Setup::new("opaudit"), &["--audit-secs", "1"]);
    two_services(&scene);
    let pins = scene.agent.pin_path().to_owned();
    let frontends = pins.join("maps/frontends4").display().to_string();
    let key: Vec<String> = match BALANCERS.host(Family::V4, 1) {
        std::net::IpAddr::V4(v4) => v4.octets().into_iter().chain([80, 0, 6, 0]).map(|byte| byte.to_string()).collect(),
        std::net::IpAddr::V6(_) => unreachable!("asked for IPv4"),
    };
    bpftool(&["map", "delete", "pinned", &frontends, "key"], &key);
    deadline::until_true("the row to be back", || {
        dial(&scene, vip(Family::V4, 1, 80)).is_some_and(|who| who != "balancer")
    });
    let link = std::fs::read_dir(pins.join("links")).expect("the pins are there");
    let links: Vec<_> = link.map(|entry| entry.expect("a pin").path().display().to_string()).collect();
    for link in links {
        bpftool(&["link", "detach", "pinned", &link], &[]);
    }
    assert_eq!(dial(&scene, vip(Family::V4, 1, 80)).as_deref(), Some("balancer"), "nothing was detached");
    deadline::until_true("the programs to be back", || {
        dial(&scene, vip(Family::V4, 1, 80)).is_some_and(|who| who != "balancer")
    });
    assert!(scene.agent.log().contains("audit: the tables differ from what was written"), "{}", scene.agent.log());
}

#[track_caller]
fn bpftool(words: &[&str], more: &[String]) {
    let output = Command::new("bpftool").args(words).args(more).output().expect("bpftool is installed");
    assert!(output.status.success(), "bpftool {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn refusals_say_why() {
    let scene = Scene::start(Setup::new("oprefuse"));
    let folder = scene.lab.folder().join("second");
    std::fs::create_dir(&folder).expect("the temporary folder is writable");
    let second = |netns, flags: &[&str]| {
        let mut agent = Agent::new(netns, &folder, scene.manifests.path()).pins(scene.agent.pin_path()).flags(flags);
        agent.spawn();
        let (code, said) = agent.refused();
        assert_eq!(code, Some(1), "{said}");
        said
    };
    let said = second(&scene.lab.node, &["--http", "127.0.0.1:0"]);
    assert!(said.contains("another agent runs"), "{said}");
    let said = second(&scene.lab.node, &[]);
    assert!(said.contains("--http") && said.contains("choose another"), "{said}");
    let mut scene = scene;
    scene.agent.terminate();
    let mut elsewhere = Agent::new(&scene.lab.external, &folder, scene.manifests.path()).pins(scene.agent.pin_path());
    elsewhere.spawn();
    let (code, said) = elsewhere.refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("belong to another network namespace"), "{said}");
}

#[test]
fn exit_codes_are_a_contract() {
    let run = |line: &str| {
        let output = Command::new(agent::program()).args(line.split(' ')).output().expect("the agent starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (line, code, word) in [
        ("--help", 0, ""),
        ("--version", 0, ""),
        ("run --help", 0, ""),
        ("run", 2, "--source"),
        ("run --source x", 2, "--source"),
        ("run --source dir:/x --udp-secs none", 2, "--udp-secs"),
        ("frobnicate", 2, "frobnicate"),
        ("run --source kube", 1, "--kubeconfig"),
        ("run --source dir:/x --services none", 2, "--services"),
        ("run --source dir:/nonexistent/folder --http 127.0.0.1:0", 1, "/nonexistent/folder"),
        ("show frontends --pin-path /sys/fs/bpf/lb-nothing-here", 1, "lb-agent run"),
        ("explain --from 10.0.0.1 --to [2001:db8::1]:80/tcp", 1, "families"),
    ] {
        let (found, said) = run(line);
        assert_eq!(found, Some(code), "{line}: {said}");
        assert!(said.contains(word), "{line}: {said}");
    }
}

/// `check` finds other software, and changes nothing.
#[test]
fn check_looks_and_changes_nothing() {
    let scene = Scene::start(Setup::new("opcheck"));
    let findings = || {
        let rows = scene.agent.findings();
        move |check: &str| {
            let row = rows.iter().find(|row| row["check"] == check);
            row.map(|row| (row["verdict"].clone(), row["found"].as_str().unwrap_or_default().to_owned()))
        }
    };
    let state = || {
        let node = &scene.lab.node;
        let links = node.run("ip", &["-details", "link", "show"]);
        let rules = node.run("nft", &["list", "ruleset"]);
        let pins = Command::new("find").arg(scene.agent.pin_path()).output().expect("find is installed").stdout;
        (links, rules, pins)
    };
    let before = state();
    let found = findings();
    assert_eq!(found("kube-proxy").map(|(verdict, _)| verdict), Some("ok".into()));
    assert!(found("pins").is_some_and(|(_, found)| found.contains("an agent runs on it")));
    assert!(found("interfaces").is_some_and(|(_, found)| found.contains(&scene.lab.pod("a").interface)));
    assert_eq!(found("tcx-programs"), None, "our own programs are no company");
    assert_eq!(state(), before);
    scene.lab.node.nft("table ip nat { chain KUBE-SERVICES { }; }");
    assert!(findings()("kube-proxy").is_some_and(|(_, found)| found.contains("iptables mode")));
    scene.lab.node.nft("table ip kube-proxy { chain services { }; }");
    assert!(findings()("kube-proxy").is_some_and(|(_, found)| found.contains("nftables mode")));
    // It says what both claim, and how to go on, only if the agent serves all Services: tests/netns/hand_over.rs.
    assert_eq!(findings()("hand-over"), None);
    assert_eq!(findings()("ipvs").map(|(verdict, _)| verdict), Some("ok".into()));
    scene.lab.node.ip(&["link add kube-ipvs0 type bridge"]);
    assert_eq!(findings()("ipvs").map(|(verdict, _)| verdict), Some("warn".into()));
}
