//! Rows of `show source-ranges`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Addr;
use lb_common::table::Scopes;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Item, Row};
use crate::dataplane::{FamilyTables, Tables};
use crate::filter::{Facet, Facets, Filtered};

/// A source range of a frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SourceRangeRow {
    /// Address and port: `192.0.2.1:80` or `[2001:db8::1]:80`.
    pub address: SocketAddr,
    pub proto: &'static str,
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
                address: SocketAddr::new(key.addr.into(), key.port),
                proto: key.proto.name(),
                range: format!("{}/{}", Into::<IpAddr>::into(range.addr), range.length()),
            })
        })
    }
    family(&tables.v4, &tables.scopes).chain(family(&tables.v6, &tables.scopes)).collect()
}

impl Item for SourceRangeRow {
    const KIND: &'static str = "SourceRanges";
}

impl Filtered for SourceRangeRow {
    const FACETS: &'static [Facet] = &[Facet::Address];

    fn facets(&self) -> Facets<'_> {
        Facets { address: Some(self.address), ..Facets::default() }
    }
}

impl Row for SourceRangeRow {
    const TITLES: &'static [&'static str] = &["ADDRESS", "PROTO", "RANGE"];

    fn cells(&self) -> Vec<String> {
        vec![self.address.to_string(), self.proto.to_owned(), self.range.clone()]
    }
}
