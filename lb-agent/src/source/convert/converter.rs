//! What conversions share.

use super::strings::Strings;
use crate::model::AnnotationKeys;
use crate::source::claim::Claim;

/// Converts objects; strings that repeat (nodes, zones, port names) are stored once.
#[derive(Debug, Default)]
pub struct Converter {
    pub strings: Strings,
    pub claim: Claim,
    pub annotations: AnnotationKeys,
}

impl Converter {
    /// For an agent that claims these Services.
    pub fn claiming(mut self, claim: Claim) -> Self {
        self.claim = claim;
        self
    }

    /// Keeps these annotations of Services, and no others.
    pub fn keeping(mut self, annotations: AnnotationKeys) -> Self {
        self.annotations = annotations;
        self
    }
}
