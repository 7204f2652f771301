//! The kernel's counters, read from the pins on each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use lb_common::table::{Mode, Rule};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::dataplane::pins::{FrontendNow, Pins};

#[derive(Debug)]
pub struct KernelCollector {
    pin_path: PathBuf,
}

impl KernelCollector {
    pub const fn new(pin_path: PathBuf) -> Self {
        Self { pin_path }
    }
}

impl Collector for KernelCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // Opened each time, because maps of another shape may have replaced the pinned ones.
        let read = Pins::open(&self.pin_path).and_then(|pins| Ok((pins.counters()?, pins.frontends_now()?)));
        let (counters, frontends) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(%error, "counters cannot be read");
                return Ok(());
            }
        };
        let mut drops = Vec::new();
        let mut packets = Vec::new();
        let mut bytes = Vec::new();
        for (counter, value) in counters {
            if let Some(reason) = counter.name().strip_prefix("drop_") {
                drops.push((reason, value.packets));
            } else {
                packets.push((counter.name(), value.packets));
                bytes.push((counter.name(), value.bytes));
            }
        }
        family(&mut encoder, ("drops", "Packets that were dropped, by reason", None), "reason", &drops)?;
        family(&mut encoder, ("packets", "Packets by what was done with them", None), "what", &packets)?;
        family(&mut encoder, ("traffic", "Their bytes", Some(&Unit::Bytes)), "what", &bytes)?;
        let help = "Frontends (address, port and protocol) by mode; none: those that are no load balancer's";
        let mut modes = encoder.encode_descriptor("frontends", help, None, MetricType::Gauge)?;
        for (mode, count) in by_mode(&frontends) {
            ConstGauge::new(count).encode(modes.encode_family(&[("mode", mode)])?)?;
        }
        Ok(())
    }
}

/// How many frontends have each mode. Modes without a frontend count 0, so that series do not come and go.
fn by_mode(frontends: &[FrontendNow]) -> BTreeMap<&'static str, u64> {
    let mut by_mode = BTreeMap::from(["VIP", "Proxy", "Split", "Router", "none"].map(|mode| (mode, 0)));
    for FrontendNow { frontend, .. } in frontends {
        let mode = match (frontend.decided_by, frontend.mode) {
            (Rule::NotApplicable, _) => "none",
            (_, Mode::VIP) => "VIP",
            (_, Mode::Proxy) => "Proxy",
            (_, Mode::Split) => "Split",
            (_, Mode::Router) => "Router",
        };
        *by_mode.entry(mode).or_default() += 1;
    }
    by_mode
}

type Name<'a> = (&'a str, &'a str, Option<&'a Unit>);

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): Name<'_>,
    label: &str,
    values: &[(&str, u64)],
) -> fmt::Result {
    let metric_type = ConstCounter::new(0_u64).metric_type();
    let mut encoder = encoder.encode_descriptor(name, help, unit, metric_type)?;
    for (of, value) in values {
        ConstCounter::new(*value).encode(encoder.encode_family(&[(label, *of)])?)?;
    }
    Ok(())
}
