//! Packets of the tests: described, built and read back by etherparse, every checksum made and checked in full.

mod build;
mod read;

use std::net::IpAddr;

pub use build::{ATOMIC_ID, Described, FIRST_LEN, SEQ, cut, icmp_about, lengthened};
pub use read::{Answer, Read, read};

/// Hardware addresses of the two ends of every test link.
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

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

/// A socket address in words of the tests.
pub type End = (IpAddr, u16);
