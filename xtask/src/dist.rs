//! The agent as it is shipped: one static program for each processor.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::setup;
use crate::workspace;

/// A processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    pub const fn native() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 }
    }

    /// The name that images and Debian have for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// What `readelf` calls the machine.
    const fn machine(self) -> &'static str {
        match self {
            Self::Amd64 => "X86-64",
            Self::Arm64 => "AArch64",
        }
    }
}

/// Builds the agent as a static program.
pub fn program(arch: Arch) -> Result<PathBuf> {
    if arch != Arch::native() {
        setup::ensure_arm64()?;
    }
    let target = arch.target();
    setup::toolchain::ensure_target(target)?;
    let arguments = ["build", "--package", "lb-agent", "--bin", "lb-agent", "--profile", "dist", "--target", target];
    let mut cargo = workspace::cargo();
    cargo.args(arguments);
    if arch == Arch::Arm64 && arch != Arch::native() {
        // The C of `ring` needs a compiler for the processor, and no library. Rust brings the linker and musl.
        cargo.env("CC_aarch64_unknown_linux_musl", "aarch64-linux-gnu-gcc");
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    }
    if !cargo.status()?.success() {
        bail!("the agent does not build for {target}");
    }
    let program = workspace::target().join(target).join("dist/lb-agent");
    let headers =
        Command::new("readelf").args(["--file-header", "--program-headers", "--wide"]).arg(&program).output()?;
    let headers = String::from_utf8_lossy(&headers.stdout);
    ensure!(headers.contains("LOAD") && !headers.contains("INTERP"), "{} is not static", program.display());
    let machine = headers.lines().find_map(|line| line.trim().strip_prefix("Machine:")).unwrap_or_default();
    ensure!(machine.contains(arch.machine()), "{} is for {machine}", program.display());
    Ok(program)
}
