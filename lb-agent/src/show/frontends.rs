//! The rows of `show frontends`: frontends with their traffic so far.

use lb_common::table::FrontendStats;
use schemars::JsonSchema;
use serde::Serialize;

use crate::ask::Services;
use crate::dataplane::pins::Pins;
use crate::filter::{Facet, Facets, Filtered};
use crate::losses::Losses;
use crate::render::{FrontendRow, Item, Row, ScopeRow, frontends};

#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TrafficRow {
    /// `shop/web:http`. Known only while an agent runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    /// The annotation or label that decided the mode, if one did. Known only while an agent runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    deciding_key: Option<String>,
    #[serde(flatten)]
    frontend: FrontendRow,
    /// Flows made, and packets and bytes translated in both directions.
    flows: u64,
    packets: u64,
    bytes: u64,
    /// Packets that open a connection and were left to the external balancer.
    passed_packets: u64,
    passed_bytes: u64,
    #[serde(flatten)]
    losses: Losses,
}

impl Item for TrafficRow {
    const KIND: &'static str = "Frontends";
}

impl Row for TrafficRow {
    const TITLES: &'static [&'static str] = &[
        "SERVICE", "ADDRESS", "PROTO", "MODE", "RULE", "ORIGIN", "STATE", "ID", "PORT-ID", "WORKLOAD", "HOST",
        "EXTERNAL", "FLOWS", "PACKETS", "BYTES", "PASSED", "REJECTS", "DROPS",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.service.clone().unwrap_or_else(|| "?".into())];
        cells.extend(self.frontend.cells());
        let (rejects, drops) = (self.losses.rejects, self.losses.dropped());
        let numbers = [self.flows, self.packets, self.bytes, self.passed_packets, rejects, drops];
        cells.extend(numbers.map(|number| number.to_string()));
        cells
    }

    const USUAL: &'static [&'static str] = &[
        "SERVICE", "ADDRESS", "MODE", "WORKLOAD", "HOST", "EXTERNAL", "FLOWS", "PACKETS", "PASSED", "REJECTS", "DROPS",
    ];
    const EXPENDABLE: &'static [&'static str] = &["PACKETS", "EXTERNAL", "HOST", "PASSED", "FLOWS", "REJECTS", "DROPS"];

    fn usual(&self) -> Vec<String> {
        let frontend = &self.frontend;
        let scope = |scope: &Option<ScopeRow>| scope.as_ref().map_or_else(|| "-".into(), ScopeRow::short);
        vec![
            self.service.clone().unwrap_or_else(|| "?".into()),
            format!("{}/{}", frontend.address, frontend.proto),
            frontend.served_as(),
            scope(&frontend.workload),
            scope(&frontend.host),
            scope(&frontend.external),
            self.flows.to_string(),
            self.packets.to_string(),
            self.passed_packets.to_string(),
            self.losses.rejects.to_string(),
            self.losses.dropped().to_string(),
        ]
    }
}

impl Filtered for TrafficRow {
    const FACETS: &'static [Facet] = &[Facet::Service, Facet::Address, Facet::Mode];

    fn facets(&self) -> Facets<'_> {
        Facets {
            service: self.service.as_deref(),
            address: Some(self.frontend.address),
            mode: self.frontend.mode.as_deref(),
            ..Facets::default()
        }
    }
}

/// All frontends, with the running agent's names of their Services.
pub fn read(pins: &Pins, services: &Services) -> anyhow::Result<Vec<TrafficRow>> {
    let seen = pins.seen()?;
    let mut losses = Losses::by(&pins.drop_counts()?, |row| row.frontend);
    let with_traffic = |mut frontend: FrontendRow| {
        frontend.workload = frontend.workload.filter(|_| seen.workload);
        frontend.host = frontend.host.filter(|_| seen.host);
        frontend.external = frontend.external.filter(|_| seen.external);
        let FrontendStats { flows, packets, bytes, passed_packets, passed_bytes } =
            pins.frontend_stats(frontend.frontend_id)?;
        let service = services.names.get(&frontend.service_port_id).cloned();
        let deciding_key = services.deciding_keys.get(&frontend.service_port_id).cloned();
        let losses = losses.remove(&frontend.frontend_id).unwrap_or_default();
        Ok(TrafficRow { service, deciding_key, frontend, flows, packets, bytes, passed_packets, passed_bytes, losses })
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
