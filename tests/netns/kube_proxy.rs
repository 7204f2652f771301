//! Rules in the shape of kube-proxy's, in both of its netfilter modes, with masquerading.

use std::net::SocketAddr;

use lb_tests::address::{FAMILIES, Family, Net, UPLINK, family, vip};
use lb_tests::lab::Lab;
use lb_tests::scene::TARGET;

/// A mode of kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeProxy {
    Nftables,
    /// Debian's iptables, which is based on nftables as well.
    Iptables,
    /// The iptables of kernels before nftables.
    IptablesLegacy,
}

impl KubeProxy {
    /// Sends port 80 of a balancer's address, TCP and UDP, to a pod.
    #[track_caller]
    pub fn claim(self, lab: &Lab, number: u8, pod: &str) {
        for family in FAMILIES {
            let backend = SocketAddr::new(lab.pod_address(pod, family), TARGET);
            self.claim_port(lab, vip(family, number, 80), backend);
        }
    }

    /// Sends an address and port, TCP and UDP, to an endpoint.
    #[track_caller]
    pub fn claim_port(self, lab: &Lab, address: SocketAddr, endpoint: SocketAddr) {
        let family = family(endpoint.ip());
        match self {
            Self::Nftables => lab.node.nft(&nftables(family, address, endpoint)),
            Self::Iptables | Self::IptablesLegacy => {
                let rules = iptables_shop().to_owned() + &iptables(address, endpoint);
                lab.node.feed(self.restore(family), &["--noflush"], &rules);
            }
        }
    }

    /// As [`KubeProxy::claim_port`], of which it leaves the rules as they are.
    #[track_caller]
    pub fn claim_another(self, lab: &Lab, address: SocketAddr, endpoint: SocketAddr) {
        let family = family(endpoint.ip());
        match self {
            Self::Nftables => lab.node.nft(&nftables(family, address, endpoint)),
            Self::Iptables | Self::IptablesLegacy => {
                lab.node.feed(self.restore(family), &["--noflush"], &iptables(address, endpoint));
            }
        }
    }

    /// Sends a node port of the node's first addresses, TCP only, to an endpoint. Only together with
    /// [`KubeProxy::claim_port`].
    #[track_caller]
    pub fn serve_node_port(self, lab: &Lab, port: u16, endpoint: SocketAddr) {
        let family = family(endpoint.ip());
        let node = UPLINK.host(family, 2);
        match self {
            Self::Nftables => lab.node.nft(&nftables_node_port(family, SocketAddr::new(node, port), endpoint)),
            Self::Iptables | Self::IptablesLegacy => {
                lab.node.feed(self.restore(family), &["--noflush"], &iptables_node_port(port, endpoint));
            }
        }
    }

    /// Rejects port 80 of a balancer's address, TCP and UDP, as for a Service without endpoints.
    #[track_caller]
    pub fn reject(self, lab: &Lab, number: u8) {
        for family in FAMILIES {
            let vip = vip(family, number, 80);
            match (self, family) {
                (Self::Nftables, _) => lab.node.nft(&nftables_reject(family, vip)),
                (Self::Iptables | Self::IptablesLegacy, Family::V4) => {
                    lab.node.feed(
                        self.restore(family),
                        &["--noflush"],
                        &iptables_reject(number, vip, "icmp-port-unreachable"),
                    );
                }
                (Self::Iptables | Self::IptablesLegacy, Family::V6) => {
                    let kind = "icmp6-port-unreachable";
                    lab.node.feed(self.restore(family), &["--noflush"], &iptables_reject(number, vip, kind));
                }
            }
        }
    }

    /// Lets only clients of this range reach port 80 of a balancer's address, TCP and UDP, as for `loadBalancerSourceRanges`. Only after a first
    /// [`KubeProxy::claim`], and before that of this address.
    #[track_caller]
    pub fn filter(self, lab: &Lab, number: u8, range: Net) {
        for family in FAMILIES {
            let (vip, range) = (vip(family, number, 80), range.prefix(family));
            match self {
                Self::Nftables => lab.node.nft(&nftables_firewall(family, vip, &range)),
                Self::Iptables | Self::IptablesLegacy => {
                    lab.node.feed(self.restore(family), &["--noflush"], &iptables_firewall(number, vip, &range));
                }
            }
        }
    }

    /// Adds what kube-proxy's iptables mode has for all forwarded packets. The nftables mode has nothing like it.
    #[track_caller]
    pub fn filter_forwarded(self, lab: &Lab) {
        if self != Self::Nftables {
            for family in FAMILIES {
                lab.node.feed(self.restore(family), &["--noflush"], IPTABLES_FORWARD);
            }
        }
    }

