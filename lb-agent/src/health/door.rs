//! The only access to the sockets of health checks. A fake replaces them in tests and can fail on purpose.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::desired::HealthCheck;

/// The checks that are answered, by address.
pub type Checks = Arc<BTreeMap<SocketAddr, HealthCheck>>;

/// What a listener is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// The node as a whole: `--healthz`.
    Node,
    /// The Service that has this address in [`Checks`].
    Service,
}

/// Opens and closes listeners.
pub trait Door: Send {
    /// Replaces what listeners answer about Services.
    fn tell(&mut self, checks: Checks);
    /// Listens and answers from now on.
    fn open(&mut self, at: SocketAddr, asked: Asked) -> io::Result<()>;
    /// Stops listening, and ends the connections of the listener.
    fn close(&mut self, at: SocketAddr, asked: Asked);
}
