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
