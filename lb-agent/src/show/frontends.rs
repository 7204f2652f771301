//! Frontends, and the traffic of each so far.

use std::collections::BTreeMap;

use lb_common::table::FrontendStats;
use serde::Serialize;

use crate::dataplane::Error;
use crate::dataplane::pins::Pins;
use crate::render::{FrontendRow, Row, frontends};

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct TrafficRow {
    /// `shop/web:http`; known while an agent runs.
    service: Option<String>,
    #[serde(flatten)]
    frontend: FrontendRow,
    /// Flows that were made; packets and bytes that were translated, both directions.
    flows: u64,
    packets: u64,
    bytes: u64,
    /// Packets that opened a connection and were left to the external balancer.
    passed_packets: u64,
    passed_bytes: u64,
}

impl Row for TrafficRow {
    const TITLES: &'static [&'static str] = &[
        "SERVICE", "ADDRESS", "PROTO", "MODE", "RULE", "ORIGIN", "STATE", "ID", "PORT-ID", "WORKLOAD", "HOST",
        "EXTERNAL", "FLOWS", "PACKETS", "BYTES", "PASSED",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.service.clone().unwrap_or_else(|| "?".into())];
        cells.extend(self.frontend.cells());
        cells.extend([self.flows, self.packets, self.bytes, self.passed_packets].map(|number| number.to_string()));
        cells
    }
}

/// All frontends; `names` are those of Services by their id in the tables.
pub fn read(pins: &Pins, names: &BTreeMap<u32, String>) -> Result<Vec<TrafficRow>, Error> {
    let with_traffic = |frontend: FrontendRow| {
        let FrontendStats { flows, packets, bytes, passed_packets, passed_bytes } = pins.frontend_stats(frontend.id)?;
        let service = names.get(&frontend.service_port).cloned();
        Ok(TrafficRow { service, frontend, flows, packets, bytes, passed_packets, passed_bytes })
    };
    frontends(&pins.tables()?).into_iter().map(with_traffic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_title() {
        let inherited = &TrafficRow::TITLES[1..=FrontendRow::TITLES.len()];
        assert_eq!(inherited, FrontendRow::TITLES);
    }
}
