//! The last packet that a decision refused (rejected or dropped), by reason. Fragments, redirects and packets that
//! could not be rewritten are only counted.

use super::flow::FlowKey;
use super::row::table_type;

table_type! {
    /// Value of `drops4` and `drops6`, indexed by [`Counter`](super::Counter). Each CPU notes its own packets. A reader
    /// may see half of a change.
    pub struct Dropped<A> {
        /// jiffies64; 0: none so far.
        pub at_jiffies: u64,
        /// The packet as it came: edge, tuple, protocol and direction.
        pub key: FlowKey<A>,
        pub pad: u32,
    }
}

/// The edge of sockets of the node, which have no interface, in [`DropKey`] and [`Told`](super::Told).
pub const EDGE_SOCKETS: u32 = u32::MAX;

table_type! {
    /// Key of `drop_counts`.
    pub struct DropKey {
        /// The frontend that was dialled; 0: none, or it is not known.
        pub frontend: u32,
        /// As in a flow key, or [`EDGE_SOCKETS`].
        pub edge: u32,
        /// The number of the [`Counter`](super::Counter).
        pub reason: u32,
    }

    /// Value of `drop_counts`.
    pub struct DropCount {
        pub packets: u64,
        pub bytes: u64,
        /// jiffies64 of the last packet.
        pub last_jiffies: u64,
    }
}
