//! The IDs of the contract (docs/contract.md): a test names each, or a reason is given here.

use std::fs;
use std::path::{Path, PathBuf};

/// Why no test names an ID. A line whose ID has a test is stale, and fails.
const UNTESTED: &[(&str, &str)] =
    &[("NP-07", "the kernel drops such packets by itself, and no loopback address is ever served")];

/// The IDs of the contract: the first cells of its rows.
fn ids() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace");
    let text = fs::read_to_string(root.join("docs/contract.md")).expect("the contract is part of the sources");
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    cells.filter(|cell| cell.split_once('-').is_some_and(|(_, number)| number.len() == 2)).map(String::from).collect()
}

/// The text of all tests, in lower case and with dashes: script cases by name and comment, Rust tests as a whole.
fn tests_text() -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().expect("the package is in a workspace");
    let mut text = String::new();
    for folder in ["tests", "lb-agent/src", "lb-common/src"] {
        files(&root.join(folder), &mut |path| {
            let name = path.to_string_lossy();
            let content = || fs::read_to_string(path).expect("sources are text");
            if name.ends_with(".txtar") {
                text.push_str(path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default());
                text.push('\n');
                text.push_str(content().split("\n-- ").next().unwrap_or_default());
            } else if name.ends_with(".rs") && path != tests.join("src/ids.rs") {
                let content = content();
                let is_test = path.starts_with(tests) || name.ends_with("tests.rs") || name.contains("/tests/");
                let start = if is_test { Some(0) } else { content.find("#[cfg(test)]\nmod tests {") };
                text.push_str(start.map_or("", |start| &content[start..]));
            }
            text.push('\n');
        });
    }
    text.to_lowercase().replace('_', "-")
}

fn files(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("sources can be listed").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() { files(&path, visit) } else { visit(&path) }
    }
}

/// Whether the text contains this ID, but not as part of a longer word.
fn names(text: &str, id: &str) -> bool {
    let id = id.to_lowercase();
    text.match_indices(&id).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + id.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(|c| c.is_ascii_digit())
    })
}

#[test]
fn every_id_has_a_test_or_a_reason() {
    let text = tests_text();
    let has_reason = |id: &str| UNTESTED.iter().any(|(known, _)| *known == id);
    let ids = ids();
    assert!(ids.len() > 100, "the contract was not read: {ids:?}");
    let (forgotten, stale): (Vec<&String>, Vec<&String>) =
        ids.iter().filter(|id| names(&text, id) == has_reason(id)).partition(|id| !has_reason(id));
    assert!(forgotten.is_empty(), "neither a test nor a reason: {forgotten:?}");
    assert!(stale.is_empty(), "a reason, but a test as well: {stale:?}");
    for (id, _) in UNTESTED {
        assert!(ids.iter().any(|known| known == id), "{id} is no id");
    }
}

#[test]
fn an_id_is_found_as_a_whole() {
    assert!(names("fn lb-01-test()", "LB-01"));
    assert!(names("(lb-01)", "LB-01"));
    assert!(!names("alb-01", "LB-01"));
    assert!(!names("lb-012", "LB-01"));
}
