//! State that conversions share.

use super::strings::Strings;
use crate::model::AnnotationKeys;
use crate::source::claim::Claim;

/// Converts objects. Repeated strings (nodes, zones, port names) are stored once.
#[derive(Debug, Default)]
pub struct Converter {
    pub strings: Strings,
    pub claim: Claim,
    pub annotations: AnnotationKeys,
}

impl Converter {
    /// Converts for an agent that claims these Services.
    pub fn claiming(mut self, claim: Claim) -> Self {
        self.claim = claim;
        self
    }

    /// Keeps only these annotations of Services.
    pub fn keeping(mut self, annotations: AnnotationKeys) -> Self {
        self.annotations = annotations;
        self
    }
}
