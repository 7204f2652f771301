//! The compiler of the BPF programs: any stable one that has its own library source beside it.
//!
//! `core` is built from source for the BPF target. Source and compiler must have the same version.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::packages;
use crate::job;
use crate::machine;
use crate::workspace;

/// The target of the programs of the kernel.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// The name under which Debian's compiler is linked into rustup. The build looks for it.
const DEBIAN: &str = "deb";

/// Debian's compiler, its library source, and the linter.
const DEBIAN_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];

/// A toolchain by its name in rustup, or the active one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    Active,
    Named(String),
}

/// Makes sure that a compiler for BPF, a formatter and a linter exist.
pub fn ensure() -> Result<()> {
    if machine::which("rustup").is_some() && rustup_manages_cargo() {
        add_components(&["rustfmt", "clippy"])
            .context("the formatter and the linter are needed; remedy: rustup component add rustfmt clippy")?;
        if bpf().is_none() && add_components(&["rust-src"]).is_err() {
            link_debian()?;
        }
    } else if bpf().is_none() || machine::which("cargo-clippy").is_none() || machine::which("rustfmt").is_none() {
        complete_debian()?;
    }
    match bpf() {
        Some(_) => Ok(()),
        None => bail!("no compiler with its library source; remedy: rustup component add rust-src"),
    }
}

/// Makes sure that the active compiler can build for this target of the host.
pub fn ensure_target(target: &str) -> Result<()> {
    let library = Toolchain::Active.sysroot().map(|root| root.join("lib/rustlib").join(target));
    if library.is_some_and(|library| library.exists()) {
        return Ok(());
    }
    if !rustup_manages_cargo() {
        bail!("the compiler has no library for {target}; remedy: install Rust by rustup");
    }
    let mut add = workspace::program("rustup");
    job::run("rustup target add", add.args(["target", "add", target]), job::each_line)
}

/// The toolchain that builds the BPF programs. The candidates have the order of `lb-agent/build.rs`.
pub fn bpf() -> Option<Toolchain> {
    let named = |name: &str| Toolchain::Named(name.to_owned());
    let candidates = match std::env::var("LB_BPF_TOOLCHAIN") {
        Ok(wanted) => vec![Toolchain::Named(wanted)],
        Err(_) => vec![Toolchain::Active, named(DEBIAN), named("nightly")],
    };
    candidates.into_iter().find(Toolchain::has_source)
}

impl Toolchain {
    /// A tool of the toolchain, without the settings of the toolchain that runs this task.
    pub fn tool(&self, name: &str) -> Command {
        let Self::Named(toolchain) = self else {
            let mut command = workspace::program(name);
            command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
            return command;
        };
        let mut command = workspace::program("rustup");
        command.args(["run", toolchain, name]);
        for variable in ["RUSTC", "RUSTDOC", "CARGO", "RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(variable);
        }
        command
    }

    /// Cargo over the programs of the kernel, with the settings of `lb-agent/build.rs` and further flags of the compiler. Its
    /// results are in a folder of their own.
    pub fn cargo_for_bpf(&self, subcommand: &str, flags: &[&str], folder: &Path) -> Command {
        let arch = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
        let flags = [&["-Ctarget-cpu=v3", &arch], flags].concat().join("\x1f");
        let mut cargo = self.tool("cargo");
        cargo.args([subcommand, "--quiet", "--release", "--package", "lb-ebpf", "-Zbuild-std=core"]);
        cargo.args(["--target", BPF_TARGET, "--target-dir"]).arg(folder);
        // Without it, stable compilers refuse -Z. Confined to the BPF target.
        cargo.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags);
        cargo
    }

    fn sysroot(&self) -> Option<PathBuf> {
        let output = self.tool("rustc").args(["--print", "sysroot"]).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    }

    fn has_source(&self) -> bool {
        self.sysroot().is_some_and(|root| root.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists())
    }
}

/// Whether the active compiler belongs to rustup.
fn rustup_manages_cargo() -> bool {
    Toolchain::Active.sysroot().is_some_and(|root| root.components().any(|part| part.as_os_str() == "toolchains"))
}

fn add_components(names: &[&str]) -> Result<()> {
    let output = workspace::program("rustup").args(["component", "list", "--installed"]).output()?;
    let installed = String::from_utf8_lossy(&output.stdout).into_owned();
    let missing: Vec<_> = names.iter().filter(|name| !installed.lines().any(|line| line.starts_with(*name))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    job::run(
        "rustup component add",
        workspace::program("rustup").args(["component", "add"]).args(missing),
        job::each_line,
    )
}

/// Links Debian's compiler as another toolchain of rustup.
fn link_debian() -> Result<()> {
    println!("rustup has no rust-src for this toolchain: taking Debian's compiler for the BPF programs");
    complete_debian()?;
    let mut link = workspace::program("rustup");
    job::run("rustup toolchain link", link.args(["toolchain", "link", DEBIAN, "/usr"]), job::each_line)
}

/// Installs Debian's compiler with its source.
fn complete_debian() -> Result<()> {
    let packages = [DEBIAN_PACKAGES, &["rustfmt-web"]].concat();
    if !machine::is_debian_12() || !machine::is_root() {
        bail!(
            "the compiler has no library source beside it; remedy: rustup component add rust-src rustfmt clippy, \
             or on Debian 12: apt-get install {}",
            packages.join(" ")
        );
    }
    packages::install(&packages)
}
