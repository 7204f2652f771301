//! The API of a Kubernetes server that tests use, for either server: they write and read objects, and the agent can
//! follow it.
//!
//! [`ApiServer`](crate::apiserver::ApiServer) is the tests' own and misbehaves on demand;
//! [`Kubernetes`](crate::kubernetes) is the real one.

mod client;

use std::path::PathBuf;

use serde_json::Value;

use crate::apiserver::Resource;

pub use client::{Answer, Client, Method};

/// A server of the Kubernetes API.
pub trait Api: Send + Sync {
    /// The kubeconfig with which the agent finds the server and authenticates.
    fn kubeconfig(&self) -> PathBuf;

    /// Creates or replaces the object, and its status if it has one.
    fn put(&self, object: Value);

    /// Deletes the object. Returns whether it existed.
    fn delete(&self, resource: Resource, namespace: &str, name: &str) -> bool;

    /// All current objects, with kind and apiVersion.
    fn objects(&self) -> Vec<Value>;

    /// Stops the server: connections break, new ones are refused.
    fn stop(&mut self);

    /// Starts it again on the same address, with the same objects. Call this in the network namespace of the start.
    fn resume(&mut self);
}
