//! Addresses and protocols in their form on the wire.
//!
//! An address is its octets in network order, so a map dump is readable, and packets and tables need no conversion.
//! Ports are `u16` in host order everywhere outside the packet itself.

use core::fmt::Debug;
use core::hash::Hash;
use core::net::IpAddr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::hash::mix;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `IPv4` or `IPv6`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// An IPv4 or IPv6 address as octets in network order: `[u8; 4]` or `[u8; 16]`.
///
/// The packet path and the tables are generic over it, so nothing is written once per family.
pub trait Addr:
    Copy
    + Send
    + Sync
    + Eq
    + Ord
    + Hash
    + Debug
    + FromBytes
    + IntoBytes
    + Immutable
    + KnownLayout
    + Into<IpAddr>
    + Sized
    + 'static
{
    const FAMILY: Family;

    /// The one's complement sum of the address in 16-bit words, unfolded, in the byte order of memory.
    fn sum(&self) -> u32;

    /// Mixes the address into a hash ([`crate::selection`]).
    fn mix_into(&self, hash: u32) -> u32;

    /// Whether a packet of the network may have this source. Else a router discards it (RFC 1812 section 5.3.7, RFC 4291
    /// section 2.5): multicast, loopback, "this network".
    fn may_be_client(&self) -> bool;

    /// Whether both are the same address. In words: the compiler turns `==` of 16 bytes into a call that compares byte
    /// by byte.
    fn is(&self, other: &Self) -> bool;
}

/// Two 16-bit words of memory, as RFC 1071 sums them (the sum does not depend on the byte order).
#[inline(always)]
const fn words(octets: [u8; 4]) -> u32 {
    let both = u32::from_ne_bytes(octets);
    (both & 0xffff) + (both >> 16)
}

impl Addr for [u8; 4] {
    const FAMILY: Family = Family::V4;

    #[inline(always)]
    fn sum(&self) -> u32 {
        words(*self)
    }

    #[inline(always)]
    fn mix_into(&self, hash: u32) -> u32 {
        mix(hash, u32::from_le_bytes(*self))
    }

    #[inline(always)]
    fn may_be_client(&self) -> bool {
        let [first, ..] = *self;
        first != 0 && first != 127 && first < 224
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        u32::from_ne_bytes(*self) == u32::from_ne_bytes(*other)
    }
}

impl Addr for [u8; 16] {
    const FAMILY: Family = Family::V6;

    #[inline(always)]
    fn sum(&self) -> u32 {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *self;
        words([a0, a1, a2, a3]) + words([b0, b1, b2, b3]) + words([c0, c1, c2, c3]) + words([d0, d1, d2, d3])
    }

    #[inline(always)]
    fn mix_into(&self, hash: u32) -> u32 {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *self;
        let hash = mix(hash, u32::from_le_bytes([a0, a1, a2, a3]));
        let hash = mix(hash, u32::from_le_bytes([b0, b1, b2, b3]));
        let hash = mix(hash, u32::from_le_bytes([c0, c1, c2, c3]));
        mix(hash, u32::from_le_bytes([d0, d1, d2, d3]))
    }

    #[inline(always)]
    fn may_be_client(&self) -> bool {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *self;
        let upper = u64::from_ne_bytes([a0, a1, a2, a3, b0, b1, b2, b3]);
        let lower = u64::from_be_bytes([c0, c1, c2, c3, d0, d1, d2, d3]);
        // `::` and `::1` are the only addresses below 2.
        a0 != 0xff && (upper != 0 || lower > 1)
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        let words = |octets: &Self| {
            let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3] = *octets;
            let (a, b) = (u32::from_ne_bytes([a0, a1, a2, a3]), u32::from_ne_bytes([b0, b1, b2, b3]));
            let (c, d) = (u32::from_ne_bytes([c0, c1, c2, c3]), u32::from_ne_bytes([d0, d1, d2, d3]));
            [a, b, c, d]
        };
        let (one, other) = (words(self), words(other));
        (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) == 0
    }
}

/// Whether two addresses share their first `bits` bits. Both are given as words in network order.
#[inline(always)]
pub fn is_same_prefix<const WORDS: usize>(one: &[u32; WORDS], other: &[u32; WORDS], bits: u8) -> bool {
    let mut left = u32::from(bits);
    for (one, other) in one.iter().zip(other) {
        let here = if left < 32 { left } else { 32 };
        let differs = u64::from(u32::from_be(*one ^ *other)) >> (32 - here);
        if differs != 0 {
            return false;
        }
        left -= here;
    }
    true
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_compared_by_bits() {
        let words4 = |addr: [u8; 4]| [u32::from_ne_bytes(addr)];
        for (other, bits, expected) in [
            ([10, 244, 0, 200], 24, true),
            ([10, 244, 1, 200], 24, false),
            ([10, 244, 1, 200], 23, true),
            ([10, 244, 0, 11], 31, true),
            ([10, 244, 0, 12], 31, false),
            ([192, 168, 0, 1], 1, false),
        ] {
            assert_eq!(is_same_prefix(&words4([10, 244, 0, 10]), &words4(other), bits), expected, "{other:?}/{bits}");
        }
        let words6 = |text: u128| -> [u32; 4] {
            let bytes = text.to_be_bytes();
            core::array::from_fn(|word| u32::from_ne_bytes(core::array::from_fn(|byte| bytes[4 * word + byte])))
        };
        let one = words6(0xfd44_0001 << 96 | 0x11);
        for (other, bits, expected) in [
            (0xfd44_0001 << 96 | 0x12, 64, true),
            (0xfd44_0001 << 96 | 0x12, 127, false),
            (0xfd44_0001 << 96 | 1 << 64, 64, false),
            (0xfd44_0001 << 96 | 1 << 64, 63, true),
            (0xfd44_0002 << 96, 30, true),
            (0xfd44_0002 << 96, 32, false),
        ] {
            assert_eq!(is_same_prefix(&one, &words6(other), bits), expected, "{other:x}/{bits}");
        }
    }
}
