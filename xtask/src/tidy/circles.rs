//! No circles: files of a crate that import each other can only be read together.
//!
//! An import is a path that product code names, followed through re-exports to the file that defines the name. A re-export
//! itself is a signpost, no import; test modules may import what they like.

mod modules;

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;
pub use modules::Import;
use modules::Modules;

/// The crates whose files may not import each other in a circle.
const CRATES: &[&str] = &["lb-common/src/", "lb-ebpf/src/", "lb-agent/src/", "xtask/src/"];

/// The imports that are parts of circles, one for each pair of files.
pub fn circular(sources: &[Source<'_>]) -> Vec<Import> {
    let imports: Vec<Import> = CRATES.iter().flat_map(|folder| Modules::of(folder, sources).imports()).collect();
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in &imports {
        graph.entry(&import.from).or_default().insert(&import.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|file| (*file, reached(&graph, file))).collect();
    let is_circular =
        |import: &&Import| reached.get(&*import.to).is_some_and(|reached| reached.contains(&*import.from));
    let mut found: Vec<Import> = imports.iter().filter(is_circular).cloned().collect();
    found.sort_by(|a, b| (&a.from, &a.to, a.line).cmp(&(&b.from, &b.to, b.line)));
    found.dedup_by(|a, b| (&a.from, &a.to) == (&b.from, &b.to));
    found
}

/// Every file to which imports lead from `file`.
fn reached<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, file: &'a str) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![file]);
    while let Some(next) = open.pop() {
        for to in graph.get(next).into_iter().flatten() {
            if found.insert(*to) {
                open.push(to);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::parse(path, text).expect("Rust")).collect();
        circular(&sources).into_iter().map(|import| format!("{} -> {}", import.from, import.to)).collect()
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        let files = [
            ("lb-agent/src/lib.rs", "mod a; mod b;"),
            ("lb-agent/src/a.rs", "use crate::b::B; pub struct A;"),
            ("lb-agent/src/b.rs", "pub struct B; fn f() -> super::a::A { todo() }"),
        ];
        assert_eq!(
            circles(&files),
            ["lb-agent/src/a.rs -> lb-agent/src/b.rs", "lb-agent/src/b.rs -> lb-agent/src/a.rs"]
        );
        assert_eq!(circles(&files[..2]), [""; 0]);
    }

    #[test]
    fn re_exports_lead_to_the_definition() {
        let child = ("lb-agent/src/a/child.rs", "use super::Other; pub struct Child;");
        let other = ("lb-agent/src/a/other.rs", "pub struct Other;");
        let parent = |text| ("lb-agent/src/a.rs", text);
        assert_eq!(circles(&[child, other, parent("pub use child::Child; pub use other::Other;")]), [""; 0]);
        // The parent that uses a child, which uses what the parent defines.
        let found = circles(&[child, parent("use child::Child; pub struct Other(Child);")]);
        assert_eq!(
            found,
            ["lb-agent/src/a.rs -> lb-agent/src/a/child.rs", "lb-agent/src/a/child.rs -> lb-agent/src/a.rs"]
        );
    }

    #[test]
    fn longer_circles_are_found_and_tests_may_import_anything() {
        let a = ("lb-common/src/a.rs", "use crate::b::{self, B};");
        let b = ("lb-common/src/b.rs", "use crate::c::f; pub struct B;");
        let c = |text| ("lb-common/src/c.rs", text);
        assert_eq!(circles(&[a, b, c("pub fn f() { crate::a::g() }")]).len(), 3);
        assert_eq!(circles(&[a, b, c("pub fn f() {}\n#[cfg(test)]\nmod tests { use crate::a::g; }")]), [""; 0]);
        assert_eq!(circles(&[a, b, c("pub fn f() {}"), ("lb-common/src/c/tests.rs", "use crate::a::g;")]), [""; 0]);
    }
}
