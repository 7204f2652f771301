//! The properties of a link that decide its class, from its netlink message.

use std::fmt;
use std::net::IpAddr;

use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};

use super::BridgeNetfilter;
use crate::dataplane::links::{LinkHeader, Mac};

/// The properties of a link that decide its class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    pub ifindex: u32,
    pub name: String,
    pub kind: Kind,
    pub framing: Framing,
    pub peer: Peer,
    /// The link that this one is a port of: a bridge, a bond, a VRF (`IFLA_MASTER`).
    pub controller: Option<u32>,
    /// The link that this one is made on, for a VLAN, a macvlan or an ipvlan (`IFLA_LINK`).
    pub lower: Option<u32>,
    /// Whether its frames have a VLAN tag on `lower`.
    pub is_vlan: bool,
    /// The hardware address, if it has six bytes.
    pub mac: Option<Mac>,
    /// A bridge's own setting.
    pub netfilter: BridgeNetfilter,
    /// An isolated port of a bridge exchanges no frames with other isolated ports (`IFLA_BRPORT_ISOLATED`).
    pub is_isolated: bool,
}

/// What programs see in front of the network header of a link's packets (`ARPHRD_*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    Known(LinkHeader),
    /// Another header, of this kind of device.
    Other(String),
}

impl Framing {
    pub const ETHERNET: Self = Self::Known(LinkHeader::Ethernet);
    pub const NOTHING: Self = Self::Known(LinkHeader::Nothing);
}

/// An address of this node, with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress {
    pub ip: IpAddr,
    pub prefix_len: u8,
}

impl InterfaceAddress {
    pub fn new(ip: impl Into<IpAddr>, prefix_len: u8) -> Self {
        Self { ip: ip.into(), prefix_len }
    }

    /// Whether the prefix holds other hosts, so the length is not /32 or /128.
    pub const fn has_prefix(&self) -> bool {
        self.prefix_len < if self.ip.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

/// Where the other end of a link is. The kernel sends `IFLA_LINK_NETNSID` if it is in another namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Here,
    OtherNamespace,
}

/// The kinds of link that matter here (`IFLA_INFO_KIND`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Loopback,
    /// A network card, real or virtual, or a link made from cards: VLAN, bond, team, macvlan, ipvlan.
    Hardware,
    Veth,
    /// The host side of a virtual machine, or a VPN.
    Tap,
    Bridge,
    Vrf,
    /// A network over another one, as CNIs put between nodes: VXLAN, GENEVE, IPIP, WireGuard.
    Overlay,
    /// Other tunnels, dummies and all other kinds.
    Other,
}

impl LinkFacts {
    /// `None` if the message has no name, which the kernel does not send.
    pub fn from_message(message: &LinkMessage) -> Option<Self> {
        let (mut name, mut controller, mut lower, mut mac, mut peer) = (None, None, None, None, Peer::Here);
        let mut remote: &[u8] = &[];
        let mut info: &[LinkInfo] = &[];
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Controller(index) => controller = Some(*index),
                LinkAttribute::Address(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
                LinkAttribute::Broadcast(bytes) => remote = bytes,
                LinkAttribute::Link(index) => lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => peer = Peer::OtherNamespace,
                LinkAttribute::LinkInfo(list) => info = list,
                _ => {}
            }
        }
        let header = &message.header;
        let kind = if header.flags.contains(LinkFlags::Loopback) {
            Kind::Loopback
        } else {
            kind(info, header.link_layer_type)
        };
        // `IFLA_LINK` also names the other end of a veth, and an index of another namespace means nothing here.
        let lower = lower.filter(|_| kind == Kind::Hardware && peer == Peer::Here);
        let framing = framing(header.link_layer_type, remote);
        let netfilter = BridgeNetfilter::of_bridge(info);
        let is_isolated = info.iter().any(|info| match info {
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => port.contains(&InfoBridgePort::Isolated(true)),
            _ => false,
        });
        Some(Self {
            ifindex: header.index,
            name: name?,
            kind,
            framing,
            peer,
            controller,
            lower,
            is_vlan: info.contains(&LinkInfo::Kind(InfoKind::Vlan)),
            mac,
            netfilter,
            is_isolated,
        })
    }

    #[cfg(test)]
    pub fn pod_veth(ifindex: u32, name: &str) -> Self {
        Self {
            ifindex,
            name: name.into(),
            kind: Kind::Veth,
            framing: Framing::ETHERNET,
            peer: Peer::OtherNamespace,
            controller: None,
            lower: None,
            is_vlan: false,
            mac: None,
            netfilter: BridgeNetfilter::default(),
            is_isolated: false,
        }
    }
}

