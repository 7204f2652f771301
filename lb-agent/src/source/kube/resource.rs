//! What is requested from the API server.

use crate::model::Kind;

/// A kind as the API serves it.
#[derive(Clone, Debug)]
pub struct Resource {
    pub kind: Kind,
    pub path: &'static str,
    pub labels: Option<String>,
    pub fields: Option<String>,
}
