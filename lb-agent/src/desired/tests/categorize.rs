//! kube-proxy's `TestCategorizeEndpoints` (docs/contract.md#upstreams-own-tests): which endpoints are in the set of the
//! cluster and in the set of the node.
//!
//! Left out: "PreferSameNode falls back to same-zone when feature gate disabled", as there is no such gate here.

use lb_common::table::Backend;

use super::super::claim::Claim;
use super::super::claims::claims;
use super::super::endpoint::{ByPort, Here};
use super::super::facts::Facts;
use super::super::usable::{Uses, usable};
use super::*;
use crate::family::TableAddr;
use crate::model::{ServicePort, TrafficPolicy};
use crate::source::written::world;

/// Which policy is Local, and whether the Service is reachable from outside.
#[derive(Clone, Copy, Debug)]
enum Policies {
    Cluster,
    /// internalTrafficPolicy, without node port.
    InternalOnly,
    /// internalTrafficPolicy, with a node port.
    Internal,
    /// externalTrafficPolicy, with a node port.
    External,
    Both,
    /// externalTrafficPolicy, without an address that is reachable from outside.
    Unreachable,
}

/// `n` is 10.1.0.n; `here` is this node; `z:a,b` and `n:x` are hints.
struct Case {
    name: &'static str,
    labels: &'static str,
    policies: Policies,
    endpoints: &'static str,
    /// `None`: the set is not used.
    cluster: Option<&'static [u8]>,
    local: Option<&'static [u8]>,
    any: bool,
}

const ZONE_A: &str = "topology.kubernetes.io/zone: a";
const THREE_ZONES: &str = "1 ready z:a; 2 ready z:b here; 3 ready z:a; 4 ready z:c here";

