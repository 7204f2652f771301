//! Which clients may dial the load-balancer addresses of a Service: `loadBalancerSourceRanges` of one family
//! (docs/contract.md#source-ranges).

use std::net::IpAddr;
use std::sync::Arc;

use crate::family::TableAddr;
use crate::model::{Prefix, Service, SourceRange};

/// Whether a frontend checks the source of a new flow. Pods and the node are checked like all clients (SR-02).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access<A> {
    /// All clients.
    Open,
    /// Clients in any of these prefixes; sorted, each once. An empty list allows no client.
    Only(Arc<[SourcePrefix<A>]>),
}

/// All addresses whose first `length` bits equal those of `addr`. The other bits of `addr` are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePrefix<A> {
    pub addr: A,
    /// In bits. Never 0, which would include all clients.
    pub length: u8,
}

impl<A: TableAddr> SourcePrefix<A> {
    fn of(prefix: Prefix) -> Option<Self> {
        Some(Self { addr: A::from_ip(prefix.addr())?, length: prefix.length() })
    }

    /// One address.
    fn host(addr: A) -> Self {
        Self { addr, length: (size_of::<A>() * 8) as u8 }
    }
}

/// Ranges of the other family are ignored, so a list without any range of this family allows all clients (SR-08), as
/// does a range of length 0 (SR-05).
///
/// `vips` are the load-balancer addresses of the Service that are served. If the ranges allow the node, they also allow
/// packets that it sends from these addresses, as if they were local (SR-03). And they allow the unspecified address,
/// which means sockets of the node that have no address yet.
pub fn access<A: TableAddr>(service: &Service, node_addr: Option<IpAddr>, vips: impl Iterator<Item = A>) -> Access<A> {
    let ranges: Vec<SourceRange> =
        service.source_ranges.iter().copied().filter(|range| range.family() == A::FAMILY).collect();
    let prefixes: Vec<Prefix> = ranges.iter().filter_map(SourceRange::prefix).collect();
    if ranges.is_empty() || prefixes.iter().any(Prefix::is_everything) {
        return Access::Open;
    }
    let mut allowed: Vec<SourcePrefix<A>> = prefixes.iter().filter_map(|prefix| SourcePrefix::of(*prefix)).collect();
    if node_addr.is_some_and(|node| prefixes.iter().any(|prefix| prefix.contains(node))) {
        allowed.extend(vips.map(SourcePrefix::host));
        allowed.push(SourcePrefix::host(A::new_zeroed()));
    }
    allowed.sort_unstable();
    allowed.dedup();
    Access::Only(allowed.into())
}

impl<A> Access<A> {
    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.prefixes().len()
    }

    /// Whether there is no prefix: either all clients or none are allowed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The prefixes that are allowed.
    pub fn prefixes(&self) -> &[SourcePrefix<A>] {
        match self {
            Self::Open => &[],
            Self::Only(prefixes) => prefixes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::service;
    use crate::source::address::{parse, parse_prefix};

    const NODE: &str = "192.168.0.2";
    const VIPS: [[u8; 4]; 2] = [[1, 2, 3, 4], [5, 6, 7, 8]];

    /// What a Service with these ranges allows, as `address/length`; `None` means all clients.
    fn allowed<A: TableAddr>(ranges: &[&str], node: &str, vips: &[A]) -> Option<Vec<String>> {
        let range = |text: &&str| match parse_prefix(text) {
            Some(prefix) => SourceRange::Prefix(prefix),
            None => SourceRange::Unreadable(lb_common::addr::Family::V4),
        };
        let service = Service { source_ranges: ranges.iter().map(range).collect(), ..service("a", [1, 2, 3, 4]) };
        match access(&service, parse(node), vips.iter().copied()) {
            Access::Open => None,
            Access::Only(prefixes) => Some(
                prefixes
                    .iter()
                    .map(|prefix| format!("{}/{}", Into::<IpAddr>::into(prefix.addr), prefix.length))
                    .collect(),
            ),
        }
    }

    fn v4(ranges: &[&str]) -> Option<Vec<String>> {
        allowed(ranges, NODE, &VIPS)
    }

    fn v6(ranges: &[&str]) -> Option<Vec<String>> {
        allowed::<[u8; 16]>(ranges, "fd00::2", &[])
    }

    #[test]
    fn sr_01_sr_02_only_the_ranges_are_let_in_pods_and_nodes_are_not_exempt() {
        assert_eq!(v4(&["203.0.113.0/25"]).expect("restricted"), ["203.0.113.0/25"]);
    }

    #[test]
    fn sr_03_where_the_node_is_let_in_so_is_what_it_sends_from_the_vips() {
        let with_node = v4(&["203.0.113.0/25", "192.168.0.0/24"]).expect("restricted");
        assert_eq!(with_node, ["0.0.0.0/32", "1.2.3.4/32", "5.6.7.8/32", "192.168.0.0/24", "203.0.113.0/25"]);
    }

    #[test]
    fn sr_03_a_vip_alone_is_let_in_in_ipv6_as_well() {
        let vip: [u8; 16] = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets();
        let with_node = allowed(&["fd00::/64"], "fd00::2", &[vip]).expect("restricted");
        assert_eq!(with_node, ["::/128", "2001:db8::7/128", "fd00::/64"]);
    }

    #[test]
    fn sr_05_a_range_of_length_0_lets_everybody_of_its_family_in() {
        assert_eq!(v4(&["0.0.0.0/0", "10.1.0.0/16"]), None);
        assert_eq!(v6(&["2001:db8::/32", "::/0"]), None);
        assert!(v4(&["::/0", "10.1.0.0/16"]).is_some());
    }

    #[test]
    fn sr_06_two_halves_are_everybody_without_being_length_0() {
        assert_eq!(
            v4(&["0.0.0.0/1", "128.0.0.0/1"]).expect("restricted")[..],
            [
                "0.0.0.0/1".to_owned(),
                "0.0.0.0/32".into(),
                "1.2.3.4/32".into(),
                "5.6.7.8/32".into(),
                "128.0.0.0/1".into()
            ]
        );
    }

    #[test]
    fn sr_08_a_list_of_the_other_family_lets_everybody_in() {
        assert_eq!(v6(&["203.0.113.0/25"]), None);
        assert_eq!(v4(&["2001:db8::/32"]), None);
        assert_eq!(v6(&["203.0.113.0/25", "2001:db8::/32"]).expect("restricted"), ["2001:db8::/32"]);
    }

    #[test]
    fn a_list_of_mistakes_lets_nobody_in() {
        assert_eq!(v4(&["everybody"]).expect("restricted"), <[String; 0]>::default());
        assert_eq!(v4(&["everybody", "10.1.0.0/16", "10.1.0.0/16"]).expect("restricted"), ["10.1.0.0/16"]);
    }
}
