//! The binary: parses the arguments, calls the library, and turns errors into exit codes.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use lb_agent::args::{Command, CommandLine};
use lb_agent::printable::printable;
use lb_agent::{check, config, explain, run, show, unload};

fn main() -> ExitCode {
    // Wrong arguments end the process here, with code 2.
    let result = match CommandLine::parse().command {
        Command::Run(args) => run::run(*args),
        Command::Show(args) => show::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Unload(args) => unload::run(&args),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    // The verifier's message may have many lines. A line injected by other text cannot look like the first line of
    // ours.
    for (number, line) in format!("{error:#}").lines().enumerate() {
        let start = if number == 0 { "lb-agent: " } else { "  | " };
        // If standard error cannot be written, the exit code remains.
        let _ = writeln!(std::io::stderr(), "{start}{}", printable(line));
    }
    match error.downcast_ref() {
        Some(config::Error::Invalid { .. }) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}
