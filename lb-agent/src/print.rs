//! Prints to standard output completely, or returns an error. A reader that closes early (`lb-agent show flows | head`)
//! is no error.

use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;

use crate::printable::printable;

/// Prints a text.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("cannot write to standard output"),
    }
}

/// Prints a line on standard error, with unprintable characters escaped. If it cannot be written, there is no better
/// place.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "lb-agent: {}", printable(line));
}
