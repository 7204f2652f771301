//! The address plan of the labs, the same in both families: addresses by small numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use lb_common::addr::Family;

/// Both families, for tests that run once in each.
pub const FAMILIES: [Family; 2] = Family::ALL;

/// A network of the plan. The networks differ only in the third octet (IPv4) or hextet (IPv6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    v4: [u8; 3],
    v6: [u16; 4],
}

/// Pods of the node.
pub const PODS: Net = pods_of(1);
/// Pods of another node; their addresses are local in the external namespace.
pub const REMOTE_PODS: Net = pods_of(2);
/// Between the node (2) and the external namespace (1) with the balancer.
pub const UPLINK: Net = Net { v4: [192, 0, 2], v6: [0x2001, 0xdb8, 2, 0] };
/// Between the node (2) and the far namespace (1) with the clients in the network.
pub const FAR_LINK: Net = Net { v4: [192, 0, 3], v6: [0x2001, 0xdb8, 3, 0] };
/// Between a router that a test adds (1) and a client behind it (2).
pub const DEEP_LINK: Net = Net { v4: [192, 0, 4], v6: [0x2001, 0xdb8, 4, 0] };
/// An overlay network between the node (2) and the external namespace (1).
pub const OVERLAY: Net = Net { v4: [10, 245, 0], v6: [0xfd00, 0x10, 0x245, 0] };
/// Clients in the network, behind the far link.
pub const FAR: Net = Net { v4: [203, 0, 113], v6: [0x2001, 0xdb8, 0x113, 0] };
/// Addresses of load balancers; all of them are local in the external namespace.
pub const BALANCERS: Net = Net { v4: [198, 51, 100], v6: [0x2001, 0xdb8, 0x51, 0] };
/// Addresses of load balancers that sort after all others of their family.
pub const LAST: Net = Net { v4: [223, 255, 255], v6: [0xfdff, 0xffff, 0, 0] };
/// Addresses that Services name as externalIPs; no host has one of them.
pub const EXTERNAL_IPS: Net = Net { v4: [198, 51, 101], v6: [0x2001, 0xdb8, 0x52, 0] };
/// Cluster addresses. An API server takes the first of its range, 10.96.0.1, for its own Service.
pub const CLUSTER: Net = Net { v4: [10, 96, 1], v6: [0xfd00, 0x10, 0x96, 0] };

/// The pods of a node of the cluster, by the node's number.
pub const fn pods_of(node: u8) -> Net {
    Net { v4: [10, 244, node], v6: [0xfd00, 0x10, 0x244, node as u16] }
}

impl Net {
    /// The network behind a further device of the node, between the node (2) and another one (1). Numbers up to 4 are
    /// taken.
    pub const fn of_device(number: u8) -> Self {
        Self { v4: [192, 0, number], v6: [0x2001, 0xdb8, number as u16, 0] }
    }

    /// The host with this number.
    pub fn host(self, family: Family, number: u8) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(self.v4[0], self.v4[1], self.v4[2], number)),
            Family::V6 => {
                let [a, b, c, d] = self.v6;
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, number.into()))
            }
        }
    }

    pub fn contains(self, address: IpAddr) -> bool {
        (0..=u8::MAX).any(|number| self.host(family(address), number) == address)
    }

    /// The network, as in a route.
    pub fn prefix(self, family: Family) -> String {
        format!("{}/{}", self.host(family, 0), Self::length(family))
    }

    /// A host with the prefix length of its network, as in an interface address.
    pub fn interface(self, family: Family, number: u8) -> String {
        format!("{}/{}", self.host(family, number), Self::length(family))
    }

    const fn length(family: Family) -> u8 {
        match family {
            Family::V4 => 24,
            Family::V6 => 64,
        }
    }
}

/// The family of an address.
pub const fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// A balancer's address with a port.
pub fn vip(family: Family, number: u8, port: u16) -> SocketAddr {
    SocketAddr::new(BALANCERS.host(family, number), port)
}

/// The line of `ip` that adds an address to an interface, usable at once.
pub fn add_address(family: Family, address: &str, interface: &str) -> String {
    match family {
        Family::V4 => format!("addr add {address} dev {interface}"),
        // Without `nodad` the address is tentative until a worker of the kernel has handled it.
        Family::V6 => format!("addr add {address} dev {interface} nodad"),
    }
}

/// A single host, as in an interface address.
pub fn host_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

/// `-4` or `-6`, the option of `ip`.
pub const fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}
