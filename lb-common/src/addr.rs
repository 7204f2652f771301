//! Addresses and protocols as they stand on the wire.
//!
//! An address is its octets in network order, so it prints readably in a map dump and needs no conversion
//! between packet and table. Ports are plain `u16` in host order everywhere outside the packet itself.

use core::fmt::Debug;
use core::hash::Hash;
use core::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

/// An IPv4 or IPv6 address as octets in network order: `[u8; 4]` or `[u8; 16]`.
///
/// The packet path and the tables are generic over it; nothing is written twice per family.
pub trait Addr:
    Copy + Eq + Ord + Hash + Debug + FromBytes + IntoBytes + Immutable + KnownLayout + Into<IpAddr> + Sized + 'static
{
    const FAMILY: Family;

    /// The one's complement sum of the address in 16-bit words, unfolded, in the byte order of memory.
    fn sum(&self) -> u32;
}

/// A 16-bit word of memory, as RFC 1071 sums it (the sum does not depend on the byte order).
#[inline(always)]
const fn word(high: u8, low: u8) -> u32 {
    u16::from_ne_bytes([high, low]) as u32
}

impl Addr for [u8; 4] {
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn sum(&self) -> u32 {
        word(self[0], self[1]) + word(self[2], self[3])
    }
}

impl Addr for [u8; 16] {
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn sum(&self) -> u32 {
        let a = self;
        word(a[0], a[1])
            + word(a[2], a[3])
            + word(a[4], a[5])
            + word(a[6], a[7])
            + word(a[8], a[9])
            + word(a[10], a[11])
            + word(a[12], a[13])
            + word(a[14], a[15])
    }
}

/// A transport protocol that a Service port can have. The numbers are IANA's; a map dump prints the names.
#[repr(u8)]
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, zerocopy::TryFromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[allow(clippy::upper_case_acronyms, reason = "printed by bpftool as the API spells them")]
pub enum Proto {
    TCP = 6,
    UDP = 17,
    SCTP = 132,
}

impl Proto {
    /// The protocol with this IANA number, if a Service can have it.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::TCP),
            17 => Some(Self::UDP),
            132 => Some(Self::SCTP),
            _ => None,
        }
    }

    /// The name in lower case, as the command line and the tables print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TCP => "tcp",
            Self::UDP => "udp",
            Self::SCTP => "sctp",
        }
    }
}
