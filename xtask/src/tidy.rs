//! `cargo xtask tidy`: the rules of this code base that no linter knows. A test for each rule breaks it.

mod circles;
mod cited;
mod english;
mod rules;
mod source;
mod violation;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace;
use cited::Citable;
use source::Source;
use violation::Violation;

/// Checks every Rust source, the names of all files, and what files cite.
pub fn run() -> Result<()> {
    let mut files = Vec::new();
    walk(workspace::root(), "", &mut files)?;
    let texts = files.iter().map(|path| text(path)).collect::<Result<Vec<String>>>()?;
    let citable = Citable::of(files.iter().zip(&texts).map(|(path, text)| (&**path, &**text)));
    let mut broken = 0;
    let mut sources = Vec::new();
    for (path, text) in files.iter().zip(&texts) {
        let mut violations = check(path, text);
        violations.extend(citable.check(path, text));
        if is_rust(path) {
            let source = Source::parse(path, text)?;
            violations.extend(rules::source(&source));
            violations.extend(english::check_texts(&source));
            sources.push(source);
        }
        for Violation { line, what } in violations {
            eprintln!("{path}:{line}: {what}");
            broken += 1;
        }
    }
    for import in circles::circular(&sources) {
        let circles::Import { from, line, name, to } = import;
        eprintln!("{from}:{line}: {name} is in {to}, which leads back here: no circles of imports");
        broken += 1;
    }
    if broken > 0 {
        bail!("{broken} rules of style are broken");
    }
    println!("tidy: {} files", files.len());
    Ok(())
}

/// The rules that need no parsed source.
fn check(path: &str, text: &str) -> Vec<Violation> {
    let mut violations = rules::name(path);
    violations.extend(english::check(path, text));
    if path == "lb-common/Cargo.toml" {
        violations.extend(rules::lean_manifest(text));
    } else if path == "tests/Cargo.toml" {
        violations.extend(rules::test_programs(text));
    }
    violations
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// The text of a file; empty if it is not UTF-8.
fn text(path: &str) -> Result<String> {
    let bytes = fs::read(workspace::root().join(path)).with_context(|| format!("cannot read {path}"))?;
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

/// Lists the files of the project, relative to its top.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        let path = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}
