//! State shared by the followers of all kinds: strings, connections, and the kinds that have yet to be listed.

use std::sync::{Mutex, PoisonError};

use serde_json::value::RawValue;

use super::failure::Failure;
use super::read::{self, Event, Told};
use crate::model::{AnnotationKeys, Kind};
use crate::source::claim::Claim;
use crate::source::connection::{Connections, Phase};
use crate::source::convert::Converter;

/// Shared by the followers of one source.
#[derive(Debug)]
pub struct Shared {
    converter: Mutex<Converter>,
    connections: Connections,
}

impl Shared {
    pub fn new(claim: Claim, connections: Connections) -> Self {
        Self { converter: Mutex::new(Converter::default().claiming(claim)), connections }
    }

    /// Keeps only these annotations of Services.
    pub fn keeping(self, annotations: AnnotationKeys) -> Self {
        let converter = self.converter.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self { converter: Mutex::new(converter.keeping(annotations)), ..self }
    }

    /// Reads an object. Returns `None` if it has no name.
    pub fn read(&self, kind: Kind, raw: &RawValue) -> Option<Told> {
        read::read(kind, raw, &mut self.converter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads a line of a watch.
    pub fn read_line(&self, kind: Kind, line: &str) -> serde_json::Result<Event> {
        read::read_line(kind, line, &mut self.converter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records a complete list. Returns whether the first lists of all kinds are now complete.
    pub fn listed(&self, kind: Kind) -> bool {
        let mut is_first = false;
        self.connections.change(kind, Phase::Watching, |connection| {
            is_first = !connection.is_listed;
            connection.is_listed = true;
            connection.lists += 1;
        });
        is_first && self.connections.now().iter().all(|connection| connection.is_listed)
    }

    /// Records that a watch has begun.
    pub fn watching(&self, kind: Kind) {
        let before = self.connections.change(kind, Phase::Watching, |_| {});
        if before == Some(Phase::Retrying) {
            tracing::info!(kind = kind.name(), "watching the API again");
        }
    }

    /// Records a failure.
    pub fn failed(&self, kind: Kind, failure: &Failure) {
        self.connections.change(kind, Phase::Retrying, |connection| {
            connection.failures += 1;
            connection.last_error = Some(failure.reason().into_owned());
        });
    }
}
