//! Session affinity: the backend that a client used last (SA-01 to SA-06).

use std::net::IpAddr;

use super::Reference;
use super::policy::Frontend;
use super::rule::Rule;
use crate::packet::End;

/// A client of a Service port with affinity.
#[derive(Clone, Debug)]
pub struct Client {
    service: u32,
    addr: IpAddr,
    backend: End,
    last_connection_secs: u64,
}

impl Reference {
    /// The backend that a client must get: the one that it used last, if the time-out has not passed and the backend
    /// can still be chosen.
    pub(super) fn kept_backend(&mut self, frontend: &Frontend, addr: IpAddr, backends: &[End]) -> Option<End> {
        if frontend.affinity_secs == 0 {
            return None;
        }
        let Some(client) = self.clients.iter().find(|known| (known.service, known.addr) == (frontend.service, addr))
        else {
            self.hits.hit(Rule::ClientUnknown);
            return None;
        };
        if self.now_secs - client.last_connection_secs >= frontend.affinity_secs {
            self.hits.hit(Rule::ClientForgotten);
            return None;
        }
        if !backends.contains(&client.backend) {
            self.hits.hit(Rule::ClientOfAnotherSet);
            return None;
        }
        self.hits.hit(if backends.len() > 1 { Rule::ClientKept } else { Rule::ClientKeptOnly });
        Some(client.backend)
    }

    /// Each new connection restarts the time-out.
    pub(super) fn remember_client(&mut self, frontend: &Frontend, addr: IpAddr, backend: End) {
        if frontend.affinity_secs == 0 {
            return;
        }
        let is_moved = |known: &Client| {
            (known.service, known.addr) == (frontend.service, addr)
                && known.backend != backend
                && self.now_secs - known.last_connection_secs >= frontend.affinity_secs
        };
        if self.clients.iter().any(is_moved) {
            self.hits.hit(Rule::ClientMoved);
        }
        self.clients.retain(|known| (known.service, known.addr) != (frontend.service, addr));
        self.clients.push(Client { service: frontend.service, addr, backend, last_connection_secs: self.now_secs });
    }
}
