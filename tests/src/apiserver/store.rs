//! Objects and their history, as etcd keeps them: every write has a version, and old versions can be read until they
//! are compacted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::resource::Resource;

/// An object without kind and apiVersion, as in lists.
type Object = Arc<Value>;

/// Versions of one object, oldest first; `None` is its deletion.
type History = Vec<(u64, Option<Object>)>;

/// The history of all objects.
#[derive(Debug, Default)]
pub struct Store {
    version: u64,
    compacted: u64,
    objects: BTreeMap<(Resource, String), History>,
    /// The writes by version, oldest first, so that a watch reads only new ones.
    log: Vec<(u64, Resource, String)>,
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
        let last = self.log.iter().rev().find(|(_, of, _)| *of == resource);
        last.map_or(0, |(version, _, _)| *version)
    }

    /// Gives the next write this version, to repeat a recorded history.
    pub fn continue_at(&mut self, version: u64) {
        self.skip_to(version - 1);
    }

    /// Raises the newest version, as writes to other resources do.
    pub fn skip_to(&mut self, version: u64) {
        assert!(version >= self.version, "versions only grow");
        self.version = version;
    }

    /// Creates or replaces an object, with the fields that the server would add.
    pub fn put(&mut self, mut object: Value) {
        let resource = Resource::of(&object);
        let fields = object.as_object_mut().expect("an object is a map");
        fields.remove("kind");
        fields.remove("apiVersion");
        self.version += 1;
        let version = self.version;
        if resource.is_namespaced() && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = resource.key(&text("namespace"), &text("name"));
        self.log.push((version, resource, key.clone()));
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

    /// Deletes an object. Returns whether it existed.
    pub fn delete(&mut self, resource: Resource, namespace: &str, name: &str) -> bool {
        let key = resource.key(namespace, name);
        let Some(history) = self.objects.get_mut(&(resource, key.clone())) else { return false };
        if history.last().is_none_or(|(_, object)| object.is_none()) {
            return false;
        }
        self.version += 1;
        history.push((self.version, None));
        self.log.push((self.version, resource, key));
        true
    }

    /// Discards the history.
    pub fn compact(&mut self) {
        // An unrelated write: so even the position of the last real write is too old.
        self.version += 1;
        self.compacted = self.version;
    }

    /// The oldest version that can still be read.
    pub const fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Objects of the resource as they were at a version, by key, beginning at this key.
    pub fn list(&self, resource: Resource, version: u64, from: &str) -> impl Iterator<Item = (&str, &Object)> {
        let rest = self.objects.range((resource, from.to_owned())..);
        rest.take_while(move |((of, _), _)| *of == resource).filter_map(move |((_, key), history)| {
            let (_, object) = history.iter().rev().find(|(written, _)| *written <= version)?;
            Some((key.as_str(), object.as_ref()?))
        })
    }

    /// Writes to the resource after a version, oldest first.
    pub fn writes(&self, resource: Resource, after: u64) -> Vec<Write> {
        let first = self.log.partition_point(|(version, _, _)| *version <= after);
        let written = self.log[first..].iter().filter(|(_, of, _)| *of == resource);
        written.filter_map(|(version, _, key)| self.write(resource, key, *version)).collect()
    }

    fn write(&self, resource: Resource, key: &str, version: u64) -> Option<Write> {
        let history = self.objects.get(&(resource, key.to_owned()))?;
        let index = history.binary_search_by_key(&version, |(written, _)| *written).ok()?;
        let object = |index: usize| history.get(index).and_then(|(_, object)| object.clone());
        let before = index.checked_sub(1).and_then(object);
        Some(Write { version, before, after: object(index) })
    }

    /// All current objects, with kind and apiVersion.
    pub fn objects(&self) -> Vec<Value> {
        let of = |resource: Resource| {
            self.list(resource, self.version, "").map(move |(_, object)| with_kind(resource, object))
        };
        Resource::ALL.into_iter().flat_map(of).collect()
    }
}

/// The object outside a list: with kind and apiVersion.
pub fn with_kind(resource: Resource, object: &Value) -> Value {
    let mut object = object.clone();
    object["kind"] = json!(resource.kind());
    object["apiVersion"] = json!(resource.api_version());
    object
}
