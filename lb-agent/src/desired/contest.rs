//! Decides which Service gets an address, port and protocol that several claims name.
//!
//! First, a claim that serves any client beats one that leaves all clients to the balancer, which loses nothing
//! (IPM-53). Next, the source of the address decides: the cluster (cluster address), the balancer's controller
//! (status), the author of the Service (externalIPs), then node ports. Next, the current holder wins; last, the oldest
//! Service. So an author of a Service, however old, cannot take over an address that works for another.

use std::collections::HashMap;
use std::net::IpAddr;

use lb_common::addr::{Family, Proto};

use super::claim::{Claim, Rank};
use super::incumbent::Incumbents;
use crate::model::{ObjectName, Service};

type Key = (IpAddr, u16, Proto);

/// The winners, only for addresses that several claims name.
pub struct Contests<'a>(HashMap<Key, Contender<'a>>);

/// A claim to a key.
#[derive(Clone, Copy)]
struct Contender<'a> {
    service: &'a ObjectName,
    serves: bool,
    rank: Rank,
}

impl<'a> Contests<'a> {
    /// `claimants` are sorted by age, oldest first.
    pub fn of(claimants: &[(&'a Service, Vec<Claim>)], incumbents: &Incumbents<'_>) -> Self {
        let mut names = HashMap::<IpAddr, u32>::new();
        for ip in claimants.iter().flat_map(claims_of).map(|(_, claim)| claim.ip) {
            *names.entry(ip).or_default() += 1;
        }
        names.retain(|_, count| *count > 1);
        let mut winners = HashMap::<Key, Contender<'a>>::new();
        for (service, claim) in claimants.iter().flat_map(claims_of).filter(|(_, claim)| names.contains_key(&claim.ip))
        {
            let contender = Contender { service: &service.name, serves: claim.is_served(), rank: claim.rank };
            for port in &service.ports {
                let Some(number) = claim.port(port) else { continue };
                let key = (claim.ip, number, port.proto);
                let winner = winners.entry(key).or_insert(contender);
                if contender.beats(winner, key, incumbents) {
                    *winner = contender;
                }
            }
        }
        Self(winners)
    }

    /// The Service that holds a key of this claim, if another claim won it.
    pub fn winner_over(&self, service: &Service, claim: &Claim, key: Key) -> Option<&'a ObjectName> {
        let winner = self.0.get(&key)?;
        let is_own = *winner.service == service.name && winner.rank == claim.rank;
        (!is_own).then_some(winner.service)
    }
}

/// The claims of a Service in the families that it has.
fn claims_of<'a, 'b>(
    (service, claims): &'b (&'a Service, Vec<Claim>),
) -> impl Iterator<Item = (&'a Service, &'b Claim)> {
    let has_family = |ip: IpAddr| service.has_family(if ip.is_ipv4() { Family::V4 } else { Family::V6 });
    claims.iter().filter(move |claim| has_family(claim.ip)).map(|claim| (*service, claim))
}

impl Contender<'_> {
    /// Whether this contender takes the key from an older one.
    fn beats(&self, older: &Self, key: Key, incumbents: &Incumbents<'_>) -> bool {
        let has = |contender: &Self| incumbents.has(key, contender.service);
        match (!self.serves, self.rank).cmp(&(!older.serves, older.rank)) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => self.service != older.service && has(self) && !has(older),
        }
    }
}
