//! nftables rules as kube-proxy's nftables mode writes them: what the measurements compare with.
//!
//! The shape is that of `pkg/proxy/nftables/proxier.go` of Kubernetes 1.33: a verdict map finds the Service's chain,
//! `numgen` the endpoint's, and the endpoint's chain does the DNAT.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

/// A Service of one TCP port, as the rules see it.
pub struct Service {
    pub vip: SocketAddrV4,
    pub endpoints: Vec<SocketAddrV4>,
}

/// Pods' addresses: who dials a Service from elsewhere is masqueraded.
const CLUSTER_CIDR: &str = "10.244.0.0/16";

/// What stands around the Services in every cluster.
const BASE: &str = r"
table ip kube-proxy {
    set cluster-ips { type ipv4_addr; }
    set nodeport-ips { type ipv4_addr; }
    map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
    map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
    map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map service-nodeports { type inet_proto . inet_service : verdict; }
    chain mark-for-masquerade { mark set mark or 0x4000; }
    chain masquerading {
        mark and 0x4000 == 0 return
        mark set mark xor 0x4000
        masquerade fully-random
    }
    chain cluster-ips-check { ip daddr @cluster-ips reject; }
    chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
    chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain nodeport-endpoints-check { ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }
    chain services {
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

/// The whole rule set, for `nft -f -`.
pub fn ruleset(services: &[Service]) -> String {
    let mut text = String::from(BASE);
    for (number, service) in services.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write_service(&mut text, number, service);
    }
    text.push_str("}\n");
    let elements = services
        .iter()
        .enumerate()
        .map(|(number, Service { vip, .. })| format!("{} . tcp . {} : goto service-{number}", vip.ip(), vip.port()));
    let _ = writeln!(text, "add element ip kube-proxy service-ips {{ {} }}", elements.collect::<Vec<_>>().join(", "));
    let mut addresses: Vec<Ipv4Addr> = services.iter().map(|service| *service.vip.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    let _ = writeln!(text, "add element ip kube-proxy cluster-ips {{ {} }}", addresses.join(", "));
    text
}

fn write_service(text: &mut String, number: usize, Service { vip, endpoints }: &Service) -> std::fmt::Result {
    for (slot, endpoint) in endpoints.iter().enumerate() {
        writeln!(text, "    chain endpoint-{number}-{slot} {{")?;
        writeln!(text, "        ip saddr {} jump mark-for-masquerade", endpoint.ip())?;
        writeln!(text, "        meta l4proto tcp dnat to {endpoint}\n    }}")?;
    }
    writeln!(text, "    chain service-{number} {{")?;
    let (ip, port) = (vip.ip(), vip.port());
    writeln!(text, "        ip daddr {ip} tcp dport {port} ip saddr != {CLUSTER_CIDR} jump mark-for-masquerade")?;
    let slots: Vec<_> = (0..endpoints.len()).map(|slot| format!("{slot} : goto endpoint-{number}-{slot}")).collect();
    writeln!(text, "        numgen random mod {} vmap {{ {} }}\n    }}", endpoints.len(), slots.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_chain_behind_the_verdict_map() {
        let vip = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 1), 80);
        let endpoint = |last| SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, last), 8080);
        let text = ruleset(&[Service { vip, endpoints: vec![endpoint(2), endpoint(3)] }]);
        for part in [
            "10.96.0.1 . tcp . 80 : goto service-0",
            "numgen random mod 2 vmap { 0 : goto endpoint-0-0, 1 : goto endpoint-0-1 }",
            "meta l4proto tcp dnat to 10.244.1.3:8080",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
