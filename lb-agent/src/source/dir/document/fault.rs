//! A fault of a document, and its place.

use std::fmt;

use crate::model::{Warning, WarningKind};

/// The remedy, unless the fault has a better one.
const REMEDY: &str = "correct the document";

/// Why a document, or an object in it, cannot be read.
#[derive(Debug)]
pub struct Fault {
    problem: String,
    remedy: &'static str,
    /// Path of the field: `spec.ports[0].port`.
    field: Option<String>,
    /// Line of the file, from 1.
    line: Option<usize>,
}

impl Fault {
    pub fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: REMEDY, field: None, line: None }
    }

    pub const fn with_remedy(mut self, remedy: &'static str) -> Self {
        self.remedy = remedy;
        self
    }

    /// Sets the line, unless it is already known more exactly. JSON has no lines: 0.
    pub fn on_line(mut self, line: usize) -> Self {
        self.line = self.line.or((line > 0).then_some(line));
        self
    }

    /// Sets the field, unless it is already known more exactly.
    pub fn at(mut self, field: impl FnOnce() -> String) -> Self {
        self.field = self.field.or_else(|| Some(field()).filter(|field| !field.is_empty()));
        self
    }

    /// The warning that the document is left out.
    pub fn warning(self) -> Warning {
        let line = self.line.map_or_else(String::new, |line| format!(" (line {line} of the file)"));
        let problem = format!(
            "{}{line}; the document is left out, and the objects that the file held before are kept",
            self.problem
        );
        let warning = Warning::new(WarningKind::BadDocument, problem, self.remedy);
        match self.field {
            Some(field) => warning.at(field),
            None => warning,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}
