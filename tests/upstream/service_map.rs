//! `TestServiceToServiceMap`: the addresses of a Service, by family.

use super::*;

/// The frontends of one family: `ADDRESS:PORT/proto origin`, with `Proxy` if it is left to the balancer.
fn frontends<A: TableAddr>(rows: &FamilyDesired<A>) -> Vec<String> {
    let line = |(key, row): (&FrontendKey<A>, &DesiredFrontend<A>)| {
        let addr = std::net::SocketAddr::new(key.addr.into(), key.port);
        let proxy = if row.mode == Mode::Proxy { " Proxy" } else { "" };
        format!("{addr}/{} {:?}{proxy}", key.proto.name(), row.origin)
    };
    rows.frontends.iter().map(line).collect()
}

/// Case, spec, ingress, and the frontends of IPv4 and IPv6.
type Case = (&'static str, &'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const BOTH: &str = "type: NodePort, clusterIPs: [1.2.3.4, '2001:db8::1'], externalIPs: [4.3.2.1, '2001:db8::4'], \
                    ports: [{name: p, port: 80, nodePort: 30080}]";
const BOTH_V4: &[&str] = &["1.2.3.4:80/tcp ClusterIP", "4.3.2.1:80/tcp ExternalIP", "192.168.0.2:30080/tcp NodePort"];
const BOTH_V6: &[&str] =
    &["[2001:db8::1]:80/tcp ClusterIP", "[2001:db8::4]:80/tcp ExternalIP", "[fd00:192::2]:30080/tcp NodePort"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("nothing", "clusterIP: ''", "", &[], &[]),
    ("headless service", "clusterIP: None, ports: [{name: rpc, protocol: UDP, port: 1234}]", "", &[], &[]),
    ("headless sctp service", "clusterIP: None, ports: [{name: sip, protocol: SCTP, port: 7777}]", "", &[], &[]),
    ("headless service without port", "clusterIP: None", "", &[], &[]),
    ("cluster ip service",
        "clusterIP: 172.30.0.41, ports: [{name: p1, protocol: UDP, port: 1234}, {name: p2, protocol: UDP, port: 1235}]", "",
        &["172.30.0.41:1234/udp ClusterIP", "172.30.0.41:1235/udp ClusterIP"], &[]),
    ("nodeport service",
        "type: NodePort, clusterIP: 172.30.0.41, ports: [{name: p1, protocol: UDP, port: 345, nodePort: 30345}]", "",
        &["172.30.0.41:345/udp ClusterIP", "192.168.0.2:30345/udp NodePort"], &[]),
    ("load balancer service",
        "type: LoadBalancer, clusterIP: 172.30.0.41, ports: [{name: p1, protocol: UDP, port: 8675, nodePort: 30061}]",
        "{ip: 10.1.2.4}",
        &["10.1.2.4:8675/udp LoadBalancer", "172.30.0.41:8675/udp ClusterIP", "192.168.0.2:30061/udp NodePort"], &[]),
    ("load balancer service ipMode VIP",
        "type: LoadBalancer, clusterIP: 172.30.0.41, ports: [{name: p1, protocol: UDP, port: 8675}]",
        "{ip: 10.1.2.4, ipMode: VIP}",
        &["10.1.2.4:8675/udp LoadBalancer", "172.30.0.41:8675/udp ClusterIP"], &[]),
    // Upstream has no such address in its map; the agent shows it, and passes it.
    ("load balancer service ipMode Proxy",
        "type: LoadBalancer, clusterIP: 172.30.0.41, ports: [{name: p1, protocol: UDP, port: 8675}]",
        "{ip: 10.1.2.4, ipMode: Proxy}",
        &["10.1.2.4:8675/udp LoadBalancer Proxy", "172.30.0.41:8675/udp ClusterIP"], &[]),
    ("load balancer service with only local traffic policy",
        "type: LoadBalancer, clusterIP: 172.30.0.41, externalTrafficPolicy: Local, healthCheckNodePort: 345, \
         ports: [{name: p, protocol: UDP, port: 8675, nodePort: 30061}]",
        "{ip: 10.1.2.3}",
        &["10.1.2.3:8675/udp LoadBalancer", "172.30.0.41:8675/udp ClusterIP", "192.168.0.2:30061/udp NodePort"], &[]),
    ("external name service",
        "type: ExternalName, clusterIP: 172.30.0.41, externalName: foo.example, ports: [{name: p, protocol: UDP, port: 80}]", "",
        &[], &[]),
    ("service with ipv6 clusterIP under ipv4 mode, service should be filtered",
        "clusterIP: '2001:db8::1', externalIPs: [4.3.2.1], ports: [{name: p, port: 80}]", "{ip: 1.2.3.4}",
        &[], &["[2001:db8::1]:80/tcp ClusterIP"]),
    ("service with ipv4 clusterIP under ipv6 mode, service should be filtered",
        "clusterIP: 1.2.3.4, externalIPs: ['2001:db8::4'], ports: [{name: p, port: 80}]", "{ip: '2001:db8::5'}",
        &["1.2.3.4:80/tcp ClusterIP"], &[]),
    ("service with ipv4 configurations under ipv4 mode",
        "clusterIP: 1.2.3.4, externalIPs: [4.3.2.1], ports: [{name: p, port: 80}]", "{ip: 5.6.7.8}",
        &["1.2.3.4:80/tcp ClusterIP", "4.3.2.1:80/tcp ExternalIP", "5.6.7.8:80/tcp LoadBalancer"], &[]),
    ("service with ipv6 configurations under ipv6 mode",
        "clusterIP: '2001:db8::1', externalIPs: ['2001:db8::4'], ports: [{name: p, port: 80}]", "{ip: '2001:db8::5'}",
        &[], &["[2001:db8::1]:80/tcp ClusterIP", "[2001:db8::4]:80/tcp ExternalIP", "[2001:db8::5]:80/tcp LoadBalancer"]),
    ("service with both ipv4 and ipv6 configurations under ipv4 mode, ipv6 fields should be filtered", BOTH, "",
        BOTH_V4, BOTH_V6),
    ("service with both ipv4 and ipv6 configurations under ipv6 mode, ipv4 fields should be filtered", BOTH, "",
        BOTH_V4, BOTH_V6),
];

#[test]
fn test_service_to_service_map() {
    for (name, spec, ingress, v4, v6) in CASES {
        let desired = all(&format!(
            "kind: Service\nmetadata: {{name: svc}}\nspec: {{{spec}}}\nstatus: {{loadBalancer: {{ingress: [{ingress}]}}}}\n"
        ));
        assert_eq!(frontends(&desired.v4), *v4, "{name}: IPv4");
        assert_eq!(frontends(&desired.v6), *v6, "{name}: IPv6");
    }
}

/// SR-07.
#[test]
fn test_service_to_service_map_service_with_extra_space_in_load_balancer_source_ranges() {
    let desired = all("kind: Service\nmetadata: {name: svc}\nspec: {type: LoadBalancer, clusterIP: 172.30.0.41, \
                       ports: [{port: 80}], loadBalancerSourceRanges: [' 10.1.2.0/28']}\n\
                       status: {loadBalancer: {ingress: [{ip: 1.2.3.4}]}}\n");
    let (_, row) = desired.v4.frontends.first_key_value().expect("the balancer's address");
    assert_eq!(row.access, Access::Only([SourcePrefix { addr: [10, 1, 2, 0], length: 28 }].into()));
}