/// `remote` is the other end of a tunnel: its messages have it in the place of the broadcast address.
fn framing(layer: LinkLayerType, remote: &[u8]) -> Framing {
    match layer {
        LinkLayerType::Ether | LinkLayerType::Loopback => Framing::ETHERNET,
        // Link types without a link header (`dev_is_mac_header_xmit()` in include/linux/if_arp.h), such as tun and
        // WireGuard. PPP adds its header after the egress hook and removes it before the ingress hook.
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Ppp
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit => Framing::NOTHING,
        LinkLayerType::Ipgre | LinkLayerType::Ip6gre if is_one_host(remote) => Framing::NOTHING,
        // The outer headers are in front of its packets (`ipgre_header_ops`, `ip6gre_header_ops`).
        LinkLayerType::Ipgre | LinkLayerType::Ip6gre => Framing::Other("GRE without one remote address".into()),
        other => Framing::Other(other.to_string()),
    }
}

fn is_one_host(addr: &[u8]) -> bool {
    let addr = <[u8; 4]>::try_from(addr).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(addr).map(IpAddr::from));
    addr.is_ok_and(|addr| !addr.is_unspecified() && !addr.is_multicast())
}

fn kind(info: &[LinkInfo], layer: LinkLayerType) -> Kind {
    let kind = info.iter().find_map(|info| if let LinkInfo::Kind(kind) = info { Some(kind) } else { None });
    match (kind, layer) {
        (None, LinkLayerType::Ether)
        | (
            Some(
                InfoKind::Vlan
                | InfoKind::Bond
                | InfoKind::Team
                | InfoKind::MacVlan
                | InfoKind::IpVlan
                | InfoKind::Ipoib,
            ),
            _,
        ) => Kind::Hardware,
        (Some(InfoKind::Veth), _) => Kind::Veth,
        (Some(InfoKind::Bridge), _) => Kind::Bridge,
        (Some(InfoKind::Vrf), _) => Kind::Vrf,
        (Some(InfoKind::Vxlan | InfoKind::Geneve | InfoKind::IpIp | InfoKind::Wireguard), _) => Kind::Overlay,
        // A tun device without an Ethernet header belongs to a VPN.
        (Some(InfoKind::Tun), LinkLayerType::Ether) => Kind::Tap,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(layer: LinkLayerType, info: Option<InfoKind>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = layer;
        message.attributes = vec![LinkAttribute::IfName("x0".into())];
        message.attributes.extend(info.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
        message
    }

    #[test]
    fn tells_kinds_apart() {
        for (layer, info, expected) in [
            (LinkLayerType::Ether, None, Kind::Hardware),
            (LinkLayerType::Ether, Some(InfoKind::Vlan), Kind::Hardware),
            (LinkLayerType::Ether, Some(InfoKind::Veth), Kind::Veth),
            (LinkLayerType::Ether, Some(InfoKind::Tun), Kind::Tap),
            (LinkLayerType::None, Some(InfoKind::Tun), Kind::Other),
            (LinkLayerType::Ether, Some(InfoKind::Bridge), Kind::Bridge),
            (LinkLayerType::Ether, Some(InfoKind::Vrf), Kind::Vrf),
            (LinkLayerType::Ether, Some(InfoKind::Vxlan), Kind::Overlay),
            (LinkLayerType::Tunnel, Some(InfoKind::IpIp), Kind::Overlay),
            (LinkLayerType::None, Some(InfoKind::Wireguard), Kind::Overlay),
            (LinkLayerType::Sit, Some(InfoKind::SitTun), Kind::Other),
            (LinkLayerType::Ether, Some(InfoKind::Dummy), Kind::Other),
        ] {
            let facts = LinkFacts::from_message(&message(layer, info.clone())).expect("it has a name");
            assert_eq!(facts.kind, expected, "{info:?}");
        }
    }

    #[test]
    fn tells_packets_without_an_ethernet_header() {
        let framing = |layer| LinkFacts::from_message(&message(layer, None)).expect("it has a name").framing;
        assert_eq!(
            [framing(LinkLayerType::Ether), framing(LinkLayerType::Loopback)],
            [Framing::ETHERNET, Framing::ETHERNET]
        );
        for layer in [
            LinkLayerType::None,
            LinkLayerType::Ppp,
            LinkLayerType::Tunnel,
            LinkLayerType::Tunnel6,
            LinkLayerType::Sit,
            LinkLayerType::Rawip,
        ] {
            assert_eq!(framing(layer), Framing::NOTHING, "{layer:?}");
        }
        for layer in [LinkLayerType::Infiniband, LinkLayerType::Netlink, LinkLayerType::Can, LinkLayerType::Void] {
            assert!(matches!(framing(layer), Framing::Other(_)), "{layer:?}");
        }
    }

    #[test]
    fn gre_is_bare_towards_one_remote_address() {
        let remote = |layer, address: &[u8]| {
            let mut message = message(layer, None);
            message.attributes.push(LinkAttribute::Broadcast(address.to_vec()));
            LinkFacts::from_message(&message).expect("it has a name").framing
        };
        let (one, group) = ([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0xff; 16]);
        assert_eq!(remote(LinkLayerType::Ipgre, &[192, 0, 2, 1]), Framing::NOTHING);
        assert_eq!(remote(LinkLayerType::Ip6gre, &one), Framing::NOTHING);
        for address in [&[][..], &[0; 4], &[239, 0, 0, 1]] {
            assert!(matches!(remote(LinkLayerType::Ipgre, address), Framing::Other(_)), "{address:?}");
        }
        for address in [&[][..], &[0; 16], &group] {
            assert!(matches!(remote(LinkLayerType::Ip6gre, address), Framing::Other(_)), "{address:?}");
        }
    }

    #[test]
    fn reads_what_a_link_is_made_on() {
        let lower = |kind, more: &[LinkAttribute]| {
            let mut message = message(LinkLayerType::Ether, Some(kind));
            message.attributes.push(LinkAttribute::Link(2));
            message.attributes.extend_from_slice(more);
            let facts = LinkFacts::from_message(&message).expect("it has a name");
            (facts.lower, facts.is_vlan)
        };
        assert_eq!([lower(InfoKind::Vlan, &[]), lower(InfoKind::MacVlan, &[])], [(Some(2), true), (Some(2), false)]);
        assert_eq!(lower(InfoKind::Veth, &[]), (None, false));
        assert_eq!(lower(InfoKind::IpVlan, &[LinkAttribute::LinkNetNsId(0)]), (None, false));
    }

    #[test]
    fn reads_peer_and_controller() {
        let mut message = message(LinkLayerType::Ether, Some(InfoKind::Veth));
        let here = LinkFacts::from_message(&message).expect("it has a name");
        assert_eq!((here.ifindex, here.peer, here.controller), (7, Peer::Here, None));
        message.attributes.extend([LinkAttribute::LinkNetNsId(0), LinkAttribute::Controller(3)]);
        let away = LinkFacts::from_message(&message).expect("it has a name");
        assert_eq!((away.peer, away.controller), (Peer::OtherNamespace, Some(3)));
        assert_eq!((away.lower, away.mac), (None, None));
        message.attributes.push(LinkAttribute::Address(vec![2, 0, 0, 0, 0, 9]));
        assert_eq!(LinkFacts::from_message(&message).and_then(|facts| facts.mac), Some([2, 0, 0, 0, 0, 9]));
        // A tunnel's address has four bytes.
        message.attributes.push(LinkAttribute::Address(vec![192, 0, 2, 1]));
        assert_eq!(LinkFacts::from_message(&message).and_then(|facts| facts.mac), None);
        message.attributes.clear();
        assert_eq!(LinkFacts::from_message(&message), None);
    }
}
