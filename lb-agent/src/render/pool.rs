//! Rows of `show pools`, and of the members table.

use std::net::IpAddr;

use lb_common::addr::Addr;
use serde::Serialize;

use super::{Row, socket};
use crate::dataplane::{FamilyTables, Tables};

/// One slot of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolRow {
    pub pool: u32,
    pub slot: u32,
    pub address: IpAddr,
    pub port: u16,
}

/// A backend whose known flows are honoured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberRow {
    pub service_port: u32,
    pub address: IpAddr,
    pub port: u16,
    pub state: String,
}

/// All slots, IPv4 first, by pool and slot.
pub fn pools(tables: &Tables) -> Vec<PoolRow> {
    fn family<A: Addr>(tables: &FamilyTables<A>) -> impl Iterator<Item = PoolRow> {
        tables.pools.iter().map(|(key, backend)| PoolRow {
            pool: key.pool,
            slot: key.slot,
            address: backend.addr.into(),
            port: backend.port,
        })
    }
    family(&tables.v4).chain(family(&tables.v6)).collect()
}

/// All members, IPv4 first, by Service port, address and port.
pub fn members(tables: &Tables) -> Vec<MemberRow> {
    fn family<A: Addr>(tables: &FamilyTables<A>) -> impl Iterator<Item = MemberRow> {
        tables.members.iter().map(|(key, member)| MemberRow {
            service_port: key.service_port,
            address: key.addr.into(),
            port: key.port,
            state: format!("{:?}", member.state),
        })
    }
    family(&tables.v4).chain(family(&tables.v6)).collect()
}

impl Row for PoolRow {
    const TITLES: &'static [&'static str] = &["POOL", "SLOT", "BACKEND"];

    fn cells(&self) -> Vec<String> {
        vec![self.pool.to_string(), self.slot.to_string(), socket(self.address, self.port)]
    }
}

impl Row for MemberRow {
    const TITLES: &'static [&'static str] = &["PORT-ID", "BACKEND", "STATE"];

    fn cells(&self) -> Vec<String> {
        vec![self.service_port.to_string(), socket(self.address, self.port), self.state.clone()]
    }
}
