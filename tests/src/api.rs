//! What tests need of a Kubernetes API, whoever serves it: objects go in, come out again, and the agent may follow.
//!
//! [`ApiServer`](crate::apiserver::ApiServer) is ours and misbehaves on demand; [`Kubernetes`](crate::kubernetes) is
//! the real one.

mod client;

use std::path::PathBuf;

use serde_json::Value;

use crate::apiserver::Resource;

pub use client::{Answer, Client, Method};

/// A server of the Kubernetes API.
pub trait Api: Send + Sync {
    /// What the agent reads to find the server, and to be somebody there.
    fn kubeconfig(&self) -> PathBuf;

    /// Creates the object or replaces it, its status included where it has one.
    fn put(&self, object: Value);

    /// Deletes the object. Says whether it was there.
    fn delete(&self, resource: Resource, namespace: &str, name: &str) -> bool;

    /// All objects as they are now, with kind and apiVersion.
    fn objects(&self) -> Vec<Value>;

    /// Goes away: connections break, new ones are refused.
    fn stop(&mut self);

    /// Comes back on the same address, with the same objects. To be called in the network namespace of the start.
    fn resume(&mut self);
}
