//! Writes objects to an API server by requests, as controllers do.

use serde_json::{Value, json};

use crate::api::{Answer, Client, Method};
use crate::apiserver::Resource;

/// How often a write is tried if other writes conflict with it.
const TRIES: usize = 5;

/// Creates or replaces the object, then its status if it has one.
#[track_caller]
pub fn put(client: &Client, object: &Value) {
    let mut written = None;
    for _ in 0..TRIES {
        let answer = write(client, object);
        if answer.status != 409 {
            written = Some(answer.good());
            break;
        }
    }
    let mut written = written.expect("nobody else writes the object all the time");
    if object["status"].is_object() {
        written["status"] = object["status"].clone();
        client.send(&Method::PUT, &format!("{}/status", path(object)), &written).good();
    }
}

fn write(client: &Client, object: &Value) -> Answer {
    let found = client.get(&path(object));
    if found.status == 404 {
        return client.send(&Method::POST, &collection(object), object);
    }
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = found.good()["metadata"]["resourceVersion"].clone();
    client.send(&Method::PUT, &path(&object), &object)
}

/// Applies the object as `kubectl apply --server-side` does, every field checked; `more` are further parameters.
#[track_caller]
pub fn apply(client: &Client, object: &Value, more: &str) -> Answer {
    let path = format!("{}?fieldManager=lb-tests&fieldValidation=Strict{more}", path(object));
    let body = Some(("application/apply-patch+yaml", object));
    client.ask(&Method::PATCH, &path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Deletes the object. Returns whether it existed.
#[track_caller]
pub fn delete(client: &Client, resource: Resource, namespace: &str, name: &str) -> bool {
    let (kind, version) = (resource.kind(), resource.api_version());
    let mut object = json!({"kind": kind, "apiVersion": version, "metadata": {"name": name}});
    if resource.is_namespaced() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let path = path(&object);
    let answer = client.ask(&Method::DELETE, &path, None).unwrap_or_else(|error| panic!("{path}: {error}"));
    if answer.status == 404 {
        return false;
    }
    answer.good();
    true
}

/// All objects of the resource, each with kind and apiVersion.
#[track_caller]
pub fn list(client: &Client, resource: Resource) -> Vec<Value> {
    let Value::Array(mut items) = client.get(resource.path()).good()["items"].take() else {
        return Vec::new();
    };
    for item in &mut items {
        item["kind"] = json!(resource.kind());
        item["apiVersion"] = json!(resource.api_version());
    }
    items
}

/// The path of the object.
pub fn path(object: &Value) -> String {
    format!("{}/{}", collection(object), object["metadata"]["name"].as_str().unwrap_or_default())
}

/// The path of the collection of its kind and namespace.
pub fn collection(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let root = if version.contains('/') { "apis" } else { "api" };
    let namespace = object["metadata"]["namespace"].as_str().map(|name| format!("namespaces/{name}/"));
    // Correct for the kinds that the tests write.
    let plural = format!("{}s", text(&object["kind"]).to_lowercase());
    format!("/{root}/{version}/{}{plural}", namespace.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_stand_where_the_api_has_them() {
        let object = |version: &str, kind: &str, metadata: Value| {
            path(&json!({"apiVersion": version, "kind": kind, "metadata": metadata}))
        };
        let slice = object("discovery.k8s.io/v1", "EndpointSlice", json!({"name": "a", "namespace": "b"}));
        assert_eq!(slice, "/apis/discovery.k8s.io/v1/namespaces/b/endpointslices/a");
        assert_eq!(object("v1", "Node", json!({"name": "a"})), "/api/v1/nodes/a");
    }
}
