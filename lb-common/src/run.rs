//! The run of a program for one packet: the context of the whole path.

use crate::forward::{Hook, Work};

/// A packet at a hook, the kernel, and the records that a decision works on. `path`, `fragment` and `icmp` implement
/// what happens in it; the decision itself is made without the packet.
pub struct Run<'a, A, P, K> {
    pub packet: &'a mut P,
    pub hook: Hook,
    pub kernel: &'a K,
    pub work: &'a mut Work<A>,
}
