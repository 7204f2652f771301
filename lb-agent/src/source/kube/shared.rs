//! What the kinds share: strings, the state of the connections, and which of them have yet to be listed.

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

    /// Keeps these annotations of Services, and no others.
    pub fn keeping(self, annotations: AnnotationKeys) -> Self {
        let converter = self.converter.into_inner().unwrap_or_else(PoisonError::into_inner);
        Self { converter: Mutex::new(converter.keeping(annotations)), ..self }
    }

    /// Reads an object; one without a name is no object.
    pub fn read(&self, kind: Kind, raw: &RawValue) -> Option<Told> {
        read::read(kind, raw, &mut self.converter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads a line of a watch.
    pub fn read_line(&self, kind: Kind, line: &str) -> serde_json::Result<Event> {
        read::read_line(kind, line, &mut self.converter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A list is complete. Says whether this makes the first lists of all kinds complete.
    pub fn listed(&self, kind: Kind) -> bool {
        let mut is_first = false;
        self.connections.change(kind, Phase::Watching, |connection| {
            is_first = !connection.is_listed;
            connection.is_listed = true;
            connection.lists += 1;
        });
        is_first && self.connections.now().iter().all(|connection| connection.is_listed)
    }

    /// A watch stands.
    pub fn watching(&self, kind: Kind) {
        let before = self.connections.change(kind, Phase::Watching, |_| {});
        if before == Some(Phase::Retrying) {
            tracing::info!(kind = kind.name(), "the API is followed again");
        }
    }

    /// Something failed. Returns the phase before.
    pub fn failed(&self, kind: Kind, failure: &Failure) -> Option<Phase> {
        self.connections.change(kind, Phase::Retrying, |connection| {
            connection.failures += 1;
            connection.last_error = Some(failure.reason().into_owned());
        })
    }
}
