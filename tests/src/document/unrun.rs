//! Commands that a page shows and the tests cannot run: each is checked as far as the repository knows it.
//!
//! A program that is not in the table below is refused: either it can be run, or a check for it is missing here.

use std::fs;
use std::path::Path;

use clap::Parser as _;
use clap::error::ErrorKind;
use lb_agent::args::CommandLine;
use serde_json::Value;

use super::top;

/// Programs of a system, of which only the files of the repository that they name are checked.
const OF_THE_SYSTEM: &[&str] = &[
    "apt",
    "apt-get",
    "buildah",
    "cat",
    "chown",
    "conntrack",
    "cp",
    "ctr",
    "curl",
    "docker",
    "dpkg",
    "echo",
    "git",
    "grep",
    "head",
    "helm",
    "install",
    "journalctl",
    "jq",
    "less",
    "ls",
    "man",
    "mkdir",
    "podman",
    "prlimit",
    "promtool",
    "rm",
    "scp",
    "sed",
    "skopeo",
    "sort",
    "ssh",
    "systemctl",
    "tail",
    "tar",
    "tee",
    "vi",
];

/// Verbs of kubectl that pages use.
const KUBECTL: &[&str] = &[
    "annotate",
    "apply",
    "cp",
    "create",
    "debug",
    "delete",
    "describe",
    "diff",
    "exec",
    "explain",
    "get",
    "kustomize",
    "label",
    "logs",
    "patch",
    "port-forward",
    "rollout",
    "set",
    "wait",
];

/// Folders of the repository, in arguments.
const FOLDERS: &[&str] = &["deploy", "docs", "tests", "lb-agent", "xtask"];

/// Says what is wrong with a command that is not run.
pub fn check(command: &str) -> Result<(), String> {
    for part in parts(command)? {
        let words: Vec<&str> = part.iter().map(String::as_str).collect();
        check_part(&words).map_err(|error| format!("{}: {error}", words.join(" ")))?;
        let paths = words.iter().filter(|word| FOLDERS.iter().any(|folder| word.split('/').next() == Some(folder)));
        let missing = paths.map(|path| path.trim_end_matches('/')).find(|path| !top().join(path).exists());
        if let Some(path) = missing.filter(|path| path.contains('/') || words.contains(&"-k")) {
            return Err(format!("{path} does not exist"));
        }
    }
    Ok(())
}

/// The words of each command of a pipe or list.
fn parts(command: &str) -> Result<Vec<Vec<String>>, String> {
    let words = shlex::split(command).ok_or_else(|| format!("{command}: the quotes do not match"))?;
    let parts = words.split(|word| matches!(word.as_str(), "|" | "&&" | "||" | ";" | "&"));
    Ok(parts.filter(|part| !part.is_empty()).map(<[String]>::to_vec).collect())
}

