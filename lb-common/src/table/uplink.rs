//! Uplinks: the interfaces towards the network, and the addresses of this node on them.

use super::row::table_type;

/// Rows of `uplinks`: more interfaces towards the network than a node has.
pub const UPLINKS_MAX: u32 = 1 << 12;

/// Elements of `hops_asked`, a power of two.
pub const HOPS_ASKED: u32 = 1 << 12;

table_type! {
    /// Value of `uplinks`, whose key is the index of the interface.
    pub struct Uplink {
        /// The source of what this node forwards by the interface to endpoints of other nodes. Zeroes: the node has no
        /// IPv4 address.
        pub source4: [u8; 4],
        /// The same for IPv6.
        pub source6: [u8; 16],
        /// [`Uplink::SENDS_FRAMES`].
        pub flags: u32,
    }
}

impl Uplink {
    /// The driver sends frames that a program of another interface redirects to it (`ndo_xdp_xmit`).
    pub const SENDS_FRAMES: u32 = 1;

    /// Without addresses.
    pub const UNNUMBERED: Self = Self { source4: [0; 4], source6: [0; 16], flags: 0 };
}
