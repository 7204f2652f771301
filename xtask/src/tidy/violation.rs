//! What tidy reports.

/// A rule broken at a place.
#[derive(Debug, PartialEq, Eq)]
pub struct Violation {
    pub line: usize,
    pub what: String,
}
