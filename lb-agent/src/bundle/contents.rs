//! What is collected, from this program itself, from the running agent and from the system.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum as _;

use super::part::Part;
use crate::args::{self, BundleArgs, Subject};
use crate::ask;
use crate::dataplane::links::interface_name;
use crate::dataplane::pins::PinPath;
use crate::guard::Table;
use crate::version;

/// A longer text is left out: a table of flows may have hundreds of thousands of rows.
const PART_BYTES_MAX: usize = 32 << 20;

/// Pages of the agent, with the names of their files.
const PAGES: [(&str, &str); 8] = [
    ("config", "agent/config.yaml"),
    ("logs", "agent/log.txt"),
    ("metrics", "agent/metrics.txt"),
    ("readyz", "agent/readyz.txt"),
    ("healthz", "agent/healthz.txt"),
    ("services", "agent/services.json"),
    ("interfaces", "agent/interfaces.json"),
    ("warnings", "agent/warnings.json"),
];

/// Files of the kernel.
const FILES: [(&str, &str); 6] = [
    ("/proc/version", "system/kernel.txt"),
    ("/proc/self/mounts", "system/mounts.txt"),
    ("/proc/self/status", "system/process.txt"),
    ("/proc/meminfo", "system/memory.txt"),
    ("/proc/net/dev", "system/interfaces.txt"),
    ("/proc/net/snmp", "system/snmp.txt"),
];

/// Settings that traffic depends on.
const SETTINGS: [&str; 8] = [
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/ip_local_reserved_ports",
    "net/core/bpf_jit_enable",
    "net/bridge/bridge-nf-call-iptables",
    "kernel/unprivileged_bpf_disabled",
];

/// Programs of others, which a small image does not have. The rules of the node itself are not collected: only the
/// names of the tables, and our own.
const PROGRAMS: [(&str, &[&str], &str); 6] = [
    ("ip", &["-details", "-statistics", "address"], "system/ip-address.txt"),
    ("ip", &["route", "show", "table", "all"], "system/ip-route.txt"),
    ("ip", &["rule"], "system/ip-rule.txt"),
    ("nft", &["list", "tables"], "system/nft-tables.txt"),
    ("tc", &["qdisc", "show"], "system/tc-qdisc.txt"),
    ("bpftool", &["net", "show"], "system/bpf-net.txt"),
];

pub fn collect(args: &BundleArgs) -> Vec<Part> {
    let mut parts = vec![part("version.txt", Ok(format!("lb-agent {}\n", version::long())))];
    parts.push(part("environment.txt", Ok(environment())));
    parts.push(own(args, &["check", "-o", "json"], "check.json"));
    for subject in Subject::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value) {
        let name = subject.get_name();
        parts.push(own(args, &["show", name, "-o", "json"], &format!("show/{name}.json")));
    }
    parts.push(own(args, &["unload", "--dry-run"], "pins.txt"));
    for (page, name) in PAGES {
        parts.push(part(name, ask::page(args.http.http, page).map_err(|error| format!("{error:#}"))));
    }
    for (path, name) in FILES {
        parts.push(part(name, std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))));
    }
    parts.push(part("system/settings.txt", Ok(settings())));
    for (program, words, name) in PROGRAMS {
        parts.push(part(name, output(Command::new(program).args(words), program)));
    }
    parts.extend(filters(&args.pins.pin_path));
    let guard = Table::of_pins(&args.pins.pin_path);
    let list = output(Command::new("nft").args(["list", "table", "inet", &guard.name()]), "nft");
    parts.push(part("system/nft-guard.txt", list));
    parts
}

/// The classifiers of all interfaces that have one of ours.
fn filters(pin_path: &Path) -> Vec<Part> {
    let attached = crate::dataplane::removal::Removal::of(PinPath::new(pin_path).root());
    let indices = attached.map(|removal| removal.filters.iter().map(|filter| filter.ifindex).collect());
    let indices: std::collections::BTreeSet<u32> = indices.unwrap_or_default();
    let of = |index: u32| {
        let name = interface_name(index).unwrap_or_else(|| format!("if{index}"));
        let hooks = ["ingress", "egress"].map(|hook| {
            output(Command::new("tc").args(["filter", "show", "dev", &name, hook]), "tc").unwrap_or_else(|error| error)
        });
        part(&format!("system/tc-{name}.txt"), Ok(hooks.concat()))
    };
    indices.into_iter().map(of).collect()
}

/// The output of a subcommand of this program, on the same pins and agent.
fn own(args: &BundleArgs, words: &[&str], name: &str) -> Part {
    let mut command = Command::new("/proc/self/exe");
    command.args(words).arg("--pin-path").arg(&args.pins.pin_path);
    if words[0] == "show" {
        command.arg("--http").arg(args.http.http.to_string());
    }
    let said = command.output();
    let said = match said {
        Ok(said) => said,
        Err(error) => return part(name, Err(error.to_string())),
    };
    let [text, problem] = [&said.stdout, &said.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    match (text.is_empty(), said.status.success()) {
        (_, true) => part(name, Ok(text)),
        (true, false) => part(name, Err(problem)),
        // `check` prints its findings and fails.
        (false, false) => Part { problem: Some(first_line(&problem)), ..part(name, Ok(text)) },
    }
}

fn output(command: &mut Command, program: &str) -> Result<String, String> {
    let said = command.output().map_err(|error| format!("{program}: {error}"))?;
    let [text, problem] = [&said.stdout, &said.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if said.status.success() { Ok(text) } else { Err(format!("{program}: {problem}")) }
}

fn part(name: &str, text: Result<String, String>) -> Part {
    let name = name.to_owned();
    match text {
        Ok(text) if text.len() > PART_BYTES_MAX => {
            let problem = format!("{} bytes are too many, left out", text.len());
            Part { name, text: format!("{problem}\n"), problem: Some(problem) }
        }
        Ok(text) => Part { name, text, problem: None },
        Err(error) => Part { name, problem: Some(first_line(&error)), text: format!("{}\n", error.trim_end()) },
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn environment() -> String {
    let line = |(name, value): (String, String)| format!("{name}={value}\n");
    args::environment().into_iter().map(line).collect()
}

fn settings() -> String {
    SETTINGS.iter().fold(String::new(), |mut text, name| {
        let value = std::fs::read_to_string(format!("/proc/sys/{name}"));
        let value = value.map_or_else(|error| format!("({error})"), |value| value.trim().to_owned());
        let _ = writeln!(text, "{} = {value}", name.replace('/', "."));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_there_as_its_error() {
        let absent = part("x", Err("no agent answers\nmore".into()));
        assert_eq!((&*absent.text, absent.problem.as_deref()), ("no agent answers\nmore\n", Some("no agent answers")));
        let long = part("x", Ok("x".repeat(PART_BYTES_MAX + 1)));
        assert!(long.text.len() < 100 && long.problem.is_some());
        let program = output(&mut Command::new("/nonexistent/tool"), "tool").expect_err("there is none");
        assert!(program.starts_with("tool: "), "{program}");
        assert!(settings().lines().count() == SETTINGS.len() && settings().contains("net.ipv4.ip_forward = "));
    }
}
