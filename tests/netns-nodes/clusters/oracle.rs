//! What kube-proxy 1.36 does with a connection, from the truth tables of its source and tests, and written without a
//! look at the agent's code; and where the agent differs on purpose, by name.

use std::net::IpAddr;

use lb_tests::address::{Family, family};

use super::plan::{Endpoint, Kind, Place, Policy, Service, State};

/// What the agents serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// Everything that kube-proxy serves.
    All,
    /// Addresses of balancers, beside a kube-proxy; here there is none.
    Balancers,
}

/// How the agents run.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub flags: &'static [&'static str],
    pub services: Services,
}

/// Where a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A pod of a node, by its letter.
    Pod(&'static str, u8),
    /// A process of a node.
    Node(u8),
    /// A client outside, whose packets the network delivers to a node.
    Outside(u8),
}

/// An address of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frontend {
    Cluster,
    External,
    Balancer,
    /// The node port of a node.
    NodePort(u8),
}

/// What becomes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One of these answers, and sees the client so.
    Answered(Vec<Answering>),
    /// The client sees "connection refused".
    Refused,
    /// The node drops it, or denies it to its own process.
    Silence,
    /// The packet is not the node's business: it leaves the node as it is, and no host has the address.
    LeftAlone,
    /// The packet is not the node's business, and reaches the balancer.
    Balancer,
}

/// An endpoint that may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answering {
    pub place: Place,
    /// The client's address, as this endpoint of the agent's must see it.
    pub sees: Seen,
    /// Why that is not what an endpoint of kube-proxy's sees.
    pub difference: Option<Difference>,
}

/// An address as an endpoint sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The client's own, of the origin.
    Client,
    /// That of a node.
    Node(u8),
    /// That of the frontend which was dialled.
    Frontend,
}

/// Deliberate differences from kube-proxy (docs/contract.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// LB-02: pods are not masqueraded, at whichever address.
    PodsKeepTheirAddress,
    /// "A source address is replaced only in what this node forwards to another one."
    ClientsOfEndpointsHereKeepTheirAddress,
    /// HP-01: a pod that is its own endpoint sees the frontend.
    OwnEndpointSeesTheFrontend,
}

/// The kind of a client, for the node that decides.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    LocalPod,
    ThisNode,
    External,
}

impl Origin {
    pub const fn node(self) -> u8 {
        match self {
            Self::Pod(_, node) | Self::Node(node) | Self::Outside(node) => node,
        }
    }

    const fn client(self) -> Client {
        match self {
            Self::Pod(..) => Client::LocalPod,
            Self::Node(_) => Client::ThisNode,
            Self::Outside(_) => Client::External,
        }
    }
}

/// The verdict on a connection. `source` is the client's own address.
pub fn verdict(
    manner: Manner,
    service: &Service,
    (frontend, at): (Frontend, Family),
    (origin, source): (Origin, IpAddr),
) -> Verdict {
    if !service.families.contains(&at) || (manner.services == Services::Balancers && frontend != Frontend::Balancer) {
        return unserved(frontend);
    }
    if frontend == Frontend::Balancer {
        if service.mode != "VIP" {
            return Verdict::Balancer;
        }
        // Before everything else, as with nftables: also where there is no endpoint.
        if !is_let_in(&service.ranges, source) {
            return Verdict::Silence;
        }
    }
    // A node port of another node: the packet goes there, with an address of this node if it is a pod's.
    let (node, client, arrives_as) = match (frontend, origin) {
        (Frontend::NodePort(node), Origin::Pod(_, from)) if node != from => (node, Client::External, Seen::Node(from)),
        (Frontend::NodePort(node), _) if node != origin.node() => (node, Client::External, Seen::Client),
        _ => (origin.node(), origin.client(), Seen::Client),
    };
    Decided { service, frontend, node, client, arrives_as, origin }.verdict()
}

/// Without a rule, the packet goes where routes lead: node ports are closed, balancers answer, and no host has the others.
const fn unserved(frontend: Frontend) -> Verdict {
    match frontend {
        Frontend::NodePort(_) => Verdict::Refused,
        Frontend::Balancer => Verdict::Balancer,
        Frontend::Cluster | Frontend::External => Verdict::LeftAlone,
    }
}

