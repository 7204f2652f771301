//! Names that the API server accepts.

/// The spelling rule for one sort of name.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The rule in words, for users.
    pub spelling: &'static str,
    bytes_max: usize,
    is_one: fn(&str) -> bool,
}

/// Services, namespaces and ports (RFC 1123).
pub const LABEL: Rule = Rule {
    spelling: "at most 63 lower-case letters, digits and -, with a letter or digit at both ends",
    bytes_max: 63,
    is_one: is_label,
};

/// Nodes and EndpointSlices (RFC 1123).
pub const SUBDOMAIN: Rule = Rule {
    spelling: "at most 253 lower-case letters, digits, - and ., with a letter or digit at both ends and around each dot",
    bytes_max: 253,
    is_one: |text| text.split('.').all(is_label),
};

/// Values of labels, zones among them.
pub const LABEL_VALUE: Rule = Rule {
    spelling: "at most 63 letters, digits, -, _ and ., with a letter or digit at both ends",
    bytes_max: 63,
    is_one: |text| {
        has_ends(text, char::is_alphanumeric) && text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c))
    },
};

impl Rule {
    pub fn holds_for(&self, text: &str) -> bool {
        text.len() <= self.bytes_max && text.is_ascii() && (self.is_one)(text)
    }
}

fn is_label(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    has_ends(text, is_plain) && text.chars().all(|c| is_plain(c) || c == '-')
}

fn has_ends(text: &str, is_end: impl Fn(char) -> bool) -> bool {
    text.starts_with(&is_end) && text.ends_with(is_end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api_server() {
        let long = "a".repeat(63);
        for name in ["a", "web", "0", "9-lives", "a-b-c", &long] {
            assert!(LABEL.holds_for(name) && SUBDOMAIN.holds_for(name) && LABEL_VALUE.holds_for(name), "{name}");
        }
        for name in ["node-1.example.com", &format!("{long}.{long}"), "10.0.0.1"] {
            assert!(SUBDOMAIN.holds_for(name) && !LABEL.holds_for(name), "{name}");
        }
        for value in ["Zone_A", "eu-central-1a", "A.b"] {
            assert!(LABEL_VALUE.holds_for(value), "{value}");
        }
        for name in [
            "",
            "-a",
            "a-",
            ".a",
            "a.",
            "a..b",
            "a b",
            "a\nb",
            "a\u{1b}[31mb",
            "a\u{7}",
            "a\u{202e}b",
            "ä",
            "١",
            "a/b",
            &"a".repeat(254),
        ] {
            assert!(!LABEL.holds_for(name) && !SUBDOMAIN.holds_for(name), "{name:?}");
        }
        for name in ["", "Web", "a_b", &"a".repeat(64)] {
            assert!(!LABEL.holds_for(name), "{name:?}");
        }
    }
}
