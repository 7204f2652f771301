//! Script cases: from Kubernetes YAML to tables, as text that reads like a specification.
//!
//! A case is a txtar file: a comment, then sections. Each section is one step, in order: it changes the folder, or
//! compares the tables. Every case runs on a dataplane that works and on ones that fail a tenth of their calls.

pub mod normal;
mod settings;
mod stage;
pub mod txtar;

use std::path::Path;

use anyhow::{Context, Result, bail};
use lb_agent::dataplane::fake::Faults;

use stage::Stage;
use txtar::Archive;

/// If set, the expectations of the cases are rewritten with the results.
pub const REWRITE_VARIABLE: &str = "LB_SCRIPT_REWRITE";

/// The faults of the dataplane in the runs of a case.
const RUNS: [Faults; 5] = [
    Faults::Never,
    Faults::Random { percent: 10, seed: 1 },
    Faults::Random { percent: 10, seed: 2 },
    Faults::Random { percent: 10, seed: 3 },
    Faults::Random { percent: 10, seed: 24 },
];

/// What to do if a table is not as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Fail.
    Holds,
    /// Write down the result.
    Rewritten,
}

/// Runs one case file. If [`REWRITE_VARIABLE`] is set, the file is rewritten first.
pub fn run_file(path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut archive = Archive::parse(&text);
    if std::env::var_os(REWRITE_VARIABLE).is_some() {
        run(&mut archive, Faults::Never, Expectation::Rewritten)?;
        std::fs::write(path, archive.to_string())?;
    }
    for faults in RUNS {
        run(&mut archive, faults, Expectation::Holds).with_context(|| format!("dataplane: {faults:?}"))?;
    }
    Ok(())
}

/// Runs the sections in order.
pub fn run(archive: &mut Archive, faults: Faults, expectation: Expectation) -> Result<()> {
    let settings = match archive.sections.first() {
        Some(section) if section.name == "settings" => settings::parse(&section.body)?,
        _ => settings::parse("")?,
    };
    let mut stage = Stage::new(settings, faults)?;
    let mut compared = 0;
    for section in &mut archive.sections {
        let name = section.name.clone();
        let actual = perform(&mut stage, &name, &section.body).with_context(|| format!("-- {name} --"))?;
        let Some(actual) = actual else { continue };
        compared += 1;
        match expectation {
            Expectation::Rewritten => section.body = actual,
            Expectation::Holds if lines(&actual) == lines(&section.body) => {}
            Expectation::Holds => {
                bail!("section {compared} `-- {name} --`:\nexpected:\n{}\nfound:\n{actual}", section.body)
            }
        }
    }
    if compared == 0 {
        bail!("the case compares nothing");
    }
    Ok(())
}

/// Performs one step. Returns the text to compare, for steps that compare.
fn perform(stage: &mut Stage, name: &str, body: &str) -> Result<Option<String>> {
    let words: Vec<&str> = name.split_whitespace().collect();
    match words[..] {
        ["settings"] => stage.set(settings::parse(body)?),
        ["write", file] => stage.write(file, body)?,
        ["remove", file] => stage.remove(file)?,
        ["rename", from, to] => stage.rename(from, to)?,
        ["stop"] => stage.stop(),
        ["restart"] => stage.restart()?,
        ["addresses"] => stage.set_addresses(body)?,
        ["flows"] => stage.set_flows(body)?,
        ["reclaim"] => stage.reclaim()?,
        ["drop-unclaimed"] => stage.drop_unclaimed()?,
        ["frontends" | "pools" | "members" | "source-ranges" | "guard" | "warnings"] => {
            return Ok(Some(stage.table(words[0])));
        }
        _ => bail!("not a step"),
    }
    Ok(None)
}

/// Trailing blanks and empty lines at the ends are layout, not content.
fn lines(text: &str) -> Vec<&str> {
    text.trim().lines().map(str::trim_end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(mode: &str) -> String {
        format!(
            "-- write a.yaml --\nkind: Service\nmetadata: {{name: a}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}\n\
             status: {{loadBalancer: {{ingress: [{{ip: 1.2.3.4, ipMode: {mode}}}]}}}}\n"
        )
    }

    #[test]
    fn a_wrong_expectation_fails() {
        let mut case = Archive::parse(&(service("VIP") + "-- frontends --\nnothing\n"));
        let error = run(&mut case, Faults::Never, Expectation::Holds).expect_err("the table is not `nothing`");
        assert!(format!("{error:#}").contains("1.2.3.4:80"), "{error:#}");
    }

    #[test]
    fn a_rewritten_case_holds() {
        let mut case =
            Archive::parse(&(service("VIP") + "-- frontends --\n-- pools --\n-- members --\n-- warnings --\n"));
        run(&mut case, Faults::Never, Expectation::Rewritten).expect("it runs");
        let mut again = Archive::parse(&case.to_string());
        assert_eq!(again, case);
        run(&mut again, Faults::Never, Expectation::Holds).expect("it says what it found");
    }

    #[test]
    fn a_case_that_compares_nothing_fails() {
        run(&mut Archive::parse(&service("VIP")), Faults::Never, Expectation::Holds).expect_err("nothing compared");
    }

    #[test]
    fn an_unknown_step_fails() {
        let mut case = Archive::parse("-- frontend --\n");
        run(&mut case, Faults::Never, Expectation::Holds).expect_err("no such step");
    }
}