/// A connection at the node that decides.
struct Decided<'a> {
    service: &'a Service,
    frontend: Frontend,
    node: u8,
    client: Client,
    arrives_as: Seen,
    origin: Origin,
}

impl Decided<'_> {
    fn verdict(&self) -> Verdict {
        let everywhere = usable(&self.service.endpoints);
        let on_this_node: Vec<Endpoint> =
            self.service.endpoints.iter().copied().filter(|endpoint| endpoint.place.node() == self.node).collect();
        let here = usable(&on_this_node);
        if everywhere.is_empty() && here.is_empty() {
            return Verdict::Refused;
        }
        let is_internal = self.frontend == Frontend::Cluster;
        let wants_local = if is_internal {
            self.service.internal == Policy::Local
        } else {
            self.service.external == Policy::Local && self.client == Client::External
        };
        let chosen = if wants_local { here } else { everywhere };
        if chosen.is_empty() {
            return Verdict::Silence;
        }
        Verdict::Answered(chosen.into_iter().map(|place| self.answering(place)).collect())
    }

    fn answering(&self, place: Place) -> Answering {
        let difference = self.difference(place);
        let sees = match difference {
            None => self.kube_proxy_sees(place),
            Some(Difference::OwnEndpointSeesTheFrontend) => Seen::Frontend,
            Some(Difference::PodsKeepTheirAddress | Difference::ClientsOfEndpointsHereKeepTheirAddress) => {
                self.unmasqueraded(place)
            }
        };
        Answering { place, sees, difference }
    }

    fn is_own_endpoint(&self, place: Place) -> bool {
        matches!((self.origin, place), (Origin::Pod(letter, from), Place::Pod(other, node)) if (letter, from) == (other, node))
            && self.client == Client::LocalPod
    }

    /// The table of `TestInternalExternalMasquerade`, without `masqueradeAll`, and with a detector of local pods.
    fn is_masqueraded(&self, place: Place) -> bool {
        if self.is_own_endpoint(place) {
            return true;
        }
        match self.frontend {
            Frontend::Cluster => self.client != Client::LocalPod,
            _ if self.service.external == Policy::Cluster => true,
            _ => self.client == Client::ThisNode,
        }
    }

    fn kube_proxy_sees(&self, place: Place) -> Seen {
        if self.is_masqueraded(place) { Seen::Node(self.node) } else { self.unmasqueraded(place) }
    }

    /// What the CNI leaves of the source: it masquerades what pods send to addresses that are no pod's.
    fn unmasqueraded(&self, place: Place) -> Seen {
        match (self.client, place) {
            (Client::LocalPod, Place::Host(node)) if node != self.node => Seen::Node(self.node),
            (Client::ThisNode, _) => Seen::Node(self.node),
            // What this node sends on to another one must return by it.
            (Client::External, _) if place.node() != self.node => Seen::Node(self.node),
            _ => self.arrives_as,
        }
    }

    fn difference(&self, place: Place) -> Option<Difference> {
        if self.is_own_endpoint(place) {
            return Some(Difference::OwnEndpointSeesTheFrontend);
        }
        if self.kube_proxy_sees(place) == self.unmasqueraded(place) {
            return None;
        }
        match self.client {
            Client::LocalPod => Some(Difference::PodsKeepTheirAddress),
            Client::External => Some(Difference::ClientsOfEndpointsHereKeepTheirAddress),
            Client::ThisNode => None,
        }
    }
}

/// The ready endpoints; without any, those that terminate and still serve.
fn usable(endpoints: &[Endpoint]) -> Vec<Place> {
    let of = |state| -> Vec<Place> {
        endpoints.iter().filter(|endpoint| endpoint.state == state).map(|endpoint| endpoint.place).collect()
    };
    let ready = of(State::Ready);
    if ready.is_empty() { of(State::Terminating) } else { ready }
}

/// The number of local ready endpoints, which the health check node port of a node tells; `None` without such a port.
pub fn local_endpoints(manner: Manner, service: &Service, at: Family, node: u8) -> Option<usize> {
    let is_served = manner.services == Services::All;
    let is_checked = is_served
        && service.kind == Kind::LoadBalancer
        && service.external == Policy::Local
        && service.families.contains(&at);
    let is_counted = |endpoint: &&Endpoint| endpoint.state == State::Ready && endpoint.place.node() == node;
    is_checked.then(|| service.endpoints.iter().filter(is_counted).count())
}

