//! Listeners in memory, and ports that are taken by others.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::door::{Asked, Checks, Door};

/// The sockets, shared by the keeper and the test.
#[derive(Clone, Debug, Default)]
pub struct FakeSockets(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    checks: Checks,
    open: BTreeSet<(SocketAddr, Asked)>,
    taken: BTreeSet<u16>,
    opened: usize,
}

impl FakeSockets {
    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other programs listen on these ports, and on no others.
    pub fn take(&self, ports: &[u16]) {
        self.with(|state| state.taken = ports.iter().copied().collect());
    }

    /// The open listeners: address, and the number of endpoints that is answered there.
    pub fn open(&self) -> Vec<(String, Option<usize>)> {
        self.with(|state| {
            let open = state.open.iter().map(|(at, asked)| match asked {
                Asked::Node => (at.to_string(), None),
                Asked::Service => (at.to_string(), Some(state.checks[at].local_endpoints)),
            });
            open.collect()
        })
    }

    /// How often a listener was opened since the last call.
    pub fn opened(&self) -> usize {
        self.with(|state| std::mem::take(&mut state.opened))
    }
}

impl Door for FakeSockets {
    fn tell(&mut self, checks: Checks) {
        self.with(|state| state.checks = checks);
    }

    fn open(&mut self, at: SocketAddr, asked: Asked) -> io::Result<()> {
        self.with(|state| {
            let is_ours = state.open.iter().any(|(ours, _)| *ours == at);
            if is_ours || state.taken.contains(&at.port()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            assert!(asked == Asked::Node || state.checks.contains_key(&at), "{at} has no answer yet");
            state.open.insert((at, asked));
            state.opened += 1;
            Ok(())
        })
    }

    fn close(&mut self, at: SocketAddr, asked: Asked) {
        assert!(self.with(|state| state.open.remove(&(at, asked))), "{at} is not open");
    }
}
