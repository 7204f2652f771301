//! `cargo xtask verify`: compares the verifier's figures of each program with a budget that is part of the source.
//!
//! A program that grows by more than a tenth needs a new budget in the same change, which a reviewer then sees.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::handover::{self, Profile};
use crate::workspace;

/// Growth up to this is noise of the compiler.
const GROWTH_PERCENT: u64 = 10;

/// The figures of a program, by name: `verified_instructions`, `stack_bytes` and so on.
type Figures = BTreeMap<String, u64>;
/// The figures of all programs, by program.
type Programs = BTreeMap<String, Figures>;

#[derive(clap::Args, Default)]
pub struct Args {
    /// Write what was measured into the budget
    #[arg(long)]
    update: bool,
}

/// Loads every program, prints its figures, and compares them with the budget.
pub fn run(args: &Args) -> Result<()> {
    let measured = measure()?;
    if args.update {
        let text = format!("{HEADER}\n{}", basic_toml::to_string(&measured)?);
        fs::write(budget_path(), text)?;
    }
    let text = fs::read_to_string(budget_path()).context("cannot read the budget; write it with --update")?;
    let budget: Programs = basic_toml::from_str(&text).context("the budget is not as --update writes it")?;
    print!("{}", table(&measured, &budget));
    let over = over(&measured, &budget);
    if over.is_empty() {
        return Ok(());
    }
    bail!("over budget; if it must be so, run cargo xtask verify --update and commit it\n  {}", over.join("\n  "))
}

const HEADER: &str = "# What the BPF programs cost, as `cargo xtask verify --update` measured it. Growth beyond a tenth must\n\
    # change this file. The kernel allows 512 bytes of stack along a chain of calls, and 1,000,000 instructions.\n";

fn budget_path() -> PathBuf {
    workspace::root().join("xtask/verifier-budget.toml")
}

fn measure() -> Result<Programs> {
    let program = handover::prepare("programs", Profile::Debug)?;
    let output = handover::command(&program).stderr(std::process::Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the programs do not load");
    }
    serde_json::from_slice(&output.stdout).context("the list of programs is not what was expected")
}

fn table(measured: &Programs, budget: &Programs) -> String {
    let mut text = format!("{:<20} {:<24} {:>10} {:>10}\n", "program", "what", "measured", "budget");
    for (program, figures) in measured {
        for (what, value) in figures {
            let bound = budget.get(program).and_then(|figures| figures.get(what));
            let bound = bound.map_or_else(|| "-".into(), ToString::to_string);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{program:<20} {what:<24} {value:>10} {bound:>10}");
        }
    }
    text
}

/// Figures over their budget or without one, and programs that only the budget names.
fn over(measured: &Programs, budget: &Programs) -> Vec<String> {
    let mut found = Vec::new();
    for (program, figures) in measured {
        for (what, value) in figures {
            match budget.get(program).and_then(|figures| figures.get(what)) {
                None => found.push(format!("{program}: {what} has no budget")),
                Some(bound) if *value * 100 > *bound * (100 + GROWTH_PERCENT) => {
                    found.push(format!("{program}: {what} grew from {bound} to {value}"));
                }
                Some(_) => {}
            }
        }
    }
    let gone = budget.keys().filter(|program| !measured.contains_key(*program));
    found.extend(gone.map(|program| format!("{program} is in the budget but is no program")));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(name: &str, instructions: u64) -> Programs {
        Programs::from([(name.into(), Figures::from([("verified_instructions".into(), instructions)]))])
    }

    #[test]
    fn growth_beyond_a_tenth_is_over_budget() {
        let budget = programs("ingress", 1000);
        assert!(over(&programs("ingress", 1100), &budget).is_empty());
        assert!(over(&programs("ingress", 10), &budget).is_empty());
        assert_eq!(over(&programs("ingress", 1101), &budget).len(), 1);
    }

    #[test]
    fn programs_and_budget_name_the_same() {
        assert_eq!(over(&programs("ingress", 1), &programs("egress", 1)).len(), 2);
    }

    #[test]
    fn the_budget_in_the_source_is_readable() {
        let text = fs::read_to_string(budget_path()).expect("the budget is part of the source");
        let budget: Programs = basic_toml::from_str(&text).expect("as --update writes it");
        assert!(!budget.is_empty());
    }
}