/// Whether `loadBalancerSourceRanges` let an address in. Without a range of its family, or with one of length zero, they
/// let all in.
fn is_let_in(ranges: &[&str], source: IpAddr) -> bool {
    let of_family: Vec<(IpAddr, u32)> = ranges
        .iter()
        .map(|range| range.trim().split_once('/').expect("a prefix"))
        .map(|(address, length)| (address.parse().expect("an address"), length.parse().expect("a length")))
        .filter(|(address, _)| family(*address) == family(source))
        .collect();
    of_family.is_empty() || of_family.iter().any(|(address, length)| has_prefix(source, *address, *length))
}

fn has_prefix(source: IpAddr, network: IpAddr, length: u32) -> bool {
    let (bits, one, other) = match (source, network) {
        (IpAddr::V4(source), IpAddr::V4(network)) => (32, source.to_bits().into(), network.to_bits().into()),
        (IpAddr::V6(source), IpAddr::V6(network)) => (128, source.to_bits(), network.to_bits()),
        _ => return false,
    };
    let (one, other): (u128, u128) = (one, other);
    length == 0 || (one >> (bits - length)) == (other >> (bits - length))
}

#[cfg(test)]
mod tests {

    use super::*;

    fn service(external: Policy, internal: Policy) -> Service {
        Service::plain(1, (internal, external), [1, 2].map(|node| Place::Pod("b", node)))
    }

    /// A cell of `TestInternalExternalMasquerade`: all endpoints or the local one, and whether they are masqueraded.
    fn cell(service: &Service, frontend: Frontend, origin: Origin) -> &'static str {
        let (client, arrives_as) = (origin.client(), Seen::Client);
        let decided = Decided { service, frontend, node: 1, client, arrives_as, origin };
        let Verdict::Answered(by) = decided.verdict() else { return "-" };
        match (by.len(), by.iter().all(|one| decided.is_masqueraded(one.place))) {
            (2, false) => "C",
            (2, true) => "C+m",
            (_, false) => "L",
            (_, true) => "L+m",
        }
    }

    #[test]
    fn the_table_of_kube_proxy_s_own_test() {
        use Policy::{Cluster, Local};
        let origins = [Origin::Pod("c", 1), Origin::Node(1), Origin::Outside(1)];
        for (policies, frontend, wanted) in [
            ((Cluster, Cluster), Frontend::Cluster, ["C", "C+m", "C+m"]),
            ((Cluster, Cluster), Frontend::NodePort(1), ["C+m", "C+m", "C+m"]),
            ((Cluster, Cluster), Frontend::Balancer, ["C+m", "C+m", "C+m"]),
            ((Local, Cluster), Frontend::Cluster, ["C", "C+m", "C+m"]),
            ((Local, Cluster), Frontend::NodePort(1), ["C", "C+m", "L"]),
            ((Local, Cluster), Frontend::Balancer, ["C", "C+m", "L"]),
            ((Cluster, Local), Frontend::Cluster, ["L", "L+m", "L+m"]),
            ((Cluster, Local), Frontend::NodePort(1), ["C+m", "C+m", "C+m"]),
            ((Cluster, Local), Frontend::Balancer, ["C+m", "C+m", "C+m"]),
        ] {
            let service = service(policies.0, policies.1);
            let cells = origins.map(|origin| cell(&service, frontend, origin));
            assert_eq!(cells, wanted, "eTP and iTP {policies:?}, {frontend:?}");
        }
    }

    #[test]
    fn ranges_are_asked_by_family() {
        let [pod, client] = ["10.244.1.12", "203.0.113.1"].map(|address| address.parse().expect("an address"));
        assert!(is_let_in(&[], pod) && is_let_in(&["2001:db8::/32"], pod) && is_let_in(&["0.0.0.0/0"], pod));
        assert!(is_let_in(&[" 203.0.113.0/31 "], client) && !is_let_in(&[" 203.0.113.0/31 "], pod));
    }
}
