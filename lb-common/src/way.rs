//! The way of a packet that the node forwards to another machine: the route, and the limits that a router checks.

use crate::table::Uplink;

/// How the node reaches an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Reach {
    /// On this node: the stack delivers.
    Stack = 0,
    /// By an uplink, with an address of this node as source.
    Uplink = 1,
    /// No route, a route that is no uplink's, or no address to use.
    Nowhere = 2,
}

/// Where a forwarded packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the next hop that the kernel noted.
    Out,
    /// The packet is longer than the path takes, in bytes from the network header on.
    TooLong { mtu_bytes: u16 },
    /// No route.
    Nowhere,
}

/// Source ports that the node uses for what it forwards (`--snat-ports`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnatPorts {
    pub first: u16,
    pub last: u16,
}

impl SnatPorts {
    /// Clear of the usual ephemeral ports (`net.ipv4.ip_local_port_range`) and of node ports.
    pub const DEFAULT: Self = Self { first: 61_000, last: 65_535 };

    #[inline(always)]
    pub const fn contains(&self, port: u16) -> bool {
        // One compare: a port below the first wraps to a number above the length.
        port.wrapping_sub(self.first) <= self.last.wrapping_sub(self.first)
    }

    /// The port that a random number selects.
    #[inline(always)]
    pub const fn select(&self, random: u32) -> u16 {
        let count = self.last.wrapping_sub(self.first) as u64 + 1;
        self.first.wrapping_add(((random as u64 * count) >> 32) as u16)
    }
}

/// An address family whose address on an uplink is known.
pub trait OnUplink: Sized {
    /// The address of this node on the uplink. Zeroes: none.
    fn on_uplink(uplink: &Uplink) -> &Self;
}

impl OnUplink for [u8; 4] {
    #[inline(always)]
    fn on_uplink(uplink: &Uplink) -> &Self {
        &uplink.source4
    }
}

impl OnUplink for [u8; 16] {
    #[inline(always)]
    fn on_uplink(uplink: &Uplink) -> &Self {
        &uplink.source6
    }
}

#[cfg(test)]
mod tests {
    use super::SnatPorts;

    #[test]
    fn a_range_has_its_ports_and_no_others() {
        for (first, last) in [(61_000, 65_535), (1_024, 1_024), (0, 65_535), (32_768, 40_000)] {
            let ports = SnatPorts { first, last };
            let selected = |random| ports.select(random);
            assert_eq!([selected(0), selected(u32::MAX)], [first, last]);
            for port in [0, 1_023, 1_024, 1_025, 32_767, 32_768, 40_000, 40_001, 60_999, 61_000, 65_535] {
                assert_eq!(ports.contains(port), (first..=last).contains(&port), "{port} in {first}-{last}");
            }
        }
    }
}
