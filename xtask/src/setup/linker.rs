//! `bpf-linker`: turns the compiler's bitcode into a BPF object, with an LLVM no older than the compiler's.

use anyhow::{Context, Result};

use crate::job::{self, Progress};
use crate::machine;
use crate::workspace;

/// The version that is installed. Later versions are accepted.
const VERSION: &str = "0.13.0";

/// Debian's LLVM 22, which rustc 1.95 to 1.97 use. Without this hint the build of bpf-linker does not find the shared
/// library.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// Installs bpf-linker if it is missing or too old.
pub fn ensure() -> Result<()> {
    if is_recent(installed().as_deref()) {
        return Ok(());
    }
    println!("building bpf-linker {VERSION} (about a minute)");
    let mut command = workspace::cargo();
    command
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM_PREFIX);
    job::run("cargo install bpf-linker", &mut command, compiling).context(
        "remedy: LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked \
         --no-default-features --features llvm-22",
    )
}

/// The version that the bpf-linker on the search path prints.
fn installed() -> Option<String> {
    let output = workspace::program("bpf-linker").arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_recent(printed: Option<&str>) -> bool {
    let wanted = machine::version(VERSION);
    printed.and_then(machine::version).is_some_and(|version| Some(version) >= wanted)
}

/// The crate that cargo is compiling.
fn compiling(line: &str) -> Option<Progress> {
    let text = line.trim();
    let verbs = ["Downloading", "Downloaded", "Compiling", "Building", "Installing", "Installed"];
    verbs.iter().any(|verb| text.starts_with(verb)).then(|| Progress { text: text.into(), percent: None })
}

#[cfg(test)]
mod tests {
    use super::is_recent;

    #[test]
    fn an_old_or_absent_linker_is_replaced() {
        assert!(is_recent(Some("bpf-linker 0.13.0")));
        assert!(is_recent(Some("bpf-linker 1.0.0")));
        assert!(!is_recent(Some("bpf-linker 0.9.15")));
        assert!(!is_recent(None));
    }
}
