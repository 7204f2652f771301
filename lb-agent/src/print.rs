//! Prints to standard output completely, or returns an error. A reader that closes early (`lb-agent show flows | head`)
//! is no error.

use std::io::{ErrorKind, IsTerminal as _, Write as _, stdout};

use anyhow::Context as _;

use crate::printable::printable;

/// Whether standard output is still read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    There,
    Gone,
}

/// Prints a text.
pub fn print(text: &str) -> anyhow::Result<()> {
    write(text).map(|_| ())
}

/// Prints a text, for those who would print on.
pub fn write(text: &str) -> anyhow::Result<Reader> {
    let mut output = stdout().lock();
    let printed = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    match printed {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        printed => printed.map(|()| Reader::There).context("cannot write to standard output"),
    }
}

/// Prints a line on standard error, with unprintable characters escaped. If it cannot be written, there is no better
/// place.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "lb-agent: {}", printable(line));
}

pub fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// The columns of the terminal, if standard output is one that tells.
pub fn terminal_width() -> Option<u16> {
    let (columns, _) = is_terminal().then(ratatui::crossterm::terminal::size)?.ok()?;
    (columns > 0).then_some(columns)
}
