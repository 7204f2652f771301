//! The state of the agent: the loop publishes it after each turn, and the HTTP server reads it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::ask::Judgements;
use crate::dataplane::driver::Mode;
use crate::dataplane::links::Class;
use crate::model::{Warning, WarningKind};
use crate::printable::printable;
use crate::source::connection::Connection;
use crate::source::progress::Progress;

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Status {
    pub readiness: Readiness,
    /// The Node of this node is known, and not about to be deleted as far as known.
    pub is_eligible: bool,
    /// The last turn of the loop. It turns at least every [`TURN_INTERVAL`].
    pub turned: Instant,
    /// When the tables were last complete and correct.
    pub in_step: Option<SystemTime>,
    /// The writes that are missing since then, and why.
    pub behind: Option<Behind>,
    /// Shared between snapshots, because there may be many.
    pub warnings: Arc<Vec<Warning>>,
    /// Rows by table.
    pub rows: Vec<(&'static str, usize)>,
    /// Entries in the flow tables at the last walk.
    pub flow_entries: Vec<(&'static str, usize)>,
    /// Frontends whose flows have not ended yet.
    pub draining: usize,
    /// The source's connections, if it has any.
    pub connections: Vec<Connection>,
    /// What the source is reading.
    pub progress: Progress,
    /// Elements of the guard's table, and how often it was restored after another program had changed it.
    pub guard: Option<(usize, u64)>,
    /// The listeners of health checks.
    pub health: HealthListeners,
    /// Classes of the interfaces that programs are attached to.
    pub attached: Vec<Class>,
    /// Modes of the programs that drivers run.
    pub drivers: Vec<Mode>,
    /// The rules that decided the classes of interfaces.
    pub judgements: Arc<Judgements>,
}

/// How many listeners of health checks there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthListeners {
    pub open: usize,
    /// Wanted, but not open.
    pub missing: usize,
    /// Attempts to listen that failed so far.
    pub failures: u64,
}

/// Whether the node is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The first full state is not programmed yet, for this reason.
    NotReady(String),
    Ready,
}

/// Writes that have failed so far.
#[derive(Clone, Debug)]
pub struct Behind {
    pub since: Instant,
    pub rows: usize,
    pub reason: String,
}

/// The loop turns at least this often.
pub const TURN_INTERVAL: Duration = Duration::from_secs(5);
/// A loop without a turn for longer than this is stuck.
const TURN_MAX: Duration = Duration::from_mins(1);
/// If writes fail for longer than this, the agent is unhealthy.
const BEHIND_MAX: Duration = Duration::from_mins(1);

/// Warnings about full tables shown beside "ready". `/warnings` has all of them.
const CAPACITY_LINES_MAX: usize = 10;

impl Status {
    /// The state before the first turn.
    pub fn starting(now: Instant) -> Self {
        Self {
            readiness: Readiness::NotReady("waiting for the first list of the source".into()),
            is_eligible: false,
            turned: now,
            in_step: None,
            behind: None,
            warnings: Arc::default(),
            rows: Vec::new(),
            flow_entries: Vec::new(),
            draining: 0,
            connections: Vec::new(),
            progress: Progress::default(),
            guard: None,
            health: HealthListeners::default(),
            attached: Vec::new(),
            drivers: Vec::new(),
            judgements: Arc::default(),
        }
    }

    /// Adds the source's connections, with a warning for each one that fails.
    pub fn with_connections(mut self, connections: Vec<Connection>) -> Self {
        let failing: Vec<Warning> = connections.iter().filter_map(Connection::warning).collect();
        if !failing.is_empty() {
            Arc::make_mut(&mut self.warnings).extend(failing);
        }
        self.connections = connections;
        self
    }

    /// Adds the source's progress, with a warning if it is stalled.
    pub fn with_progress(mut self, progress: Progress) -> Self {
        if let Some(warning) = progress.warning() {
            Arc::make_mut(&mut self.warnings).push(warning);
        }
        self.progress = progress;
        self
    }

    /// How long the source has delivered nothing although it is reading or connecting.
    pub fn source_stalled(&self) -> Duration {
        self.connections.iter().map(Connection::away).fold(self.progress.stalled(), Duration::max)
    }

    /// An error if the control loop is stuck.
    pub fn live(&self, now: Instant) -> Result<(), String> {
        let silence = now.saturating_duration_since(self.turned);
        if silence > TURN_MAX {
            return Err(format!("the control loop has been stuck for {} s", silence.as_secs()));
        }
        Ok(())
    }

