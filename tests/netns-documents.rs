//! The commands of the documentation: each is run, in the order of its page, and prints what the page shows; or, where
//! it cannot be run, it is checked in another way. One test a page. Needs root.
//!
//! With `LB_REWRITE=1` an output that differs is written into the page, to be read before it is committed.

use std::env;
use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use lb_tests::deadline::PATIENCE;
use lb_tests::document::{Stage, Step, Wrong, check_unrun, pages, read, rewritten, top};
use lb_tests::leftovers;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    leftovers::remove_on_interrupt();
    let trials = pages().into_iter().enumerate().map(|(number, page)| {
        let name = page.clone();
        Trial::test(name, move || perform(&page, number))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn perform(page: &str, number: usize) -> Result<(), Failed> {
    let text = fs::read_to_string(top().join(page))?;
    let steps = read(&text).map_err(|error| format!("{page}: {error}"))?;
    let mut stage: Option<Stage> = None;
    let is_rewritten = env::var_os("LB_REWRITE").is_some();
    let patience = if is_rewritten { Duration::from_secs(1) } else { PATIENCE };
    let mut outputs = Vec::new();
    for step in &steps {
        let has_no_stage = || format!("{page}: a stage comes first (docs/CONTRIBUTING.md)");
        match step {
            Step::Stage(words) => {
                // The old one ends first: the two have the same names.
                drop(stage.take());
                stage = Some(Stage::prepare(words, number).map_err(|error| format!("{page}: {error}"))?);
            }
            Step::File(path, text) => stage.as_mut().ok_or_else(has_no_stage)?.write(path, text),
            Step::Run(command) => match stage.as_mut().ok_or_else(has_no_stage)?.run(command, patience) {
                Ok(()) => {}
                Err(Wrong { printed: Some(printed), .. }) if is_rewritten => {
                    outputs.push((command.clone(), printed));
                }
                Err(wrong) => {
                    return Err(format!("{page}, line {}: `{}`: {}", command.line, command.text, wrong.what).into());
                }
            },
            Step::Unrun { line, command, .. } => {
                check_unrun(command).map_err(|error| format!("{page}, line {line}: {error}"))?;
            }
        }
    }
    if !outputs.is_empty() {
        fs::write(top().join(page), rewritten(&text, &outputs))?;
    }
    Ok(())
}
