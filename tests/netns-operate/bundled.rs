//! `bundle`: what a report of a fault has, with and without an agent. The log of this agent is JSON.

use std::collections::BTreeMap;
use std::process::Command;

use lb_tests::address::{Family, vip};
use lb_tests::agent;
use lb_tests::lab::Setup;
use lb_tests::scene::Scene;
use serde_json::Value;

const SECRET: &str = "c2VjcmV0LXRva2Vu";

/// The files of a new bundle, and what was said about them.
fn bundle(scene: &Scene, flags: &[&str]) -> (BTreeMap<String, String>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let archive = folder.path().join("bundle.tar.gz");
    let mut command = Command::new(agent::program());
    command.arg("bundle").args(flags).arg("--pin-path").arg(scene.agent.pin_path()).arg("--output").arg(&archive);
    command.env_remove("LB_AGENT_BIN").env("LB_AGENT_EXAMPLE", "kept").env("SOME_TOKEN", SECRET);
    let output = scene.lab.node.inside(|| command.output()).expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let unpacked = Command::new("tar").arg("xzf").arg(&archive).arg("-C").arg(folder.path()).status();
    assert!(unpacked.expect("tar is installed").success());
    let top = folder.path().join("lb-agent-bundle");
    let mut files = BTreeMap::new();
    for line in said.lines().filter(|line| line.starts_with(' ')).skip(1) {
        let name = line.split_whitespace().nth(1).expect("a name");
        files.insert(name.to_owned(), std::fs::read_to_string(top.join(name)).expect("it is listed"));
    }
    (files, said)
}

#[test]
fn a_bundle_has_what_a_report_needs_and_no_secrets() {
    let mut scene = Scene::with_flags(Setup::new("opbundle"), &["--log-format", "json", "--udp-secs", "2m"]);
    scene.publish("orchid", 71, "VIP", &["a"]);
    scene.expect_all(vip(Family::V4, 71, 80), &["a"]);
    let (files, said) = bundle(&scene, &[]);
    assert!(said.contains("wrote ") && !said.contains("no agent answers"), "{said}");
    assert!(files["version.txt"].starts_with("lb-agent 0."), "{}", files["version.txt"]);
    assert_eq!(files["environment.txt"], "LB_AGENT_EXAMPLE=kept\n");
    assert!(files["agent/config.yaml"].contains("\nudp-secs: 120  # flag\n"), "{}", files["agent/config.yaml"]);
    assert!(files["agent/metrics.txt"].contains("lb_agent_ready 1"));
    let frontends: Value = serde_json::from_str(&files["show/frontends.json"]).expect("JSON");
    assert!(frontends.to_string().contains("default/orchid:web"), "{frontends}");
    let checked: Value = serde_json::from_str(&files["check.json"]).expect("JSON");
    assert!(checked.to_string().contains("the agent listens at 127.0.0.1:10356"), "{checked}");
    // The log that the agent keeps is the one that it writes: each line is an object.
    assert!(scene.agent.log().starts_with(&files["agent/log.txt"]));
    let lines: Vec<Value> = scene.agent.log().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().any(|line| line["message"] == "ready" && line["level"] == "info"), "{lines:?}");
    assert!(lines.iter().all(|line| line["target"].as_str().is_some_and(|name| name.starts_with("lb_agent"))));
    let pins = &files["pins.txt"];
    assert!(pins.contains("/maps/frontends4\n") && scene.agent.maps().exists(), "{pins}");
    for (name, text) in &files {
        assert!(!text.contains(SECRET), "{name}");
    }
    let (redacted, said) = bundle(&scene, &["--redact"]);
    let address = vip(Family::V4, 71, 80).ip().to_string();
    for (name, text) in redacted.iter().chain([(&"list".to_owned(), &said)]) {
        assert!(!text.contains(&address) && !text.contains("orchid"), "{name}: {text}");
    }
    serde_json::from_str::<Value>(&redacted["show/frontends.json"]).expect("it is still JSON");
    // Without an agent and without pins, the reasons are there.
    scene.agent.terminate();
    scene.agent.unload();
    let (files, said) = bundle(&scene, &[]);
    assert!(said.contains("agent/log.txt  (no agent answers at 127.0.0.1:10356"), "{said}");
    assert!(files["show/frontends.json"].contains("no dataplane is pinned"), "{}", files["show/frontends.json"]);
}
