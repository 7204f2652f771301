//! From mode, policy and supply to what each kind of client gets: the whole decision, one function for each origin.
//!
//! Two deliberate differences from kube-proxy: a client's source address is never replaced (LB-02), and a packet from
//! the network is not forwarded to another node. So for such packets policy Cluster means the endpoints on this node,
//! or else the stack.

use lb_common::table::{Mode, Origin, ScopeFlags};

use super::claim::Claim;
use crate::model::{Service, TrafficPolicy};

/// Which endpoints are usable, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// At least one that any policy may choose.
    pub anywhere: bool,
    /// At least one on this node among the endpoints for policy Cluster.
    pub near: bool,
    /// At least one for policy Local.
    pub local: bool,
}

/// What a kind of client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Pass,
    Reject,
    Drop,
    /// The endpoints of the cluster.
    Cluster,
    /// The endpoints of the cluster that are on this node.
    Near,
    /// The endpoints on this node, for policy Local.
    Local,
}

impl Target {
    /// The scope flag that says which set its pool is.
    pub const fn pool_flag(self) -> u8 {
        match self {
            Self::Near => ScopeFlags::POOL_NEAR,
            Self::Local => ScopeFlags::POOL_LOCAL,
            Self::Cluster | Self::Pass | Self::Reject | Self::Drop => 0,
        }
    }
}

/// The targets of one frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    pub workload: Target,
    pub host: Target,
    pub external: Target,
}

impl Targets {
    pub const PASS: Self = Self::same(Target::Pass);

    /// The same target for all clients.
    const fn same(target: Target) -> Self {
        Self { workload: target, host: target, external: target }
    }

    /// One target for pods of this node and the node itself, and one for packets from the network.
    const fn by_side(inside: Target, outside: Target) -> Self {
        Self { workload: inside, host: inside, external: outside }
    }

    /// Whether any kind of client gets this target.
    pub fn contains(self, target: Target) -> bool {
        [self.workload, self.host, self.external].contains(&target)
    }
}

/// The traffic policies of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    pub internal: TrafficPolicy,
    pub external: TrafficPolicy,
}

impl Policies {
    pub const CLUSTER: Self = Self { internal: TrafficPolicy::Cluster, external: TrafficPolicy::Cluster };

    pub const fn of(service: &Service) -> Self {
        Self { internal: service.internal_policy, external: service.external_policy }
    }
}

/// The targets of an address of a Service.
pub const fn targets(claim: &Claim, policies: Policies, supply: Supply) -> Targets {
    match claim.origin {
        Origin::ClusterIP => cluster_ip(policies.internal, supply),
        Origin::NodePort | Origin::ExternalIP => external(policies.external, supply),
        Origin::LoadBalancer => load_balancer(claim.mode, policies.external, supply),
    }
}

/// The internal policy has no exemption: even a pod or the node gets nothing without a local endpoint (CIP-11).
pub const fn cluster_ip(internal: TrafficPolicy, supply: Supply) -> Targets {
    match internal {
        TrafficPolicy::Local => Targets::same(local(supply)),
        TrafficPolicy::Cluster => Targets::by_side(cluster(supply), near(supply)),
    }
}

/// Node ports, externalIPs and served load-balancer addresses. No traffic policy applies to pods and the node itself,
/// as if they had gone up to the balancer and come back in (IPM-33).
pub const fn external(external: TrafficPolicy, supply: Supply) -> Targets {
    let outside = match external {
        TrafficPolicy::Local => local(supply),
        TrafficPolicy::Cluster => near(supply),
    };
    Targets::by_side(cluster(supply), outside)
}

/// The balancer's mode decides which clients are served at all (docs/contract.md#ipmode).
pub const fn load_balancer(mode: Mode, policy: TrafficPolicy, supply: Supply) -> Targets {
    let Targets { workload, host, external } = self::external(policy, supply);
    match mode {
        Mode::Proxy => Targets::PASS,
        Mode::VIP => Targets { workload, host, external },
        Mode::Split => Targets { external, ..Targets::PASS },
        Mode::Router => Targets { workload: or_pass(workload), host: or_pass(host), external: or_pass(external) },
    }
}

const fn cluster(supply: Supply) -> Target {
    if supply.anywhere { Target::Cluster } else { Target::Reject }
}

/// Only an endpoint on this node preserves the client's address. Forwarding to another node is left to the stack.
const fn near(supply: Supply) -> Target {
    match supply {
        Supply { anywhere: false, .. } => Target::Reject,
        Supply { near: true, .. } => Target::Near,
        Supply { near: false, .. } => Target::Pass,
    }
}

/// Drops if another node could answer (IPM-32), and rejects if no endpoint exists (IPM-31).
const fn local(supply: Supply) -> Target {
    match supply {
        Supply { anywhere: false, .. } => Target::Reject,
        Supply { local: true, .. } => Target::Local,
        Supply { local: false, .. } => Target::Drop,
    }
}

/// KEP-6272: follow the route instead of rejecting or dropping.
const fn or_pass(target: Target) -> Target {
    match target {
        Target::Reject | Target::Drop => Target::Pass,
        other => other,
    }
}
