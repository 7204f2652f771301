//! How new flows are spread over the backends of a Service: at random, or by their hash and a Maglev table.

use std::sync::Arc;

use lb_common::addr::Addr;
use lb_common::table::Backend;

use super::maglev::{self, TableSize};
use crate::model::{Service, Warning, WarningKind};
use crate::printable::quoted;

/// The annotation that overrides `--lb-algorithm`.
pub const ANNOTATION: &str = "lb-agent.io/lb-algorithm";

/// How a backend is chosen for a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Each backend is equally likely.
    Random,
    /// The hash of addresses, ports and protocol decides. Every node chooses the same backend.
    Maglev,
}

/// An algorithm and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    pub algorithm: Algorithm,
    pub maglev_table_size: TableSize,
}

impl Default for Selection {
    fn default() -> Self {
        Self { algorithm: Algorithm::Random, maglev_table_size: TableSize::DEFAULT }
    }
}

impl Selection {
    /// Whether this many backends need a table. A single backend does not.
    pub const fn has_table(self, backends: usize) -> bool {
        matches!(self.algorithm, Algorithm::Maglev) && backends > 1
    }

    /// Slots of the table for this many backends, if they need one.
    pub fn table_slots(self, backends: usize) -> Option<u16> {
        self.has_table(backends).then(|| self.maglev_table_size.slots())
    }

    /// The pool of these backends, slot by slot.
    pub fn pool<A: Addr>(self, backends: &Arc<[Backend<A>]>) -> Arc<[Backend<A>]> {
        if self.has_table(backends.len()) {
            maglev::table(backends, self.maglev_table_size).into()
        } else {
            Arc::clone(backends)
        }
    }
}

/// What a Service asks for, or `by_default`.
pub fn of_service(service: &Service, by_default: Selection) -> Selection {
    let asked_for = service.annotations.get(ANNOTATION).and_then(|value| parse(value));
    Selection { algorithm: asked_for.unwrap_or(by_default.algorithm), ..by_default }
}

/// A warning about our annotation if its value is not an algorithm.
pub fn warning(service: &Service) -> Option<Warning> {
    let value = service.annotations.get(ANNOTATION).filter(|value| parse(value).is_none())?;
    let problem = format!("{} is not an algorithm and is ignored; --lb-algorithm decides", quoted(value));
    let warning = Warning::new(WarningKind::BadField, problem, "write random or maglev");
    Some(warning.of(format_args!("Service {}", service.name)).at(format!("metadata.annotations[{ANNOTATION}]")))
}

/// Parses the value of the annotation or of `--lb-algorithm`, in any case.
pub fn parse(text: &str) -> Option<Algorithm> {
    let known = [("random", Algorithm::Random), ("maglev", Algorithm::Maglev)];
    known.into_iter().find_map(|(word, algorithm)| text.trim().eq_ignore_ascii_case(word).then_some(algorithm))
}
