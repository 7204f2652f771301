//! nftables rules as kube-proxy's nftables mode writes them, for comparison.
//!
//! The shape is that of `pkg/proxy/nftables/proxier.go` of Kubernetes 1.36: a verdict map finds the Service's chain,
//! and one rule there draws the endpoint by `numgen` and does the DNAT. If the measurements are given a kube-proxy, its
//! rules are compared with these, one by one.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A Service of one TCP port, as the rules need it.
pub struct Service {
    pub vip: SocketAddrV4,
    pub endpoints: Vec<SocketAddrV4>,
}

/// Pods' addresses: clients from elsewhere that dial a Service are masqueraded.
pub const CLUSTER_CIDR: &str = "10.244.0.0/16";
/// Addresses of the Services.
pub const SERVICE_CIDR: &str = "100.64.0.0/16";
/// The table.
pub const TABLE: &str = "ip kube-proxy";

/// The rules of every cluster, whatever its Services.
const BASE: &str = r"
table ip kube-proxy {
    set cluster-ips { type ipv4_addr; }
    set nodeport-ips { type ipv4_addr; }
    set hairpin-connections { type ipv4_addr . ipv4_addr . inet_proto . inet_service; }
    map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
    map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
    map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-nodeports { type inet_proto . inet_service : verdict; }
    chain masquerading {
        mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade fully-random
        ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
    }
    chain reject-chain { reject; }
    chain cluster-ips-check {
        ip daddr @cluster-ips reject
        ip daddr { SERVICE_CIDR } drop
    }
    chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
    chain services {
        ip daddr @cluster-ips ip saddr != CLUSTER_CIDR mark set mark or 0x4000
        ip daddr . meta l4proto . th dport vmap @service-ips
        ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
    }
    chain filter-prerouting-pre-dnat {
        type filter hook prerouting priority dstnat - 10; policy accept;
        ct state new jump firewall-check
    }
    chain filter-output-pre-dnat {
        type filter hook output priority -110; policy accept;
        ct state new jump firewall-check
    }
    chain filter-input {
        type filter hook input priority filter; policy accept;
        ct state new jump nodeport-endpoints-check
        ct state new jump service-endpoints-check
    }
    chain filter-forward {
        type filter hook forward priority filter; policy accept;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain filter-output {
        type filter hook output priority filter; policy accept;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
    chain nat-output { type nat hook output priority -100; policy accept; jump services; }
    chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
";

/// The whole rule set, for `nft -f -`. Node ports are served on `node`; all endpoints are on this node.
pub fn ruleset(services: &[Service], node: Ipv4Addr) -> String {
    let mut text = BASE.replace("SERVICE_CIDR", SERVICE_CIDR).replace("CLUSTER_CIDR", CLUSTER_CIDR);
    for (number, service) in services.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write_service(&mut text, number, service);
    }
    text.push_str("}\n");
    let mut add = |set: &str, mut elements: Vec<String>| {
        elements.sort_unstable();
        elements.dedup();
        let _ = writeln!(text, "add element {TABLE} {set} {{ {} }}", elements.join(", "));
    };
    let target =
        |number, Service { vip, .. }: &Service| format!("{} . tcp . {} : goto {}", vip.ip(), vip.port(), chain(number));
    add("service-ips", services.iter().enumerate().map(|(number, service)| target(number, service)).collect());
    add("cluster-ips", services.iter().map(|service| service.vip.ip().to_string()).collect());
    add("nodeport-ips", vec![node.to_string()]);
    let endpoints = services.iter().flat_map(|service| &service.endpoints);
    let hairpin =
        |endpoint: &SocketAddrV4| format!("{} . {} . tcp . {}", endpoint.ip(), endpoint.ip(), endpoint.port());
    add("hairpin-connections", endpoints.map(hairpin).collect());
    text
}

/// The chain of a Service, without the hash that kube-proxy puts into its name.
fn chain(number: usize) -> String {
    format!("service-default/service-{number}/tcp/http")
}

fn write_service(text: &mut String, number: usize, Service { endpoints, .. }: &Service) -> std::fmt::Result {
    let slots = endpoints.iter().enumerate();
    let slots: Vec<_> = slots.map(|(slot, to)| format!("{slot} : {} . {}", to.ip(), to.port())).collect();
    writeln!(text, "    chain {} {{", chain(number))?;
    let (count, slots) = (endpoints.len(), slots.join(", "));
    writeln!(
        text,
        "        meta l4proto tcp dnat ip addr . port to numgen random mod {count} map {{ {slots} }}\n    }}"
    )
}

/// The differences between two listings of the table, each with the side that has the line. Hashed names, comments and
/// the order of chains do not count.
pub fn differences(real: &str, ours: &str) -> Vec<String> {
    let (real, ours) = (lines(real), lines(ours));
    let only = |this: &BTreeSet<String>, that: &BTreeSet<String>, who: &str| -> Vec<String> {
        this.difference(that).map(|line| format!("{who} only: {line}")).collect()
    };
    [only(&real, &ours, "kube-proxy"), only(&ours, &real, "the measurements")].concat()
}

/// Lines of a listing, each after the name of its chain, set or map.
fn lines(listing: &str) -> BTreeSet<String> {
    let mut place = String::new();
    let mut position = 0;
    let mut lines = BTreeSet::new();
    for line in listing.lines() {
        let line = without_hash(line.trim());
        let line = line.split(" comment \"").next().unwrap_or_default();
        if let Some(name) = line.strip_suffix(" {") {
            name.clone_into(&mut place);
            position = 0;
            lines.insert(place.clone());
        } else if !line.is_empty() && line != "}" && !line.starts_with("comment ") {
            // The order of rules within a chain matters.
            position += 1;
            lines.insert(format!("{place}, {position}: {line}"));
        }
    }
    lines
}

/// `service-ABCD1234-default/...` as `service-default/...`.
fn without_hash(line: &str) -> String {
    let mut parts = line.split("service-");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let hash = part.split('-').next().unwrap_or_default();
        let is_hash = hash.len() == 8 && hash.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
        text.push_str("service-");
        text.push_str(if is_hash { &part[9..] } else { part });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_chain_behind_the_verdict_map() {
        let vip = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 1), 80);
        let endpoint = |last| SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, last), 8080);
        let services = [Service { vip, endpoints: vec![endpoint(2), endpoint(3)] }];
        let text = ruleset(&services, Ipv4Addr::new(192, 0, 2, 2));
        for part in [
            "10.96.0.1 . tcp . 80 : goto service-default/service-0/tcp/http",
            "to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.1.3 . 8080 }",
            "hairpin-connections { 10.244.1.2 . 10.244.1.2 . tcp . 8080, 10.244.1.3 . 10.244.1.3 . tcp . 8080 }",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn listings_differ_in_rules_and_in_their_order() {
        let real = "table ip kube-proxy {\n  comment \"rules\"\n  chain service-ABCDEFG2-a {\n    drop comment \"x\"\n    accept\n  }\n}\n";
        let ours = "table ip kube-proxy {\n  chain service-a {\n    drop\n    accept\n  }\n}\n";
        assert_eq!(differences(real, ours), Vec::<String>::new());
        let turned = ours.replace("drop\n    accept", "accept\n    drop");
        assert_eq!(differences(real, &turned).len(), 4);
        assert_eq!(
            differences(real, &ours.replace("    accept\n", "")),
            ["kube-proxy only: chain service-a, 2: accept"]
        );
    }
}
