//! A range of ports on the command line.

use lb_common::way::SnatPorts;

/// A range of ports, written `FIRST-LAST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange(pub SnatPorts);

impl Default for PortRange {
    fn default() -> Self {
        Self(SnatPorts::DEFAULT)
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0.first, self.0.last)
    }
}

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ports = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match ports {
            Some((first, last)) if (1024..=last).contains(&first) => Ok(Self(SnatPorts { first, last })),
            Some(_) => Err("the first port is at least 1024 and not above the last, as in 61000-65535".into()),
            None => Err("write two ports, as in 61000-65535".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_it_is_printed() {
        for text in ["61000-65535", "1024-1024", "32768-65535"] {
            assert_eq!(text.parse::<PortRange>().expect("a range").to_string(), text);
        }
        for (text, expected) in [
            ("61000", "two ports"),
            ("61000-", "two ports"),
            ("a-b", "two ports"),
            ("61000-65536", "two ports"),
            ("80-90", "at least 1024"),
            ("5000-4000", "not above the last"),
        ] {
            let error = text.parse::<PortRange>().expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