fn check_part(words: &[&str]) -> Result<(), String> {
    // Comments, variables before the program, and sudo say nothing about it.
    let end = words.iter().position(|word| word.starts_with('#')).unwrap_or(words.len());
    let is_before = |word: &&str| *word == "sudo" || word.split_once('=').is_some_and(|(name, _)| is_variable(name));
    let words = &words[words[..end].iter().take_while(|word| is_before(word)).count()..end];
    let Some((program, arguments)) = words.split_first() else { return Err("it is empty".into()) };
    match *program {
        "cargo" => check_cargo(arguments),
        "kubectl" => check_kubectl(arguments),
        _ if program.rsplit('/').next() == Some("lb-agent") => check_agent(arguments),
        _ if OF_THE_SYSTEM.contains(program) => Ok(()),
        _ => Err(format!("{program} can be run, or needs a check ({})", file!())),
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Parses the arguments as the agent does.
fn check_agent(arguments: &[&str]) -> Result<(), String> {
    // What follows belongs to the shell.
    let shell = arguments.iter().position(|word| word.starts_with(['>', '<']) || word.starts_with("2>"));
    let line = ["lb-agent"].iter().chain(&arguments[..shell.unwrap_or(arguments.len())]);
    match CommandLine::try_parse_from(line) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn check_cargo(arguments: &[&str]) -> Result<(), String> {
    match arguments {
        ["xtask", task, ..] if tasks().contains(&(*task).to_owned()) => Ok(()),
        ["xtask", task, ..] => Err(format!("there is no task {task}")),
        ["build" | "test" | "check" | "clippy" | "run" | "fmt" | "doc", options @ ..] => {
            let named = |flag| options.iter().skip_while(move |word| **word != flag).nth(1);
            let package = named("-p").filter(|package| !is_package(package));
            let manifest = fs::read_to_string(top().join("tests/Cargo.toml")).expect("it is there");
            let test = named("--test").filter(|test| !manifest.contains(&format!("name = \"{test}\"")));
            package.or(test).map_or(Ok(()), |unknown| Err(format!("the workspace has no {unknown}")))
        }
        _ => Err("of cargo, only builds, tests and xtask are known".into()),
    }
}

fn is_package(name: &str) -> bool {
    let folder = if name == "lb-tests" { "tests" } else { name };
    top().join(folder).join("Cargo.toml").exists()
}

/// The names of the tasks of xtask, which is no library: as clap derives them from its enum.
fn tasks() -> Vec<String> {
    let text = fs::read_to_string(top().join("xtask/src/main.rs")).expect("it is there");
    let body = text.split_once("enum Task {").and_then(|(_, rest)| rest.split_once("\n}")).expect("it has tasks").0;
    let names = body.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['/', '#']));
    names.map(|line| line.split(['(', ',', ' ']).next().unwrap_or_default().to_lowercase()).collect()
}

fn check_kubectl(arguments: &[&str]) -> Result<(), String> {
    let mut words = arguments.iter();
    let verb = loop {
        match words.next() {
            Some(&"-n" | &"--namespace" | &"--context") => drop(words.next()),
            Some(word) if word.starts_with('-') => {}
            Some(word) => break *word,
            None => return Err("it has no verb".into()),
        }
    };
    if !KUBECTL.contains(&verb) {
        return Err(format!("kubectl {verb} is not known here ({})", file!()));
    }
    for pair in arguments.windows(2) {
        match pair {
            ["-f" | "-k" | "--patch-file", path] if !is_elsewhere(path) && !top().join(path).exists() => {
                return Err(format!("{path} does not exist"));
            }
            ["-p" | "--patch", patch] => {
                serde_yaml_ng::from_str::<Value>(patch).map_err(|error| format!("{patch}: {error}"))?;
            }
            _ => {}
        }
    }
    match arguments.iter().position(|word| *word == "--") {
        Some(at) if arguments.get(at + 1).is_some_and(|word| word.rsplit('/').next() == Some("lb-agent")) => {
            check_agent(&arguments[at + 2..])
        }
        _ => Ok(()),
    }
}

/// Whether an argument is no file of the repository.
fn is_elsewhere(path: &str) -> bool {
    path == "-" || path.contains("://") || Path::new(path).is_absolute() || path.starts_with("lb-agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_the_repository_knows_are_accepted() {
        for command in [
            "cargo xtask test --unprivileged",
            "cargo build --release -p lb-agent && sudo target/release/lb-agent check",
            "cargo test -p lb-tests --test netns -- flips",
            "RUST_LOG=debug lb-agent run --source kube > log",
            "kubectl apply -k deploy",
            "kubectl -n kube-system patch daemonset lb-agent --patch-file deploy/seccomp/localhost.yaml",
            "kubectl -n kube-system exec lb-agent-x2x1z -- /lb-agent show frontends | head -3",
            "kubectl patch ds x --type=json -p '[{\"op\": \"remove\", \"path\": \"/a\"}]'",
            "lb-agent run --help | less",
        ] {
            check(command).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn others_are_refused() {
        for command in [
            "cargo xtask tests",
            "cargo install x",
            "cargo test -p lb-test",
            "cargo test -p lb-tests --test netnses",
            "lb-agent run --sauce kube",
            "lb-agent shows frontends",
            "kubectl apply -f deploy/daemon-set.yaml",
            "kubectl aply -k deploy",
            "kubectl patch ds x -p '[{'",
            "kubectl exec x -- /lb-agent explian",
            "cp deploy/none.yaml /tmp",
            "frobnicate",
            "echo 'open",
        ] {
            assert!(check(command).is_err(), "{command}");
        }
    }
}
