//! One code path for both address families. The families differ only in their tables and in the kind of [`Op`].

use std::net::IpAddr;

use lb_common::host::HostFamily;

use crate::dataplane::{FamilyOp, FamilyTables, Op, Tables};
use crate::realised::{Counts, FamilyCounts, FamilyUses, Uses};

/// An address family with tables.
pub trait TableAddr: HostFamily {
    /// The octets, if the address is of this family.
    fn from_ip(ip: IpAddr) -> Option<Self>;
    fn tables_mut(tables: &mut Tables) -> &mut FamilyTables<Self>;
    fn op(op: FamilyOp<Self>) -> Op;
    fn uses(uses: &Uses) -> &FamilyUses<Self>;
    fn counts_mut(counts: &mut Counts) -> &mut FamilyCounts<Self>;
}

impl TableAddr for [u8; 4] {
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(v4) => Some(v4.octets()),
            IpAddr::V6(_) => None,
        }
    }

    fn tables_mut(tables: &mut Tables) -> &mut FamilyTables<Self> {
        &mut tables.v4
    }

    fn op(op: FamilyOp<Self>) -> Op {
        Op::V4(op)
    }

    fn uses(uses: &Uses) -> &FamilyUses<Self> {
        &uses.v4
    }

    fn counts_mut(counts: &mut Counts) -> &mut FamilyCounts<Self> {
        &mut counts.v4
    }
}

impl TableAddr for [u8; 16] {
    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V6(v6) => Some(v6.octets()),
            IpAddr::V4(_) => None,
        }
    }

    fn tables_mut(tables: &mut Tables) -> &mut FamilyTables<Self> {
        &mut tables.v6
    }

    fn op(op: FamilyOp<Self>) -> Op {
        Op::V6(op)
    }

    fn uses(uses: &Uses) -> &FamilyUses<Self> {
        &uses.v6
    }

    fn counts_mut(counts: &mut Counts) -> &mut FamilyCounts<Self> {
        &mut counts.v6
    }
}
