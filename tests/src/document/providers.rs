//! The pages on load balancers: each shows the manifests of its script case and what the tables are then, word for word.
//!
//! `LB_REWRITE=1 cargo test -p lb-tests --lib -- providers` writes these parts of the pages.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use super::{pages, top};
use crate::script::txtar::Archive;

const BEGIN: &str = "<!-- case: ";
const END: &str = "<!-- end of case -->";

/// Cases about flags, not about a system.
const FLAGS: &[&str] = &["override-vendor", "override-vendor-off"];

/// The part of a page that shows a case.
fn shown(name: &str) -> String {
    let path = format!("tests/script/{name}.txtar");
    let text = fs::read_to_string(top().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let case = Archive::parse(&text);
    let body = |name: &str| case.sections.iter().find(|section| section.name == name).map(|section| &*section.body);
    let flags = body("settings").unwrap_or_default().lines().filter_map(|line| line.split_once(": "));
    let flags: Vec<_> = flags.map(|(name, value)| format!("`--{name}={value}`")).collect();
    let with = if flags.is_empty() { String::new() } else { format!(", with {}", flags.join(" ")) };
    let mut page = format!("{BEGIN}{name} -->\n\nThe manifests of `{path}`{with}:\n\n```yaml\n");
    let objects =
        case.sections.iter().filter_map(|section| section.name.strip_prefix("write ").zip(Some(&section.body)));
    let objects: Vec<String> = objects.map(|(file, body)| format!("# {file}\n{body}")).collect();
    write!(page, "{}```\n\n", objects.join("---\n")).expect("a string takes all");
    write!(page, "The node then has these rows. No Service of the case has an endpoint, so VIP means that a dial is rejected:\n\n")
        .expect("a string takes all");
    write!(page, "```text\n{}```\n\n", body("frontends").unwrap_or_default()).expect("a string takes all");
    if let Some(warnings) = body("warnings").filter(|warnings| !warnings.trim().is_empty()) {
        write!(page, "`lb-agent show warnings`, in short:\n\n```text\n{warnings}```\n\n").expect("a string takes all");
    }
    page + END + "\n"
}

#[test]
fn each_page_shows_its_case() {
    let mut named = BTreeSet::new();
    for path in pages().iter().filter(|path| path.starts_with("docs/providers/")) {
        let page = fs::read_to_string(top().join(path)).expect("it was listed");
        let Some((before, rest)) = page.split_once(BEGIN) else { continue };
        let (name, _) = rest.split_once(" -->").expect("the comment ends");
        let after = rest.split_once(END).map_or("", |(_, after)| after.trim_start_matches('\n'));
        let wanted = format!("{before}{}{after}", shown(name));
        named.insert(name.to_owned());
        if std::env::var_os("LB_REWRITE").is_some() {
            fs::write(top().join(path), wanted).expect("the page is writable");
        } else {
            assert!(page == wanted, "{path} differs: LB_REWRITE=1 cargo test -p lb-tests --lib -- providers");
        }
    }
    let cases = fs::read_dir(top().join("tests/script")).expect("it can be listed");
    let cases = cases.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned());
    let cases = cases.filter_map(|file| file.strip_suffix(".txtar").map(ToOwned::to_owned));
    let without: Vec<String> =
        cases.filter(|case| case.contains("vendor-") && !FLAGS.contains(&&**case) && !named.contains(case)).collect();
    assert_eq!(without, Vec::<String>::new(), "systems without a page");
}

#[test]
fn the_index_lists_every_page() {
    let index = fs::read_to_string(top().join("docs/providers/README.md")).expect("it is there");
    for page in pages() {
        let Some(file) = page.strip_prefix("docs/providers/").filter(|file| *file != "README.md") else { continue };
        assert!(index.contains(&format!("({file})")), "docs/providers/README.md has no link to {file}");
    }
}
