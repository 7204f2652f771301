//! The budget: what each program may cost, in `xtask/verifier-budget.toml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace;

/// Growth up to this is noise of the compiler.
const GROWTH_PERCENT: u64 = 10;
/// No program may come nearer to the kernel's million, whatever the budget says: a fix must have room.
const VERIFIED_MAX: u64 = 700_000;
/// The figure that the verifier of the kernel of this machine gives.
pub const VERIFIED: &str = "verified_instructions";

const HEADER: &str = "# What the BPF programs cost, as `cargo xtask verify --update` measured it. Growth beyond a tenth must\n\
    # change this file. The kernel allows 512 bytes of stack along a chain of calls, and 1,000,000 instructions.\n\
    # `cargo xtask verify --kernel 6.1 --update` measures on Debian's kernel 6.1.\n";

/// The figures of a program, by name: `verified_instructions`, `stack_bytes` and so on.
pub type Figures = BTreeMap<String, u64>;
/// The figures of all programs, by program.
pub type Programs = BTreeMap<String, Figures>;

/// The name of a figure that the verifier of another kernel gives.
pub fn on(what: &str, version: &str) -> String {
    format!("{what}_on_{}", version.replace('.', "_"))
}

fn path() -> PathBuf {
    workspace::root().join("xtask/verifier-budget.toml")
}

pub fn read() -> Result<Programs> {
    let text = fs::read_to_string(path()).context("cannot read the budget")?;
    basic_toml::from_str(&text).context("the budget is not as --update writes it")
}

pub fn write(budget: &Programs) -> Result<()> {
    Ok(fs::write(path(), format!("{HEADER}\n{}", basic_toml::to_string(budget)?))?)
}

/// The budget with what was measured. Figures of other kernels stay, and programs that are gone go.
pub fn updated(mut budget: Programs, measured: &Programs) -> Programs {
    budget.retain(|program, _| measured.contains_key(program));
    for (program, figures) in measured {
        budget.entry(program.clone()).or_default().extend(figures.clone());
    }
    budget
}

pub fn table(measured: &Programs, budget: &Programs) -> String {
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
pub fn over(measured: &Programs, budget: &Programs) -> Vec<String> {
    let mut found = Vec::new();
    for (program, figures) in measured {
        for (what, value) in figures {
            if what.starts_with(VERIFIED) && *value > VERIFIED_MAX {
                found.push(format!("{program}: {what} is {value}, more than {VERIFIED_MAX}"));
            }
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
        Programs::from([(name.into(), Figures::from([(VERIFIED.into(), instructions)]))])
    }

    #[test]
    fn growth_beyond_a_tenth_is_over_budget() {
        let budget = programs("ingress", 1000);
        assert!(over(&programs("ingress", 1100), &budget).is_empty());
        assert!(over(&programs("ingress", 10), &budget).is_empty());
        assert_eq!(over(&programs("ingress", 1101), &budget).len(), 1);
    }

    #[test]
    fn no_budget_allows_a_program_near_the_limit_of_the_kernel() {
        let large = programs("ingress", VERIFIED_MAX + 1);
        assert_eq!(over(&large, &large).len(), 1);
        let most = programs("ingress", VERIFIED_MAX);
        assert!(over(&most, &most).is_empty());
    }

    #[test]
    fn programs_and_budget_name_the_same() {
        assert_eq!(over(&programs("ingress", 1), &programs("egress", 1)).len(), 2);
    }

    #[test]
    fn an_update_keeps_the_figures_of_other_kernels() {
        let of_kernel = Figures::from([(on(VERIFIED, "6.1"), 7)]);
        let budget = Programs::from([("ingress".into(), of_kernel), ("gone".into(), Figures::new())]);
        let budget = updated(budget, &programs("ingress", 5));
        let figures = Figures::from([(VERIFIED.into(), 5), ("verified_instructions_on_6_1".into(), 7)]);
        assert_eq!(budget, Programs::from([("ingress".into(), figures)]));
    }

    #[test]
    fn the_budget_in_the_source_is_readable() {
        assert!(!read().expect("as --update writes it").is_empty());
    }
}
