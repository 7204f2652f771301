//! Prefixes: ranges of addresses in CIDR notation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::addr::Family;

/// All addresses whose first `length` bits equal those of `addr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    addr: IpAddr,
    length: u8,
}

impl Prefix {
    /// The prefix of this length that contains the address. `None` if the family has no such length.
    pub fn new(addr: IpAddr, length: u8) -> Option<Self> {
        let addr = match addr {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask_v4(length)?)),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask_v6(length)?)),
        };
        Some(Self { addr, length })
    }

    /// The first address. The bits after the prefix are 0.
    pub const fn addr(&self) -> IpAddr {
        self.addr
    }

    /// In bits.
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// Whether it contains every address of the family.
    pub const fn is_everything(&self) -> bool {
        self.length == 0
    }

    pub const fn family(&self) -> Family {
        if self.addr.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub fn contains(&self, addr: IpAddr) -> bool {
        Self::new(addr, self.length) == Some(*self)
    }
}

fn mask_v4(length: u8) -> Option<u32> {
    let free = u32::BITS.checked_sub(length.into())?;
    Some(u32::MAX.checked_shl(free).unwrap_or(0))
}

fn mask_v6(length: u8) -> Option<u128> {
    let free = u128::BITS.checked_sub(length.into())?;
    Some(u128::MAX.checked_shl(free).unwrap_or(0))
}

/// `203.0.113.0/25`.
impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn holds_what_shares_its_bits() {
        for (addr, len, inside, outside) in [
            ("203.0.113.9", 25, "203.0.113.127", "203.0.113.128"),
            ("128.0.0.0", 1, "255.255.255.255", "127.255.255.255"),
            ("203.0.113.9", 32, "203.0.113.9", "203.0.113.8"),
            ("2001:db8::9", 64, "2001:db8::ffff:0:0:1", "2001:db8:0:1::"),
            ("2001:db8::9", 128, "2001:db8::9", "2001:db8::8"),
        ] {
            let prefix = Prefix::new(ip(addr), len).expect("a length of the family");
            assert!(prefix.contains(ip(inside)), "{inside} in {prefix}");
            assert!(!prefix.contains(ip(outside)), "{outside} in {prefix}");
        }
    }

    #[test]
    fn length_0_is_everything_of_its_family() {
        let prefix = Prefix::new(ip("10.0.0.1"), 0).expect("a length of the family");
        assert_eq!(prefix.to_string(), "0.0.0.0/0");
        assert!(prefix.contains(ip("203.0.113.9")));
        assert!(!prefix.contains(ip("::")));
    }

    #[test]
    fn a_family_has_no_longer_prefix_than_its_addresses() {
        assert_eq!(Prefix::new(ip("10.0.0.1"), 33), None);
        assert_eq!(Prefix::new(ip("::1"), 129), None);
    }
}
