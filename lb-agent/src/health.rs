//! Health checks from the network: health check node ports of Services, and `--healthz` for the node as a whole. The
//! answers are those of kube-proxy (docs/contract.md#health-checks).
//!
//! The [`Keeper`] decides where to listen and what to answer. A [`Server`] with a thread of its own speaks HTTP, so that
//! neither the loop nor large pages of `--http` delay an answer.

mod answer;
mod door;
#[cfg(test)]
pub mod fake;
mod keeper;
mod limits;
mod server;

pub use door::{Asked, Door};
pub use keeper::Keeper;
pub use limits::Limits;
pub use server::{Listeners, Server, listeners};
