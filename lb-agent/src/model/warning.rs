//! Warnings about input that was left out or read differently, for the owner of the object.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::printable::{bounded, printable};

/// The most bytes of each text of a warning: a mistake in the input may be as long as a file.
const TEXT_MAX: usize = 2_048;

/// One problem of the input. It affects only the object, document or field that it names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    pub kind: WarningKind,
    /// `Service shop/web`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Name of the file within the folder, if the problem is in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Number of the document within the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<u32>,
    /// Path of the field: `status.loadBalancer.ingress[0].ip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, and the consequence.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// Kinds of problems: a label of the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// A document that is not a readable object.
    BadDocument,
    /// A field with an unusable value.
    BadField,
    /// Two objects claim the same thing.
    Duplicate,
    /// Valid but not allowed here: it would take an address that belongs to others.
    Refused,
    /// It does not fit in the tables.
    Capacity,
    /// Valid but not supported by this version.
    Unsupported,
    /// A problem of the source itself: a folder or file that cannot be read.
    Source,
    /// The table that keeps kube-proxy away from addresses cannot be written.
    Guard,
    /// Valid but known to hurt.
    Hazard,
    /// It has no effect, which may not be intended.
    Ignored,
    /// A Service of type `LoadBalancer` without an address to serve: its balancer is not there yet, or has a host name
    /// only. That may last, and be right.
    Unserved,
}

impl WarningKind {
    pub const ALL: [Self; 11] = [
        Self::BadDocument,
        Self::BadField,
        Self::Duplicate,
        Self::Refused,
        Self::Capacity,
        Self::Unsupported,
        Self::Source,
        Self::Guard,
        Self::Hazard,
        Self::Ignored,
        Self::Unserved,
    ];

    /// The name in metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadDocument => "bad-document",
            Self::BadField => "bad-field",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Capacity => "capacity",
            Self::Unsupported => "unsupported",
            Self::Source => "source",
            Self::Guard => "guard",
            Self::Hazard => "hazard",
            Self::Ignored => "ignored",
            Self::Unserved => "unserved",
        }
    }
}

impl Warning {
    pub fn new(kind: WarningKind, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            object: None,
            file: None,
            document: None,
            field: None,
            problem: plain(problem.into()),
            remedy: plain(remedy.into()),
        }
    }

    /// Names the object.
    #[must_use]
    pub fn of(mut self, object: impl fmt::Display) -> Self {
        self.object = Some(plain(object.to_string()));
        self
    }

    /// Names the field.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(plain(field.into()));
        self
    }

    /// Names the file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(plain(file.into()));
        self
    }

    /// Names the document within the file, from 1.
    #[must_use]
    pub fn in_document(mut self, file: impl Into<String>, document: u32) -> Self {
        self.file = Some(plain(file.into()));
        self.document = Some(document);
        self
    }

    /// The place of the problem, as far as known: `Service shop/web (a.yaml, document 2)`.
    pub fn subject(&self) -> String {
        let place = match (&self.file, self.document) {
            (Some(file), Some(document)) => Some(format!("{file}, document {document}")),
            (Some(file), None) => Some(file.clone()),
            (None, _) => None,
        };
        match (&self.object, place) {
            (Some(object), Some(place)) => format!("{object} ({place})"),
            (Some(object), None) => object.clone(),
            (None, Some(place)) => place,
            (None, None) => "lb-agent".to_owned(),
        }
    }
}

/// Shortens the text and puts it on one line.
fn plain(text: String) -> String {
    match printable(&bounded(&text, TEXT_MAX)) {
        Cow::Borrowed(same) if same.len() == text.len() => text,
        plain => plain.into_owned(),
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.subject())?;
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_short_line_whatever_it_quotes() {
        let long = "x\u{1b}\n\u{202e}".repeat(1 << 18);
        let warning = Warning::new(WarningKind::BadField, &*long, &*long).of(&long).at(&*long).in_document(&*long, 1);
        let text = warning.in_file(&*long).to_string();
        assert!(text.is_ascii() || !text.contains(['\u{1b}', '\n', '\u{202e}']), "{text}");
        assert!(text.len() < 50 * TEXT_MAX, "{} bytes", text.len());
    }

    #[test]
    fn names_subject_field_and_remedy() {
        let warning = Warning::new(WarningKind::BadField, "\"1.2.3\" is not an IP address", "write four numbers")
            .of("Service a/b")
            .at("spec.clusterIP")
            .in_document("x.yaml", 2);
        assert_eq!(
            warning.to_string(),
            "Service a/b (x.yaml, document 2): spec.clusterIP: \"1.2.3\" is not an IP address; write four numbers"
        );
    }
}
