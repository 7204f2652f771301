//! The routes of a host, as far as forwarding asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::addr::Addr;
use crate::forward::Work;
use crate::way::{Reach, SnatPorts, Way};

/// The ways out of the node, and its addresses on them.
#[derive(Clone, Debug)]
pub struct Routes {
    /// `--snat-ports`; None: nothing is forwarded.
    pub snat_ports: Option<SnatPorts>,
    /// Endpoints of other nodes, with the node's address on the way to them.
    pub remote: BTreeMap<IpAddr, IpAddr>,
    /// Packets that leave have been forwarded.
    pub is_forwarded: bool,
    /// Packets have a VLAN tag.
    pub is_tagged: bool,
    /// Addresses to which no route leads.
    pub unreachable: BTreeSet<IpAddr>,
    /// The longest packet that any way takes.
    pub mtu_bytes: u16,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            snat_ports: None,
            remote: BTreeMap::new(),
            is_forwarded: false,
            is_tagged: false,
            unreachable: BTreeSet::new(),
            mtu_bytes: u16::MAX,
        }
    }
}

impl Routes {
    pub(super) fn reach<A: Addr>(&self, work: &mut Work<A>) -> Reach {
        let to: IpAddr = work.to.dst.into();
        if self.unreachable.contains(&to) {
            return Reach::Nowhere;
        }
        let Some(source) = self.remote.get(&to) else { return Reach::Nowhere };
        let octets = match source {
            IpAddr::V4(addr) => addr.octets().to_vec(),
            IpAddr::V6(addr) => addr.octets().to_vec(),
        };
        A::read_from_bytes(&octets).map_or(Reach::Nowhere, |source| {
            work.to.src = source;
            Reach::Uplink
        })
    }

    pub(super) fn way<A: Addr>(&self, work: &Work<A>, len_bytes: u16) -> Way {
        if self.unreachable.contains(&work.to.dst.into()) {
            return Way::Nowhere;
        }
        if len_bytes > self.mtu_bytes { Way::TooLong { mtu_bytes: self.mtu_bytes } } else { Way::Out }
    }
}
