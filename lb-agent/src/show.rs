//! `show`: prints the state of the dataplane as a table or as JSON. It reads the pins, so it works without a running
//! agent.

pub mod counters;
pub mod drops;
pub mod flows;
pub mod frontends;
pub mod interfaces;
mod names;

use crate::args::{Output, ShowArgs, Subject};
use crate::ask;
use crate::dataplane::pins::Pins;
use crate::guard::{Door as _, Found, Table};
use crate::print::print;
use crate::render::{self, GuardRow, Item, Row};

/// Prints one subject.
pub fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let pins = || Pins::open(&args.pins.pin_path);
    let services = || ask::services(args.http.http, &args.pins.pin_path);
    let output = args.output;
    match args.subject {
        Subject::Frontends => {
            print_rows(&frontends::read(&pins()?, &services())?, output)?;
        }
        Subject::Pools => print_rows(&render::pools(&pins()?.tables()?), output)?,
        Subject::SourceRanges => print_rows(&render::source_ranges(&pins()?.tables()?), output)?,
        Subject::Flows => print_rows(&flows::read(&pins()?, &services())?, output)?,
        Subject::Counters => print_rows(&counters::read(&pins()?)?, output)?,
        Subject::Drops => print_rows(&drops::read(&pins()?, &services())?, output)?,
        Subject::Interfaces => {
            let judgements = ask::judgements(args.http.http, &args.pins.pin_path);
            print_rows(&interfaces::read(&pins()?, judgements.as_ref())?, output)?;
        }
        Subject::Guard => match Table::of_pins(&args.pins.pin_path).read()? {
            Found::Rows(rows) => print_rows(&render::guard(&rows), output)?,
            Found::Absent => print_rows::<GuardRow>(&[], output)?,
            Found::Foreign => {
                anyhow::bail!("the guard's table differs from what this version writes: the agent restores the table")
            }
        },
        Subject::Warnings => print_rows(&ask::warnings(args.http.http)?, output)?,
    }
    Ok(())
}

/// Prints rows on standard output.
pub fn print_rows<R: Item + Row>(rows: &[R], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Table => print(&render::text(rows)),
        Output::Json => print(&render::json(rows)),
    }
}
