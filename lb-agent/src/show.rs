//! `show`: the dataplane as a person or a script reads it. From the pins, so it works when no agent runs.

mod counters;
mod flows;
mod frontends;
mod interfaces;
mod pools;
mod table;
mod warnings;

use crate::args::{Output, ShowArgs, Subject};
use crate::dataplane::pins::Pins;

pub use table::{Row, render};

/// Prints one subject.
pub fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let pins = || Pins::open(&args.pins.pin_path);
    let text = match args.subject {
        Subject::Frontends => render(&frontends::read(&pins()?)?, args.output)?,
        Subject::Pools => render(&pools::rows(&pins()?.tables()?), args.output)?,
        Subject::Flows => render(&flows::read(&pins()?)?, args.output)?,
        Subject::Counters => render(&counters::read(&pins()?)?, args.output)?,
        Subject::Interfaces => render(&interfaces::read(&pins()?)?, args.output)?,
        Subject::Warnings => render(&warnings::read(args.http.http)?, args.output)?,
    };
    print!("{text}");
    Ok(())
}

impl Output {
    const fn is_table(self) -> bool {
        matches!(self, Self::Table)
    }
}
