//! No circles: files of a crate that import each other can only be read together. The same holds for the rooms of a
//! crate: each file at its top together with the folder of the same name.
//!
//! An import is a path that product code names, followed through re-exports to the file that defines the name. A
//! re-export itself is no import, and test modules may import anything.

mod modules;

use std::collections::{BTreeMap, BTreeSet};

use super::source::Source;
pub use modules::Import;
use modules::Modules;

/// The crates whose files may not import each other in a circle.
const CRATES: &[&str] = &["lb-common/src/", "lb-ebpf/src/", "lb-agent/src/", "xtask/src/"];

/// The imports that belong to circles of files or of rooms, one for each pair of files.
pub fn circular(sources: &[Source<'_>]) -> Vec<Import> {
    let mut found = BTreeMap::new();
    for folder in CRATES {
        let imports = Modules::of(folder, sources).imports();
        let room = |file: &str| room(folder, file).to_owned();
        let rooms = circular_by(&imports, room);
        let files = circular_by(&imports, str::to_owned);
        for import in rooms.into_iter().chain(files) {
            found.entry((import.from.clone(), import.to.clone())).or_insert_with(|| import.clone());
        }
    }
    found.into_values().collect()
}

/// The room of a file: its name at the top of the crate, the same for a file and the folder of its name.
fn room<'a>(folder: &str, file: &'a str) -> &'a str {
    let inside = file.strip_prefix(folder).unwrap_or(file);
    let name = inside.split('/').next().unwrap_or(inside);
    name.strip_suffix(".rs").unwrap_or(name)
}

/// The imports from one place to another that leads back. `place` gives the place of a file.
fn circular_by(imports: &[Import], place: impl Fn(&str) -> String) -> Vec<&Import> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let places = |import: &Import| (place(&import.from), place(&import.to));
    for (from, to) in imports.iter().map(places).filter(|(from, to)| from != to) {
        graph.entry(from).or_default().insert(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(|from| (&**from, reached(&graph, from))).collect();
    let is_circular = |import: &&Import| {
        let (from, to) = places(import);
        from != to && reached.get(&*to).is_some_and(|reached| reached.contains(&*from))
    };
    imports.iter().filter(is_circular).collect()
}

/// All places that imports reach from `from`.
fn reached<'a>(graph: &'a BTreeMap<String, BTreeSet<String>>, from: &'a str) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        for to in graph.get(next).into_iter().flatten() {
            if found.insert(&**to) {
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
        // The parent uses a child, which uses what the parent defines.
        let found = circles(&[child, parent("use child::Child; pub struct Other(Child);")]);
        assert_eq!(
            found,
            ["lb-agent/src/a.rs -> lb-agent/src/a/child.rs", "lb-agent/src/a/child.rs -> lb-agent/src/a.rs"]
        );
    }

    #[test]
    fn rooms_that_import_each_other_are_a_circle() {
        let files = [
            ("lb-agent/src/show.rs", "mod rows; pub mod text;"),
            ("lb-agent/src/show/rows.rs", "use crate::args::f;"),
            ("lb-agent/src/show/text.rs", "pub struct Text;"),
            ("lb-agent/src/args.rs", "use crate::show::text::Text; pub fn f() {}"),
        ];
        assert_eq!(
            circles(&files),
            ["lb-agent/src/args.rs -> lb-agent/src/show/text.rs", "lb-agent/src/show/rows.rs -> lb-agent/src/args.rs"]
        );
        assert_eq!(circles(&files[..3]), [""; 0]);
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
