//! The modules of a crate, and the module that defines a name.

use std::collections::BTreeMap;

use super::super::source::{Build, Source};

/// Most re-exports that are followed for one name.
const STEPS_MAX: usize = 8;

/// An import: the file, the line, and the file that defines the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: String,
    pub line: usize,
    pub name: String,
    pub to: String,
}

/// A module path within the crate; the root is empty.
type Path = Vec<String>;

struct Module<'a> {
    file: &'a str,
    /// What `use` brings into scope: the last word, and the whole path.
    scope: BTreeMap<String, Path>,
    /// Paths that product code names, with their lines, without those that it only re-exports.
    named: Vec<(Path, usize)>,
}

/// The modules of one crate.
pub struct Modules<'a>(BTreeMap<Path, Module<'a>>);

impl<'a> Modules<'a> {
    /// The modules of the sources in `folder`, for example `lb-agent/src/`.
    pub fn of(folder: &str, sources: &[Source<'a>]) -> Self {
        let modules = sources.iter().filter_map(|source| {
            let path = module_path(source.path.strip_prefix(folder)?)?;
            Some((path, module(source)))
        });
        Self(modules.collect())
    }

    /// All imports of product code from one file to another.
    pub fn imports(&self) -> Vec<Import> {
        let of_module = |(at, module): (&Path, &Module)| -> Vec<Import> {
            let import = |(path, line): &(Path, usize)| {
                let to = self.defined_in(path, at, STEPS_MAX)?;
                let import =
                    Import { from: module.file.into(), line: *line, name: path.join("::"), to: to.file.into() };
                (import.from != import.to).then_some(import)
            };
            module.named.iter().filter_map(import).collect()
        };
        self.0.iter().flat_map(of_module).collect()
    }

    /// The module that defines `path` as named in the module `at`. None if the name is local or belongs to another
    /// crate.
    fn defined_in(&self, path: &[String], at: &Path, steps: usize) -> Option<&Module<'a>> {
        let steps = steps.checked_sub(1)?;
        let (first, mut rest) = path.split_first()?;
        let mut current = at.clone();
        match first.as_str() {
            "crate" => current.clear(),
            "self" => {}
            "super" => drop(current.pop()?),
            word => {
                if !self.enter(&mut current, word) {
                    let mut whole = self.0.get(at)?.scope.get(word)?.clone();
                    if whole.first() == Some(first) {
                        return None;
                    }
                    whole.extend_from_slice(rest);
                    return self.defined_in(&whole, at, steps);
                }
            }
        }
        while let Some((word, after)) = rest.split_first() {
            if word == "super" {
                current.pop()?;
            } else if !matches!(word.as_str(), "self" | "*") && !self.enter(&mut current, word) {
                let module = self.0.get(&current)?;
                // The module either defines the name or re-exports it.
                return match module.scope.get(word) {
                    Some(shown) => self.defined_in(&[shown, after].concat(), &current, steps).or(Some(module)),
                    None => Some(module),
                };
            }
            rest = after;
        }
        self.0.get(&current)
    }

    /// Steps from a module into its child of that name. False if it has none.
    fn enter(&self, current: &mut Path, word: &str) -> bool {
        current.push(word.to_owned());
        let is_there = self.0.contains_key(current);
        if !is_there {
            current.pop();
        }
        is_there
    }
}

/// The module path of a file: `a/b.rs` is `a::b`. None for tests and for programs.
fn module_path(file: &str) -> Option<Path> {
    let words: Path = file.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    let is_left_out = |word: &String| matches!(word.as_str(), "tests" | "main" | "bin");
    match words.last()?.as_str() {
        "lib" => Some(Path::new()),
        _ if words.iter().any(is_left_out) => None,
        _ => Some(words),
    }
}

fn module<'a>(source: &Source<'a>) -> Module<'a> {
    let mut module = Module { file: source.path, scope: BTreeMap::new(), named: Vec::new() };
    for used in source.uses().into_iter().filter(|used| used.named.build == Build::Product) {
        let named = used.named;
        let Some(last) = named.path.iter().rfind(|word| *word != "self") else { continue };
        module.scope.insert(last.clone(), named.path.clone());
        if !used.is_shown {
            module.named.push((named.path, named.line));
        }
    }
    let inline = source.inline_paths(&mut Vec::new()).into_iter().filter(|named| named.build == Build::Product);
    module.named.extend(inline.map(|named| (named.path, named.line)));
    module
}