const fn case(
    name: &'static str,
    labels: &'static str,
    policies: Policies,
    endpoints: &'static str,
    cluster: Option<&'static [u8]>,
    local: Option<&'static [u8]>,
    any: bool,
) -> Case {
    Case { name, labels, policies, endpoints, cluster, local, any }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("should use topology since all endpoints have hints, node has a zone label and and there are endpoints for the node's zone",
        ZONE_A, Policies::Cluster, THREE_ZONES, Some(&[1, 3]), None, true),
    case("externalTrafficPolicy: Local, topology ignored for Local endpoints",
        ZONE_A, Policies::External, THREE_ZONES, Some(&[1, 3]), Some(&[2, 4]), true),
    case("internalTrafficPolicy: Local, topology ignored for Local endpoints",
        ZONE_A, Policies::Internal, THREE_ZONES, Some(&[1, 3]), Some(&[2, 4]), true),
    case("empty node labels", "", Policies::Cluster, THREE_ZONES, Some(&[1, 2, 3, 4]), None, true),
    case("empty zone label",
        "topology.kubernetes.io/zone: ''", Policies::Cluster, THREE_ZONES, Some(&[1, 2, 3, 4]), None, true),
    case("node in different zone, no endpoint filtering",
        "topology.kubernetes.io/zone: d", Policies::Cluster, THREE_ZONES, Some(&[1, 2, 3, 4]), None, true),
    case("unready endpoint", ZONE_A, Policies::Cluster,
        "1 ready z:a; 2 ready z:b; 3 unready z:a; 4 ready z:c", Some(&[1]), None, true),
    case("only unready endpoints in same zone (should not filter)", ZONE_A, Policies::Cluster,
        "1 unready z:a; 2 ready z:b; 3 unready z:a; 4 ready z:c", Some(&[2, 4]), None, true),
    case("missing hints, no filtering applied", ZONE_A, Policies::Cluster,
        "1 ready z:a; 2 ready z:b; 3 ready; 4 ready z:c", Some(&[1, 2, 3, 4]), None, true),
    case("multiple hints per endpoint, filtering includes any endpoint with zone included",
        "topology.kubernetes.io/zone: c", Policies::Cluster,
        "1 ready z:a,b,c; 2 ready z:b,c; 3 ready z:b,d; 4 ready z:c", Some(&[1, 2, 4]), None, true),
    case("PreferSameNode available", ZONE_A, Policies::Cluster,
        "1 ready z:a n:node-2; 2 ready z:b n:node-1; 3 ready z:a n:node-3", Some(&[2]), None, true),
    case("PreferSameNode ignored if some endpoints unhinted", ZONE_A, Policies::Cluster,
        "1 ready n:node-2; 2 ready n:node-1; 3 ready", Some(&[1, 2, 3]), None, true),
    case("PreferSameNode falls back to PreferSameZone if no endpoint for node", ZONE_A, Policies::Cluster,
        "1 ready z:a n:node-2; 2 ready z:b n:node-3; 3 ready z:a n:node-4", Some(&[1, 3]), None, true),
    case("conflicting topology and localness require merging allEndpoints", ZONE_A, Policies::External,
        "1 ready z:a; 2 ready z:b here; 3 ready z:a here; 4 ready z:b", Some(&[1, 3]), Some(&[2, 3]), true),
    case("internalTrafficPolicy: Local, with empty endpoints", "", Policies::InternalOnly, "", None, Some(&[]), false),
    case("internalTrafficPolicy: Local, but all endpoints are remote", "", Policies::InternalOnly,
        "1 ready; 2 ready", None, Some(&[]), true),
    case("internalTrafficPolicy: Local, all endpoints are local", "", Policies::InternalOnly,
        "1 ready here; 2 ready here", None, Some(&[1, 2]), true),
    case("internalTrafficPolicy: Local, some endpoints are local", "", Policies::InternalOnly,
        "1 ready here; 2 ready", None, Some(&[1]), true),
    case("Cluster traffic policy, endpoints not Ready", "", Policies::Cluster,
        "1 unready; 2 unready here", Some(&[]), None, false),
    case("Cluster traffic policy, some endpoints are Ready", "", Policies::Cluster,
        "1 unready; 2 ready", Some(&[2]), None, true),
    case("Cluster traffic policy, all endpoints are terminating", "", Policies::Cluster,
        "1 leaving; 2 leaving here", Some(&[1, 2]), None, true),
    case("iTP: Local, eTP: Cluster, some endpoints local", "", Policies::Internal,
        "1 ready here; 2 ready", Some(&[1, 2]), Some(&[1]), true),
    case("iTP: Cluster, eTP: Local, some endpoints local", "", Policies::External,
        "1 ready here; 2 ready", Some(&[1, 2]), Some(&[1]), true),
    case("iTP: Local, eTP: Local, some endpoints local", "", Policies::Both,
        "1 ready here; 2 ready", Some(&[1, 2]), Some(&[1]), true),
    case("iTP: Local, eTP: Local, all endpoints remote", "", Policies::Both,
        "1 ready; 2 ready", Some(&[1, 2]), Some(&[]), true),
    case("iTP: Local, eTP: Local, all endpoints remote and terminating", "", Policies::Both,
        "1 leaving; 2 leaving", Some(&[1, 2]), Some(&[]), true),
    case("iTP: Cluster, eTP: Local, with terminating endpoints", "", Policies::External,
        "1 ready; 2 gone; 3 leaving here; 4 gone here", Some(&[1]), Some(&[3]), true),
    case("externalTrafficPolicy ignored if not externally accessible", "", Policies::Unreachable,
        "1 ready; 2 ready here", Some(&[1, 2]), None, true),
    case("no cluster endpoints for iTP:Local internal-only service", "", Policies::InternalOnly,
        "1 ready; 2 ready here", None, Some(&[2]), true),
    case("empty endpoints when no service endpoints exist", "", Policies::External, "", Some(&[]), Some(&[]), false),
    case("single endpoint not ready, not serving, not terminating", "", Policies::External,
        "1 unready here", Some(&[]), Some(&[]), false),
];

/// An endpoint as the API writes it.
fn endpoint(text: &str) -> String {
    let mut words = text.split_whitespace();
    let number = words.next().expect("a number");
    let conditions = match words.next() {
        Some("ready") => "ready: true, serving: true, terminating: false",
        Some("unready") => "ready: false, serving: false, terminating: false",
        Some("leaving") => "ready: false, serving: true, terminating: true",
        Some("gone") => "ready: false, serving: false, terminating: true",
        other => panic!("{other:?} is no state"),
    };
    let (mut node, mut hints) = ("node-2", Vec::new());
    for word in words {
        let names = |list: &str| list.split(',').map(|name| format!("{{name: {name}}}")).collect::<Vec<_>>().join(", ");
        match word.split_once(':') {
            None => node = "node-1",
            Some(("z", zones)) => hints.push(format!("forZones: [{}]", names(zones))),
            Some((_, nodes)) => hints.push(format!("forNodes: [{}]", names(nodes))),
        }
    }
    let hints = hints.join(", ");
    format!("{{addresses: [10.1.0.{number}], nodeName: {node}, conditions: {{{conditions}}}, hints: {{{hints}}}}}")
}

/// The slice of Service `a`, with these endpoints.
fn slice(endpoints: &[String]) -> String {
    format!(
        "---\nkind: EndpointSlice\nmetadata: {{name: a-1, labels: {{kubernetes.io/service-name: a}}}}\naddressType: IPv4\n\
         ports: [{{name: '', port: 80}}]\nendpoints: [{}]\n",
        endpoints.join(", ")
    )
}

