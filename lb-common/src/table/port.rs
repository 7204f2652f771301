//! What interfaces are ports of: which frames reach the node's stack that are not for the interface itself.

use super::row::table_type;
use crate::addr::Family;

table_type! {
    /// Value of `ports`, indexed by the low bits of an interface index.
    pub struct Port {
        /// The interface that the element is written for; another one has the same low bits.
        pub ifindex: u32,
        /// What it is a port of; 0: nothing.
        pub bridge: u32,
        /// The MAC of that: frames for it are for the node.
        pub mac: [u8; 6],
        /// [`Port::ANY_MAC`].
        pub flags: u16,
        /// Bits of a prefix of the bridge, within which IPv4 between its ports does not traverse netfilter; 0: it does. What a
        /// backend answers to a client of the same prefix never comes to the stack, whose conntrack would classify the rest of
        /// what it sees as invalid: requests go across the bridge as well.
        pub unfiltered_bits4: u8,
        /// The same for IPv6.
        pub unfiltered_bits6: u8,
        pub pad: [u8; 2],
    }
}

impl Port {
    /// Which frames are for the node is not known: any may be.
    pub const ANY_MAC: u16 = 1;

    /// Nothing but an interface: a port of no bridge.
    pub const fn unbridged(ifindex: u32) -> Self {
        Self { ifindex, bridge: 0, mac: [0; 6], flags: 0, unfiltered_bits4: 0, unfiltered_bits6: 0, pad: [0; 2] }
    }

    /// The bits of a family.
    #[inline(always)]
    pub const fn unfiltered_bits(&self, family: Family) -> u8 {
        match family {
            Family::V4 => self.unfiltered_bits4,
            Family::V6 => self.unfiltered_bits6,
        }
    }
}
