//! A violation that tidy reports.

/// A broken rule, and where it is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    pub line: usize,
    pub what: String,
}
