//! The rows of one Service port in one family.

use lb_common::client::PerClient;
use lb_common::table::FrontendKey;

use super::access::Access;
use super::claim::Claim;
use super::contender::Key;
use super::scope::Treatment;
use super::selection::Selection;
use super::usable::Usable;
use crate::family::TableAddr;
use crate::model::{ServicePort, Warning};

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRows<A> {
    pub port: ServicePort,
    pub usable: Usable<A>,
    pub selection: Selection,
    /// The addresses to write, with their decisions. Never empty.
    pub frontends: Vec<FrontendRow<A>>,
    /// The Maglev table has too few slots for the endpoints.
    pub too_small_table: Option<Box<Warning>>,
    /// The endpoints listen on another port, and the protocol is SCTP.
    pub renumbered: Option<Box<Warning>>,
}

/// One address of the port, and the decision for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendRow<A> {
    pub key: FrontendKey<A>,
    pub claim: Claim,
    pub treatments: PerClient<Treatment>,
    pub access: Access<A>,
}

impl<A: TableAddr> PortRows<A> {
    /// The warnings that hold while these rows are served.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        let is_served = self.frontends.iter().any(|row| row.claim.is_served());
        let renumbered = self.renumbered.iter().filter(move |_| is_served);
        self.too_small_table.iter().chain(renumbered).map(|warning| &**warning)
    }
}

impl<A: TableAddr> FrontendRow<A> {
    /// The address, port and protocol that clients dial.
    pub fn named(&self) -> Key {
        (self.claim.ip, self.key.port, self.key.proto)
    }
}
