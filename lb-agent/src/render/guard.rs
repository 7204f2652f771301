//! Rows of `show guard`.

use std::net::IpAddr;

use lb_common::addr::Addr;
use lb_common::client::Client;
use serde::Serialize;

use super::{Row, socket};
use crate::guard::{FamilyRows, GuardRows};

/// An address that the guard keeps kube-proxy off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuardRow {
    pub address: IpAddr,
    pub port: u16,
    pub protocol: &'static str,
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
        address: key.addr.into(),
        port: key.port,
        protocol: key.proto.name(),
        clients: sets.iter().filter(|(_, keys)| keys.contains(key)).map(|(name, _)| *name).collect(),
    };
    keys.into_iter().map(row).collect()
}

impl Row for GuardRow {
    const TITLES: &'static [&'static str] = &["ADDRESS", "PROTO", "CLIENTS"];

    fn cells(&self) -> Vec<String> {
        vec![socket(self.address, self.port), self.protocol.to_owned(), self.clients.join(", ")]
    }
}
