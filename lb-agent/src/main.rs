//! The binary: parses the arguments, calls the library, and turns errors into exit codes.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use lb_agent::args::{self, Command};
use lb_agent::printable::printable;
use lb_agent::{bundle, check, completion, config, explain, man, monitor, privilege, run, show, top, unload};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

fn main() -> ExitCode {
    let (command, settings) = match args::parse() {
        Ok(parsed) => parsed,
        // Help and version as well.
        Err(args::Error::Arguments(error)) => error.exit(),
        Err(error) => return report(&error.into()),
    };
    if let Err(error) = end_on_signals_as_the_first_process(&command) {
        return report(&error.into());
    }
    let result = match command {
        Command::Run(args) => run::run(*args, settings),
        Command::Show(args) => show::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Monitor(args) => monitor::run(&args),
        Command::Check(args) => check::run(*args),
        Command::Unload(args) => unload::run(&args),
        Command::Bundle(args) => bundle::run(&args),
        Command::Completion(args) => completion::run(&args),
        Command::Man(args) => man::run(&args),
    };
    result.map_or_else(|error| report(&error), |()| ExitCode::SUCCESS)
}

/// The kernel gives the first process of a container only the signals that it asks for: it would wait on after SIGTERM.
fn end_on_signals_as_the_first_process(command: &Command) -> std::io::Result<()> {
    /// What a shell says of a process that a signal has ended.
    const SIGNALLED: i32 = 128;
    let is_asking_itself = matches!(command, Command::Run(_) | Command::Monitor(_) | Command::Top(_));
    if std::process::id() != 1 || is_asking_itself {
        return Ok(());
    }
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, SIGNALLED + signal, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// Prints the error. Returns the exit code.
fn report(error: &anyhow::Error) -> ExitCode {
    // The verifier's message may have many lines. A line injected by other text cannot look like the first line of
    // ours.
    let remedy = privilege::remedy(error).map_or_else(String::new, |remedy| format!("\n{remedy}"));
    for (number, line) in format!("{error:#}{remedy}").lines().enumerate() {
        let start = if number == 0 { "lb-agent: " } else { "  | " };
        // If standard error cannot be written, the exit code remains.
        let _ = writeln!(std::io::stderr(), "{start}{}", printable(line));
    }
    if error.is::<config::Error>() || error.is::<args::Error>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}
