//! The files around the code: the manifests of the crates, hosted CI, licences, and the pages that a repository has.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::document::top;

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
