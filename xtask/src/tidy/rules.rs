//! The rules themselves. Each is a table or a few lines, and a test seeds a violation of it.

use std::path::Path;

use super::source::{Build, Named, Source};
use super::violation::Violation;

/// The most lines that a file may have.
const LINES_MAX: usize = 600;

/// The only places where `unsafe` is allowed: the programs, the agent's calls into the kernel, and the host's read of a
/// header. The list is short so that reviewers read it.
const UNSAFE: &[&str] = &[
    "lb-common/src/packet.rs",
    "lb-ebpf/src/",
    "lb-agent/src/dataplane/mapped.rs",
    "lb-agent/src/dataplane/scopes.rs",
    "lb-agent/src/dataplane/sys.rs",
    "lb-agent/src/dataplane/sys/",
];

/// Words that say nothing about the content of a file.
const EMPTY_WORDS: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "manager", "handler", "handlers", "data", "info"];

/// The names allowed at the top, beside names that begin with a dot. Any other file is a leftover.
const TOP: &[&str] =
    &["Cargo.lock", "Cargo.toml", "README.md", "deploy", "docs", "lb-agent", "lb-common", "lb-ebpf", "tests", "xtask"];

/// The dependencies allowed for `lb-common`, which is compiled for the kernel.
const LEAN: &[&str] = &["network-types", "zerocopy"];

/// Paths that some part of the tree must not name.
struct Ban {
    within: &'static [&'static str],
    except: &'static [&'static str],
    paths: &'static [&'static str],
    reason: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        within: &["lb-common/src/"],
        except: &["lb-common/src/host.rs", "lb-common/src/host/"],
        paths: &["std", "alloc", "aya", "aya_ebpf", "tokio", "libc", "rand", "lb_agent"],
        reason: "lb-common is compiled for the kernel: core and zerocopy only",
    },
    Ban {
        within: &["lb-ebpf/src/"],
        except: &[],
        paths: &["std", "lb_agent", "lb_tests", "lb_common::host"],
        reason: "the programs know lb-common only, and not its tables in memory",
    },
    Ban {
        within: &["lb-agent/src/"],
        except: &["lb-agent/src/dataplane.rs", "lb-agent/src/dataplane/"],
        paths: &["aya", "aya_obj"],
        reason: "only dataplane/ names aya: one door to the kernel",
    },
    Ban {
        within: &["lb-agent/src/"],
        except: &["lb-agent/src/source.rs", "lb-agent/src/source/"],
        paths: &["kube", "k8s_openapi", "serde_yaml_ng", "libyaml_safer"],
        reason: "only source/ names the Kubernetes API: its versions must not reach the model",
    },
    Ban {
        within: &["lb-agent/src/model", "lb-agent/src/desired", "lb-agent/src/assign", "lb-agent/src/plan"],
        except: &[],
        paths: &[
            "tokio",
            "rand",
            "libc",
            "std::env",
            "std::fs",
            "std::io",
            "std::os",
            "std::process",
            "std::thread",
            "std::time::Instant",
            "std::time::SystemTime",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
        ],
        reason: "the core is pure: no tasks, clocks, randomness, environment, files or sockets",
    },
    Ban {
        within: &["lb-agent/src/"],
        except: &["lb-agent/src/args.rs"],
        paths: &["std::env"],
        reason: "only args.rs reads arguments and environment",
    },
    Ban {
        within: &["lb-agent/src/"],
        except: &["lb-agent/src/run.rs", "lb-agent/src/run/"],
        paths: &["tokio::spawn", "tokio::task", "std::thread::spawn"],
        reason: "only run.rs starts tasks: one place to understand life and death of the process",
    },
    Ban {
        within: &["xtask/src/"],
        except: &[],
        paths: &["lb_agent", "lb_common", "lb_ebpf", "lb_tests"],
        reason: "xtask runs before the project can be built",
    },
];

/// Rules about the name of any file.
pub fn name(path: &str) -> Vec<Violation> {
    let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
    let empty = stem.split(['_', '-']).find(|word| EMPTY_WORDS.contains(word));
    let empty = empty.map(|word| at(1, format!("a file is a noun of the field, not \"{word}\"")));
    let top = path.split('/').next().filter(|top| !top.starts_with('.') && !TOP.contains(top));
    let stray = top.map(|top| at(1, format!("{top} does not belong at the top of the tree (xtask/src/tidy)")));
    empty.into_iter().chain(stray).collect()
}

