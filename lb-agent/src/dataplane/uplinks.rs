//! The table `uplinks`: the addresses of this node on the interfaces towards the network.

use std::collections::BTreeMap;
use std::path::Path;

use lb_common::table::{Uplink, maps};

use super::Error;
use super::maps::{Table, settle};

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

/// Makes the programs of drivers send no frame by another interface any more. To be called before several drivers are
/// detached one after the other: some cards drop frames that come to one without a program. `directory`: of the maps,
/// which nothing changes if another version made them.
pub fn stop_redirects(directory: &Path) -> Result<(), Error> {
    let Some(table) = Table::find_alike(directory, maps::SHARED.uplinks)? else { return Ok(()) };
    let mut rows = table.dump()?;
    rows.retain(|(_, uplink): &(u32, Uplink)| uplink.flags & Uplink::SENDS_FRAMES != 0);
    if rows.is_empty() {
        return Ok(());
    }
    for (_, uplink) in &mut rows {
        uplink.flags &= !Uplink::SENDS_FRAMES;
    }
    table.upsert(&rows, 0)?;
    // Until no program runs that has read a row before.
    settle()
}
