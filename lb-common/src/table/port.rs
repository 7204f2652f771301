//! What interfaces are ports of: which frames reach the node's stack that are not for the interface itself.

use super::table_type;

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
    }
}

impl Port {
    /// Which frames are for the node is not known: any may be.
    pub const ANY_MAC: u16 = 1;
}