/// Rules about a Rust source.
pub fn source(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    if !source.text.starts_with("//!") {
        found.push(at(1, "the first line must be `//!`: what this file guarantees".into()));
    }
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        found.push(at(LINES_MAX, format!("{lines} lines: split by noun, {LINES_MAX} at most")));
    }
    found.extend(words(source));
    found.extend(banned(source));
    found
}

/// Rules about the manifest of the crate that the kernel runs.
pub fn lean_manifest(text: &str) -> Vec<Violation> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        }
        let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
        let is_dependency = section == "dependencies" && line.contains('=') && !line.starts_with('#');
        if is_dependency && !LEAN.contains(&name) {
            found.push(at(index + 1, format!("lb-common depends on {} only, not on {name}", LEAN.join(" and "))));
        }
    }
    found
}

/// Rules about the manifest of the tests: a test program is named in kebab-case, after its file or its folder.
pub fn test_programs(text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut is_test = false;
    let mut name = "";
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with('[') {
            is_test = line == "[[test]]";
        }
        let value = |key: &str| Some(line.strip_prefix(key)?.trim().strip_prefix('=')?.trim().trim_matches('"'));
        if let Some(value) = value("name").filter(|_| is_test) {
            name = value;
            if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
                found.push(at(number, format!("{name}: a test program is named in kebab-case")));
            }
        }
        let path = value("path").filter(|_| is_test);
        if let Some(path) = path.filter(|path| *path != format!("{name}.rs") && *path != format!("{name}/main.rs")) {
            found.push(at(number, format!("{path}: the test program {name} is {name}.rs or {name}/main.rs")));
        }
    }
    found
}

fn words(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let may_be_unsafe = UNSAFE.iter().any(|place| source.path.starts_with(place));
    for (index, token) in source.tokens.iter().enumerate() {
        match token.text.as_str() {
            "unsafe" if !may_be_unsafe => {
                found.push(at(token.line, "unsafe code is in a few listed files only (xtask/src/tidy)".into()));
            }
            word @ ("todo" | "unimplemented" | "dbg") if source.has_at(index + 1, &["!"]) => {
                found.push(at(token.line, format!("{word}! is not for code that lands")));
            }
            "ignore" if index >= 2 && source.has_at(index - 2, &["#", "["]) => {
                found.push(at(token.line, "a test runs or does not exist: no #[ignore]".into()));
            }
            _ => {}
        }
    }
    found
}

/// Violations of bans, one per line and ban, because a `use` tree also names its branches.
fn banned(source: &Source) -> Vec<Violation> {
    let bans: Vec<&Ban> = BANS.iter().filter(|ban| ban.holds_for(source.path)).collect();
    let mut found: Vec<(usize, &str, String)> = Vec::new();
    for named in source.paths().iter().filter(|named| named.build == Build::Product) {
        for ban in bans.iter().filter(|ban| ban.names(named)) {
            if !found.iter().any(|(line, reason, _)| (*line, *reason) == (named.line, ban.reason)) {
                found.push((named.line, ban.reason, named.path.join("::")));
            }
        }
    }
    found.into_iter().map(|(line, reason, name)| at(line, format!("{name}: {reason}"))).collect()
}

impl Ban {
    fn holds_for(&self, file: &str) -> bool {
        // A test module in a file of its own is not product code.
        if file.ends_with("/tests.rs") || file.contains("/tests/") {
            return false;
        }
        let stands_in = |places: &[&str]| places.iter().any(|place| file.starts_with(place));
        stands_in(self.within) && !stands_in(self.except)
    }

    fn names(&self, named: &Named) -> bool {
        let name = named.path.join("::");
        let is_below =
            |banned: &str| name.strip_prefix(banned).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        self.paths.iter().any(|path| is_below(path))
    }
}

pub fn at(line: usize, what: String) -> Violation {
    Violation { line, what }
}

#[cfg(test)]
mod tests;
