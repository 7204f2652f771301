//! The table `uplinks`: the addresses of this node on the interfaces towards the network.

use std::collections::BTreeMap;

use lb_common::table::Uplink;

use super::Error;
use super::maps::Table;

/// The rows, by the index of the interface.
pub type UplinkRows = BTreeMap<u32, Uplink>;

/// Writes these rows in place of all others.
pub fn replace(table: &Table<u32, Uplink>, wanted: &UplinkRows) -> Result<(), Error> {
    let before: UplinkRows = table.dump()?.into_iter().collect();
    let changed = wanted.iter().filter(|(ifindex, uplink)| before.get(ifindex) != Some(uplink));
    table.upsert(&changed.map(|(ifindex, uplink)| (*ifindex, *uplink)).collect::<Vec<_>>(), 0)?;
    let gone = before.keys().filter(|ifindex| !wanted.contains_key(ifindex));
    table.delete(&gone.copied().collect::<Vec<_>>())
}
