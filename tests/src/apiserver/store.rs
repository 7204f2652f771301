//! Objects and how they came about, as etcd keeps them: every write has a version, and old ones can be read until the
//! history is compacted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::resource::Resource;

/// An object without kind and apiVersion, as it stands in lists.
type Object = Arc<Value>;

/// Versions of one object, oldest first; `None` is its deletion.
type History = Vec<(u64, Option<Object>)>;

/// The history of all objects.
#[derive(Debug, Default)]
pub struct Store {
    version: u64,
    compacted: u64,
    objects: BTreeMap<(Resource, String), History>,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    pub version: u64,
    pub before: Option<Object>,
    pub after: Option<Object>,
}

impl Store {
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The version of the last write to the resource.
    pub fn version_of(&self, resource: Resource) -> u64 {
        let histories = self.objects.iter().filter(|((of, _), _)| *of == resource);
        histories.filter_map(|(_, history)| history.last()).map(|(version, _)| *version).max().unwrap_or(0)
    }

    /// The next write has this version: to repeat a history that was recorded.
    pub fn continue_at(&mut self, version: u64) {
        self.skip_to(version - 1);
    }

    /// The newest version is this one: something else was written.
    pub fn skip_to(&mut self, version: u64) {
        assert!(version >= self.version, "versions only grow");
        self.version = version;
    }

    /// Creates or replaces an object; what the server would add is added.
    pub fn put(&mut self, mut object: Value) {
        let resource = Resource::of(&object);
        let fields = object.as_object_mut().expect("an object is a map");
        fields.remove("kind");
        fields.remove("apiVersion");
        self.version += 1;
        let version = self.version;
        if resource != Resource::Nodes && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = resource.key(&text("namespace"), &text("name"));
        let history = self.objects.entry((resource, key)).or_default();
        let before = history.last().and_then(|(_, object)| object.clone());
        let metadata = &mut object["metadata"];
        let inherited = |field: &str| before.as_ref().map(|before| before["metadata"][field].clone());
        if metadata["uid"].is_null() {
            let new = json!(format!("00000000-0000-4000-8000-{version:012}"));
            metadata["uid"] = inherited("uid").unwrap_or(new);
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = inherited("creationTimestamp").unwrap_or(json!("2026-01-01T00:00:00Z"));
        }
        metadata["resourceVersion"] = json!(version.to_string());
        history.push((version, Some(Arc::new(object))));
    }

    /// Deletes an object. Says whether it was there.
    pub fn delete(&mut self, resource: Resource, namespace: &str, name: &str) -> bool {
        let Some(history) = self.objects.get_mut(&(resource, resource.key(namespace, name))) else { return false };
        if history.last().is_none_or(|(_, object)| object.is_none()) {
            return false;
        }
        self.version += 1;
        history.push((self.version, None));
        true
    }

    /// Forgets the past.
    pub fn compact(&mut self) {
        // A write of nothing: positions that are as new as the last real write are too old as well.
        self.version += 1;
        self.compacted = self.version;
    }

    /// The oldest version that can still be read.
    pub const fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Objects of the resource as they were at a version, by key.
    pub fn list(&self, resource: Resource, version: u64) -> impl Iterator<Item = (&str, &Object)> {
        self.objects.iter().filter(move |((of, _), _)| *of == resource).filter_map(move |((_, key), history)| {
            let (_, object) = history.iter().rev().find(|(written, _)| *written <= version)?;
            Some((key.as_str(), object.as_ref()?))
        })
    }

    /// Writes to the resource after a version, oldest first.
    pub fn writes(&self, resource: Resource, after: u64) -> Vec<Write> {
        let mut writes = Vec::new();
        for ((of, _), history) in &self.objects {
            let is_later = *of == resource && history.last().is_some_and(|(version, _)| *version > after);
            if !is_later {
                continue;
            }
            let mut before: Option<Object> = None;
            for (version, object) in history {
                if *version > after {
                    let before = before.clone();
                    writes.push(Write { version: *version, before, after: object.clone() });
                }
                before.clone_from(object);
            }
        }
        writes.sort_by_key(|write| write.version);
        writes
    }

    /// All objects as they are, with kind and apiVersion.
    pub fn objects(&self) -> Vec<Value> {
        let of =
            |resource: Resource| self.list(resource, self.version).map(move |(_, object)| with_kind(resource, object));
        Resource::ALL.into_iter().flat_map(of).collect()
    }
}

/// The object as it stands alone: with kind and apiVersion.
pub fn with_kind(resource: Resource, object: &Value) -> Value {
    let mut object = object.clone();
    object["kind"] = json!(resource.kind());
    object["apiVersion"] = json!(resource.api_version());
    object
}
