//! A Service with all that its rows depend on, and what is noted while they are made.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claim::Claim;
use super::contest::Contests;
use super::endpoint::Here;
use super::protected::Protected;
use super::selection::Selection;
use crate::model::{EndpointSlice, ObjectName, Service, Warning};

/// One Service and all that belongs to it.
pub struct OfService<'a> {
    pub service: &'a Service,
    pub name: Arc<ObjectName>,
    pub claims: &'a [Claim],
    pub slices: &'a [&'a EndpointSlice],
    pub here: &'a Here<'a>,
    /// Who has what several claim.
    pub contests: &'a Contests<'a>,
    pub protected: &'a Protected<'a>,
    pub selection: Selection,
}

/// Warnings, and who did not get what.
#[derive(Default)]
pub struct Notes {
    pub warnings: Vec<Warning>,
    pub contests: Vec<(ObjectName, ObjectName)>,
    pub left_out: BTreeSet<ObjectName>,
}
