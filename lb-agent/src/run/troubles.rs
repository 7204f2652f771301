//! What the log said of attempts that failed: what fails again in the same way was told before.

use std::collections::BTreeMap;
use std::fmt::Display;

/// What is tried until it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tried {
    Apply,
    Activate,
    Ports,
    Uplinks,
    Drivers,
    Collect,
    Monitor,
}

/// The troubles that were logged and are not over.
#[derive(Debug, Default)]
pub struct Troubles(BTreeMap<Tried, String>);

impl Troubles {
    /// Notes a failure. Returns whether it is another one than the last.
    pub fn is_news(&mut self, tried: Tried, error: &dyn Display) -> bool {
        let error = error.to_string();
        let last = self.0.insert(tried, error.clone());
        if last.as_ref() == Some(&error) {
            tracing::debug!(?tried, error, "it failed again");
            return false;
        }
        true
    }

    /// Notes a success.
    pub fn over(&mut self, tried: Tried) {
        self.0.remove(&tried);
    }
}
