//! Rules about citations within the repository: each ID of the contract, document and path that a file names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::rules::at;
use super::violation::Violation;

/// The document that defines the rules with an ID.
pub const CONTRACT: &str = "docs/contract.md";

/// Kinds of files whose citations are checked.
const CITING: &[&str] = &["rs", "md", "yaml", "txtar", "toml"];

/// The tests of these rules, which break them on purpose.
const EXAMPLES: &[&str] = &["xtask/src/tidy/cited/", "xtask/src/tidy/rules/"];

/// Folders at the top. Paths below them are checked in the code spans of documents.
const SOURCES: &[&str] = &["deploy/", "docs/", "lb-agent/", "lb-common/", "lb-ebpf/", "tests/", "xtask/"];

/// Everything that can be cited.
pub struct Citable<'a> {
    ids: BTreeSet<&'a str>,
    /// The words that IDs begin with, of two to five letters.
    families: BTreeSet<&'a str>,
    /// All files, with the anchors of their headings.
    files: BTreeMap<&'a str, BTreeSet<String>>,
}

impl<'a> Citable<'a> {
    /// Collects what these files, given with their texts, define.
    pub fn of(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut all = Self { ids: BTreeSet::new(), families: BTreeSet::new(), files: BTreeMap::new() };
        for (path, text) in files {
            all.files.insert(path, anchors(text));
            if path == CONTRACT {
                all.ids = defined(text).collect();
                all.families = all.ids.iter().filter_map(|id| id.split('-').next()).collect();
            }
        }
        all
    }

    /// The citations in one file whose target does not exist.
    pub fn check(&self, path: &str, text: &str) -> Vec<Violation> {
        let kind = Path::new(path).extension().unwrap_or_default().to_string_lossy();
        if !CITING.contains(&&*kind) || EXAMPLES.iter().any(|place| path.starts_with(place)) {
            return Vec::new();
        }
        let mut found: Vec<Violation> = self.unknown_ids(path).into_iter().map(|id| at(1, no_id(&id))).collect();
        for (number, line) in (1..).zip(text.lines()) {
            found.extend(self.unknown_ids(line).into_iter().map(|id| at(number, no_id(&id))));
            if names_a_section(line) {
                found.push(at(number, format!("cite a rule of {CONTRACT} by its ID, not by a number of a section")));
            }
            let missing = if kind == "md" { self.dead_links(path, line) } else { self.dead_documents(path, line) };
            found.extend(missing.into_iter().map(|target| at(number, format!("{target} does not exist"))));
        }
        found
    }

    /// IDs in a line that the contract does not define. `IPM-60` counts with any letters in front. `ipm_60`, as in
    /// names of tests and files, counts if the contract knows the letters, and so do the numbers that follow
    /// (`ipm_60_61`).
    fn unknown_ids(&self, line: &str) -> Vec<String> {
        let mut unknown = Vec::new();
        for word in line.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
            let mut family: Option<String> = None;
            for part in word.split(['-', '_']) {
                let upper = part.to_ascii_uppercase();
                let is_number = part.len() == 2 && part.bytes().all(|c| c.is_ascii_digit());
                match &family {
                    Some(family) if is_number => {
                        let id = format!("{family}-{part}");
                        if !self.ids.contains(&*id) {
                            unknown.push(id);
                        }
                    }
                    _ => {
                        let is_alone = looks_like_id(word);
                        family = (self.families.contains(&*upper) || is_alone).then_some(upper);
                    }
                }
            }
        }
        unknown
    }

    /// Links of a document, and paths in its code spans, whose target does not exist.
    fn dead_links<'t>(&self, from: &str, line: &'t str) -> Vec<&'t str> {
        let links = line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        let is_ours = |target: &&str| !target.contains("://") && !target.starts_with("mailto:");
        let dead = links.filter(is_ours).filter(|target| !self.leads_from(from, target));
        let spans = line.split('`').skip(1).step_by(2);
        let is_path = |span: &&str| {
            SOURCES.iter().any(|folder| span.starts_with(folder)) && !span.contains(['*', ' ', '<', '{', '|', '$'])
        };
        dead.chain(spans.filter(is_path).filter(|span| !self.exists(span))).collect()
    }

    /// Documents that a source names and that exist neither relative to its folder nor relative to the top.
    fn dead_documents<'t>(&self, from: &str, line: &'t str) -> Vec<&'t str> {
        let is_of_path = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '#');
        line.split(|c: char| !is_of_path(c))
            .map(|word| word.trim_end_matches('.'))
            .filter(|word| {
                let (file, anchor) = word.split_once('#').unwrap_or((word, ""));
                let is_document = Path::new(file).extension().is_some_and(|kind| kind == "md");
                is_document && !self.has(Path::new(file), anchor) && !self.leads_from(from, word)
            })
            .collect()
    }

    /// Whether a link in the file `from` has a target: a file or folder, and a heading if the link names one.
    fn leads_from(&self, from: &str, target: &str) -> bool {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let folder = Path::new(from).parent().unwrap_or(Path::new(""));
        if file.is_empty() {
            return self.has(Path::new(from), anchor);
        }
        normal(&folder.join(file)).is_some_and(|path| self.has(&path, anchor))
    }

    fn has(&self, path: &Path, anchor: &str) -> bool {
        let path = path.to_string_lossy();
        if anchor.is_empty() {
            return self.exists(&path);
        }
        self.files.get(&*path).is_some_and(|anchors| anchors.contains(anchor))
    }

    /// Whether this is a file or a folder.
    fn exists(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.contains_key(path) || self.files.keys().any(|file| file.starts_with(&folder))
    }
}

fn no_id(id: &str) -> String {
    format!("{id} is no rule of {CONTRACT}")
}

/// The IDs that the contract defines: the first cell of a row.
fn defined(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).filter(|cell| looks_like_id(cell))
}

/// Whether a word is two to five capital letters, a dash and two digits.
fn looks_like_id(word: &str) -> bool {
    let Some((family, number)) = word.split_once('-') else { return false };
    (2..=5).contains(&family.len())
        && family.bytes().all(|c| c.is_ascii_uppercase())
        && number.len() == 2
        && number.bytes().all(|c| c.is_ascii_digit())
}

/// Whether a line cites a section of an outside specification: the word, then a number.
fn names_a_section(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).any(|pair| {
        let is_spec = pair[0].trim_start_matches('(').eq_ignore_ascii_case("spec");
        is_spec && pair[1].starts_with(|c: char| c.is_ascii_digit())
    })
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if !is_code && heading.len() < line.len() && heading.starts_with(' ') {
            let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
        }
    }
    found
}

/// A path without `.` and `..`. None if it leaves the tree.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

#[cfg(test)]
mod tests;
