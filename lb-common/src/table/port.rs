//! What interfaces are ports of: which frames reach the node's stack that are not for the interface itself.

use super::table_type;
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
        /// [`Port::ANY_MAC`], [`Port::UNFILTERED4`], [`Port::UNFILTERED6`].
        pub flags: u16,
    }
}

impl Port {
    /// Which frames are for the node is not known: any may be.
    pub const ANY_MAC: u16 = 1;
    /// IPv4 between ports of the bridge passes no netfilter, and the bridge has a prefix of which they are neighbours. What a
    /// backend there answers to a client there never comes to the stack, whose conntrack would take the rest of what it hears
    /// for invalid: requests go across the bridge as well.
    pub const UNFILTERED4: u16 = 2;
    /// The same for IPv6.
    pub const UNFILTERED6: u16 = 4;

    /// The flag of a family.
    #[inline(always)]
    pub const fn unfiltered(family: Family) -> u16 {
        match family {
            Family::V4 => Self::UNFILTERED4,
            Family::V6 => Self::UNFILTERED6,
        }
    }
}
