//! The packet flows of kube-proxy's tests, up to the set of endpoints or the verdict. The agent replaces the source only
//! of what it forwards to other nodes (the table in `masquerade` says why), so "masqueraded" in upstream's names is not
//! checked.

use super::*;

const BOTH: &str = "10.180.0.1:80, 10.180.1.1:80";
const LOCAL_ONLY: &str = "10.180.0.1:80";
const REMOTE_ONLY: &str = "10.180.1.1:80";

/// A flow: upstream's name, the client, the address, and the result.
type Flow = (&'static str, Client, &'static str, &'static str);

#[track_caller]
fn expect(desired: &Desired, flows: &[Flow]) {
    for (name, client, to, expected) in flows {
        assert_eq!(flow(desired, *client, to), *expected, "{name}");
    }
}

/// A Service with every kind of address.
fn service(fields: &str, mode: &str, endpoints: &[&str]) -> Desired {
    all(&(format!(
        "kind: Service\nmetadata: {{name: svc}}\nspec:\n  type: LoadBalancer\n  clusterIP: 172.30.0.41\n  \
         externalIPs: [192.168.99.11]\n  ports: [{{name: p80, port: 80, nodePort: 3001}}]\n  {fields}\n\
         status: {{loadBalancer: {{ingress: [{{ip: 1.2.3.4{mode}}}]}}}}\n"
    ) + &slice("svc", "{name: p80, port: 80}", endpoints)))
}

#[test]
fn test_load_balancer_ingress_route_type_proxy() {
    for (name, mode, expected) in [
        ("ipMode Proxy", ", ipMode: Proxy", "PASS"),
        ("ipMode VIP", ", ipMode: VIP", LOCAL_ONLY),
        ("ipMode nil", "", LOCAL_ONLY),
    ] {
        let desired = service("", mode, &[LOCAL]);
        expect(
            &desired,
            &[
                (name, Pod, "1.2.3.4:80", expected),
                (name, Node, "1.2.3.4:80", expected),
                (name, External, "1.2.3.4:80", expected),
                (name, Pod, "172.30.0.41:80", LOCAL_ONLY),
            ],
        );
    }
}

/// REJ-01, XIP-04.
#[test]
fn test_no_endpoints_reject() {
    expect(
        &service("", "", &[]),
        &[
            ("pod to cluster IP with no endpoints", Pod, "172.30.0.41:80", "REJECT"),
            ("external to external IP with no endpoints", External, "192.168.99.11:80", "REJECT"),
            ("pod to NodePort with no endpoints", Pod, "192.168.0.2:3001", "REJECT"),
            ("external to NodePort with no endpoints", External, "192.168.0.2:3001", "REJECT"),
            ("pod to LoadBalancer IP with no endpoints", Pod, "1.2.3.4:80", "REJECT"),
            ("external to LoadBalancer IP with no endpoints", External, "1.2.3.4:80", "REJECT"),
        ],
    );
}

#[test]
fn test_external_traffic_policy_local() {
    expect(
        &service("externalTrafficPolicy: Local", "", &[LOCAL, REMOTE]),
        &[
            ("pod to cluster IP hits both endpoints, unmasqueraded", Pod, "172.30.0.41:80", BOTH),
            ("pod to external IP hits both endpoints, unmasqueraded", Pod, "192.168.99.11:80", BOTH),
            (
                "external to external IP hits only local endpoint, unmasqueraded",
                External,
                "192.168.99.11:80",
                LOCAL_ONLY,
            ),
            ("pod to LB IP hits both endpoints, unmasqueraded", Pod, "1.2.3.4:80", BOTH),
            ("external to LB IP hits only local endpoint, unmasqueraded", External, "1.2.3.4:80", LOCAL_ONLY),
            ("pod to NodePort hits both endpoints, unmasqueraded", Pod, "192.168.0.2:3001", BOTH),
            ("external to NodePort hits only local endpoint, unmasqueraded", External, "192.168.0.2:3001", LOCAL_ONLY),
        ],
    );
}

/// XIP-03, LB-02: upstream replaces the source here; the agent keeps the pod's.
#[test]
fn test_external_traffic_policy_cluster() {
    expect(
        &service("externalTrafficPolicy: Cluster", "", &[LOCAL, REMOTE]),
        &[
            ("pod to cluster IP hits both endpoints, unmasqueraded", Pod, "172.30.0.41:80", BOTH),
            ("pod to external IP hits both endpoints, masqueraded", Pod, "192.168.99.11:80", BOTH),
            ("external to external IP hits both endpoints, masqueraded", External, "192.168.99.11:80", BOTH),
            ("pod to LB IP hits both endpoints, masqueraded", Pod, "1.2.3.4:80", BOTH),
            ("external to LB IP hits both endpoints, masqueraded", External, "1.2.3.4:80", BOTH),
            ("pod to NodePort hits both endpoints, masqueraded", Pod, "192.168.0.2:3001", BOTH),
            ("external to NodePort hits both endpoints, masqueraded", External, "192.168.0.2:3001", BOTH),
        ],
    );
    expect(
        &service("externalTrafficPolicy: Cluster", "", &[REMOTE]),
        &[
            ("forwarded to the other node", External, "1.2.3.4:80", REMOTE_ONLY),
            ("pods reach other nodes", Pod, "1.2.3.4:80", REMOTE_ONLY),
        ],
    );
}

/// CIP-11, ITP-01.
#[test]
fn test_internal_traffic_policy() {
    let second = "{addresses: [10.180.0.2], nodeName: node-1}";
    for (name, policy, endpoints, expected) in [
        ("internalTrafficPolicy is cluster", "Cluster", &[LOCAL, REMOTE][..], BOTH),
        ("internalTrafficPolicy is local and there is one local endpoint", "Local", &[LOCAL, REMOTE], LOCAL_ONLY),
        (
            "internalTrafficPolicy is local and there are multiple local endpoints",
            "Local",
            &[LOCAL, second, REMOTE],
            "10.180.0.1:80, 10.180.0.2:80",
        ),
        ("internalTrafficPolicy is local and there are no local endpoints", "Local", &[REMOTE], "DROP"),
    ] {
        let desired = service(&format!("internalTrafficPolicy: {policy}"), "", endpoints);
        expect(&desired, &[(name, Pod, "172.30.0.41:80", expected), (name, Node, "172.30.0.41:80", expected)]);
    }
}

const LOCAL_LEAVING: &str =
    "{addresses: [10.180.0.3], nodeName: node-1, conditions: {ready: false, serving: true, terminating: true}}";
const LOCAL_GONE: &str =
    "{addresses: [10.180.0.4], nodeName: node-1, conditions: {ready: false, serving: false, terminating: true}}";
const REMOTE_LEAVING: &str =
    "{addresses: [10.180.1.3], nodeName: node-2, conditions: {ready: false, serving: true, terminating: true}}";
const REMOTE_GONE: &str =
    "{addresses: [10.180.1.4], nodeName: node-2, conditions: {ready: false, serving: false, terminating: true}}";

/// TERM-01 to TERM-04: the balancer's address, dialled from outside and by a pod, and the cluster address.
#[test]
fn test_terminating_endpoints_traffic_policy_local() {
    let all_ready = [LOCAL, LOCAL_LEAVING, LOCAL_GONE, REMOTE, REMOTE_LEAVING];
    for (name, endpoints, outside, inside) in [
        ("ready endpoints exist", &all_ready[..], LOCAL_ONLY, BOTH),
        (
            "only terminating endpoints exist",
            &[LOCAL_LEAVING, LOCAL_GONE, REMOTE_LEAVING],
            "10.180.0.3:80",
            "10.180.0.3:80, 10.180.1.3:80",
        ),
        ("terminating endpoints on remote node", &[REMOTE_LEAVING], "DROP", "10.180.1.3:80"),
        ("no usable endpoints on any node", &[LOCAL_GONE, REMOTE_GONE], "REJECT", "REJECT"),
    ] {
        let desired = service("externalTrafficPolicy: Local", "", endpoints);
        expect(
            &desired,
            &[
                (name, External, "1.2.3.4:80", outside),
                (name, Pod, "1.2.3.4:80", inside),
                (name, Pod, "172.30.0.41:80", inside),
            ],
        );
    }
}

#[test]
fn test_terminating_endpoints_traffic_policy_cluster() {
    let all_ready = [LOCAL, LOCAL_LEAVING, LOCAL_GONE, REMOTE, REMOTE_LEAVING];
    for (name, endpoints, expected) in [
        ("ready endpoints exist", &all_ready[..], BOTH),
        (
            "only terminating endpoints exist",
            &[LOCAL_LEAVING, LOCAL_GONE, REMOTE_LEAVING],
            "10.180.0.3:80, 10.180.1.3:80",
        ),
        ("terminating endpoints on remote node", &[REMOTE_LEAVING], "10.180.1.3:80"),
        ("no usable endpoints on any node", &[LOCAL_GONE, REMOTE_GONE], "REJECT"),
    ] {
        let desired = service("externalTrafficPolicy: Cluster", "", endpoints);
        expect(
            &desired,
            &[
                (name, External, "1.2.3.4:80", expected),
                (name, Pod, "1.2.3.4:80", expected),
                (name, Pod, "172.30.0.41:80", expected),
            ],
        );
    }
}

/// TERM-02, TERM-03: the sets are chosen separately. One Service, one ready endpoint elsewhere, one terminating here.
#[test]
fn term_02_term_03_local_and_cluster_fall_back_apart() {
    let desired = service("externalTrafficPolicy: Local", "", &[LOCAL_LEAVING, REMOTE]);
    expect(
        &desired,
        &[
            ("TERM-02", External, "1.2.3.4:80", "10.180.0.3:80"),
            ("TERM-02", External, "192.168.0.2:3001", "10.180.0.3:80"),
            ("TERM-03", Pod, "172.30.0.41:80", REMOTE_ONLY),
            ("TERM-03", Pod, "1.2.3.4:80", REMOTE_ONLY),
            // The external policy does not apply to the cluster address: a ready endpoint is elsewhere.
            ("routed to the cluster address", External, "172.30.0.41:80", REMOTE_ONLY),
        ],
    );
}

/// SR-01 to SR-04, SR-10.
#[test]
fn test_load_balancer() {
    let desired =
        all(&("kind: Service\nmetadata: {name: svc}\nspec:\n  type: LoadBalancer\n  clusterIP: 172.30.0.41\n  \
         ports: [{name: p80, port: 80, nodePort: 3001}]\n  loadBalancerSourceRanges: [192.168.0.0/24, 203.0.113.0/25]\n\
         status: {loadBalancer: {ingress: [{ip: 1.2.3.4}, {ip: 5.6.7.8}]}}\n"
            .to_owned()
            + &slice("svc", "{name: p80, port: 80}", &[REMOTE])));
    expect(
        &desired,
        &[
            ("pod to cluster IP", Pod, "172.30.0.41:80", REMOTE_ONLY),
            ("external to nodePort", External, "192.168.0.2:3001", REMOTE_ONLY),
            ("pod to nodePort", Pod, "192.168.0.2:3001", REMOTE_ONLY),
        ],
    );
    let access = |to: [u8; 4], port| {
        let key = FrontendKey { addr: to, port, proto: Proto::TCP, pad: 0 };
        desired.v4.frontends.get(&key).expect("a frontend").access.clone()
    };
    assert_eq!(access([192, 168, 0, 2], 3001), Access::Open, "nodePort bypasses LoadBalancerSourceRanges");
    assert_eq!(access([172, 30, 0, 41], 80), Access::Open);
    for vip in [[1, 2, 3, 4], [5, 6, 7, 8]] {
        for (name, client, is_admitted) in [
            ("accepted external to LB", [203, 0, 113, 2], true),
            ("blocked external to LB", [203, 0, 113, 130], false),
            ("pod to LB (blocked by LoadBalancerSourceRanges)", [10, 0, 0, 2], false),
            ("node to LB (allowed by LoadBalancerSourceRanges)", [192, 168, 0, 2], true),
            ("same node to LB, SNATted to LB (implicitly allowed)", vip, true),
            ("a neighbour of the VIP", [1, 2, 3, 5], false),
        ] {
            assert_eq!(admits(&access(vip, 80), client), is_admitted, "{name} {vip:?}");
        }
    }
}

fn admits(access: &Access<[u8; 4]>, client: [u8; 4]) -> bool {
    match access {
        Access::Open => true,
        Access::Only(prefixes) => prefixes.iter().any(|prefix| {
            let mask = u32::MAX << (32 - prefix.length);
            u32::from_be_bytes(client) & mask == u32::from_be_bytes(prefix.addr)
        }),
    }
}

/// IPM-42, SR-10: the ranges apply to each address that is served, and to none that is left to the balancer.
#[test]
fn ipm_42_ranges_hold_for_the_vips_among_the_entries() {
    let desired =
        all(&("kind: Service\nmetadata: {name: svc}\nspec:\n  type: LoadBalancer\n  clusterIP: 172.30.0.41\n  \
         ports: [{port: 80}]\n  loadBalancerSourceRanges: [203.0.113.0/25]\n\
         status: {loadBalancer: {ingress: [{ip: 1.2.3.4, ipMode: VIP}, {ip: 1.2.3.5, ipMode: Proxy}]}}\n"
            .to_owned()
            + &slice("svc", "{name: '', port: 80}", &[LOCAL])));
    let access = |last| {
        let key = FrontendKey { addr: [1, 2, 3, last], port: 80, proto: Proto::TCP, pad: 0 };
        &desired.v4.frontends.get(&key).expect("a frontend").access
    };
    assert!(!admits(access(4), [10, 0, 0, 2]), "a pod is kept from the VIP");
    assert_eq!(*access(5), Access::Open, "and not from the balancer");
    expect(&desired, &[("IPM-42", Pod, "1.2.3.5:80", "PASS")]);
}

/// IPM-52 in kube-proxy's nftables mode: node ports are on the node's primary address, so a balancer's address on `lo`
/// has none.
#[test]
fn ipm_52_a_node_port_at_the_balancers_address_is_nobodys() {
    let desired = service("", ", ipMode: Proxy", &[LOCAL]);
    expect(
        &desired,
        &[
            ("IPM-52", External, "1.2.3.4:3001", "-"),
            ("IPM-52", External, "1.2.3.4:80", "PASS"),
            ("IPM-20", External, "192.168.0.2:3001", LOCAL_ONLY),
        ],
    );
}

/// SA-03, SA-06: the parameter applies to every address and protocol of the Service, and follows its changes.
#[test]
fn sa_03_sa_06_affinity_is_on_every_frontend_while_it_is_asked_for() {
    let secs = |affinity: &str| -> Vec<Option<u32>> {
        let desired = all(&format!(
            "kind: Service\nmetadata: {{name: svc}}\nspec:\n  clusterIP: 172.30.0.41\n  externalIPs: [192.168.99.11]\n  \
             ports: [{{name: t, port: 80, nodePort: 3001}}, {{name: u, port: 80, nodePort: 3001, protocol: UDP}}]\n  \
             {affinity}\nstatus: {{loadBalancer: {{ingress: [{{ip: 1.2.3.4}}]}}}}\n"
        ));
        desired.v4.frontends.values().map(|row| row.affinity_secs.map(std::num::NonZeroU32::get)).collect()
    };
    assert_eq!(secs("sessionAffinity: None"), [None; 8]);
    assert_eq!(secs("sessionAffinity: ClientIP"), [Some(10_800); 8]);
    let five = "sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}";
    assert_eq!(secs(five), [Some(5); 8]);
}

/// Old notations keep their meaning, in every field.
#[test]
fn test_bad_ips() {
    let desired =
        all(&("kind: Service\nmetadata: {name: svc}\nspec:\n  type: LoadBalancer\n  clusterIP: 172.030.000.041\n  \
         externalIPs: ['192.168.099.011']\n  ports: [{name: p80, port: 80, nodePort: 3001}]\n  \
         loadBalancerSourceRanges: [203.0.113.000/025]\n\
         status: {loadBalancer: {ingress: [{ip: 001.002.003.004}]}}\n"
            .to_owned()
            + &slice("svc", "{name: p80, port: 80}", &["{addresses: [10.180.000.001], nodeName: node-1}"])));
    expect(
        &desired,
        &[
            ("pod to cluster IP", Pod, "172.30.0.41:80", LOCAL_ONLY),
            ("external to nodePort", External, "192.168.0.2:3001", LOCAL_ONLY),
            ("external to external IP", External, "192.168.99.11:80", LOCAL_ONLY),
        ],
    );
    let key = FrontendKey { addr: [1, 2, 3, 4], port: 80, proto: Proto::TCP, pad: 0 };
    let access = &desired.v4.frontends.get(&key).expect("external to LB").access;
    assert!(admits(access, [203, 0, 113, 2]), "allowed by the ranges");
    assert!(!admits(access, [203, 0, 113, 130]), "blocked by the ranges");
}
