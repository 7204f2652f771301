//! `TestClusterIPGeneral` and `TestNodePorts`, as far as policy decides them: the endpoints of each address, port and
//! protocol.
//!
//! Left out: cases that name no policy of the agent (hairpin, ServiceCIDRs). A flow to no frontend passes, whereas kube-proxy's nftables mode rejects it.

use super::*;

fn endpoint(last: u8) -> String {
    format!("{{addresses: [10.180.0.{last}], nodeName: node-1}}")
}

/// CIP-08, CIP-09, NP-05.
#[test]
fn test_cluster_ip_general() {
    let desired = all(&[
        "kind: Service\nmetadata: {name: svc1}\nspec: {clusterIP: 172.30.0.41, ports: [{name: p, port: 80}]}\n".into(),
        slice("svc1", "{name: p, port: 80}", &[&endpoint(1)]),
        "---\nkind: Service\nmetadata: {name: svc2}\nspec: {clusterIP: 172.30.0.42, ports: [{name: a, port: 80}, \
         {name: b, port: 8080, targetPort: 8443}]}\n"
            .into(),
        slice("svc2", "{name: a, port: 80}, {name: b, port: 8443}", &[&endpoint(2)]),
    ]
    .concat());
    for (name, to, expected) in [
        ("cluster IP accepted", "172.30.0.41:80", "10.180.0.1:80"),
        ("hairpin to cluster IP", "172.30.0.42:80", "10.180.0.2:80"),
        ("clusterIP with TargetPort", "172.30.0.42:8080", "10.180.0.2:8443"),
        ("svc1 does not accept svc2's ports", "172.30.0.41:8080", "-"),
        ("packet to unallocated cluster ip", "172.30.0.50:80", "-"),
    ] {
        for client in [Pod, Node, External] {
            assert_eq!(flow(&desired, client, to), expected, "{name}: {client:?}");
        }
    }
}

/// CIP-06, CIP-07.
#[test]
fn test_cluster_ip_general_protocols() {
    let service = |name: &str, protocol: &str, port: u16| {
        format!(
            "---\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: 172.30.0.41, ports: [{{name: p, protocol: \
             {protocol}, port: {port}}}]}}\n"
        )
    };
    let desired = all(&[
        service("tcp", "TCP", 80),
        slice("tcp", "{name: p, protocol: TCP, port: 80}", &[&endpoint(1)]),
        service("udp", "UDP", 80),
        slice("udp", "{name: p, protocol: UDP, port: 80}", &[&endpoint(2)]),
        service("tcp-only", "TCP", 81),
        slice("tcp-only", "{name: p, protocol: TCP, port: 81}", &[&endpoint(3)]),
    ]
    .concat());
    for (name, to, expected) in [
        ("same port, TCP", "172.30.0.41:80", "10.180.0.1:80"),
        ("same port, UDP", "172.30.0.41:80/udp", "10.180.0.2:80"),
        ("TCP-only port", "172.30.0.41:81", "10.180.0.3:81"),
        ("TCP-only port does not match UDP traffic", "172.30.0.41:81/udp", "-"),
    ] {
        assert_eq!(flow(&desired, Pod, to), expected, "{name}");
    }
}

/// NP-01, NP-04, NP-05, NP-06, NP-08. Node ports on localhost are never served, as by kube-proxy's nftables mode.
#[test]
fn test_node_ports() {
    let within = |prefixes: &[&str]| {
        let prefixes = prefixes.iter().map(|prefix| address::parse_prefix(prefix).expect("a prefix"));
        NodePortAddresses::In(prefixes.collect())
    };
    let secondary = within(&["192.168.0.0/24", "192.168.1.0/24", "fd00:192::/64", "fd00:193::/64"]);
    let localhost = within(&["127.0.0.0/8", "::1/128", "192.168.0.0/24", "fd00:192::/64"]);
    for ((clusters, family, at), (name, setting, on_secondary)) in [
        ("172.30.0.41", "IPv4", ["192.168.0.2:3001", "192.168.1.2:3001", "127.0.0.1:3001"]),
        ("'fd00:30::41'", "IPv6", ["[fd00:192::2]:3001", "[fd00:193::2]:3001", "[::1]:3001"]),
    ]
    .into_iter()
    .flat_map(|family| {
        let settings = [
            ("default", NodePortAddresses::Primary, "-"),
            ("localhost in nodeport-addresses", localhost.clone(), "-"),
            ("multiple nodeport-addresses", secondary.clone(), "REJECT"),
            ("all", NodePortAddresses::All, "REJECT"),
        ];
        settings.map(|setting| (family, setting))
    }) {
        let yaml = format!(
            "kind: Service\nmetadata: {{name: svc}}\nspec: {{type: NodePort, clusterIPs: [{clusters}], ports: [{{name: p, \
             port: 80, nodePort: 3001}}]}}\n---\nkind: EndpointSlice\nmetadata: {{name: s, labels: \
             {{kubernetes.io/service-name: svc}}}}\naddressType: {family}\nports: [{{name: p, port: 80}}]\nendpoints: []\n"
        );
        let desired = all_at(&yaml, setting);
        for (to, expected) in at.into_iter().zip(["REJECT", on_secondary, "-"]) {
            assert_eq!(flow(&desired, External, to), expected, "{name}, {family}: {to}");
        }
        let other_family = if family == "IPv4" { "[fd00:192::2]:3001" } else { "192.168.0.2:3001" };
        assert_eq!(flow(&desired, External, other_family), "-", "{family}");
    }
}