    /// Removes all rules of [`KubeProxy::claim_port`], [`KubeProxy::serve_node_port`] and
    /// [`KubeProxy::filter_forwarded`], as `kube-proxy --cleanup` does.
    #[track_caller]
    pub fn clean_up(self, lab: &Lab) {
        for family in FAMILIES {
            match self {
                Self::Nftables => lab.node.nft(&format!("delete table {} kube-proxy", words(family).0)),
                Self::Iptables | Self::IptablesLegacy => {
                    lab.node.feed(self.restore(family), &["--noflush"], IPTABLES_CLEANUP);
                }
            }
        }
    }

    /// The program that loads a family's iptables rules.
    fn restore(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Iptables, Family::V4) => "iptables-nft-restore",
            (Self::Iptables, Family::V6) => "ip6tables-nft-restore",
            (Self::IptablesLegacy, Family::V4) => "iptables-legacy-restore",
            (Self::IptablesLegacy, Family::V6) => "ip6tables-legacy-restore",
            (Self::Nftables, _) => unreachable!("nft loads these"),
        }
    }
}

const IPTABLES_FORWARD: &str = "*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const IPTABLES_CLEANUP: &str = "*filter
-D FORWARD -j KUBE-FORWARD
-F KUBE-FORWARD
-X KUBE-FORWARD
COMMIT
*nat
-D PREROUTING -j KUBE-SERVICES
-D OUTPUT -j KUBE-SERVICES
-D POSTROUTING -j KUBE-POSTROUTING
-F KUBE-SERVICES
-F KUBE-NODEPORTS
-F KUBE-EXT-SHOP
-F KUBE-SVC-SHOP
-F KUBE-SEP-SHOP
-F KUBE-MARK-MASQ
-F KUBE-POSTROUTING
-X KUBE-SERVICES
-X KUBE-NODEPORTS
-X KUBE-EXT-SHOP
-X KUBE-SVC-SHOP
-X KUBE-SEP-SHOP
-X KUBE-MARK-MASQ
-X KUBE-POSTROUTING
COMMIT
";

const fn words(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    }
}

fn nftables(family: Family, vip: SocketAddr, backend: SocketAddr) -> String {
    let ((ip, kind), port, vip) = (words(family), vip.port(), vip.ip());
    format!(
        "table {ip} kube-proxy {{
            map service-ips {{
                type {kind} . inet_proto . inet_service : verdict
                elements = {{ {vip} . tcp . {port} : goto external, {vip} . udp . {port} : goto external }}
            }}
            chain external {{ meta mark set meta mark or 0x4000; goto service; }}
            chain service {{ numgen random mod 1 vmap {{ 0 : goto endpoint }}; }}
            chain endpoint {{
                meta l4proto tcp dnat to {backend};
                meta l4proto udp dnat to {backend};
            }}
            chain services {{ {ip} daddr . meta l4proto . th dport vmap @service-ips; }}
            chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
            chain output {{ type nat hook output priority -100; jump services; }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                meta mark and 0x4000 != 0 masquerade fully-random;
            }}
        }}\n"
    )
}

fn nftables_node_port(family: Family, at: SocketAddr, endpoint: SocketAddr) -> String {
    let (ip, kind) = words(family);
    format!(
        "table {ip} kube-proxy {{
            set nodeport-ips {{ type {kind}; elements = {{ {} }} }}
            map service-nodeports {{
                type inet_proto . inet_service : verdict
                elements = {{ tcp . {} : goto external-node-port }}
            }}
            chain external-node-port {{
                meta mark set meta mark or 0x4000; meta l4proto tcp dnat to {endpoint};
            }}
            chain services {{
                {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports;
            }}
        }}\n",
        at.ip(),
        at.port(),
    )
}

fn iptables_node_port(port: u16, endpoint: SocketAddr) -> String {
    format!(
        "*nat
:KUBE-NODEPORTS - [0:0]
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport {port} -j KUBE-MARK-MASQ
-A KUBE-NODEPORTS -p tcp -m tcp --dport {port} -j DNAT --to-destination {endpoint}
COMMIT
"
    )
}

