//! The state of the connections of a source: one for each kind, shared between the source and its observers.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::model::{Kind, Warning, WarningKind};

/// A list that takes longer gets a warning: 50,000 Services take seconds.
const LISTING_MAX: Duration = Duration::from_mins(1);

/// The connection for one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub kind: Kind,
    pub phase: Phase,
    /// The start of the current phase.
    pub since: Instant,
    /// Whether a list was ever complete. Nothing may be deleted before that.
    pub is_listed: bool,
    /// Complete lists so far.
    pub lists: u64,
    /// Requests and watches that failed so far.
    pub failures: u64,
    /// The reason for the last failure. Kept after the connection has recovered.
    pub last_error: Option<String>,
}

/// The current activity of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A list is under way.
    Listing,
    /// Changes arrive as they happen.
    Watching,
    /// A request failed and will be retried. The objects reported earlier are kept and may be stale.
    Retrying,
}

impl Connection {
    /// How long changes have not been reported as they happen; zero while they are.
    pub fn away(&self) -> Duration {
        match self.phase {
            Phase::Watching => Duration::ZERO,
            Phase::Listing | Phase::Retrying => self.since.elapsed(),
        }
    }

    /// A warning for the operator if the connection fails or a list does not end: since when, and why.
    pub fn warning(&self) -> Option<Warning> {
        let secs = self.away().as_secs();
        match self.phase {
            Phase::Watching => return None,
            Phase::Listing if self.away() < LISTING_MAX => return None,
            Phase::Listing => {
                let problem = format!("a list has not ended for {secs} s; the objects known before are kept");
                let warning = Warning::new(WarningKind::Source, problem, "check the API server");
                return Some(warning.of(format!("API: {}", self.kind.name())));
            }
            Phase::Retrying => {}
        }
        let reason = self.last_error.as_deref().unwrap_or("no reason is known");
        let kept = if self.is_listed { "the objects known before are kept" } else { "no object is known yet" };
        let problem = format!("not watched for {secs} s, {kept}: {reason}");
        Some(
            Warning::new(WarningKind::Source, problem, "check the API server and the agent's access to the server")
                .of(format!("API: {}", self.kind.name())),
        )
    }
}

impl Phase {
    pub const ALL: [Self; 3] = [Self::Listing, Self::Watching, Self::Retrying];

    /// The name in metrics and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Watching => "watching",
            Self::Retrying => "retrying",
        }
    }
}

/// The connections of a source. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Connections(watch::Sender<Vec<Connection>>);

impl Connections {
    /// A connection for each of these kinds, about to be listed.
    pub fn starting(kinds: &[Kind]) -> Self {
        let connection = |kind: &Kind| Connection {
            kind: *kind,
            phase: Phase::Listing,
            since: Instant::now(),
            is_listed: false,
            lists: 0,
            failures: 0,
            last_error: None,
        };
        Self(watch::Sender::new(kinds.iter().map(connection).collect()))
    }

    /// The current state. Empty for a source without connections.
    pub fn now(&self) -> Vec<Connection> {
        self.0.borrow().clone()
    }

    /// Notifies the receiver of changes.
    pub fn subscribe(&self) -> watch::Receiver<Vec<Connection>> {
        self.0.subscribe()
    }

    /// Updates one connection and returns its previous phase.
    pub fn change(&self, kind: Kind, phase: Phase, change: impl FnOnce(&mut Connection)) -> Option<Phase> {
        let mut before = None;
        self.0.send_modify(|all| {
            let Some(connection) = all.iter_mut().find(|connection| connection.kind == kind) else { return };
            before = Some(connection.phase);
            if connection.phase != phase {
                connection.phase = phase;
                connection.since = Instant::now();
            }
            change(connection);
        });
        before
    }
}
