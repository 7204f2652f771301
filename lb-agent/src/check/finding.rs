//! The result of a check.

use schemars::JsonSchema;
use serde::Serialize;

use crate::render::{Item, Row};

/// The checked item, the result, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    pub check: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// Empty, and left out of JSON, if there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// The severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Ok,
    /// The agent works, with a limitation.
    Warn,
    /// `lb-agent run` cannot work.
    Fail,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

impl Finding {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), remedy: String::new() }
    }

    pub fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, found: found.into(), remedy: remedy.into() }
    }

    pub fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, found: found.into(), remedy: remedy.into() }
    }
}

impl Item for Finding {
    const KIND: &'static str = "Findings";
}

impl Row for Finding {
    const TITLES: &'static [&'static str] = &["CHECK", "VERDICT", "FOUND", "REMEDY"];

    fn cells(&self) -> Vec<String> {
        vec![self.check.into(), self.verdict.name().into(), self.found.clone(), self.remedy.clone()]
    }
}
