//! Metrics: whether the tables are up to date, failing or full, which packets are dropped, and whether the input is
//! bad.
//!
//! The loop counts its own work. The kernel's counters are read from the pins on each scrape.

mod kernel;
mod snapshot;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::dataplane::{Error, Sizes};
use crate::status::Status;

/// The loop's counters. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    errors: Family<MapLabel, Counter>,
    duration: Histogram,
    repairs: Counter,
}

/// The answers to health checks, counted where they are given. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct HealthAnswers(Family<AnswerLabels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    page: &'static str,
    code: u16,
}

impl HealthAnswers {
    /// Makes and registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        let answers = Self::default();
        let help = "Answers to health checks, by page (that of a Service, /healthz or /livez) and status";
        registry.register("health_answers", help, answers.0.clone());
        answers
    }

    pub fn count(&self, page: &'static str, code: u16) {
        self.0.get_or_create(&AnswerLabels { page, code }).inc();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MapLabel {
    map: &'static str,
}

impl Metrics {
    /// Makes and registers the counters.
    pub fn register(registry: &mut Registry) -> Self {
        // 0.1 ms to 3.3 s.
        let duration = Histogram::new(exponential_buckets(0.0001, 2.0, 16));
        let metrics = Self { errors: Family::default(), duration, repairs: Counter::default() };
        registry.register("apply_errors", "Rows that could not be written, by table", metrics.errors.clone());
        registry.register("apply_duration_seconds", "Duration of an apply", metrics.duration.clone());
        let help = "Rows that an audit found changed, and repaired";
        registry.register("audit_repairs", help, metrics.repairs.clone());
        metrics
    }

    /// Counts an apply, with its duration and errors.
    pub fn applied(&self, took: Duration, errors: &[Error]) {
        self.duration.observe(took.as_secs_f64());
        for error in errors {
            let map = match error {
                Error::Full { map, .. } | Error::Row { map, .. } => map,
                Error::Table { .. }
                | Error::Element { .. }
                | Error::Path { .. }
                | Error::Attach { .. }
                | Error::Hook { .. }
                | Error::Kernel { .. }
                | Error::Refused(_)
                | Error::Detach { .. }
                | Error::Untrusted(_) => "-",
            };
            self.errors.get_or_create(&MapLabel { map }).inc();
        }
    }

    /// Counts rows that an audit had to repair.
    pub fn repaired(&self, rows: usize) {
        self.repairs.inc_by(rows as u64);
    }
}

/// The registry, with the collectors that read on each scrape.
pub fn registry(pin_path: PathBuf, sizes: Sizes, status: watch::Receiver<Arc<Status>>) -> Registry {
    let mut registry = Registry::with_prefix("lb_agent");
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The version of this agent", build);
    registry.register_collector(Box::new(snapshot::SnapshotCollector::new(status, sizes)));
    registry.register_collector(Box::new(kernel::KernelCollector::new(pin_path)));
    registry
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::model::{Warning, WarningKind};

    #[test]
    fn answers_the_five_questions() {
        let mut status = Status::starting(Instant::now());
        status.rows = vec![("frontends4", 3)];
        status.warnings = Arc::new(vec![Warning::new(WarningKind::BadField, "is wrong", "write it right")]);
        let (_sender, receiver) = watch::channel(Arc::new(status));
        let mut registry = registry("/nonexistent".into(), Sizes::default(), receiver);
        let metrics = Metrics::register(&mut registry);
        metrics.applied(Duration::from_millis(3), &[Error::Full { map: "pools4", max: 1, setting: "--backends-max" }]);
        let mut text = String::new();
        encode(&mut text, &registry).expect("text");
        for line in [
            "lb_agent_pending_ops 0",
            "lb_agent_apply_errors_total{map=\"pools4\"} 1",
            "lb_agent_map_entries{map=\"frontends4\"} 3",
            "lb_agent_map_capacity{map=\"flows4\"} 262144",
            "lb_agent_warnings{kind=\"bad-field\"} 1",
            "lb_agent_warnings{kind=\"duplicate\"} 0",
            "lb_agent_ready 0",
            "lb_agent_apply_duration_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
    }
}
