//! Attaches programs to the wanted interfaces and detaches them from others, one interface at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::links::Link;
use crate::dataplane::{Dataplane, Error};

/// Whether known attachments are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The known attachments are taken as correct: the ordinary case.
    Believe,
    /// Every attachment is renewed, after a gap in the events and from time to time.
    Verify,
}

/// An interface that could not be attached or detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its name, or its index.
    pub interface: String,
    pub reason: String,
}

/// Attaches and detaches interfaces to match `wanted`. Returns the interfaces for which this failed.
pub fn reconcile(dataplane: &mut impl Dataplane, wanted: &BTreeMap<u32, Link>, trust: Trust) -> Vec<Failure> {
    let mut failures = Vec::new();
    let mut attached = BTreeSet::new();
    for (ifindex, class, header) in dataplane.attached() {
        let is_wanted = wanted.get(&ifindex).is_some_and(|link| (link.class, link.header) == (class, header));
        if is_wanted {
            attached.insert(ifindex);
            continue;
        }
        match dataplane.detach(ifindex) {
            Ok(()) => tracing::info!(ifindex, class = class.name(), "detached"),
            Err(error) => {
                // A warning is logged, once.
                tracing::debug!(ifindex, class = class.name(), %error, "could not detach, trying again later");
                failures.push(Failure { interface: ifindex.to_string(), reason: error.to_string() });
            }
        }
    }
    for link in wanted.values() {
        let is_attached = attached.contains(&link.ifindex);
        if is_attached && trust == Trust::Believe {
            continue;
        }
        match dataplane.attach(link) {
            Ok(()) if is_attached => {}
            Ok(()) => {
                tracing::info!(interface = link.name, ifindex = link.ifindex, class = link.class.name(), "attached");
            }
            // Netlink will report its removal in a moment.
            Err(error) if is_gone(&error) => {
                tracing::debug!(interface = link.name, %error, "removed before the programs were attached");
            }
            Err(error) => {
                tracing::debug!(interface = link.name, ifindex = link.ifindex, %error, "could not attach, trying again \
                    later");
                failures.push(Failure { interface: link.name.clone(), reason: error.to_string() });
            }
        }
    }
    failures
}

/// Whether the interface was removed before programs were attached.
pub fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Attach { source, .. } if source.raw_os_error() == Some(libc::ENODEV))
}
