//! The systemd unit of the stand-alone balancer: systemd accepts it, and it grants what the DaemonSet grants, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use lb_tests::agent;
use serde_json::Value;

use super::{DEPLOY, container};

fn unit() -> String {
    fs::read_to_string(format!("{DEPLOY}/systemd/lb-agent.service")).expect("it is there")
}

/// The words of a setting.
fn words(setting: &str) -> Vec<String> {
    let unit = unit();
    let line = unit.lines().find_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).expect("it is set");
    line.split_whitespace().map(str::to_owned).collect()
}

#[track_caller]
fn analysed(arguments: &[&str]) -> String {
    let output = Command::new("systemd-analyze").args(arguments).output().expect("cargo xtask setup installs it");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "systemd-analyze {arguments:?}: {stdout}{stderr}");
    stdout.into_owned()
}

#[test]
fn systemd_accepts_the_unit_and_rates_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("lb-agent.service");
    // The program of the package is not on this machine.
    fs::write(&path, unit().replace("/usr/sbin/lb-agent", "/bin/true")).expect("the folder is writable");
    let path = path.display().to_string();
    let output =
        Command::new("systemd-analyze").args(["verify", &path]).output().expect("cargo xtask setup installs it");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains(&path), "{complaints}");
    analysed(&["security", "--offline=true", "--threshold=26", "--no-pager", &path]);
}

#[test]
fn the_unit_has_the_rights_of_the_daemon_set() {
    let capabilities = container().security_context.and_then(|security| security.capabilities).expect("they are named");
    let named: BTreeSet<String> =
        capabilities.add.unwrap_or_default().iter().map(|name| format!("CAP_{name}")).collect();
    assert_eq!(words("CapabilityBoundingSet").into_iter().collect::<BTreeSet<_>>(), named);
    // What the agent calls, as tests with that profile have found, systemd lets it call.
    let profile = fs::read(format!("{DEPLOY}/seccomp/lb-agent.json")).expect("it is there");
    let profile: Value = serde_json::from_slice(&profile).expect("JSON");
    let rules = profile["syscalls"].as_array().into_iter().flatten();
    let called = rules.flat_map(|rule| rule["names"].as_array().into_iter().flatten()).filter_map(Value::as_str);
    let sets = sets();
    let mut allowed = BTreeSet::new();
    for word in words("SystemCallFilter") {
        expand(&word, &sets, &mut allowed);
    }
    let refused: Vec<&str> = called.filter(|name| !allowed.contains(*name)).collect();
    assert!(refused.is_empty(), "{refused:?}");
}

/// systemd's sets of system calls, by name.
fn sets() -> BTreeMap<String, Vec<String>> {
    // It also complains of what it cannot find of the kernel.
    let text = analysed(&["syscall-filter", "--no-pager"]);
    let mut sets = BTreeMap::<String, Vec<String>>::new();
    let mut last = String::new();
    for line in text.lines() {
        if line.starts_with('@') {
            line.clone_into(&mut last);
        } else if !line.trim().is_empty() && !line.trim().starts_with('#') {
            sets.entry(last.clone()).or_default().push(line.trim().to_owned());
        }
    }
    sets
}

fn expand(word: &str, sets: &BTreeMap<String, Vec<String>>, calls: &mut BTreeSet<String>) {
    match sets.get(word) {
        Some(words) => {
            for word in words {
                expand(word, sets, calls);
            }
        }
        None => drop(calls.insert(word.to_owned())),
    }
}

#[test]
fn the_settings_of_the_package_are_settings() {
    let settings = format!("{DEPLOY}/systemd/config.yaml");
    let start = words("ExecStart");
    assert_eq!(&start[1..], ["run", "--config", "/etc/lb-agent/config.yaml"]);
    let output = Command::new(agent::program()).args(["run", "--config", &settings, "--print-config"]).output();
    let output = output.expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
