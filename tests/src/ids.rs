//! The IDs of the contract (docs/contract.md): docs/tested.md has a test for each, or the reason why there is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The cell of an ID without a test begins so.
const NO_TEST: &str = "none: ";

/// The table of docs/tested.md: by ID, where it is tested, or why not.
fn tested() -> BTreeMap<String, String> {
    let text = read("docs/tested.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "));
    rows.filter(|(id, _)| is_id(id)).map(|(id, cell)| (id.to_owned(), cell.to_owned())).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace")
}

fn is_id(cell: &str) -> bool {
    cell.split_once('-').is_some_and(|(_, number)| number.len() == 2)
}

/// The IDs of the contract: the first cells of its rows.
fn ids() -> Vec<String> {
    let text = read("docs/contract.md");
    let cells = text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next());
    cells.filter(|cell| is_id(cell)).map(String::from).collect()
}

/// The text of all tests, in lower case and with dashes: script cases by name and comment, Rust tests as a whole.
fn tests_text() -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root();
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
    let (text, tested) = (tests_text(), tested());
    let ids = ids();
    assert!(ids.len() > 100, "the contract was not read: {ids:?}");
    let missing: Vec<&String> = ids.iter().filter(|id| !tested.contains_key(*id)).collect();
    assert!(missing.is_empty(), "docs/tested.md lacks {missing:?}: name a test, or write `{NO_TEST}` and the reason");
    for (id, cell) in &tested {
        assert!(ids.contains(id), "docs/contract.md has no {id}");
        if cell.starts_with(NO_TEST) {
            assert!(!names(&text, id), "{id} has a reason in docs/tested.md, but a test as well");
            continue;
        }
        let paths: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!paths.is_empty(), "{id} names no file in docs/tested.md: {cell}");
        for path in paths {
            // A case has its IDs in its name or its title.
            let named = format!("{path}\n{}", read(path)).to_lowercase().replace('_', "-");
            assert!(names(&named, id), "{path} does not name {id}, docs/tested.md says");
        }
    }
}

#[test]
fn an_id_is_found_as_a_whole() {
    assert!(names("fn lb-01-test()", "LB-01"));
    assert!(names("(lb-01)", "LB-01"));
    assert!(!names("alb-01", "LB-01"));
    assert!(!names("lb-012", "LB-01"));
}
