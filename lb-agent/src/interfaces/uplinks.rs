//! The addresses of this node on its uplinks: the sources of what it forwards to other nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::addr::Family;
use lb_common::table::Uplink;

use super::{InterfaceAddress, Interfaces};
use crate::dataplane::UplinkRows;
use crate::dataplane::links::{Class, Link};

impl Interfaces {
    /// The rows of `uplinks` for the links of that class.
    pub fn uplinks(&self, attached: &BTreeMap<u32, Link>, node_addresses: &BTreeSet<IpAddr>) -> UplinkRows {
        let uplinks = attached.values().filter(|link| link.class == Class::Uplink);
        let row = |link: &Link| {
            let mut row = Uplink::UNNUMBERED;
            for family in Family::ALL {
                match self.source(link.ifindex, family, node_addresses) {
                    Some(IpAddr::V4(source)) => row.source4 = source.octets(),
                    Some(IpAddr::V6(source)) => row.source6 = source.octets(),
                    None => {}
                }
            }
            (link.ifindex, row)
        };
        uplinks.map(row).collect()
    }

    /// The address of a family that other nodes see: the Node's own if the link has it, else one that the link shares
    /// with neighbours. A link without an address borrows the Node's.
    fn source(&self, ifindex: u32, family: Family, node_addresses: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let of_family = |ip: &IpAddr| ip.is_ipv4() == (family == Family::V4);
        let on_link = self.addresses.get(&ifindex).into_iter().flatten().filter(|address| of_family(&address.ip));
        let rank = |address: &&InterfaceAddress| (node_addresses.contains(&address.ip), address.has_prefix());
        // The first of equals: the order of the kernel is not known.
        let best = on_link.rev().max_by_key(rank).map(|address| address.ip);
        // One that the node really has: an ExternalIP may be the cloud's.
        let is_here = |ip: &IpAddr| of_family(ip) && self.addresses().any(|known| known == ip);
        best.or_else(|| node_addresses.iter().copied().find(is_here))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::links::LinkHeader;
    use crate::interfaces::Event;

    #[test]
    fn a_source_is_the_nodes_own_address_if_the_link_has_it() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let node = [ip("192.0.2.7"), ip("2001:db8::7"), ip("34.1.2.3")];
        for (on_link, expected) in [
            (&["192.0.2.1/24", "192.0.2.7/24"][..], "192.0.2.7 2001:db8::7"),
            (&["198.51.100.9/32", "198.51.100.3/24", "198.51.100.4/24"], "198.51.100.3 2001:db8::7"),
            (&["2001:db8:1::9/128"], "192.0.2.7 2001:db8:1::9"),
            (&[], "192.0.2.7 2001:db8::7"),
        ] {
            let mut interfaces = Interfaces::default();
            // On the loopback, as with routes of BGP to the node. The cloud keeps a third address of the Node to itself.
            for ip in &node[..2] {
                interfaces.apply(Event::Address { ifindex: 1, addr: InterfaceAddress::new(*ip, 128) });
            }
            for text in on_link {
                let (addr, bits) = text.split_once('/').expect("a prefix");
                let addr = InterfaceAddress::new(ip(addr), bits.parse().expect("bits"));
                interfaces.apply(Event::Address { ifindex: 2, addr });
            }
            let link = |ifindex, class| {
                let link = Link { ifindex, name: "x".into(), class, header: LinkHeader::Ethernet };
                (ifindex, link)
            };
            let links = [link(2, Class::Uplink), link(3, Class::Workload)].into();
            let rows = interfaces.uplinks(&links, &node.into());
            assert_eq!(rows.len(), 1, "pods are no uplinks");
            let Uplink { source4, source6, .. } = rows[&2];
            let sources = format!("{} {}", IpAddr::from(source4), IpAddr::from(source6));
            assert_eq!(sources, expected, "{on_link:?}");
        }
    }

    /// Tunnels are ways as well.
    #[test]
    fn a_link_without_a_header_has_a_source() {
        let mut interfaces = Interfaces::default();
        let ip: IpAddr = [10, 244, 1, 0].into();
        interfaces.apply(Event::Address { ifindex: 2, addr: InterfaceAddress::new(ip, 32) });
        let link = Link { ifindex: 2, name: "tunl0".into(), class: Class::Uplink, header: LinkHeader::Nothing };
        let rows = interfaces.uplinks(&[(2, link)].into(), &BTreeSet::new());
        assert_eq!(rows, [(2, Uplink { source4: [10, 244, 1, 0], ..Uplink::UNNUMBERED })].into());
    }

    #[test]
    fn without_any_address_there_is_no_source() {
        let link = Link { ifindex: 2, name: "x".into(), class: Class::Uplink, header: LinkHeader::Ethernet };
        let rows = Interfaces::default().uplinks(&[(2, link)].into(), &BTreeSet::new());
        assert_eq!(rows, [(2, Uplink::UNNUMBERED)].into());
    }
}
