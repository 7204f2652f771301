//! The demo as a program: exit code 0 if every step went as expected, 1 otherwise.

use std::process::ExitCode;

use clap::Parser;
use lb_tests::demo::{self, Step};

/// Shows the problem that lb-agent solves, and the cure, with real programs in network namespaces of its own.
#[derive(Parser)]
#[command(name = "demo")]
struct Args {
    /// Sabotage one step: it must then be reported as wrong
    #[arg(long = "break", value_name = "STEP", value_enum)]
    sabotage: Option<Step>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = demo::requirements() {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    lb_tests::leftovers::remove_on_interrupt();
    let verdict = std::panic::catch_unwind(|| demo::run(args.sabotage));
    lb_tests::leftovers::leave_the_end_to_the_interrupt();
    match verdict {
        Ok(demo::Verdict::AsExpected) => ExitCode::SUCCESS,
        Ok(demo::Verdict::Wrong) => ExitCode::FAILURE,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
