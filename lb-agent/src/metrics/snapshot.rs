//! Metrics from the loop's latest snapshot.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use lb_common::table::maps::{Declaration, FAMILY4, FAMILY6};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use tokio::sync::watch;

use crate::dataplane::Sizes;
use crate::dataplane::driver::Mode;
use crate::dataplane::links::Class;
use crate::model::WarningKind;
use crate::source::connection::{Connection, Phase};
use crate::status::{Readiness, Status};

#[derive(Debug)]
pub struct SnapshotCollector {
    status: watch::Receiver<Arc<Status>>,
    sizes: Sizes,
}

impl SnapshotCollector {
    pub const fn new(status: watch::Receiver<Arc<Status>>, sizes: Sizes) -> Self {
        Self { status, sizes }
    }

    /// The number of rows that each table can hold, by the settings.
    fn capacities(&self) -> Vec<(&'static str, u64)> {
        limited().map(|map| (map.name, self.sizes.asked(map.rows).into())).collect()
    }
}

/// The tables whose size a setting says.
pub fn limited() -> impl Iterator<Item = Declaration> {
    macro_rules! counted {
        ($($map:ident),*) => { [$(FAMILY4.$map.declaration, FAMILY6.$map.declaration),*] };
    }
    counted!(frontends, pools, members, source_ranges, affinity, flows).into_iter()
}

impl Collector for SnapshotCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let status = Arc::clone(&self.status.borrow());
        let mut gauges = Gauges(&mut encoder);
        let pending = status.behind.as_ref().map_or(0, |behind| behind.rows);
        gauges.one("pending_ops", "Rows that are still to be written", pending as u64)?;
        let ready = u64::from(status.readiness == Readiness::Ready);
        gauges.one("ready", "1 once the first full state is programmed", ready)?;
        gauges.one("frontends_draining", "Frontends that wait for their flows to end", status.draining as u64)?;
        let warnings = WarningKind::ALL.map(|kind| {
            let count = status.warnings.iter().filter(|warning| warning.kind == kind).count();
            (kind.name(), count as u64)
        });
        gauges.many(
            "warnings",
            "Warnings about objects of the source and about this node, by kind",
            "kind",
            &warnings,
        )?;
        gauges.connections(&status.connections)?;
        let help = "Seconds that the source has been reading without reporting changes; 0 while it waits for changes";
        gauges.one("source_stalled_seconds", help, status.source_stalled().as_secs())?;
        let rows: Vec<_> =
            status.rows.iter().chain(&status.flow_entries).map(|(map, rows)| (*map, *rows as u64)).collect();
        gauges.many("map_entries", "Rows in a table", "map", &rows)?;
        gauges.many("map_capacity", "Rows that fit in a table", "map", &self.capacities())?;
        if let Some((entries, repairs)) = status.guard {
            let help = "Addresses, by kind of client, that the guard keeps kube-proxy off";
            gauges.one("guard_entries", help, entries as u64)?;
            let help = "Times that another program had changed the guard's table and the agent restored it";
            gauges.count("guard_repairs", help, repairs)?;
        }
        let health = status.health;
        let listeners = [("open", health.open as u64), ("missing", health.missing as u64)];
        let help = "Listeners of health checks, that of --healthz included, by state";
        gauges.many("health_listeners", help, "state", &listeners)?;
        let help = "Attempts to listen for health checks that failed so far";
        gauges.count("health_listen_failures", help, health.failures)?;
        let attached = [Class::Workload, Class::Uplink].map(|class| {
            let count = status.attached.iter().filter(|attached| **attached == class).count();
            (class.name(), count as u64)
        });
        gauges.many("interfaces_attached", "Interfaces that programs are attached to", "class", &attached)?;
        let drivers =
            Mode::ALL.map(|mode| (mode.name(), status.drivers.iter().filter(|driver| **driver == mode).count() as u64));
        gauges.many("drivers_attached", "Interfaces whose driver runs a program (--xdp)", "mode", &drivers)?;
        let Some(since) = status.in_step.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()) else {
            return Ok(());
        };
        let help = "When the tables last held the desired state, in seconds since 1970";
        let metric = ConstGauge::new(since.as_secs_f64());
        let encoder =
            encoder.encode_descriptor("last_sync_timestamp", help, Some(&Unit::Seconds), metric.metric_type())?;
        metric.encode(encoder)
    }
}

/// Writes gauges, and counters that others count.
struct Gauges<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Gauges<'_, '_> {
    fn one(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstGauge::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, metric.metric_type())?;
        metric.encode(encoder)
    }

    fn connections(&mut self, connections: &[Connection]) -> fmt::Result {
        let by_kind = |value: fn(&Connection) -> u64| -> Vec<(&str, u64)> {
            connections.iter().map(|connection| (connection.kind.name(), value(connection))).collect()
        };
        let watching = by_kind(|connection| u64::from(connection.phase == Phase::Watching));
        self.many("source_watching", "1 while the watch of the kind is open", "kind", &watching)?;
        let help = "Seconds since the watch of the kind ended; 0 while it is open";
        let away = by_kind(|connection| connection.away().as_secs());
        self.many("source_away_seconds", help, "kind", &away)?;
        let lists = by_kind(|connection| connection.lists);
        self.counts("source_lists", "Complete lists of the kind so far", "kind", &lists)?;
        let help = "Requests and watches of the kind that failed so far";
        self.counts("source_failures", help, "kind", &by_kind(|connection| connection.failures))
    }

    fn many(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            ConstGauge::new(*value).encode(encoder.encode_family(&[(label, *of)])?)?;
        }
        Ok(())
    }

    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn counts(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            ConstCounter::new(*value).encode(encoder.encode_family(&[(label, *of)])?)?;
        }
        Ok(())
    }
}
