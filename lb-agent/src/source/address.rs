//! IP addresses as Kubernetes reads them, old spellings included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads an address as Go's `ParseIPSloppy` does: leading zeros of IPv4 are decimal, not octal (`1.2.3.004` is
/// `1.2.3.4`), and an IPv4 address mapped into IPv6 is that IPv4 address. No zone, no surrounding space.
pub fn parse(text: &str) -> Option<IpAddr> {
    if let Some(v4) = parse_v4(text) {
        return Some(IpAddr::V4(v4));
    }
    let v6: Ipv6Addr = match text.rsplit_once(':') {
        // The dotted tail of an IPv6 address may have leading zeros as well.
        Some((head, tail)) if tail.contains('.') => format!("{head}:{}", parse_v4(tail)?).parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    parts.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::parse;

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
}
