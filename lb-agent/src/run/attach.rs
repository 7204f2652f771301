//! Attaches programs to the wanted interfaces and detaches them from others, one interface at a time.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::Port;

use crate::dataplane::bpf::BpfDataplane;
use crate::dataplane::garbage::Garbage;
use crate::dataplane::links::{Ahead, Class, Link, LinkHeader};
use crate::dataplane::{Dataplane, Error};
use crate::interfaces::BridgeNetfilter;

/// A dataplane whose programs can be put on interfaces.
pub trait Attach: Dataplane {
    /// Gives the attached hooks the programs and tables of this version. Called once, when the tables are complete.
    fn activate(&mut self) -> Result<(), Error>;
    /// Writes which bridges interfaces are ports of.
    fn set_ports(&mut self, ports: &[Port]) -> Result<(), Error>;
    /// Attaches an interface. If it is already attached in this class, renews its programs.
    fn attach(&mut self, link: &Link) -> Result<(), Error>;
    fn detach(&mut self, ifindex: u32) -> Result<(), Error>;
    /// The interfaces that carry programs, with their class and the link header that the programs expect.
    fn attached(&self) -> BTreeSet<(u32, Class, LinkHeader)>;
    /// The hooks where other programs run before ours.
    fn ahead(&self) -> Vec<Ahead>;
    /// The namespace-wide setting whether frames between ports of bridges traverse netfilter.
    fn bridge_netfilter(&self) -> BridgeNetfilter;
    /// Looks at some flows and deletes the expired ones. Returns the totals once all flows have been looked at.
    fn collect(&mut self) -> Result<Option<Garbage>, Error>;
}

impl Attach for BpfDataplane {
    fn activate(&mut self) -> Result<(), Error> {
        Self::activate(self)
    }

    fn set_ports(&mut self, ports: &[Port]) -> Result<(), Error> {
        Self::set_ports(self, ports)
    }

    fn attach(&mut self, link: &Link) -> Result<(), Error> {
        Self::attach(self, link)
    }

    fn detach(&mut self, ifindex: u32) -> Result<(), Error> {
        Self::detach(self, ifindex)
    }

    fn attached(&self) -> BTreeSet<(u32, Class, LinkHeader)> {
        let attachments = Self::attached(self);
        attachments.iter().map(|attachment| (attachment.ifindex, attachment.class, attachment.header)).collect()
    }

    fn ahead(&self) -> Vec<Ahead> {
        Self::ahead(self)
    }

    fn bridge_netfilter(&self) -> BridgeNetfilter {
        BridgeNetfilter::of_namespace()
    }

    fn collect(&mut self) -> Result<Option<Garbage>, Error> {
        Self::collect(self)
    }
}

/// Whether known attachments are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The known attachments are taken as correct: the ordinary case.
    Believe,
    /// Every attachment is renewed, after a gap in the events and from time to time.
    Verify,
}

/// Attaches and detaches interfaces to match `wanted`. Returns the number of interfaces for which this failed.
pub fn reconcile(dataplane: &mut impl Attach, wanted: &BTreeMap<u32, Link>, trust: Trust) -> usize {
    let mut failures = 0;
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
                tracing::warn!(ifindex, class = class.name(), %error, "could not detach, trying again later");
                failures += 1;
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
                tracing::warn!(interface = link.name, ifindex = link.ifindex, %error, "could not attach, trying again \
                    later");
                failures += 1;
            }
        }
    }
    failures
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Attach { source, .. } if source.raw_os_error() == Some(libc::ENODEV))
}