/// A Service with these policies and its port.
fn service(policies: Policies) -> (Service, ServicePort) {
    use TrafficPolicy::{Cluster, Local};
    let (internal_policy, external_policy, node_port) = match policies {
        Policies::Cluster => (Cluster, Cluster, Some(30_080)),
        Policies::InternalOnly => (Local, Cluster, None),
        Policies::Internal => (Local, Cluster, Some(30_080)),
        Policies::External => (Cluster, Local, Some(30_080)),
        Policies::Both => (Local, Local, Some(30_080)),
        Policies::Unreachable => (Cluster, Local, None),
    };
    let plain = super::service("a", [1, 2, 3, 4]);
    let service = Service { internal_policy, external_policy, ingress: Vec::new(), ..plain };
    let port = ServicePort { node_port, ..service.ports[0].clone() };
    (service, port)
}

/// TOPO-01, TOPO-02, TOPO-03, TOPO-04, TOPO-05, TOPO-06, TOPO-07, TOPO-08, TOPO-09, TERM-01, TERM-02.
#[test]
fn test_categorize_endpoints() {
    for case in CASES {
        let endpoints: Vec<String> = case.endpoints.split(';').filter(|text| !text.is_empty()).map(endpoint).collect();
        let node = format!("kind: Node\nmetadata: {{name: node-1, labels: {{{}}}}}\n", case.labels);
        let world = world(&(node + &slice(&endpoints)));
        let here = Here::of(&world, "node-1");
        let (service, port) = service(case.policies);
        let slices: Vec<_> = world.slices().values().map(|slice| &**slice).collect();
        let uses = Uses::of::<[u8; 4]>(&service, &port, &[]);
        let usable = usable(&ByPort::<[u8; 4]>::of(&slices).candidates(&port, &here), &here, uses);
        let numbers = |set: &[Backend<[u8; 4]>]| set.iter().map(|backend| backend.addr[3]).collect::<Vec<_>>();
        let (cluster, local) = (numbers(&usable.cluster), numbers(&usable.local));
        assert_eq!(uses.cluster.then_some(&cluster[..]), case.cluster, "{}: cluster", case.name);
        assert_eq!(uses.local.then_some(&local[..]), case.local, "{}: local", case.name);
        assert_eq!(usable.supply().anywhere, case.any, "{}: any", case.name);
        // An unused set is empty. The near set is the part of the cluster set that is on this node.
        assert!(uses.cluster || cluster.is_empty(), "{}", case.name);
        assert!(uses.local || local.is_empty(), "{}", case.name);
        assert!(numbers(&usable.near).iter().all(|number| cluster.contains(number)), "{}: near", case.name);
    }
}

/// Whether the only Service uses, in one family, the set of endpoints of this node.
fn uses_local<A: TableAddr>(world: &World) -> bool {
    let service = world.services().values().next().expect("it was applied");
    let policy = Policy { services: Services::All, ..policy() };
    let claims = claims(service, &Facts::of(world, &policy), &mut Vec::new());
    let claims: Vec<(A, Claim)> = claims.into_iter().filter_map(|claim| Some((A::from_ip(claim.ip)?, claim))).collect();
    Uses::of(service, &service.ports[0], &claims).local
}

/// IPM-25: what makes a Service reachable from outside, by family. Only then does its external policy apply.
#[test]
fn ipm_25_externally_accessible() {
    for (fields, ingress, v4, v6) in [
        ("ports: [{port: 80}]", "", false, false),
        ("ports: [{port: 80, nodePort: 30080}]", "", true, true),
        ("ports: [{port: 80}], externalIPs: [1.2.3.4]", "", true, false),
        ("ports: [{port: 80}]", "{ip: 1.2.3.4, ipMode: VIP}", true, false),
        ("ports: [{port: 80}]", "{ip: 1.2.3.4, ipMode: Proxy}", false, false),
        ("ports: [{port: 80}]", "{ip: 1.2.3.4, ipMode: Proxy}, {ip: 'fd01::1', ipMode: VIP}", false, true),
    ] {
        let world = world(&format!(
            "kind: Service\nmetadata: {{name: a}}\nspec: {{clusterIPs: [10.0.0.1, 'fd00::1'], externalTrafficPolicy: Local, \
             {fields}}}\nstatus: {{loadBalancer: {{ingress: [{ingress}]}}}}\n"
        ));
        assert_eq!((uses_local::<[u8; 4]>(&world), uses_local::<[u8; 16]>(&world)), (v4, v6), "{fields}; {ingress}");
    }
}
