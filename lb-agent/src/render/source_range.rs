//! Rows of `show source-ranges`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::addr::Addr;
use lb_common::table::Scopes;
use serde::Serialize;

use super::{Row, socket};
use crate::dataplane::{FamilyTables, Tables};

/// A source range of a frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceRangeRow {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: &'static str,
    /// For example `203.0.113.0/25`.
    pub range: String,
}

/// All ranges, IPv4 first, sorted by frontend.
pub fn source_ranges(tables: &Tables) -> Vec<SourceRangeRow> {
    fn family<A: Addr>(
        tables: &FamilyTables<A>,
        scopes: &BTreeMap<u32, Scopes>,
    ) -> impl Iterator<Item = SourceRangeRow> {
        tables.frontends.iter().flat_map(|(key, frontend)| {
            let set = scopes.get(&frontend.id).map_or(0, |scopes| scopes.source_ranges);
            tables.source_ranges_of(set).map(|(range, _)| SourceRangeRow {
                address: key.addr.into(),
                port: key.port,
                protocol: key.proto.name(),
                range: format!("{}/{}", Into::<IpAddr>::into(range.addr), range.length()),
            })
        })
    }
    family(&tables.v4, &tables.scopes).chain(family(&tables.v6, &tables.scopes)).collect()
}

impl Row for SourceRangeRow {
    const TITLES: &'static [&'static str] = &["ADDRESS", "PROTO", "RANGE"];

    fn cells(&self) -> Vec<String> {
        vec![socket(self.address, self.port), self.protocol.to_owned(), self.range.clone()]
    }
}
