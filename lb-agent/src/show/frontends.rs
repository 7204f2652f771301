//! Frontends: mode, who decided it, what each kind of client gets, and traffic so far.

use std::net::SocketAddr;

use lb_common::table::{FrontendStats, Scopes};
use serde::Serialize;

use super::Row;
use crate::dataplane::pins::Pins;
use crate::dataplane::{Error, Tables};
use crate::explain::{origin_text, rule_text, scope_text};
use crate::family::TableAddr;

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct FrontendRow {
    pub address: SocketAddr,
    pub proto: &'static str,
    pub id: u32,
    pub mode: String,
    pub decided_by: &'static str,
    pub origin: &'static str,
    pub state: String,
    pub workload: String,
    pub host: String,
    pub external: String,
    /// Flows that were made; packets and bytes that were translated, both directions.
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
    /// Packets that opened a connection and were left to the external balancer.
    pub passed_packets: u64,
    pub passed_bytes: u64,
}

impl Row for FrontendRow {
    const HEADER: &'static [&'static str] = &[
        "FRONTEND",
        "MODE",
        "DECIDED BY",
        "WORKLOAD",
        "HOST",
        "EXTERNAL",
        "STATE",
        "#FLOWS",
        "#PACKETS",
        "#BYTES",
        "#PASSED",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            format!("{}/{}", self.address, self.proto),
            self.mode.clone(),
            self.decided_by.into(),
            self.workload.clone(),
            self.host.clone(),
            self.external.clone(),
            self.state.clone(),
            self.flows.to_string(),
            self.packets.to_string(),
            self.bytes.to_string(),
            self.passed_packets.to_string(),
        ]
    }
}

pub fn read(pins: &Pins) -> Result<Vec<FrontendRow>, Error> {
    let tables = pins.tables()?;
    let mut rows = Vec::new();
    add::<[u8; 4]>(pins, &tables, &mut rows)?;
    add::<[u8; 16]>(pins, &tables, &mut rows)?;
    Ok(rows)
}

fn add<A: TableAddr>(pins: &Pins, tables: &Tables, rows: &mut Vec<FrontendRow>) -> Result<(), Error> {
    for (key, frontend) in &A::tables(tables).frontends {
        let scopes = tables.scopes.get(&frontend.id).copied().unwrap_or(Scopes::PASS);
        let FrontendStats { flows, packets, bytes, passed_packets, passed_bytes } = pins.frontend_stats(frontend.id)?;
        rows.push(FrontendRow {
            address: SocketAddr::new(key.addr.into(), key.port),
            proto: key.proto.name(),
            id: frontend.id,
            mode: format!("{:?}", frontend.mode),
            decided_by: rule_text(frontend.decided_by),
            origin: origin_text(frontend.origin),
            state: format!("{:?}", frontend.state),
            workload: scope_text(scopes.workload),
            host: scope_text(scopes.host),
            external: scope_text(scopes.external),
            flows,
            packets,
            bytes,
            passed_packets,
            passed_bytes,
        });
    }
    Ok(())
}