    /// An error if the node is not served yet. Once ready, the agent stays ready: if the source fails, the last state
    /// stays.
    pub fn ready(&self) -> Result<(), String> {
        match &self.readiness {
            Readiness::Ready => Ok(()),
            Readiness::NotReady(reason) => {
                let lines = [reason.clone()].into_iter().chain(self.source_troubles());
                Err(lines.map(|line| printable(&line).into_owned()).collect::<Vec<_>>().join("\n"))
            }
        }
    }

    /// A line for each part of the source that fails or is stalled.
    pub fn source_troubles(&self) -> impl Iterator<Item = String> {
        let failing = self.connections.iter().filter_map(Connection::warning);
        failing.chain(self.progress.warning()).map(|warning| warning.to_string())
    }

    /// The lines shown beside "ready": a failing source, unwritten rows, full tables.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        let full = self.warnings.iter().filter(|warning| warning.kind == WarningKind::Capacity);
        let full = full.map(ToString::to_string).take(CAPACITY_LINES_MAX);
        let behind =
            self.behind.iter().map(|behind| format!("{} rows are not written: {}", behind.rows, behind.reason));
        self.source_troubles().chain(behind).chain(full)
    }

    /// An error if the loop is stuck or writes have failed for long.
    pub fn healthy(&self, now: Instant) -> Result<(), String> {
        self.live(now)?;
        match &self.behind {
            Some(behind) if now.saturating_duration_since(behind.since) > BEHIND_MAX => {
                let secs = now.saturating_duration_since(behind.since).as_secs();
                let reason = printable(&behind.reason);
                Err(format!("{} rows could not be written for {secs} s: {reason}", behind.rows))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;
    use crate::source::connection::{Connections, Phase};

    #[test]
    fn stuck_and_failing_are_told_apart() {
        let start = Instant::now();
        let mut status = Status::starting(start);
        assert_eq!((status.live(start), status.healthy(start)), (Ok(()), Ok(())));
        assert!(status.ready().is_err());
        status.behind = Some(Behind { since: start, rows: 3, reason: "table pools4 is full".into() });
        assert_eq!(status.healthy(start + BEHIND_MAX), Ok(()));
        let later = start + BEHIND_MAX + Duration::from_secs(1);
        status.turned = later;
        assert_eq!(status.live(later), Ok(()));
        let reason = status.healthy(later).expect_err("failing for long");
        assert!(reason.contains("3 rows") && reason.contains("pools4"), "{reason}");
        let much_later = later + TURN_MAX + Duration::from_secs(1);
        assert!(status.live(much_later).is_err_and(|reason| reason.contains("stuck")));
    }

    #[test]
    fn a_source_that_gets_nowhere_is_told_and_never_unready() {
        let progress = Progress::default();
        let mut status = Status::starting(Instant::now()).with_progress(progress.clone());
        assert_eq!((status.source_stalled(), status.source_troubles().count()), (Duration::ZERO, 0));
        progress.begin_ago("huge.yaml", Duration::from_secs(30));
        // The reason is up to date without a turn of the loop.
        let reason = status.ready().expect_err("nothing was listed");
        assert!(reason.contains("huge.yaml: has been read for 30 s"), "{reason}");
        status.readiness = Readiness::Ready;
        assert_eq!(status.ready(), Ok(()));
        assert!(status.troubles().any(|line| line.starts_with("huge.yaml")));
        assert!(status.source_stalled() >= Duration::from_secs(30));
        assert_eq!(status.with_progress(progress).warnings.len(), 1);
    }

    #[test]
    fn a_source_that_fails_is_a_warning_and_never_unready() {
        let connections = Connections::starting(&[Kind::Service, Kind::Node]);
        let mut status = Status::starting(Instant::now()).with_connections(connections.now());
        assert_eq!((status.source_troubles().count(), status.warnings.len()), (0, 0));
        connections.change(Kind::Service, Phase::Retrying, |service| service.last_error = Some("refused".into()));
        status = status.with_connections(connections.now());
        let reason = status.ready().expect_err("nothing was listed");
        assert!(reason.contains("first list") && reason.contains("API: Service: not watched"), "{reason}");
        status.readiness = Readiness::Ready;
        assert_eq!(status.ready(), Ok(()));
        let trouble = status.source_troubles().next().expect("one fails");
        assert!(trouble.contains("refused") && status.warnings[0].to_string() == trouble, "{trouble}");
    }
}
