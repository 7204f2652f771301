//! The addresses of this node on its uplinks follow the interfaces. Where IPsec policies apply, nothing is forwarded: it
//! would bypass them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Agent;
use crate::dataplane::links::Link;
use crate::dataplane::{Dataplane, Error, UplinkRows};
use crate::model::{Warning, WarningKind};
use crate::run::attach::Trust;
use crate::run::troubles::Tried;

impl<D: Dataplane> Agent<D> {
    /// Forwards nothing new while IPsec policies apply.
    pub(super) fn look_at_ipsec(&mut self, now: Instant) {
        if self.ipsec.look() {
            self.obey_ipsec();
            self.timetable.changed(now);
        }
    }

    pub(super) fn obey_ipsec(&mut self) {
        self.controller.allow_forwarding(self.ipsec.objection().is_none());
    }

    /// Once the tables have no endpoint elsewhere any more: datagrams would keep the flows that they have for ever.
    pub(super) fn forget_forwarded(&mut self) {
        if !self.ipsec.take_new() {
            return;
        }
        match self.dataplane.forget_forwarded_datagrams() {
            Ok(0) => {}
            Ok(flows) => tracing::info!(flows, "forgot flows of datagrams to other nodes, which bypass IPsec"),
            Err(error) => tracing::warn!(%error, "flows of datagrams to other nodes stay, and bypass IPsec"),
        }
    }

    /// Why nothing is forwarded to other nodes, if so.
    pub(super) fn ipsec_warning(&self) -> Option<Warning> {
        self.ipsec.objection().map(|objection| {
            let problem = format!(
                "{objection}, and what lb-agent forwards to other nodes bypasses them in clear text: new connections of \
                 the network to endpoints elsewhere are left to the stack; TCP connections that are open continue"
            );
            let remedy =
                "let kube-proxy serve these clients, and set --forwarding=off; or remove the policies (ip xfrm policy)";
            Warning::new(WarningKind::Hazard, problem, remedy).at("--forwarding")
        })
    }

    /// Writes the addresses on uplinks if they changed. Returns false if the write failed and must be tried again.
    pub(super) fn tell_uplinks(&mut self, wanted: &BTreeMap<u32, Link>, trust: Trust) -> bool {
        let uplinks = self.uplinks_of(wanted);
        if trust == Trust::Believe && uplinks == self.uplinks {
            return true;
        }
        let written = self.write_uplinks(uplinks);
        match &written {
            Ok(()) => self.troubles.over(Tried::Uplinks),
            Err(error) if self.troubles.is_news(Tried::Uplinks, error) => {
                tracing::warn!(%error, "the addresses of the uplinks could not be written, trying again later");
            }
            Err(_) => {}
        }
        written.is_ok()
    }

    /// The rows of the uplinks that have programs.
    pub(super) fn uplinks_of(&self, wanted: &BTreeMap<u32, Link>) -> UplinkRows {
        let attached: BTreeSet<u32> = self.dataplane.attached().into_iter().map(|(ifindex, ..)| ifindex).collect();
        let mut rows = self.interfaces.uplinks(wanted, &self.node_addresses());
        rows.retain(|ifindex, _| attached.contains(ifindex));
        self.mark_senders(&mut rows);
        rows
    }

    pub(super) fn write_uplinks(&mut self, uplinks: UplinkRows) -> Result<(), Error> {
        self.dataplane.set_uplinks(&uplinks)?;
        self.uplinks = uplinks;
        Ok(())
    }
}
