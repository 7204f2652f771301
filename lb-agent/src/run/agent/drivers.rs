//! The programs of drivers follow the uplinks: attached behind those of tc, detached before them. tc serves without them,
//! so no failure of theirs counts for anything else.

use std::collections::BTreeMap;

use lb_common::table::Uplink;

use super::Agent;
use crate::dataplane::driver::Mode;
use crate::dataplane::links::{Class, Link};
use crate::dataplane::{Dataplane, Error, UplinkRows};
use crate::run::attach::{Failure, Trust, is_gone};
use crate::run::drivers::Attempt;
use crate::run::troubles::Tried;

impl<D: Dataplane> Agent<D> {
    /// Detaches the drivers that are to have no program, or in another mode. Returns those that are to have one, and
    /// whether some could not be detached.
    pub(super) fn withdraw_drivers(
        &mut self,
        wanted: &BTreeMap<u32, Link>,
        trust: Trust,
    ) -> (BTreeMap<u32, Mode>, Attempt) {
        let modes = self.drivers.judge(&self.interfaces, wanted, trust);
        let attached = self.dataplane.drivers().into_iter();
        let unwanted: Vec<u32> =
            attached.filter(|(ifindex, mode)| modes.get(ifindex) != Some(mode)).map(|(ifindex, _)| ifindex).collect();
        if unwanted.is_empty() {
            return (modes, Attempt::Done);
        }
        // Other drivers must not send frames to one that has no program any more.
        let mut rows = self.uplinks.clone();
        for ifindex in &unwanted {
            rows.entry(*ifindex).and_modify(|row| row.flags &= !Uplink::SENDS_FRAMES);
        }
        let detached = self.write_uplinks(rows).and_then(|()| self.detach_drivers(&unwanted));
        let Err(error) = detached else {
            self.troubles.over(Tried::Drivers);
            return (modes, Attempt::Done);
        };
        if self.troubles.is_news(Tried::Drivers, &error) {
            tracing::warn!(%error, "could not detach from a driver");
        }
        (modes, Attempt::Failed)
    }

    /// Detaches all that can be, and returns the first error.
    fn detach_drivers(&mut self, drivers: &[u32]) -> Result<(), Error> {
        let mut result = Ok(());
        for ifindex in drivers {
            match self.dataplane.detach_driver(*ifindex) {
                Ok(()) => tracing::info!(ifindex, "detached from the driver"),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Attaches drivers, or renews their programs. A driver that refused waits for the next attempt of the timetable: many
    /// cards lose packets while they try.
    pub(super) fn attach_drivers(
        &mut self,
        modes: &BTreeMap<u32, Mode>,
        wanted: &BTreeMap<u32, Link>,
        trust: Trust,
    ) -> Attempt {
        let behind = self.dataplane.attached();
        let attached = self.dataplane.drivers();
        let (mut failures, mut attempt) = (BTreeMap::new(), Attempt::Done);
        for (ifindex, mode) in modes {
            let Some(link) = wanted.get(ifindex) else { continue };
            let is_known = trust == Trust::Believe && attached.contains_key(ifindex);
            if let Some(failure) = self.drivers.failure(link).filter(|_| trust == Trust::Believe) {
                failures.insert(*ifindex, failure.clone());
                attempt = attempt.max(Attempt::Waiting);
                continue;
            }
            if is_known || !behind.contains(&(*ifindex, Class::Uplink, link.header)) {
                continue;
            }
            match self.dataplane.attach_driver(*ifindex, *mode) {
                Ok(()) if attached.contains_key(ifindex) => {}
                Ok(()) => tracing::info!(interface = link.name, ifindex, mode = mode.name(), "attached to the driver"),
                // Netlink will report its removal in a moment.
                Err(error) if is_gone(&error) => {
                    tracing::debug!(interface = link.name, %error, "removed before its driver was attached");
                }
                Err(error) => {
                    // A warning is logged, once.
                    tracing::debug!(interface = link.name, ifindex, %error, "could not attach to the driver");
                    attempt = Attempt::Failed;
                    failures.insert(*ifindex, Failure { interface: link.name.clone(), reason: error.to_string() });
                }
            }
        }
        self.drivers.failed(failures);
        if self.outlook.look_at_drivers(self.drivers.failures()) {
            self.tell_warnings();
        }
        attempt
    }

    /// Marks the rows of uplinks whose driver sends what others redirect to it.
    pub(super) fn mark_senders(&self, rows: &mut UplinkRows) {
        let drivers = self.dataplane.drivers();
        for (ifindex, row) in rows {
            if drivers.contains_key(ifindex) {
                row.flags |= Uplink::SENDS_FRAMES;
            }
        }
    }
}
