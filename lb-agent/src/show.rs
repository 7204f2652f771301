//! `show`: prints the state of the dataplane as a table, JSON or YAML. It reads the pins, so it works without a running
//! agent.

pub mod counters;
pub mod drops;
pub mod flows;
pub mod frontends;
pub mod interfaces;
pub mod names;

use std::io::Write as _;
use std::time::Duration;

use clap::ValueEnum as _;

use crate::args::{FilterArgs, Output, ShowArgs, Subject};
use crate::ask;
use crate::config;
use crate::dataplane::pins::Pins;
use crate::filter::{Facet, Filter, Filtered};
use crate::guard::{Door as _, Found, Table};
use crate::model::Warning;
use crate::print::{self, Reader};
use crate::render::{self, GuardRow, Item, PoolRow, Row, SourceRangeRow};

/// Clears the screen, and what has scrolled out of it, and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Prints one subject, once or until interrupted.
pub fn run(args: &ShowArgs) -> anyhow::Result<()> {
    let filter = filter(args)?;
    let Some(secs) = args.watch else {
        return print::print(&text(args, &filter, Output::form(args.output, false))?);
    };
    let is_redrawn = print::is_terminal() && matches!(args.output, Output::Table | Output::Wide);
    for round in 0_u64.. {
        let text = text(args, &filter, Output::form(args.output, true))?;
        let start = match args.output {
            _ if is_redrawn => CLEAR,
            Output::Table | Output::Wide if round > 0 => "\n",
            Output::Yaml => "---\n",
            Output::Table | Output::Wide | Output::Json => "",
        };
        if print::write(&format!("{start}{text}"))? == Reader::Gone {
            break;
        }
        std::thread::sleep(Duration::from_secs(secs));
    }
    Ok(())
}

/// How rows are printed.
#[derive(Clone, Copy)]
enum Form {
    Usual,
    All,
    Json,
    JsonLine,
    Yaml,
}

impl Output {
    const fn form(self, is_repeated: bool) -> Form {
        match self {
            Self::Table => Form::Usual,
            Self::Wide => Form::All,
            Self::Json if is_repeated => Form::JsonLine,
            Self::Json => Form::Json,
            Self::Yaml => Form::Yaml,
        }
    }
}

/// The filters. Fails if the subject has no field for one.
fn filter(args: &ShowArgs) -> Result<Filter, config::Error> {
    let FilterArgs { service, address, client, mode, interface } = &args.filter;
    let mode = mode.and_then(|mode| Some(mode.to_possible_value()?.get_name().to_owned()));
    let (service, interface) = (service.clone(), interface.clone());
    let filter = Filter { service, address: *address, client: *client, mode, interface };
    if let Some(facet) = filter.asked().find(|facet| !facets(args.subject).contains(facet)) {
        let with = Subject::value_variants().iter().filter(|subject| facets(**subject).contains(&facet));
        let with: Vec<_> = with.map(|subject| name(*subject)).collect();
        let problem = format!("show {} cannot be filtered by it; {} can", name(args.subject), with.join(", "));
        return Err(config::Error::Invalid { flag: facet.flag(), problem });
    }
    Ok(filter)
}

fn name(subject: Subject) -> String {
    subject.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

const fn facets(subject: Subject) -> &'static [Facet] {
    match subject {
        Subject::Frontends => frontends::TrafficRow::FACETS,
        Subject::Pools => PoolRow::FACETS,
        Subject::SourceRanges => SourceRangeRow::FACETS,
        Subject::Flows => flows::FlowRow::FACETS,
        Subject::Counters => counters::CounterRow::FACETS,
        Subject::Drops => drops::DropRow::FACETS,
        Subject::Interfaces => interfaces::InterfaceRow::FACETS,
        Subject::Guard => GuardRow::FACETS,
        Subject::Warnings => Warning::FACETS,
    }
}

/// The subject as text.
fn text(args: &ShowArgs, filter: &Filter, form: Form) -> anyhow::Result<String> {
    let pins = || Pins::open(&args.pins.pin_path);
    let services = || ask::services(args.http.http, &args.pins.pin_path);
    Ok(match args.subject {
        Subject::Frontends => filtered(frontends::read(&pins()?, &services())?, filter, form),
        Subject::Pools => filtered(render::pools(&pins()?.tables()?), filter, form),
        Subject::SourceRanges => filtered(render::source_ranges(&pins()?.tables()?), filter, form),
        Subject::Flows => filtered(flows::read(&pins()?, &services())?, filter, form),
        Subject::Counters => filtered(counters::read(&pins()?)?, filter, form),
        Subject::Drops => filtered(drops::read(&pins()?, &services())?, filter, form),
        Subject::Interfaces => {
            let judgements = ask::judgements(args.http.http, &args.pins.pin_path);
            filtered(interfaces::read(&pins()?, judgements.as_ref())?, filter, form)
        }
        Subject::Guard => match Table::of_pins(&args.pins.pin_path).read()? {
            Found::Rows(rows) => filtered(render::guard(&rows), filter, form),
            Found::Absent => filtered::<GuardRow>(Vec::new(), filter, form),
            Found::Foreign => {
                anyhow::bail!("the guard's table differs from what this version writes: the agent restores the table")
            }
        },
        Subject::Warnings => filtered(ask::warnings(args.http.http)?, filter, form),
    })
}

/// The rows that pass. If none does, says so on standard error.
fn filtered<R: Item + Row + Filtered>(rows: Vec<R>, filter: &Filter, form: Form) -> String {
    if filter.asked().next().is_none() {
        return formed(&rows, form);
    }
    let (passing, others): (Vec<R>, Vec<R>) = rows.into_iter().partition(|row| filter.passes(&row.facets()));
    if passing.is_empty()
        && let Some(reason) = filter.in_vain(&others)
    {
        // If standard error cannot be written, the empty table remains.
        let _ = writeln!(std::io::stderr(), "lb-agent: {}", crate::printable::printable(&reason));
    }
    formed(&passing, form)
}

fn formed<R: Item + Row>(rows: &[R], form: Form) -> String {
    match form {
        Form::Usual => render::usual(rows, print::terminal_width()),
        Form::All => render::text(rows),
        Form::Json => render::json(rows),
        Form::JsonLine => render::json_line(rows),
        Form::Yaml => render::yaml(rows),
    }
}

/// Rows as they are printed once.
pub fn text_of<R: Item + Row>(rows: &[R], output: Output) -> String {
    formed(rows, output.form(false))
}
