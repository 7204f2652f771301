//! Names of objects: cheap to clone, sorted by namespace, then name.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Namespace and name of an object. The namespace is empty for kinds without one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ObjectName {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// A number that represents the name if there is no room for the name itself. It is the same in every version and
    /// never 0.
    pub fn tag(&self) -> u32 {
        // Names and namespaces contain no slash.
        let bytes = self.namespace.bytes().chain([b'/']).chain(self.name.bytes());
        // FNV-1a, folded. The standard library's `Hasher` may change.
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        ((hash ^ hash >> 32) as u32).max(1)
    }
}

impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        // Names are compared more often than anything else, and objects of one namespace share its text.
        let namespaces = if Arc::ptr_eq(&self.namespace, &other.namespace) {
            Ordering::Equal
        } else {
            self.namespace.cmp(&other.namespace)
        };
        namespaces.then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}
