//! Annotations of Services, limited to what policy reads, because a Service may carry a quarter of a MiB of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bytes of a value that are kept: several times what any annotation that we read needs.
const VALUE_MAX: usize = 4_096;

/// The annotations that policy reads. No others are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnotationKeys(BTreeSet<Arc<str>>);

impl FromIterator<Arc<str>> for AnnotationKeys {
    fn from_iter<T: IntoIterator<Item = Arc<str>>>(keys: T) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// The annotations of an object that are kept, and those that were too long.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub annotations: BTreeMap<Arc<str>, Arc<str>>,
    /// Keys whose values were cut to `VALUE_MAX` bytes.
    pub cut: Vec<Arc<str>>,
}

impl AnnotationKeys {
    /// Selects and cuts the annotations of an object.
    pub fn keep(&self, annotations: &BTreeMap<String, String>) -> Kept {
        let mut kept = Kept::default();
        for key in &self.0 {
            let Some(value) = annotations.get(&**key) else { continue };
            let end = value.floor_char_boundary(VALUE_MAX);
            if end < value.len() {
                kept.cut.push(Arc::clone(key));
            }
            kept.annotations.insert(Arc::clone(key), value[..end].into());
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_read_is_kept_and_no_more_than_it_needs() {
        let keys: AnnotationKeys = ["a/read", "a/long", "a/absent"].into_iter().map(Arc::from).collect();
        let long = "ä".repeat(100_000);
        let given = [("a/read", "x"), ("a/long", long.as_str()), ("b/notes", long.as_str())];
        let given = given.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let Kept { annotations, cut } = keys.keep(&given);
        let bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(annotations.keys().map(|key| &**key).collect::<Vec<_>>(), ["a/long", "a/read"]);
        assert!(bytes < VALUE_MAX + 100 && annotations["a/long"].chars().all(|c| c == 'ä'), "{bytes} bytes");
        assert_eq!((&*annotations["a/read"], cut), ("x", vec!["a/long".into()]));
        assert_eq!(AnnotationKeys::default().keep(&given), Kept::default());
    }
}
