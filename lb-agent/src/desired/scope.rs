//! From mode, policy and supply to what each kind of client gets: the whole decision in one table.

use lb_common::table::Mode;

use crate::model::TrafficPolicy;

/// Which endpoints are usable, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supply {
    /// None anywhere.
    Nothing,
    /// Only on other nodes.
    Remote,
    /// At least one on this node.
    Local,
}

/// What a kind of client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Pass,
    Reject,
    Drop,
    /// The endpoints of the cluster.
    Cluster,
    /// The endpoints on this node.
    Local,
}

/// The targets of one frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    pub workload: Target,
    pub host: Target,
    pub external: Target,
}

impl Targets {
    pub const PASS: Self = Self { workload: Target::Pass, host: Target::Pass, external: Target::Pass };

    /// Whether any kind of client gets this.
    pub fn contains(self, target: Target) -> bool {
        [self.workload, self.host, self.external].contains(&target)
    }
}

/// Spec 2.7 and 2.13 for a load-balancer address. Pods and the node itself are subject to neither traffic policy: they
/// reach the endpoints of the cluster (IPM-33).
pub const fn load_balancer(mode: Mode, policy: TrafficPolicy, supply: Supply) -> Targets {
    let inside = match supply {
        Supply::Nothing => Target::Reject,
        Supply::Remote | Supply::Local => Target::Cluster,
    };
    let outside = match (supply, policy) {
        (Supply::Nothing, _) => Target::Reject,
        (Supply::Local, _) => Target::Local,
        (Supply::Remote, TrafficPolicy::Local) => Target::Drop,
        // Only an endpoint on this node keeps the client's address; forwarding to another node is the stack's.
        (Supply::Remote, TrafficPolicy::Cluster) => Target::Pass,
    };
    match mode {
        Mode::Proxy => Targets::PASS,
        Mode::VIP => Targets { workload: inside, host: inside, external: outside },
        Mode::Split => Targets { external: outside, ..Targets::PASS },
        Mode::Router => Targets { workload: or_pass(inside), host: or_pass(inside), external: or_pass(outside) },
    }
}

/// KEP-6272: follow the route where others reject or drop.
const fn or_pass(target: Target) -> Target {
    match target {
        Target::Reject | Target::Drop => Target::Pass,
        other => other,
    }
}
