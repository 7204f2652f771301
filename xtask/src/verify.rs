//! `cargo xtask verify`: compares the verifier's figures of each program with a budget that is part of the source.
//!
//! A program that grows by more than a tenth needs a new budget in the same change, which a reviewer then sees.
//! `--kernel 6.1` asks the verifier of another kernel, in a virtual machine. `--bpf-log` loads the programs of that
//! feature, which have no budget.

mod budget;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::budget::{Figures, Programs};
use crate::handover::{self, Profile};
use crate::setup::toolchain;
use crate::{vm, workspace};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Load the programs on Debian's kernel of this version (6.1, 6.12), in a virtual machine
    #[arg(long, value_name = "VERSION")]
    kernel: Option<String>,
    /// Write what was measured into the budget
    #[arg(long, conflicts_with = "bpf_log")]
    update: bool,
    /// Load the programs of the feature bpf-log, which write a line for each packet, and compare nothing
    #[arg(long)]
    bpf_log: bool,
}

impl Args {
    /// Compares what the kernel of this version says with the budget.
    pub fn on(version: &str) -> Self {
        Self { kernel: Some(version.into()), ..Self::default() }
    }

    /// Loads the programs of the feature bpf-log.
    pub fn with_bpf_log() -> Self {
        Self { bpf_log: true, ..Self::default() }
    }
}

/// Loads every program, prints its figures, and compares them with the budget.
pub fn run(args: &Args) -> Result<()> {
    let object = if args.bpf_log { Some(with_bpf_log()?) } else { None };
    let measured = match &args.kernel {
        None => here(object.as_ref())?,
        Some(version) => on_kernel(version, object.as_ref())?,
    };
    if object.is_some() {
        return Ok(());
    }
    let mut budget = budget::read()?;
    if args.update {
        budget = budget::updated(budget, &measured);
        budget::write(&budget)?;
    }
    if args.kernel.is_none() {
        print!("{}", budget::table(&measured, &budget));
    }
    let over = budget::over(&measured, &budget);
    if over.is_empty() {
        return Ok(());
    }
    bail!("over budget; if it must be so, run this again with --update and commit it\n  {}", over.join("\n  "))
}

/// The figures on the kernel of this machine.
fn here(object: Option<&PathBuf>) -> Result<Programs> {
    let program = handover::prepare("programs", Profile::Debug)?;
    let mut child = handover::command(&program).args(object).stdout(Stdio::piped()).spawn()?;
    let mut verdicts = Verdicts::default();
    for line in BufReader::new(child.stdout.take().context("piped")?).lines() {
        verdicts.hear(&line?)?;
    }
    ensure!(child.wait()?.success(), "the programs do not load");
    verdicts.finish()
}

/// The instructions that the verifier of another kernel walks, as a figure of its own.
fn on_kernel(version: &str, object: Option<&PathBuf>) -> Result<Programs> {
    const PLACE: &str = "lb.bpf.o";
    let program = handover::build("programs", Profile::Debug)?;
    let (mut verdicts, mut heard) = (Verdicts::default(), Ok(()));
    let arguments: Vec<_> = object.map(|_| format!("/{PLACE}")).into_iter().collect();
    let files: Vec<_> = object.map(|object| (object.clone(), PLACE)).into_iter().collect();
    let task = vm::Task { program: &program, arguments: &arguments, files: &files, tools: &[], modules: &[] };
    vm::run(version, &task, |line| {
        if heard.is_ok() {
            heard = verdicts.hear(line);
        }
    })?;
    heard?;
    let of_kernel = |figures: Figures| {
        let verified = figures.into_iter().filter(|(what, _)| what.starts_with(budget::VERIFIED));
        verified.map(|(what, verified)| (budget::on(&what, version), verified)).collect()
    };
    Ok(verdicts.finish()?.into_iter().map(|(program, figures)| (program, of_kernel(figures))).collect())
}

/// Builds the programs with the feature bpf-log. A folder of its own keeps them apart from those of the agent.
fn with_bpf_log() -> Result<PathBuf> {
    let folder = workspace::target().join("bpf-log");
    let toolchain = toolchain::bpf().context("no compiler for BPF: run cargo xtask setup")?;
    let mut cargo = toolchain.cargo_for_bpf("build", &["-Cdebuginfo=2", "-Clink-arg=--btf"], &folder);
    cargo.args(["--locked", "--bin", "lb", "--features", "bpf-log"]);
    ensure!(cargo.status()?.success(), "lb-ebpf does not build with the feature bpf-log");
    Ok(folder.join(toolchain::BPF_TARGET).join("release/lb"))
}

/// What the loader told of each program, printed as it comes.
#[derive(Default)]
struct Verdicts {
    programs: Programs,
    refused: Vec<String>,
}

impl Verdicts {
    /// Takes a line of the loader. Others, such as those of a kernel, are printed.
    fn hear(&mut self, line: &str) -> Result<()> {
        let Ok(Value::Object(told)) = serde_json::from_str(line) else {
            println!("{line}");
            return Ok(());
        };
        let program = told.get("program").and_then(Value::as_str).context("a line of the loader names a program")?;
        let Some(millis) = told.get("millis").and_then(Value::as_u64) else {
            print!("{program:<20} ");
            return Ok(std::io::stdout().flush()?);
        };
        let secs = Duration::from_millis(millis).as_secs_f32();
        if let Some(reason) = told.get("refused").and_then(Value::as_str) {
            println!("{:>10} instructions {secs:>6.1} s  REFUSED", "-");
            self.refused.push(format!("{program}: {reason}"));
            return Ok(());
        }
        let figures = told.get("figures").cloned().unwrap_or_default();
        let figures: Figures = serde_json::from_value(figures).context("the figures of a program are numbers")?;
        let verified = figures.get(budget::VERIFIED).context("the verifier counts instructions")?;
        println!("{verified:>10} instructions {secs:>6.1} s  loaded");
        self.programs.insert(program.to_owned(), figures);
        Ok(())
    }

    /// The figures of all programs. Fails if one of them was refused, or none was loaded.
    fn finish(self) -> Result<Programs> {
        ensure!(self.refused.is_empty(), "the kernel refuses\n{}", self.refused.join("\n"));
        ensure!(!self.programs.is_empty(), "no program was loaded");
        Ok(self.programs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_program_is_a_failure() {
        let mut verdicts = Verdicts::default();
        let lines = [
            r#"{"program":"tick"}"#,
            r#"{"figures":{"verified_instructions":4},"millis":1,"program":"tick"}"#,
            "a line of the kernel",
        ];
        for line in lines {
            verdicts.hear(line).expect("a line of the loader");
        }
        assert_eq!(verdicts.programs["tick"][budget::VERIFIED], 4);
        verdicts.hear(r#"{"program":"collect","refused":"too large","millis":9}"#).expect("a line of the loader");
        let error = verdicts.finish().expect_err("a program was refused").to_string();
        assert!(error.contains("collect: too large"), "{error}");
        assert!(Verdicts::default().finish().is_err(), "nothing was loaded");
    }
}
