//! What the programs ask about an interface: which frames reach the node's stack although they are not for its MAC, and
//! whether packets have a link header there.

use super::row::table_type;
use crate::addr::Family;

table_type! {
    /// Value of `ports`, indexed by the low bits of an interface index.
    pub struct Port {
        /// The interface that the element is written for. Other interfaces may have the same low bits.
        pub ifindex: u32,
        /// The bridge that it is a port of; 0: none.
        pub bridge: u32,
        /// The MAC of frames for the node: that of the bridge or, without a bridge, the interface's own. Zeroes: none is
        /// known.
        pub mac: [u8; 6],
        /// [`Port::ANY_MAC`], [`Port::BARE`].
        pub flags: u16,
        /// A prefix length of the bridge: IPv4 between ports within that prefix does not traverse netfilter; 0: it
        /// does. A backend's answer to a client in the same prefix then bypasses the stack, and conntrack would
        /// classify what it sees of the flow as invalid. So requests cross the bridge as well.
        pub unfiltered_bits4: u8,
        /// The same for IPv6.
        pub unfiltered_bits6: u8,
        pub pad: [u8; 2],
    }
}

impl Port {
    /// The frames for the node are unknown: any may be.
    pub const ANY_MAC: u16 = 1;
    /// Packets have no link header. A tunnel may need a route of the stack's own to find its other end.
    pub const BARE: u16 = 2;

    /// An interface that is a port of no bridge.
    pub const fn unbridged(ifindex: u32) -> Self {
        Self { ifindex, bridge: 0, mac: [0; 6], flags: 0, unfiltered_bits4: 0, unfiltered_bits6: 0, pad: [0; 2] }
    }

    /// The prefix length of a family.
    #[inline(always)]
    pub const fn unfiltered_bits(&self, family: Family) -> u8 {
        match family {
            Family::V4 => self.unfiltered_bits4,
            Family::V6 => self.unfiltered_bits6,
        }
    }
}
