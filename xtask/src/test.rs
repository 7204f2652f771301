//! `cargo xtask test`: runs every check and every test, in order, as CI does.
//!
//! Nothing is skipped silently. A privileged level that ran no test has failed. Without root the run fails, unless
//! `--unprivileged` was given.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::machine;
use crate::setup::{self, toolchain};
use crate::suites::{self, Count, Level};
use crate::{smoke, tidy, verify, vm, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// Leave out the levels that need root (BPF programs, network namespaces), and do not call that a failure
    #[arg(long)]
    unprivileged: bool,
}

/// A row of the table at the end.
struct Row {
    level: &'static str,
    count: Count,
    secs: f32,
    note: &'static str,
}

/// Checks of the sources.
const LINTS: &[(&str, Check)] =
    &[("format", format), ("tidy", tidy::run), ("clippy", clippy), ("clippy for BPF", clippy_bpf)];

/// Checks of the programs by the kernel.
const BUDGETS: &[(&str, Check)] = &[
    ("budget of the BPF programs", || verify::run(&verify::Args::default())),
    ("the BPF programs with bpf-log", || verify::run(&verify::Args::with_bpf_log())),
];

/// The oldest kernel that Debian 12 has.
const OLDEST_KERNEL: &str = "Linux 6.1";
const ON_OLDEST_KERNEL: &[(&str, Check)] = &[
    ("the BPF programs on Linux 6.1", || verify::run(&verify::Args::on("6.1"))),
    ("packets on Linux 6.1", || smoke::run(&smoke::Args::on("6.1"))),
    ("devices on Linux 6.1", || smoke::devices(&smoke::Args::on("6.1"))),
];

type Check = fn() -> Result<()>;

/// Runs everything, prints the table, and fails if anything failed.
pub fn run(args: &Args) -> Result<()> {
    setup::ensure_tests()?;
    let privileged = privilege(args);
    let mut rows = vec![checks("lints", LINTS)];
    let suites = suites::build()?;
    for level in Level::ALL {
        if level.needs_root() && privileged.is_err() {
            rows.push(Row { level: level.name(), count: Count::default(), secs: 0.0, note: "DID NOT RUN" });
            continue;
        }
        rows.push(run_level(level, &suites)?);
    }
    if privileged.is_ok() {
        rows.push(checks("verifier budget", BUDGETS));
        rows.push(oldest_kernel());
    }
    finish(&rows, privileged, args)
}

/// An error says why the levels that need root cannot run.
fn privilege(args: &Args) -> Result<(), String> {
    if args.unprivileged {
        return Err("--unprivileged was given".into());
    }
    if !machine::is_root() {
        return Err("this is not root".into());
    }
    machine::kernel_lacks_for_tests().map_or(Ok(()), Err)
}

/// Runs all checks, also after a failure, so that one run shows everything to fix.
fn checks(level: &'static str, checks: &[(&str, Check)]) -> Row {
    let started = Instant::now();
    let mut count = Count::default();
    for (name, check) in checks {
        println!("== {name}");
        match check() {
            Ok(()) => count.passed += 1,
            Err(error) => {
                eprintln!("error: {name}: {error:#}");
                count.failed += 1;
            }
        }
    }
    Row { level, count, secs: started.elapsed().as_secs_f32(), note: "" }
}

fn oldest_kernel() -> Row {
    if vm::is_possible() {
        return checks(OLDEST_KERNEL, ON_OLDEST_KERNEL);
    }
    Row { level: OLDEST_KERNEL, count: Count::default(), secs: 0.0, note: "DID NOT RUN: no kernel of Debian here" }
}

fn format() -> Result<()> {
    succeed(workspace::cargo().args(["fmt", "--all", "--check"]), "run: cargo fmt --all")
}

fn clippy() -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["clippy", "--quiet", "--workspace", "--exclude", "lb-ebpf", "--all-targets", "--", "-Dwarnings"]);
    succeed(&mut cargo, "fix what clippy reports above")
}

/// The lints over the code for the kernel, compiled for the BPF target.
fn clippy_bpf() -> Result<()> {
    let Some(toolchain) = toolchain::bpf() else { bail!("no compiler for BPF: run cargo xtask setup") };
    let mut cargo = toolchain.cargo_for_bpf("clippy", &["-Dwarnings"], &workspace::target().join("clippy-bpf"));
    cargo.arg("--bins");
    succeed(&mut cargo, "fix what clippy reports above")
}

fn succeed(command: &mut Command, remedy: &str) -> Result<()> {
    if !command.status()?.success() {
        bail!("{remedy}");
    }
    Ok(())
}

fn run_level(level: Level, suites: &[suites::Suite]) -> Result<Row> {
    let started = Instant::now();
    let mut count = Count::default();
    for suite in suites.iter().filter(|suite| suite.level == level) {
        println!("== {}: {}", level.name(), suite.name);
        count = count.plus(judged(level, &suite.name, suite.run()?));
    }
    if level == Level::Unit {
        println!("== {}: examples in the documentation", level.name());
        count = count.plus(suites::run_doc_tests()?);
    }
    let note = if count.ran() == 0 { "RAN NOTHING" } else { "" };
    if count.ran() == 0 {
        // An empty level is a failure: otherwise a renamed suite would pass forever.
        count.failed += 1;
    }
    Ok(Row { level: level.name(), count, secs: started.elapsed().as_secs_f32(), note })
}

/// The result of a program. A program without a test has failed, except at the level of units.
fn judged(level: Level, name: &str, count: Count) -> Count {
    if level == Level::Unit || !count.is_empty() {
        return count;
    }
    eprintln!("error: {name} ran no test");
    Count { failed: 1, ..count }
}

/// Prints the table and returns the overall result.
fn finish(rows: &[Row], privileged: Result<(), String>, args: &Args) -> Result<()> {
    println!("\n{:<22} {:>7} {:>7} {:>7} {:>8}", "level", "passed", "failed", "skipped", "seconds");
    for Row { level, count, secs, note } in rows {
        let Count { passed, failed, skipped } = count;
        println!("{level:<22} {passed:>7} {failed:>7} {skipped:>7} {secs:>8.1} {note}");
    }
    let sum = rows.iter().fold(Count::default(), |sum, row| sum.plus(row.count));
    if let Err(reason) = &privileged {
        println!("\nNOT RUN, because {reason}: every level that loads BPF programs or makes network namespaces");
    }
    if sum.skipped > 0 {
        // No other tests are ever skipped (tidy forbids #[ignore]).
        let remedy = "KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd";
        println!("\nSKIPPED: {} tests against a real API server, because {remedy}", sum.skipped);
    }
    println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped);
    if sum.failed > 0 {
        bail!("{} checks or tests failed", sum.failed);
    }
    match privileged {
        Err(reason) if !args.unprivileged => {
            bail!("{reason}, so the levels above did not run; run this as root, or give --unprivileged")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ran_nothing_has_failed() {
        let nothing = Count::default();
        assert_eq!(judged(Level::PacketKernel, "progrun", nothing), Count { failed: 1, ..nothing });
        assert_eq!(judged(Level::PacketHost, "path", nothing), Count { failed: 1, ..nothing });
        assert_eq!(judged(Level::Unit, "lb-agent (bin)", nothing), nothing);
        let skipped = Count { skipped: 3, ..nothing };
        assert_eq!(judged(Level::Netns, "netns-kubernetes", skipped), skipped);
        let passed = Count { passed: 1, ..nothing };
        assert_eq!(judged(Level::PacketKernel, "progrun", passed), passed);
    }
}
