//! Traffic by Service port, for those who ask for it: one series for each port, up to a bound.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use lb_common::table::FrontendStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::PREFIX;
use crate::dataplane::Error;
use crate::dataplane::pins::{FrontendNow, Pins};
use crate::losses::Losses;

/// The label of the sum of those that have no series of their own. No Service port has such a name.
const OTHER: &str = "other";

/// Which Service ports have series.
#[derive(Clone, Debug)]
pub struct ServiceSeries {
    pub pin_path: PathBuf,
    pub ports_max: usize,
}

impl ServiceSeries {
    /// The series of now. `names` are those of the Service ports, by ID.
    pub fn registry(&self, names: BTreeMap<u32, String>) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Now { series: self.clone(), names }));
        registry
    }
}

#[derive(Debug)]
struct Now {
    series: ServiceSeries,
    names: BTreeMap<u32, String>,
}

/// What the frontends of a Service port have moved.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    flows: u64,
    packets: u64,
    bytes: u64,
    passed_packets: u64,
    passed_bytes: u64,
    rejects: u64,
    drops: u64,
}

impl Traffic {
    fn of(stats: &FrontendStats, losses: Option<&Losses>) -> Self {
        let FrontendStats { flows, packets, bytes, passed_packets, passed_bytes, .. } = *stats;
        let (rejects, drops) = losses.map_or((0, 0), |losses| (losses.rejects, losses.dropped()));
        Self { flows, packets, bytes, passed_packets, passed_bytes, rejects, drops }
    }

    const fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.passed_packets += other.passed_packets;
        self.passed_bytes += other.passed_bytes;
        self.rejects += other.rejects;
        self.drops += other.drops;
    }
}

/// The traffic of Service ports with series of their own, in the order of IDs, the sum of the others, and how many
/// these are.
#[derive(Debug, Default)]
struct Bounded {
    rows: Vec<(String, Traffic)>,
    beyond: usize,
}

/// A frontend may have lost its Service a moment ago: it counts with the others.
fn bounded(by_port: BTreeMap<u32, Traffic>, names: &BTreeMap<u32, String>, ports_max: usize) -> Bounded {
    let mut bounded = Bounded::default();
    let mut other = Traffic::default();
    for (port, stats) in by_port {
        match names.get(&port) {
            Some(name) if bounded.rows.len() < ports_max => bounded.rows.push((name.clone(), stats)),
            Some(_) | None => {
                bounded.beyond += 1;
                other.add(&stats);
            }
        }
    }
    if bounded.beyond > 0 {
        bounded.rows.push((OTHER.to_owned(), other));
    }
    bounded
}

fn by_port(pins: &Pins) -> Result<BTreeMap<u32, Traffic>, Error> {
    let mut by_port = BTreeMap::<u32, Traffic>::new();
    let losses = Losses::by(&pins.drop_counts()?, |row| row.frontend);
    // Without a Service, the ID is 0.
    for FrontendNow { frontend, scopes, .. } in pins.frontends_now()?.iter().filter(|now| now.scopes.service_port != 0)
    {
        let traffic = Traffic::of(&pins.frontend_stats(frontend.id)?, losses.get(&frontend.id));
        by_port.entry(scopes.service_port).or_default().add(&traffic);
    }
    Ok(by_port)
}

type Value = fn(&Traffic) -> u64;

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let by_port = match Pins::open(&self.series.pin_path).and_then(|pins| by_port(&pins)) {
            Ok(by_port) => by_port,
            Err(error) => {
                tracing::debug!(%error, "the traffic of Services cannot be read");
                return Ok(());
            }
        };
        let Bounded { rows, beyond } = bounded(by_port, &self.names, self.series.ports_max);
        let beyond = ConstGauge::new(beyond as u64);
        let help = "Service ports without series of their own, which are summed as other";
        beyond.encode(encoder.encode_descriptor("service_ports_beyond_max", help, None, MetricType::Gauge)?)?;
        let families: [(&str, &str, Option<&Unit>, Value); 7] = [
            ("service_flows", "Flows made, by Service port", None, |stats| stats.flows),
            ("service_packets", "Packets translated, in both directions", None, |stats| stats.packets),
            ("service_traffic", "Their bytes", Some(&Unit::Bytes), |stats| stats.bytes),
            ("service_passed_packets", "Packets that open a connection and were left to the balancer", None, |stats| {
                stats.passed_packets
            }),
            ("service_passed", "Their bytes", Some(&Unit::Bytes), |stats| stats.passed_bytes),
            ("service_rejects", "Packets and dials that were answered with an error", None, |stats| stats.rejects),
            ("service_drops", "Packets and dials that were dropped", None, |stats| stats.drops),
        ];
        for (name, help, unit, value) in families {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            for (service, stats) in &rows {
                ConstCounter::new(value(stats)).encode(family.encode_family(&[("service", service.as_str())])?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_series_of_its_own_is_summed_and_counted() {
        let stats = |flows| Traffic { flows, drops: 10 * flows, ..Traffic::default() };
        let by_port: BTreeMap<_, _> = [(1, stats(1)), (2, stats(2)), (3, stats(4)), (4, stats(8))].into();
        let names: BTreeMap<_, _> = [(1, "a/x:p".to_owned()), (3, "a/y:p".to_owned()), (4, "a/z:p".to_owned())].into();
        let flows = |bounded: &Bounded| -> Vec<(String, u64)> {
            bounded.rows.iter().map(|(name, stats)| (name.clone(), stats.flows)).collect()
        };
        let row = |name: &str, flows| (name.to_owned(), flows);
        let all = bounded(by_port.clone(), &names, 3);
        assert_eq!(flows(&all), [row("a/x:p", 1), row("a/y:p", 4), row("a/z:p", 8), row(OTHER, 2)]);
        let few = bounded(by_port, &names, 1);
        assert_eq!((flows(&few), few.beyond), (vec![row("a/x:p", 1), row(OTHER, 14)], 3));
        assert_eq!(few.rows.iter().map(|(_, traffic)| traffic.drops).collect::<Vec<_>>(), [10, 140]);
        assert!(bounded(BTreeMap::new(), &names, 1).rows.is_empty());
    }
}
