//! The rule that decided the class of an interface, with the properties that it looked at.

use std::fmt;
use std::net::IpAddr;

use super::InterfaceAddress;

/// The rule that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    Loopback,
    /// `--uplink-interfaces` names it.
    NamedUplink,
    /// `--workload-interfaces` names it.
    NamedWorkload,
    /// `--workload-interfaces` names only other interfaces.
    OthersNamed,
    /// `--workload-interfaces=none`.
    NoneWanted,
    /// The interface has this address of the Node object.
    NodeAddress(IpAddr),
    DefaultRoute,
    /// A network card with an address.
    Card,
    /// An overlay network with an address of this node.
    Overlay(InterfaceAddress),
    /// A veth with a prefix of its own, so a network card of a node in a container.
    Prefix(InterfaceAddress),
    /// A tap with an address, so a VPN that ends on this node.
    TapAddress(InterfaceAddress),
    /// A port of this bridge, which leads to the network.
    PortOfUplink(String),
    /// A port of this bond or team.
    PortOfCard(String),
    /// The lower link of this VLAN, macvlan or ipvlan of the node.
    LowerOf(String),
    /// A veth with both ends in this namespace.
    PeerHere,
    /// A veth to another namespace.
    Pod,
    /// A tap without an address.
    VirtualMachine,
    /// Neither a veth nor a tap.
    NoPod,
    /// Refused although another rule wants it: the programs cannot read the link header of this kind of device.
    UnknownHeader(String, Box<Self>),
}

impl Why {
    /// Whether the interface would be attached if the programs could read its link header.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::UnknownHeader(..))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("the loopback"),
            Self::NamedUplink => f.write_str("--uplink-interfaces names it"),
            Self::NamedWorkload => f.write_str("--workload-interfaces names it"),
            Self::OthersNamed => f.write_str("--workload-interfaces names others"),
            Self::NoneWanted => f.write_str("--workload-interfaces is none"),
            Self::NodeAddress(addr) => write!(f, "it has the Node's address {addr}: the network"),
            Self::DefaultRoute => f.write_str("a default route leaves by it: the network"),
            Self::Card => f.write_str("a network card with an address: the network"),
            Self::Overlay(address) => write!(f, "an overlay network with an address, {address}: the network"),
            Self::Prefix(prefix) => write!(f, "it has a prefix of its own, {prefix}: a network, no pod"),
            Self::TapAddress(address) => write!(f, "a tap with an address, {address}: a VPN, no pod"),
            Self::PortOfUplink(bridge) => write!(f, "a port of {bridge}, which leads to the network"),
            Self::PortOfCard(bond) => write!(f, "a port of {bond}: a network card, no pod"),
            Self::LowerOf(upper) => write!(f, "{upper} is made on it: a network card, no pod"),
            Self::PeerHere => f.write_str("a veth with both ends here"),
            Self::Pod => f.write_str("a veth to another namespace: a pod"),
            Self::VirtualMachine => f.write_str("a tap without an address: a virtual machine"),
            Self::NoPod => f.write_str("neither a veth nor a tap"),
            Self::UnknownHeader(device, wanted) => {
                write!(f, "its packets have a link header that this version cannot read ({device}); else: {wanted}")
            }
        }
    }
}
