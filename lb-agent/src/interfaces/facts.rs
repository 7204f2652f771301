//! What netlink says about one link, reduced to what decides its class.

use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

/// A link, as far as its class depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    pub ifindex: u32,
    pub name: String,
    pub kind: Kind,
    pub peer: Peer,
    /// The link that this one is a port of: a bridge, a bond, a VRF (`IFLA_MASTER`).
    pub controller: Option<u32>,
}

/// Where the other end of a link is (`IFLA_LINK_NETNSID` is there for another namespace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Here,
    OtherNamespace,
}

/// The kind of a link (`IFLA_INFO_KIND`), as far as we tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Loopback,
    /// A network card, real or virtual, or what stands for one: VLAN, bond, team, macvlan, ipvlan.
    Hardware,
    Veth,
    /// The host side of a virtual machine, or a VPN.
    Tap,
    Bridge,
    /// Tunnels, dummies and all others.
    Other,
}

impl LinkFacts {
    /// `None` for a message without a name, which the kernel does not send.
    pub fn from_message(message: &LinkMessage) -> Option<Self> {
        let (mut name, mut controller, mut peer) = (None, None, Peer::Here);
        let mut info: &[LinkInfo] = &[];
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Controller(index) => controller = Some(*index),
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
        Some(Self { ifindex: header.index, name: name?, kind, peer, controller })
    }

    #[cfg(test)]
    pub fn pod_veth(ifindex: u32, name: &str) -> Self {
        Self { ifindex, name: name.into(), kind: Kind::Veth, peer: Peer::OtherNamespace, controller: None }
    }
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
        // A tun device without an Ethernet header is a VPN's.
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
            (LinkLayerType::Ether, Some(InfoKind::Vxlan), Kind::Other),
            (LinkLayerType::Ether, Some(InfoKind::Dummy), Kind::Other),
        ] {
            let facts = LinkFacts::from_message(&message(layer, info.clone())).expect("it has a name");
            assert_eq!(facts.kind, expected, "{info:?}");
        }
    }

    #[test]
    fn reads_peer_and_controller() {
        let mut message = message(LinkLayerType::Ether, Some(InfoKind::Veth));
        let here = LinkFacts::from_message(&message).expect("it has a name");
        assert_eq!((here.ifindex, here.peer, here.controller), (7, Peer::Here, None));
        message.attributes.extend([LinkAttribute::LinkNetNsId(0), LinkAttribute::Controller(3)]);
        let away = LinkFacts::from_message(&message).expect("it has a name");
        assert_eq!((away.peer, away.controller), (Peer::OtherNamespace, Some(3)));
        message.attributes.clear();
        assert_eq!(LinkFacts::from_message(&message), None);
    }
}
