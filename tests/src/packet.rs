//! Packets of the tests, described, built and read back by etherparse. Every checksum is computed and checked in full.

mod build;
mod read;

use std::net::IpAddr;

pub use build::{ATOMIC_ID, Described, FIRST_LEN, SEQ, cut, icmp_about, lengthened};
pub use read::{Answer, Read, read};

/// MACs of the two ends of every test link. The node's is that of the loopback device, by which packets of a test run
/// arrive.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const NODE_MAC: [u8; 6] = [0; 6];
/// The MAC of the bridge, if the test link is a port of one.
pub const BRIDGE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// The MAC of a host behind another port.
pub const NEIGHBOUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];
/// The MACs of broadcast and of a multicast group.
pub const BROADCAST_MAC: [u8; 6] = [0xff; 6];
pub const MULTICAST_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// The transport of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// With these flags (RFC 9293, the low byte).
    Tcp(u8),
    Udp,
    /// Without a checksum (IPv4 only, RFC 768).
    UdpUnsummed,
    Sctp,
}

/// Address and port.
pub type End = (IpAddr, u16);
