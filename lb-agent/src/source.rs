//! Sources of objects. They report batches of [`Change`](crate::model::Change)s.
//!
//! Only this folder uses the Kubernetes types.

pub mod address;
pub mod claim;
pub mod connection;
pub mod convert;
pub mod dir;
pub mod kube;
pub mod names;
pub mod progress;
pub mod settings;
#[cfg(test)]
pub mod written;
