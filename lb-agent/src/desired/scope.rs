//! From mode, policy and supply to what each kind of client gets: the whole decision, one function for each origin.
//!
//! A deliberate difference from kube-proxy: the client's address is replaced only in what this node forwards to another
//! one (LB-02). Without forwarding, policy Cluster means for packets of the network the endpoints on this node, or else
//! the stack.

use lb_common::client::PerClient;
use lb_common::table::{Mode, Origin, ScopeFlags};

use super::claim::Claim;
use super::policy::Forwarding;
use crate::model::{Service, TrafficPolicy};

/// Which endpoints are usable, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supply {
    /// At least one that any policy may choose.
    pub anywhere: bool,
    /// Where the endpoints for policy Cluster are.
    pub cluster: Whereabouts,
    /// At least one for policy Local.
    pub local: bool,
}

/// Where endpoints are, seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    Nowhere,
    Here,
    Elsewhere,
    HereAndElsewhere,
}

impl Whereabouts {
    /// The place of `all` endpoints, of which so many are here.
    pub const fn of(all: usize, here: usize) -> Self {
        match (here, all.saturating_sub(here)) {
            (0, 0) => Self::Nowhere,
            (_, 0) => Self::Here,
            (0, _) => Self::Elsewhere,
            (_, _) => Self::HereAndElsewhere,
        }
    }
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
    /// The endpoints of the cluster, some of them on other nodes: this node forwards to those, with an address of its
    /// own as source.
    Forward,
}

impl Treatment {
    /// The scope flag that says which set its pool is, or that its pool has endpoints on other nodes.
    pub const fn pool_flag(self) -> u8 {
        match self {
            Self::Near => ScopeFlags::POOL_NEAR,
            Self::Local => ScopeFlags::POOL_LOCAL,
            Self::Forward => ScopeFlags::MASQUERADE,
            Self::Cluster | Self::Pass | Self::Reject | Self::Drop => 0,
        }
    }
}

/// One treatment for pods of this node and the node itself, and one for packets from the network.
const fn by_side(inside: Treatment, outside: Treatment) -> PerClient<Treatment> {
    PerClient { workload: inside, host: inside, external: outside }
}

/// The traffic policies of a Service, and what this node does for endpoints of other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policies {
    pub internal: TrafficPolicy,
    pub external: TrafficPolicy,
    pub forwarding: Forwarding,
}

impl Policies {
    pub const CLUSTER: Self =
        Self { internal: TrafficPolicy::Cluster, external: TrafficPolicy::Cluster, forwarding: Forwarding::Off };

    pub const fn of(service: &Service, forwarding: Forwarding) -> Self {
        Self { internal: service.internal_policy, external: service.external_policy, forwarding }
    }
}

const PASS: PerClient<Treatment> = PerClient::same(Treatment::Pass);

/// The treatments of an address of a Service.
pub const fn treatments(claim: &Claim, policies: Policies, supply: Supply) -> PerClient<Treatment> {
    let treatments = match claim.origin {
        Origin::ClusterIP => cluster_ip(policies, supply),
        Origin::NodePort | Origin::ExternalIP => external(policies, supply),
        Origin::LoadBalancer => load_balancer(claim.mode, policies, supply),
    };
    match claim.header {
        None => treatments,
        // Sockets of the node have no packets that a header could be added to: the balancer adds theirs.
        Some(_) => PerClient { host: Treatment::Pass, ..treatments },
    }
}

/// The internal policy has no exemption: even a pod or the node gets nothing without a local endpoint (CIP-11).
pub const fn cluster_ip(policies: Policies, supply: Supply) -> PerClient<Treatment> {
    match policies.internal {
        TrafficPolicy::Local => PerClient::same(local(supply)),
        TrafficPolicy::Cluster => by_side(cluster(supply), network(policies.forwarding, supply)),
    }
}

/// Node ports, externalIPs and served load-balancer addresses. No traffic policy applies to pods and the node itself,
/// as if they had gone up to the balancer and come back in (IPM-33).
pub const fn external(policies: Policies, supply: Supply) -> PerClient<Treatment> {
    let outside = match policies.external {
        TrafficPolicy::Local => local(supply),
        TrafficPolicy::Cluster => network(policies.forwarding, supply),
    };
    by_side(cluster(supply), outside)
}

/// The balancer's mode decides which clients are served at all (docs/contract.md#ipmode).
pub const fn load_balancer(mode: Mode, policies: Policies, supply: Supply) -> PerClient<Treatment> {
    let PerClient { workload, host, external } = self::external(policies, supply);
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

/// Policy Cluster for packets of the network (XIP-03, NP-02).
const fn network(forwarding: Forwarding, supply: Supply) -> Treatment {
    if !supply.anywhere {
        return Treatment::Reject;
    }
    match (supply.cluster, forwarding) {
        (Whereabouts::Elsewhere | Whereabouts::HereAndElsewhere, Forwarding::Snat) => Treatment::Forward,
        (Whereabouts::Here | Whereabouts::HereAndElsewhere, _) => Treatment::Near,
        (Whereabouts::Nowhere | Whereabouts::Elsewhere, _) => Treatment::Pass,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of the network for a Service with policy Cluster, by the place of its endpoints (XIP-03).
    #[test]
    fn policy_cluster_reaches_other_nodes_if_this_one_forwards() {
        let of = |all, here, forwarding| {
            let supply = Supply { anywhere: all > 0, cluster: Whereabouts::of(all, here), local: here > 0 };
            let policies = Policies { forwarding, ..Policies::CLUSTER };
            [cluster_ip(policies, supply).external, external(policies, supply).external]
        };
        for (all, here, forwarded, left) in [
            (0, 0, Treatment::Reject, Treatment::Reject),
            (2, 2, Treatment::Near, Treatment::Near),
            (2, 1, Treatment::Forward, Treatment::Near),
            (2, 0, Treatment::Forward, Treatment::Pass),
        ] {
            assert_eq!(of(all, here, Forwarding::Snat), [forwarded; 2], "{here} of {all} here");
            assert_eq!(of(all, here, Forwarding::Off), [left; 2], "{here} of {all} here, without forwarding");
        }
    }

    /// Policy Local never leaves the node (XIP-05, CIP-11), and pods need no address of the node.
    #[test]
    fn only_policy_cluster_of_the_network_is_forwarded() {
        let supply = Supply { anywhere: true, cluster: Whereabouts::Elsewhere, local: false };
        let cluster = Policies { forwarding: Forwarding::Snat, ..Policies::CLUSTER };
        let local = Policies { internal: TrafficPolicy::Local, external: TrafficPolicy::Local, ..cluster };
        assert_eq!(external(local, supply), by_side(Treatment::Cluster, Treatment::Drop));
        assert_eq!(cluster_ip(local, supply), PerClient::same(Treatment::Drop));
        assert_eq!(external(cluster, supply), by_side(Treatment::Cluster, Treatment::Forward));
        assert_eq!(load_balancer(Mode::Split, cluster, supply).external, Treatment::Forward);
    }
}
