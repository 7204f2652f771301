//! Interfaces that attach or fail.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use lb_common::table::{Port, Uplink};

use crate::dataplane::driver::Mode;
use crate::dataplane::garbage::Garbage;
use crate::dataplane::links::{Ahead, Class, Link, LinkHeader};
use crate::dataplane::{Error, UplinkRows};

/// The interfaces of a node in memory. They panic if a caller attaches a program that cannot work yet.
#[derive(Default)]
pub struct FakeLinks {
    pub attached: BTreeSet<(u32, Class, LinkHeader)>,
    /// Interfaces that cannot be attached.
    pub refusing: HashSet<u32>,
    pub drivers: BTreeMap<u32, Mode>,
    /// Interfaces whose driver refuses programs.
    pub refusing_drivers: HashSet<u32>,
    pub activations: usize,
    pub fails_to_activate: bool,
    pub ports: Vec<Port>,
    pub uplinks: UplinkRows,
    pub refuses_ports: bool,
    /// Steps of walks over the flows.
    pub walks: usize,
    /// Calls of `attach` and `detach`, in order.
    pub calls: Vec<String>,
    pub ahead: Vec<Ahead>,
    /// Interfaces whose programs another one removes.
    pub lost: BTreeSet<u32>,
}

impl FakeLinks {
    /// The row of an interface in `ports`: the bridge and its MAC.
    pub fn bridge(&self, ifindex: u32) -> Option<(u32, [u8; 6])> {
        self.ports.iter().find(|port| port.ifindex == ifindex).map(|port| (port.bridge, port.mac))
    }

    pub fn forget_lost(&mut self) -> bool {
        self.attached.retain(|(ifindex, ..)| !self.lost.contains(ifindex));
        !std::mem::take(&mut self.lost).is_empty()
    }

    pub fn activate(&mut self) -> Result<(), Error> {
        if self.fails_to_activate {
            return Err(refused("not today"));
        }
        let is_described = |(ifindex, ..): &(u32, Class, LinkHeader)| self.bridge(*ifindex).is_some();
        assert!(
            self.attached.iter().all(|link| link.0 == 9 || is_described(link)),
            "activated before the ports are known"
        );
        self.activations += 1;
        Ok(())
    }

    pub fn set_ports(&mut self, ports: &[Port]) -> Result<(), Error> {
        if self.refuses_ports {
            return Err(refused("not today"));
        }
        ports.clone_into(&mut self.ports);
        Ok(())
    }

    pub fn attach(&mut self, link: &Link) -> Result<(), Error> {
        assert!(self.refuses_ports || self.bridge(link.ifindex).is_some(), "attached before it was described");
        assert_eq!(self.activations, 1, "attached before the tables were full");
        if self.refusing.contains(&link.ifindex) {
            return Err(refused("not this one"));
        }
        self.calls.push(format!("attach {}", link.ifindex));
        self.attached.insert((link.ifindex, link.class, link.header));
        Ok(())
    }

    pub fn attach_driver(&mut self, ifindex: u32, mode: Mode) -> Result<(), Error> {
        let is_uplink =
            |(attached, class, _): &(u32, Class, LinkHeader)| (*attached, *class) == (ifindex, Class::Uplink);
        assert!(self.attached.iter().any(is_uplink), "tc does not stand behind the driver of {ifindex}");
        self.calls.push(format!("attach driver {ifindex}"));
        if self.refusing_drivers.contains(&ifindex) {
            return Err(refused("not this driver"));
        }
        self.drivers.insert(ifindex, mode);
        Ok(())
    }

    pub fn detach_driver(&mut self, ifindex: u32) {
        let sends = self.uplinks.get(&ifindex).is_some_and(|uplink| uplink.flags & Uplink::SENDS_FRAMES != 0);
        assert!(!sends, "detached while other drivers send frames to {ifindex}");
        self.calls.push(format!("detach driver {ifindex}"));
        self.drivers.remove(&ifindex);
    }

    pub fn detach(&mut self, ifindex: u32) {
        self.calls.push(format!("detach {ifindex}"));
        self.drivers.remove(&ifindex);
        self.attached.retain(|(attached, ..)| *attached != ifindex);
    }

    /// A walk over the flows takes three steps.
    pub fn collect(&mut self) -> Option<Garbage> {
        self.walks += 1;
        self.walks.is_multiple_of(3).then_some(Garbage { flows4: 7, flows6: 1, collected: 2, ..Garbage::default() })
    }
}

fn refused(op: &'static str) -> Error {
    Error::Kernel { op, source: std::io::Error::other("refused") }
}
