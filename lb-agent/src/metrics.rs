//! Metrics: whether the tables are up to date, failing or full, which packets are dropped, and whether the input is
//! bad.
//!
//! The loop counts its own work. The kernel's counters are read from the pins on each scrape.

mod classic;
mod kernel;
mod process;
mod services;
mod snapshot;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lb_common::table::LAYOUT_VERSION;
use lb_common::table::maps::{FAMILY4, FAMILY6};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::dataplane::{Error, Sizes};
use crate::status::Status;
use crate::version;

pub use classic::{CLASSIC, OPENMETRICS, classic, wants_open_metrics};
pub use services::ServiceSeries;

/// The first word of the names of our own metrics.
const PREFIX: &str = "lb_agent";

/// Where metrics are served, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    pub place: Place,
    /// Service ports with series of their own; `None`: no such series.
    pub service_ports_max: Option<usize>,
}

/// Where `/metrics` is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// By the server of the probes only.
    BesideProbes,
    /// There, and at an address that serves nothing else.
    At(SocketAddr),
    Nowhere,
}

/// The loop's counters. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    errors: Family<MapLabel, Counter>,
    duration: Histogram,
    programming: Histogram,
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
        // From 0, so that the first one is an increase.
        for (page, code) in ["service", "healthz", "livez"].into_iter().flat_map(|page| [(page, 200), (page, 503)]) {
            drop(answers.0.get_or_create(&AnswerLabels { page, code }));
        }
        let help = "Answers to health checks, by page (that of a Service, /healthz or /livez) and status";
        registry.sub_registry_with_prefix(PREFIX).register("health_answers", help, answers.0.clone());
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
        let programming = Histogram::new(programming_buckets());
        let metrics = Self { errors: Family::default(), duration, programming, repairs: Counter::default() };
        // From 0, so that the first error is an increase.
        let maps =
            snapshot::limited().map(|map| map.name).chain([FAMILY4.endpoints.name(), FAMILY6.endpoints.name(), "-"]);
        maps.for_each(|map| drop(metrics.errors.get_or_create(&MapLabel { map })));
        let registry = registry.sub_registry_with_prefix(PREFIX);
        registry.register("apply_errors", "Rows that could not be written, by table", metrics.errors.clone());
        registry.register("apply_duration_seconds", "Duration of an apply", metrics.duration.clone());
        let help = "Time from the change of a pod or Service, as its EndpointSlice says it, to the kernel's tables";
        registry.register("network_programming_duration_seconds", help, metrics.programming.clone());
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

    /// Counts a change of endpoints that is now in the kernel's tables.
    pub fn programmed(&self, took: Duration) {
        self.programming.observe(took.as_secs_f64());
    }

    /// Counts rows that an audit had to repair.
    pub fn repaired(&self, rows: usize) {
        self.repairs.inc_by(rows as u64);
    }
}

/// The buckets of kube-proxy's `network_programming_duration_seconds`, so that one query serves both.
fn programming_buckets() -> impl Iterator<Item = f64> {
    let every = |from: u32, step: usize, to: u32| (from..=to).step_by(step).map(f64::from);
    [0.25, 0.5].into_iter().chain(every(1, 1, 59)).chain(every(60, 5, 115)).chain(every(120, 30, 300))
}

/// The registry, with the collectors that read on each scrape.
pub fn registry(pin_path: PathBuf, sizes: Sizes, status: watch::Receiver<Arc<Status>>) -> Registry {
    let mut all = Registry::default();
    all.register_collector(Box::new(process::ProcessCollector::new()));
    let registry = all.sub_registry_with_prefix(PREFIX);
    let layout = LAYOUT_VERSION.to_string();
    let labels = [("version", version::VERSION), ("commit", version::commit()), ("layout", &layout)];
    let build = Info::new(labels.map(|(name, value)| (name, value.to_owned())));
    registry.register("build", "The version of this agent, its commit, and the layout of its tables", build);
    registry.register_collector(Box::new(snapshot::SnapshotCollector::new(status, sizes)));
    registry.register_collector(Box::new(kernel::KernelCollector::new(pin_path)));
    all
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
        metrics.programmed(Duration::from_secs(61));
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
            "lb_agent_network_programming_duration_seconds_bucket{le=\"+Inf\"} 1",
            "lb_agent_network_programming_duration_seconds_bucket{le=\"60.0\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is missing in:\n{text}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") >= 3.0);
        let age = jiff::Timestamp::now().as_duration().as_secs_f64() - value("process_start_time_seconds");
        assert!((0.0..86_400.0).contains(&age), "{age}");
    }

    #[test]
    fn the_buckets_are_kube_proxys() {
        let buckets: Vec<f64> = programming_buckets().collect();
        assert_eq!(
            (buckets.len(), buckets[2], buckets[60], buckets[61], buckets[72], buckets[73]),
            (80, 1.0, 59.0, 60.0, 115.0, 120.0)
        );
        assert_eq!(buckets.last(), Some(&300.0));
        assert!(buckets.is_sorted());
    }
}
