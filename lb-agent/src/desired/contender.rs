//! A claim as it competes with the claims of other Services.

use std::net::IpAddr;
use std::sync::Arc;

use lb_common::addr::Proto;

use super::claim::Rank;
use crate::model::ObjectName;

/// What clients dial.
pub type Key = (IpAddr, u16, Proto);

/// A claim to a key. Sorted by key, and the claims to a key from best to worst, apart from the current holder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contender {
    pub key: Key,
    /// Leaves all clients to the balancer.
    pub is_left: bool,
    pub rank: Rank,
    pub created_secs: i64,
    pub service: Arc<ObjectName>,
}

impl Contender {
    /// Whether age and incumbency decide between the two.
    pub fn is_level_with(&self, other: &Self) -> bool {
        (self.is_left, self.rank) == (other.is_left, other.rank)
    }
}
