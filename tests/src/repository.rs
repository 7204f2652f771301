//! The files around the code: the manifests of the crates, hosted CI, licences, and the pages that a repository has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use clap::{CommandFactory as _, ValueEnum};
use lb_agent::args::{CommandLine, Subject};
use serde_json::Value;

use crate::document::{self, Step, pages, top};

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn every_crate_says_what_it_is() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(top()).args(["metadata", "--no-deps", "--offline", "--format-version=1"]);
    let said = cargo.output().expect("cargo runs the tests").stdout;
    let said: Value = serde_json::from_slice(&said).expect("it prints JSON");
    let crates = said["packages"].as_array().expect("a list");
    assert_eq!(crates.len(), 5);
    for about in crates {
        let name = &about["name"];
        assert!(about["description"].as_str().is_some_and(|text| text.len() > 20), "{name}: {}", about["description"]);
        assert_eq!(about["license"], "MIT OR Apache-2.0", "{name}");
        assert!(about["readme"].as_str().is_some_and(|path| path.ends_with("README.md")), "{name}");
        for list in ["keywords", "categories"] {
            assert!(about[list].as_array().is_some_and(|items| (1..=5).contains(&items.len())), "{name}: {list}");
        }
        // The crates are parts of one program; and where it is published, no address is known that would stay true.
        assert_eq!((&about["publish"], &about["repository"]), (&Value::Array(Vec::new()), &Value::Null), "{name}");
    }
}

#[test]
fn both_licences_are_there() {
    assert!(read("docs/LICENSE-MIT").contains("Permission is hereby granted, free of charge"));
    assert!(read("docs/LICENSE-APACHE").contains("Version 2.0, January 2004"));
}

/// Who begins at the README or at the list of documents finds every page.
#[test]
fn every_page_is_linked() {
    let all = pages();
    let mut found = BTreeSet::new();
    let mut next = vec!["docs/README.md".to_owned()];
    while let Some(page) = next.pop() {
        let folder = Path::new(&page).parent().expect("a file is in a folder").to_owned();
        let text = read(&page);
        if !found.insert(page) {
            continue;
        }
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let paths = targets.filter_map(|target| top().join(&folder).join(target).canonicalize().ok());
        let names = paths.filter_map(|path| Some(path.strip_prefix(top()).ok()?.to_string_lossy().into_owned()));
        next.extend(names.filter(|name| all.contains(name)));
    }
    let lost: Vec<_> = all.iter().filter(|page| !found.contains(*page)).collect();
    assert!(lost.is_empty(), "no page leads to {lost:?}: link them from docs/README.md");
}

/// Each subcommand, and each subject of `show`, is among the commands that pages run.
#[test]
fn every_subcommand_is_run_by_a_page() {
    let mut runs = Vec::new();
    for page in pages() {
        let steps = document::read(&read(&page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        runs.extend(steps.into_iter().filter_map(|step| match step {
            Step::Run(command) => shlex::split(&command.text),
            _ => None,
        }));
    }
    let is_run = |wanted: &[&str]| {
        let calls = runs.iter().flat_map(|words| words.windows(wanted.len() + 1));
        let is_ours = |program: &str| program.rsplit('/').next() == Some("lb-agent");
        calls.into_iter().any(|call| is_ours(&call[0]) && call[1..] == *wanted)
    };
    let command = CommandLine::command();
    let subcommands: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    let subjects = Subject::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let subjects: Vec<String> = subjects.map(|subject| subject.get_name().to_owned()).collect();
    assert!(subcommands.len() > 8 && subjects.len() > 8, "{subcommands:?} {subjects:?}");
    let shown = subjects.iter().map(|subject| vec!["show", subject]);
    let all = subcommands.into_iter().filter(|name| *name != "show").map(|name| vec![name]).chain(shown);
    let unrun: Vec<_> = all.filter(|words| !is_run(words)).collect();
    assert!(unrun.is_empty(), "no page of the documents runs {unrun:?}");
}

/// Hosted CI does what `.ci/run` does, and nothing beside.
#[test]
fn hosted_ci_runs_the_line_of_ci() {
    let workflow: Value = serde_yaml_ng::from_str(&read(".github/workflows/ci.yml")).expect("valid YAML");
    let jobs = workflow["jobs"].as_object().expect("it has jobs");
    let steps = jobs.values().flat_map(|job| job["steps"].as_array().expect("a job has steps"));
    let runs: Vec<&Value> = steps.map(|step| &step["run"]).filter(|run| !run.is_null()).collect();
    assert_eq!(runs, [".ci/run"]);
    assert_eq!(workflow["permissions"], serde_json::json!({"contents": "read"}));
    let minutes = jobs["test"]["timeout-minutes"].as_u64();
    assert!(minutes.is_some_and(|minutes| (60..=180).contains(&minutes)), "{minutes:?}");
    assert!(read(".ci/run").lines().any(|line| line == "exec cargo xtask test"));
    // The image brings the compiler that the crates ask for.
    let version = read("Cargo.toml");
    let version = version.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("it is said");
    let image = jobs["test"]["container"]["image"].as_str().expect("an image");
    assert!(image.contains(&format!(":{}-", version.trim_matches('"'))), "{image}");
}
