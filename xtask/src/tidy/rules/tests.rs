//! Shows that each rule notices a seeded violation and accepts what is allowed.

use super::*;

/// The violations in this text at this path, without the first line.
fn wrong(path: &str, text: &str) -> Vec<String> {
    let text = format!("//! Guarantees something.\n{text}");
    let source = Source::parse(path, &text).expect("valid Rust");
    super::source(&source).into_iter().map(|violation| format!("{}: {}", violation.line, violation.what)).collect()
}

/// Asserts that exactly one rule is broken, at line 2, and that the message says `part`.
fn assert_wrong(path: &str, text: &str, part: &str) {
    let found = wrong(path, text);
    assert!(found.len() == 1 && found[0].starts_with("2: ") && found[0].contains(part), "{path}: {found:?}");
}

#[test]
fn a_file_begins_with_its_promise() {
    let source = Source::parse("lb-agent/src/plan.rs", "use core::fmt;\n").expect("valid Rust");
    assert_eq!(super::source(&source).len(), 1);
}

#[test]
fn a_file_is_not_too_long() {
    assert!(wrong("tests/netns.rs", &"\n".repeat(LINES_MAX - 1)).is_empty());
    assert_eq!(wrong("tests/netns.rs", &"\n".repeat(LINES_MAX)).len(), 1);
}

#[test]
fn unsafe_stands_in_listed_files_only() {
    let text = "fn f() { unsafe { g() } }";
    assert_wrong("lb-agent/src/plan.rs", text, "unsafe");
    assert_wrong("lb-common/src/addr.rs", text, "unsafe");
    assert!(wrong("lb-ebpf/src/skb.rs", text).is_empty());
    assert!(wrong("lb-agent/src/plan.rs", "// unsafe\nfn f() -> &'static str { \"unsafe\" }").is_empty());
}

#[test]
fn unfinished_code_does_not_land() {
    assert_wrong("lb-agent/src/plan.rs", "fn f() { todo!() }", "todo!");
    assert_wrong("lb-agent/src/plan.rs", "fn f() { unimplemented!() }", "unimplemented!");
    assert_wrong("tests/netns.rs", "#[ignore] #[test] fn f() {}", "#[ignore]");
    assert_wrong("tests/netns.rs", "#[ignore = \"slow\"] #[test] fn f() {}", "#[ignore]");
    assert!(wrong("lb-agent/src/plan.rs", "fn todo(ignore: u8) {}").is_empty());
}

#[test]
fn only_the_dataplane_names_aya() {
    assert_wrong("lb-agent/src/show.rs", "use aya::maps::HashMap;", "one door");
    assert_wrong("lb-agent/src/run.rs", "fn f() { aya_obj::btf::f() }", "one door");
    assert!(wrong("lb-agent/src/dataplane/bpf.rs", "use aya::maps::HashMap;").is_empty());
    assert!(wrong("lb-agent/src/show.rs", "use crate::aya::maps;").is_empty());
}

#[test]
fn only_the_source_names_kubernetes() {
    assert_wrong("lb-agent/src/desired.rs", "use k8s_openapi::api::core::v1::Service;", "source/");
    assert!(wrong("lb-agent/src/source/convert.rs", "use k8s_openapi::api::core::v1::Service;").is_empty());
}

#[test]
fn the_core_is_pure() {
    for text in [
        "use std::time::{Duration, Instant};",
        "use tokio::{sync, time};",
        "fn f() { std::fs::read(\"x\"); }",
        "use std::{collections::BTreeMap, thread::sleep};",
    ] {
        assert_wrong("lb-agent/src/desired/frontend.rs", text, "pure");
    }
    assert!(wrong("lb-agent/src/plan.rs", "use std::time::Duration;\nuse std::net::IpAddr;").is_empty());
}

#[test]
fn environment_and_tasks_have_one_place() {
    assert_wrong("lb-agent/src/config.rs", "fn f() { std::env::var(\"NODE_NAME\"); }", "args.rs");
    assert!(wrong("lb-agent/src/args.rs", "use std::env;").is_empty());
    assert_wrong("lb-agent/src/http.rs", "fn f() { tokio::spawn(g()); }", "run.rs");
    assert!(wrong("lb-agent/src/run.rs", "fn f() { tokio::spawn(g()); }").is_empty());
    assert!(wrong("lb-agent/src/http/tests.rs", "fn f() { tokio::spawn(g()); }").is_empty());
}

#[test]
fn lb_common_stays_lean() {
    assert_wrong("lb-common/src/packet.rs", "use std::vec::Vec;", "compiled for the kernel");
    assert!(wrong("lb-common/src/host/rows.rs", "use std::vec::Vec;").is_empty());
    assert_wrong("lb-ebpf/src/tables.rs", "use lb_common::host::Host;", "in memory");
    assert!(wrong("lb-common/src/packet.rs", "#[cfg(test)]\nmod tests { use std::vec::Vec; }").is_empty());
    let manifest =
        "[package]\nname = \"lb-common\"\n[dependencies]\n# lexer\nzerocopy = \"0.8\"\naya.workspace = true\n";
    let found = lean_manifest(manifest);
    assert_eq!((found.len(), found[0].line), (1, 6), "{found:?}");
}

#[test]
fn test_programs_have_one_scheme_of_names() {
    let wrong = |text: &str| test_programs(text).into_iter().map(|violation| violation.line).collect::<Vec<_>>();
    assert_eq!(wrong("[[test]]\nname = \"netns_ip\"\npath = \"netns_ip.rs\"\n"), [2]);
    assert_eq!(wrong("[[test]]\nname = \"netns-ip\"\npath = \"netns_ip.rs\"\n"), [3]);
    let right =
        "[[bin]]\nname = \"a_b\"\npath = \"x.rs\"\n[[test]]\nname = \"netns-ip\"\npath = \"netns-ip/main.rs\"\n";
    assert!(wrong(right).is_empty());
}

#[test]
fn xtask_knows_no_crate_of_the_project() {
    assert_wrong("xtask/src/verify.rs", "use lb_common::table::name;", "before the project");
}

#[test]
fn names_mean_something() {
    for path in ["lb-agent/src/utils.rs", "tests/src/test_helpers.rs", "xtask/src/common.rs"] {
        assert_eq!(name(path).len(), 1, "{path}");
    }
    for path in ["log", "scratch/notes.md", "src/main.rs"] {
        assert_eq!(name(path).len(), 1, "{path}");
    }
    for path in
        ["lb-agent/src/dataplane.rs", "lb-common/src/addr.rs", "lb-agent/src/information.rs", ".ci/run", "Cargo.lock"]
    {
        assert!(name(path).is_empty(), "{path}");
    }
}
