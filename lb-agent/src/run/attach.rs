//! Which interfaces carry programs: brought to what is wanted, one interface at a time.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::table::Port;

use crate::dataplane::bpf::BpfDataplane;
use crate::dataplane::garbage::Garbage;
use crate::dataplane::links::{Ahead, Class, Link, LinkHeader};
use crate::dataplane::{Dataplane, Error};
use crate::interfaces::BridgeNetfilter;

/// A dataplane whose programs can be put on interfaces.
pub trait Attach: Dataplane {
    /// Gives what is attached already the programs and tables of this version. Once, when the tables are filled.
    fn activate(&mut self) -> Result<(), Error>;
    /// Says what interfaces are ports of.
    fn set_ports(&mut self, ports: &[Port]) -> Result<(), Error>;
    /// Attaches an interface; one that is attached already in this class is looked after.
    fn attach(&mut self, link: &Link) -> Result<(), Error>;
    fn detach(&mut self, ifindex: u32) -> Result<(), Error>;
    /// Interfaces that carry programs, and which: their class, and what they expect in front of a packet.
    fn attached(&self) -> BTreeSet<(u32, Class, LinkHeader)>;
    /// Hooks where programs of others run before ours.
    fn ahead(&self) -> Vec<Ahead>;
    /// What packets between ports of bridges pass.
    fn bridge_netfilter(&self) -> BridgeNetfilter;
    /// Looks at some flows, and deletes those that are over. What was found, once all have been looked at.
    fn collect(&mut self) -> Result<Option<Garbage>, Error>;
    /// Makes the indexes of endpoints and addresses say what members and frontends say.
    fn refresh_indexes(&mut self) -> Result<(), Error>;
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

    fn refresh_indexes(&mut self) -> Result<(), Error> {
        Self::refresh_indexes(self)
    }
}

/// How much of what is believed to be attached is taken for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// All: the ordinary case.
    Believe,
    /// Nothing: look after each, after a gap in the events or from time to time.
    Verify,
}

/// Attaches and detaches until what is attached is what is wanted. Returns how many interfaces could not be served.
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
                tracing::warn!(ifindex, class = class.name(), %error, "not detached, tried again later");
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
            // Its going is told by netlink in a moment.
            Err(error) if is_gone(&error) => {
                tracing::debug!(interface = link.name, %error, "gone before it was attached");
            }
            Err(error) => {
                tracing::warn!(interface = link.name, ifindex = link.ifindex, %error, "not attached, tried again later");
                failures += 1;
            }
        }
    }
    failures
}

fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Kernel { source, .. } if source.raw_os_error() == Some(libc::ENODEV))
}
