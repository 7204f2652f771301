//! `cargo xtask fuzz`: runs each fuzz target of the packet path for a while, guided by coverage.
//!
//! The instrumentation is LLVM's own pass, which stable compilers have. Neither nightly nor `cargo fuzz` is needed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::workspace;

const TARGETS: [&str; 3] = ["parse", "decide", "rewrite"];

/// Edge counters and comparisons, as libFuzzer needs them (Clang's SanitizerCoverage documentation).
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

#[derive(clap::Args)]
pub struct Args {
    /// Only this target
    #[arg(value_parser = TARGETS)]
    target: Option<String>,

    /// Seconds for each target
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    secs: u32,
}

pub fn run(args: &Args) -> Result<()> {
    setup::ensure()?;
    let host = host()?;
    let target_dir = workspace::target().join("fuzz");
    let targets = TARGETS.into_iter().filter(|name| args.target.as_deref().is_none_or(|wanted| wanted == *name));
    for name in targets {
        let program = format!("fuzz-{name}");
        let built = workspace::cargo()
            .args(["build", "--release", "--package", "lb-tests", "--features", "fuzz", "--bin", &program])
            // An explicit target keeps build scripts and macros free of instrumentation.
            .args(["--target", &host, "--target-dir"])
            .arg(&target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
            .status()?;
        if !built.success() {
            bail!("the build of {program} failed");
        }
        fuzz(name, &target_dir.join(&host).join("release").join(&program), args.secs)?;
    }
    Ok(())
}

fn fuzz(name: &str, program: &Path, secs: u32) -> Result<()> {
    let (found, kept) = (workspace::target().join("fuzz/corpus").join(name), Path::new("tests/corpus").join(name));
    fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    println!("== fuzz {name}, {secs} s");
    let done = workspace::program(&program.to_string_lossy())
        .args([format!("-max_total_time={secs}"), "-rss_limit_mb=8192".into(), "-print_final_stats=1".into()])
        .arg(format!("-artifact_prefix={}/", workspace::target().join("fuzz").display()))
        .args([&found, &kept])
        .status()?;
    if !done.success() {
        bail!("{name} found something: copy the input named above to {}, then fix the cause", kept.display());
    }
    Ok(())
}

/// The compiler's host target.
fn host() -> Result<String> {
    let output = workspace::program("rustc").args(["--print", "host-tuple"]).output()?;
    let host = String::from_utf8(output.stdout)?.trim().to_owned();
    if host.is_empty() {
        bail!("rustc --print host-tuple printed nothing: is this Rust older than 1.84?");
    }
    Ok(host)
}
