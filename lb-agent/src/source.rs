//! Sources: where objects come from, as batches of [`Change`](crate::model::Change)s.
//!
//! Only this folder names Kubernetes' own types.

pub mod address;
pub mod claim;
pub mod connection;
pub mod convert;
pub mod dir;
pub mod kube;
pub mod names;
pub mod progress;
#[cfg(test)]
pub mod written;
