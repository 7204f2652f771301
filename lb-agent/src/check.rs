//! `check`: does this machine have what is needed, and who else is here? Looks, and changes nothing.

mod kernel;
mod memory;
mod mounts;
mod netfilter;
mod network;
mod privilege;

use serde::Serialize;

use crate::args::{CheckArgs, Output};
use crate::print::print;
use crate::render::Row;
use crate::show::print_rows;

/// What was looked at, what was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// Empty where all is well.
    pub remedy: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Ok,
    /// It works, with a limit that is worth knowing.
    Warn,
    /// `lb-agent run` cannot do its work.
    Fail,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, found: found.into(), remedy: remedy.into() }
    }

    fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, found: found.into(), remedy: remedy.into() }
    }
}

impl Row for Finding {
    const TITLES: &'static [&'static str] = &["CHECK", "VERDICT", "FOUND", "REMEDY"];

    fn cells(&self) -> Vec<String> {
        vec![self.check.into(), self.verdict.name().into(), self.found.clone(), self.remedy.clone()]
    }
}

/// Prints all findings; fails where one of them is a failure.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let mut findings = kernel::findings();
    findings.extend(privilege::findings(&args.pins.pin_path));
    findings.extend(mounts::findings(&args.pins.pin_path));
    findings.extend(memory::findings());
    findings.extend(network::findings(&args.pins.pin_path)?);
    findings.extend(netfilter::findings());
    print_rows(&findings, args.output)?;
    let failures = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
    if failures > 0 {
        anyhow::bail!("{failures} of {} checks failed", findings.len());
    }
    if matches!(args.output, Output::Table) {
        let warnings = findings.iter().filter(|finding| finding.verdict == Verdict::Warn).count();
        print(&format!("{} checks, {warnings} warnings, no failure\n", findings.len()))?;
    }
    Ok(())
}
