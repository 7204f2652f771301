//! Rows of `show guard`.

use std::net::SocketAddr;

use lb_common::addr::Addr;
use lb_common::client::Client;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Item, Row};
use crate::filter::{Facet, Facets, Filtered};
use crate::guard::{FamilyRows, GuardRows};

/// An address that the guard keeps kube-proxy off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GuardRow {
    /// Address and port: `192.0.2.1:80` or `[2001:db8::1]:80`.
    pub address: SocketAddr,
    pub proto: &'static str,
    /// The kinds of client that this applies to.
    pub clients: Vec<&'static str>,
}

/// All addresses, IPv4 first.
pub fn guard(rows: &GuardRows) -> Vec<GuardRow> {
    let mut all = family(&rows.v4);
    all.extend(family(&rows.v6));
    all
}

fn family<A: Addr>(rows: &FamilyRows<A>) -> Vec<GuardRow> {
    let sets = Client::ALL.map(|client| (client.name(), rows.sets.get(client)));
    let keys: std::collections::BTreeSet<_> = sets.iter().flat_map(|(_, keys)| keys.iter()).collect();
    let row = |key: &lb_common::table::FrontendKey<A>| GuardRow {
        address: SocketAddr::new(key.addr.into(), key.port),
        proto: key.proto.name(),
        clients: sets.iter().filter(|(_, keys)| keys.contains(key)).map(|(name, _)| *name).collect(),
    };
    keys.into_iter().map(row).collect()
}

impl Item for GuardRow {
    const KIND: &'static str = "Guard";
}

impl Filtered for GuardRow {
    const FACETS: &'static [Facet] = &[Facet::Address];

    fn facets(&self) -> Facets<'_> {
        Facets { address: Some(self.address), ..Facets::default() }
    }
}

impl Row for GuardRow {
    const TITLES: &'static [&'static str] = &["ADDRESS", "PROTO", "CLIENTS"];

    fn cells(&self) -> Vec<String> {
        vec![self.address.to_string(), self.proto.to_owned(), self.clients.join(", ")]
    }
}
