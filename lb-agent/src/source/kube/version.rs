//! Resource versions: positions in the history of one kind.

use std::cmp::Ordering;

/// A position. The text is opaque and sent back unchanged. Versions are ordered if both are decimal numbers, as those
/// of the API server always are for its own kinds (guaranteed since Kubernetes 1.35).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// `None` if the server sent no version.
    pub fn new(text: Option<String>) -> Option<Self> {
        text.filter(|text| !text.is_empty()).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        let (a, b): (u64, u64) = (self.0.parse().ok()?, other.0.parse().ok()?);
        Some(a.cmp(&b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::new(Some(text.to_owned())).expect("not empty")
    }

    #[test]
    fn numbers_are_ordered_and_the_rest_is_not() {
        assert!(version("9") < version("10"));
        assert_eq!(version("x").partial_cmp(&version("x")), Some(Ordering::Equal));
        assert_eq!(version("x").partial_cmp(&version("10")), None);
        assert_eq!(Version::new(Some(String::new())), None);
    }
}
