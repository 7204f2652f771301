//! From mode, policy and supply to what each kind of client gets: the whole decision, one function for each origin.
//!
//! Two deliberate differences from kube-proxy: a client's source address is never replaced (LB-02), and a packet from
//! the network is not forwarded to another node. So for such packets policy Cluster means the endpoints on this node,
//! or else the stack.

use lb_common::client::PerClient;
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

/// What happens to the packets of one kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
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

impl Treatment {
    /// The scope flag that says which set its pool is.
    pub const fn pool_flag(self) -> u8 {
        match self {
            Self::Near => ScopeFlags::POOL_NEAR,
            Self::Local => ScopeFlags::POOL_LOCAL,
            Self::Cluster | Self::Pass | Self::Reject | Self::Drop => 0,
        }
    }
}

/// One treatment for pods of this node and the node itself, and one for packets from the network.
const fn by_side(inside: Treatment, outside: Treatment) -> PerClient<Treatment> {
    PerClient { workload: inside, host: inside, external: outside }
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

const PASS: PerClient<Treatment> = PerClient::same(Treatment::Pass);

/// The treatments of an address of a Service.
pub const fn treatments(claim: &Claim, policies: Policies, supply: Supply) -> PerClient<Treatment> {
    match claim.origin {
        Origin::ClusterIP => cluster_ip(policies.internal, supply),
        Origin::NodePort | Origin::ExternalIP => external(policies.external, supply),
        Origin::LoadBalancer => load_balancer(claim.mode, policies.external, supply),
    }
}

/// The internal policy has no exemption: even a pod or the node gets nothing without a local endpoint (CIP-11).
pub const fn cluster_ip(internal: TrafficPolicy, supply: Supply) -> PerClient<Treatment> {
    match internal {
        TrafficPolicy::Local => PerClient::same(local(supply)),
        TrafficPolicy::Cluster => by_side(cluster(supply), near(supply)),
    }
}

/// Node ports, externalIPs and served load-balancer addresses. No traffic policy applies to pods and the node itself,
/// as if they had gone up to the balancer and come back in (IPM-33).
pub const fn external(external: TrafficPolicy, supply: Supply) -> PerClient<Treatment> {
    let outside = match external {
        TrafficPolicy::Local => local(supply),
        TrafficPolicy::Cluster => near(supply),
    };
    by_side(cluster(supply), outside)
}

/// The balancer's mode decides which clients are served at all (docs/contract.md#ipmode).
pub const fn load_balancer(mode: Mode, policy: TrafficPolicy, supply: Supply) -> PerClient<Treatment> {
    let PerClient { workload, host, external } = self::external(policy, supply);
    match mode {
        Mode::Proxy => PASS,
        Mode::VIP => PerClient { workload, host, external },
        Mode::Split => PerClient { external, ..PASS },
        Mode::Router => PerClient { workload: or_pass(workload), host: or_pass(host), external: or_pass(external) },
    }
}

const fn cluster(supply: Supply) -> Treatment {
    if supply.anywhere { Treatment::Cluster } else { Treatment::Reject }
}

/// Only an endpoint on this node preserves the client's address. Forwarding to another node is left to the stack.
const fn near(supply: Supply) -> Treatment {
    match supply {
        Supply { anywhere: false, .. } => Treatment::Reject,
        Supply { near: true, .. } => Treatment::Near,
        Supply { near: false, .. } => Treatment::Pass,
    }
}

/// Drops if another node could answer (IPM-32), and rejects if no endpoint exists (IPM-31).
const fn local(supply: Supply) -> Treatment {
    match supply {
        Supply { anywhere: false, .. } => Treatment::Reject,
        Supply { local: true, .. } => Treatment::Local,
        Supply { local: false, .. } => Treatment::Drop,
    }
}

/// KEP-6272: follow the route instead of rejecting or dropping.
const fn or_pass(treatment: Treatment) -> Treatment {
    match treatment {
        Treatment::Reject | Treatment::Drop => Treatment::Pass,
        other => other,
    }
}
