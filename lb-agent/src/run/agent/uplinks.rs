//! The addresses of this node on its uplinks follow the interfaces.

use std::collections::{BTreeMap, BTreeSet};

use super::Agent;
use crate::dataplane::links::Link;
use crate::dataplane::{Dataplane, Error, UplinkRows};
use crate::run::attach::Trust;

impl<D: Dataplane> Agent<D> {
    /// Writes the addresses on uplinks if they changed. Returns false if the write failed and must be tried again.
    pub(super) fn tell_uplinks(&mut self, wanted: &BTreeMap<u32, Link>, trust: Trust) -> bool {
        let uplinks = self.uplinks_of(wanted);
        if trust == Trust::Believe && uplinks == self.uplinks {
            return true;
        }
        let written = self.write_uplinks(uplinks);
        if let Err(error) = &written {
            tracing::warn!(%error, "the addresses of the uplinks could not be written, trying again later");
        }
        written.is_ok()
    }

    /// The rows of the uplinks that have programs.
    pub(super) fn uplinks_of(&self, wanted: &BTreeMap<u32, Link>) -> UplinkRows {
        let attached: BTreeSet<u32> = self.dataplane.attached().into_iter().map(|(ifindex, ..)| ifindex).collect();
        let mut rows = self.interfaces.uplinks(wanted, &self.node_addresses());
        rows.retain(|ifindex, _| attached.contains(ifindex));
        rows
    }

    pub(super) fn write_uplinks(&mut self, uplinks: UplinkRows) -> Result<(), Error> {
        self.dataplane.set_uplinks(&uplinks)?;
        self.uplinks = uplinks;
        Ok(())
    }
}
