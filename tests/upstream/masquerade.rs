//! `TestInternalExternalMasquerade`, LB-01: 30 flows, by origin and policy.

use super::*;

/// Upstream's table: from a pod, the node, its localhost, and outside. `C` is both endpoints, `L` the local one, `m`
/// means that the source is replaced, `.` that upstream has no such flow.
#[rustfmt::skip]
const UPSTREAM: [(&str, &str, [&str; 4]); 9] = [
    ("ClusterIP",             "172.30.0.41:80",   ["C",  "Cm", ".",  "Cm"]),
    ("NodePort",              "192.168.0.2:3001", ["Cm", "Cm", "Cm", "Cm"]),
    ("LB VIP",                "1.2.3.4:80",       ["Cm", "Cm", ".",  "Cm"]),
    ("ClusterIP, eTP: Local", "172.30.0.42:80",   ["C",  "Cm", ".",  "Cm"]),
    ("NodePort, eTP: Local",  "192.168.0.2:3002", ["C",  "Cm", "Cm", "L"]),
    ("LB VIP, eTP: Local",    "1.2.3.5:80",       ["C",  "Cm", ".",  "L"]),
    ("ClusterIP, iTP: Local", "172.30.0.43:80",   ["L",  "Lm", ".",  "Lm"]),
    ("NodePort, iTP: Local",  "192.168.0.2:3003", ["Cm", "Cm", "Cm", "Cm"]),
    ("LB VIP, iTP: Local",    "1.2.3.6:80",       ["Cm", "Cm", ".",  "Cm"]),
];

/// The agent's differences, with reasons. Upstream's other configurations (`masqueradeAll`, no detector of local pods)
/// do not exist here: pods are recognised by their interfaces.
fn ours(upstream: &str, client: usize) -> String {
    const LOCALHOST: usize = 2;
    if client == LOCALHOST {
        // As in kube-proxy's nftables mode: node ports are on the node's own addresses, not on 127.0.0.1.
        return "-".to_owned();
    }
    // The source is replaced only in what this node forwards to another one. For pods that is deliberate: their answers
    // pass this node anyway (LB-02 keeps the pod's address).
    upstream.trim_end_matches('m').to_owned()
}

fn service(number: u8, policy: &str) -> String {
    format!(
        "---\nkind: Service\nmetadata: {{name: svc{number}}}\nspec:\n  type: LoadBalancer\n  clusterIP: 172.30.0.4{number}\n  \
         ports: [{{name: p80, port: 80, nodePort: 300{number}}}]\n  {policy}\n\
         status: {{loadBalancer: {{ingress: [{{ip: 1.2.3.{}}}]}}}}\n",
        number + 3
    ) + &slice(&format!("svc{number}"), "{name: p80, port: 80}", &[LOCAL, REMOTE])
}

#[test]
fn lb_01_test_internal_external_masquerade() {
    let desired =
        all(&[service(1, ""), service(2, "externalTrafficPolicy: Local"), service(3, "internalTrafficPolicy: Local")]
            .concat());
    let clients = [Pod, Node, Node, External];
    let mut flows = 0;
    for (name, to, cells) in UPSTREAM {
        for (index, (client, cell)) in clients.into_iter().zip(cells).enumerate().filter(|(_, (_, cell))| *cell != ".")
        {
            // Localhost dials 127.0.0.1, the others the address.
            let to = if index == 2 { to.replace(NODE_IP, "127.0.0.1") } else { to.to_owned() };
            let found = match flow(&desired, client, &to).as_str() {
                "10.180.0.1:80, 10.180.1.1:80" => "C".to_owned(),
                "10.180.0.1:80" => "L".to_owned(),
                other => other.to_owned(),
            };
            assert_eq!(found, ours(cell, index), "{client:?} to {name}");
            flows += 1;
        }
    }
    assert_eq!(flows, 30);
}
