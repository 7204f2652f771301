//! A Service with everything that its rows depend on, and the notes made while its rows are built.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::claim::Claim;
use super::contest::Contests;
use super::endpoint::Here;
use super::protected::Protected;
use super::selection::Selection;
use crate::model::{EndpointSlice, ObjectName, Service, Warning};

/// One Service and everything that belongs to it.
pub struct OfService<'a> {
    pub service: &'a Service,
    pub name: Arc<ObjectName>,
    pub claims: &'a [Claim],
    pub slices: &'a [&'a EndpointSlice],
    pub here: &'a Here<'a>,
    /// The winners among competing claims.
    pub contests: &'a Contests<'a>,
    pub protected: &'a Protected<'a>,
    pub selection: Selection,
}

/// Warnings, contests, and Services that were left out.
#[derive(Default)]
pub struct Notes {
    pub warnings: Vec<Warning>,
    pub contests: Vec<(ObjectName, ObjectName)>,
    pub left_out: BTreeSet<ObjectName>,
}
