//! What was counted for the earlier owner of a frontend's ID is deleted before the new frontend gets packets.

use std::collections::BTreeSet;

use lb_common::addr::Addr;
use lb_common::table::{Frontend, FrontendKey};

use super::maps::{FamilyMaps, Maps};
use super::{Error, FamilyOp, Write};

impl Maps {
    /// Deletes what was counted for the earlier owners of the IDs of frontends that are about to be written.
    pub fn begin_counts<A: Addr>(&self, maps: &FamilyMaps<A>, op: &FamilyOp<A>) -> Result<(), Error> {
        let FamilyOp::Frontends(Write::Upsert(rows)) = op else { return Ok(()) };
        let new = new_ids(maps, rows)?;
        if new.is_empty() {
            return Ok(());
        }
        for id in &new {
            self.reset_frontend_stats(*id)?;
        }
        self.drop_counts.forget(&new)
    }
}

/// The IDs of rows that the table has not yet.
fn new_ids<A: Addr>(maps: &FamilyMaps<A>, rows: &[(FrontendKey<A>, Frontend)]) -> Result<BTreeSet<u32>, Error> {
    let mut new = BTreeSet::new();
    for (key, frontend) in rows {
        if !maps.frontends.contains(key)? {
            new.insert(frontend.id);
        }
    }
    Ok(new)
}