fn nftables_reject(family: Family, vip: SocketAddr) -> String {
    let ((ip, kind), vip) = (words(family), vip.ip());
    format!(
        "table {ip} kube-proxy {{
            map no-endpoint-services {{
                type {kind} . inet_proto . inet_service : verdict
                elements = {{ {vip} . tcp . 80 : goto reject-chain, {vip} . udp . 80 : goto reject-chain }}
            }}
            chain reject-chain {{ reject; }}
            chain service-endpoints-check {{ {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
            chain filter-forward {{
                type filter hook forward priority filter; ct state new jump service-endpoints-check;
            }}
            chain filter-output {{
                type filter hook output priority filter; ct state new jump service-endpoints-check;
            }}
        }}\n"
    )
}

/// `firewall-check` precedes the translations (pkg/proxy/nftables/proxier.go).
fn nftables_firewall(family: Family, vip: SocketAddr, range: &str) -> String {
    let ((ip, kind), vip) = (words(family), vip.ip());
    format!(
        "table {ip} kube-proxy {{
            map firewall-ips {{
                type {kind} . inet_proto . inet_service : verdict
                elements = {{ {vip} . tcp . 80 : goto firewall-shop, {vip} . udp . 80 : goto firewall-shop }}
            }}
            chain firewall-shop {{ {ip} saddr != {range} drop; }}
            chain firewall-check {{ {ip} daddr . meta l4proto . th dport vmap @firewall-ips; }}
            chain filter-prerouting-pre-dnat {{
                type filter hook prerouting priority dstnat - 10; ct state new jump firewall-check;
            }}
            chain filter-output-pre-dnat {{
                type filter hook output priority -110; ct state new jump firewall-check;
            }}
        }}\n"
    )
}

/// What `KUBE-FW` does not send to the Service keeps its destination, and `KUBE-PROXY-FIREWALL` drops that
/// (pkg/proxy/iptables/proxier.go).
fn iptables_firewall(number: u8, vip: SocketAddr, range: &str) -> String {
    let vip = vip.ip();
    format!(
        "*nat
:KUBE-FW-{number} - [0:0]
-A KUBE-SERVICES -d {vip} -p tcp -m tcp --dport 80 -j KUBE-FW-{number}
-A KUBE-SERVICES -d {vip} -p tcp -m tcp --dport 80 -j RETURN
-A KUBE-SERVICES -d {vip} -p udp -m udp --dport 80 -j KUBE-FW-{number}
-A KUBE-SERVICES -d {vip} -p udp -m udp --dport 80 -j RETURN
-A KUBE-FW-{number} -s {range} -j KUBE-EXT-SHOP
COMMIT
*filter
:KUBE-PROXY-FIREWALL-{number} - [0:0]
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL-{number}
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL-{number}
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL-{number}
-A KUBE-PROXY-FIREWALL-{number} -d {vip} -p tcp -m tcp --dport 80 -j DROP
-A KUBE-PROXY-FIREWALL-{number} -d {vip} -p udp -m udp --dport 80 -j DROP
COMMIT
"
    )
}

fn iptables(vip: SocketAddr, backend: SocketAddr) -> String {
    let (vip, port) = (vip.ip(), vip.port());
    let rules = ["tcp", "udp"].map(|protocol| {
        format!(
            "-A KUBE-SERVICES -d {vip} -p {protocol} -m {protocol} --dport {port} -j KUBE-EXT-SHOP
-A KUBE-SEP-SHOP -p {protocol} -m {protocol} -j DNAT --to-destination {backend}
"
        )
    });
    format!("*nat\n{}COMMIT\n", rules.concat())
}

/// Chains that are declared lose their rules.
const fn iptables_shop() -> &'static str {
    "*nat
:KUBE-SERVICES - [0:0]
:KUBE-EXT-SHOP - [0:0]
:KUBE-SVC-SHOP - [0:0]
:KUBE-SEP-SHOP - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-EXT-SHOP -j KUBE-MARK-MASQ
-A KUBE-EXT-SHOP -j KUBE-SVC-SHOP
-A KUBE-SVC-SHOP -j KUBE-SEP-SHOP
COMMIT
"
}

fn iptables_reject(number: u8, vip: SocketAddr, kind: &str) -> String {
    let (chain, vip) = (format!("KUBE-EXTERNAL-SERVICES-{number}"), vip.ip());
    format!(
        "*filter
:{chain} - [0:0]
-A FORWARD -m conntrack --ctstate NEW -j {chain}
-A OUTPUT -m conntrack --ctstate NEW -j {chain}
-A {chain} -d {vip} -p tcp -m tcp --dport 80 -j REJECT --reject-with {kind}
-A {chain} -d {vip} -p udp -m udp --dport 80 -j REJECT --reject-with {kind}
COMMIT
"
    )
}
