//! Parses IP addresses as Kubernetes does, including old spellings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Prefix;

/// Reads an address as Go's `ParseIPSloppy` does. Leading zeros of IPv4 are decimal, not octal (`1.2.3.004` is
/// `1.2.3.4`). An IPv4-mapped IPv6 address becomes that IPv4 address. Zones and surrounding space are refused.
pub fn parse(text: &str) -> Option<IpAddr> {
    if let Some(v4) = parse_v4(text) {
        return Some(IpAddr::V4(v4));
    }
    let v6: Ipv6Addr = match text.rsplit_once(':') {
        // The dotted tail of an IPv6 address may have leading zeros too.
        Some((head, tail)) if tail.contains('.') => format!("{head}:{}", parse_v4(tail)?).parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

/// Reads a prefix as Go's `ParseCIDRSloppy` does: the address as in [`parse`], the length in decimal with leading zeros
/// allowed (`203.0.113.000/025`). The bits after the prefix are cleared.
pub fn parse_prefix(text: &str) -> Option<Prefix> {
    let (addr, len) = text.split_once('/')?;
    let len = parse_decimal(len)?;
    let addr_v4 = parse_v4(addr).map(IpAddr::V4);
    match addr_v4.or_else(|| parse(addr))? {
        // IPv4-mapped: 96 bits of the length belong to the mapping.
        ip @ IpAddr::V4(_) if addr_v4.is_none() => Prefix::new(ip, len.checked_sub(96)?),
        ip => Prefix::new(ip, len),
    }
}

/// The reason why an address cannot belong to an endpoint, Service or node. `None` for an address that routers deliver
/// to, including the ranges for documentation.
pub const fn unusable(addr: IpAddr) -> Option<&'static str> {
    match addr {
        IpAddr::V4(v4) => match v4.octets() {
            [0, 0, 0, 0] => Some("unspecified"),
            [0, ..] => Some("this network"),
            [127, ..] => Some("loopback"),
            [169, 254, ..] => Some("link-local"),
            [224..=239, ..] => Some("multicast"),
            [255, 255, 255, 255] => Some("broadcast"),
            [240..=255, ..] => Some("reserved"),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
            [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
            [0, 0, 0, 0, 0, 0 | 0xffff, _, _] => Some("IPv4 in IPv6"),
            [0xfe80..=0xfebf, ..] => Some("link-local"),
            [0xff00..=0xffff, ..] => Some("multicast"),
            _ => None,
        },
    }
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = parse_decimal(parts.next()?)?;
    }
    parts.next().is_none().then(|| octets.into())
}

/// A number below 256. Leading zeros are ignored.
fn parse_decimal(text: &str) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_prefix, unusable};

    #[test]
    fn reads_what_the_api_server_accepts() {
        for (text, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.004", "1.2.3.4"),
            ("010.000.0.08", "10.0.0.8"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("::ffff:1.2.3.004", "1.2.3.4"),
            ("2001:DB8::cb00:71fa", "2001:db8::cb00:71fa"),
            ("64:ff9b::1.2.3.4", "64:ff9b::102:304"),
        ] {
            assert_eq!(parse(text).map(|ip| ip.to_string()).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.",
            "+1.2.3.4",
            " 1.2.3.4",
            "fe80::1%eth0",
            "a.b.c.d",
            "1.2.3.4/32",
            "::1.2.3",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn knows_where_nobody_can_be() {
        for (text, reason) in [
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "this network"),
            ("0.255.255.255", "this network"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.254", "loopback"),
            ("169.254.0.1", "link-local"),
            ("169.254.169.254", "link-local"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.1", "reserved"),
            ("255.255.255.254", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "IPv4 in IPv6"),
            ("::192.0.2.1", "IPv4 in IPv6"),
            ("::ffff:192.0.2.1", "IPv4 in IPv6"),
            ("fe80::1", "link-local"),
            ("febf:ffff::1", "link-local"),
            ("ff02::1", "multicast"),
            ("ff0e::1", "multicast"),
        ] {
            assert_eq!(unusable(text.parse().expect("an address")), Some(reason), "{text}");
        }
    }

    #[test]
    fn leaves_every_other_address_usable() {
        for text in [
            "1.0.0.1",
            "10.0.0.1",
            "100.64.0.1",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.1",
            "172.16.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "223.255.255.255",
            "64:ff9b::192.0.2.1",
            "100::1",
            "2001:db8::1",
            "fd00::1",
            "fe7f::1",
            "fec0::1",
            "::1:0:0:0",
        ] {
            assert_eq!(unusable(text.parse().expect("an address")), None, "{text}");
        }
    }

    /// Includes the spellings of `TestBadIPs`.
    #[test]
    fn reads_prefixes_that_the_api_server_accepts() {
        for (text, expected) in [
            ("203.0.113.0/25", "203.0.113.0/25"),
            ("203.0.113.000/025", "203.0.113.0/25"),
            ("203.0.113.77/25", "203.0.113.0/25"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("1.2.3.4/32", "1.2.3.4/32"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::ffff:1.2.3.4/120", "1.2.3.0/24"),
        ] {
            assert_eq!(parse_prefix(text).map(|prefix| prefix.to_string()).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_prefix() {
        for text in
            ["", "1.2.3.4", "1.2.3.4/", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/256", "::1/129", "::ffff:1.2.3.4/95"]
        {
            assert_eq!(parse_prefix(text), None, "{text}");
        }
    }
}
