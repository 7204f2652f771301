//! Who has an address, port and protocol that several claims name.
//!
//! In this order: a claim that serves somebody before one that leaves all to the balancer, which takes nothing and loses
//! nothing (IPM-53); then by who assigned the address: the cluster (cluster address), the balancer's controller (status),
//! whoever wrote the Service (externalIPs), and node ports last; then whoever has it already; then the oldest.
//! So whoever may edit a Service, however old, takes from nobody what works.

use std::collections::HashMap;
use std::net::IpAddr;

use lb_common::addr::{Family, Proto};

use super::claim::{Claim, Rank};
use super::incumbent::Incumbents;
use crate::model::{ObjectName, Service};

type Key = (IpAddr, u16, Proto);

/// The winners. Only of addresses that several Services name, or one in two ways: of others there is no question.
pub struct Contests<'a>(HashMap<Key, Contender<'a>>);

/// A claim to a key.
#[derive(Clone, Copy)]
struct Contender<'a> {
    service: &'a ObjectName,
    serves: bool,
    rank: Rank,
}

impl<'a> Contests<'a> {
    /// `claimants` are in order of age.
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

    /// Who has a key that this claim names, where it is another claim.
    pub fn winner_over(&self, service: &Service, claim: &Claim, key: Key) -> Option<&'a ObjectName> {
        let winner = self.0.get(&key)?;
        let is_own = *winner.service == service.name && winner.rank == claim.rank;
        (!is_own).then_some(winner.service)
    }
}

/// The claims of a Service that count: those of families that it has.
fn claims_of<'a, 'b>(
    (service, claims): &'b (&'a Service, Vec<Claim>),
) -> impl Iterator<Item = (&'a Service, &'b Claim)> {
    let has_family = |ip: IpAddr| service.has_family(if ip.is_ipv4() { Family::V4 } else { Family::V6 });
    claims.iter().filter(move |claim| has_family(claim.ip)).map(|claim| (*service, claim))
}

impl Contender<'_> {
    /// Whether it takes the key from an older claim.
    fn beats(&self, older: &Self, key: Key, incumbents: &Incumbents<'_>) -> bool {
        let has = |contender: &Self| incumbents.has(key, contender.service);
        match (!self.serves, self.rank).cmp(&(!older.serves, older.rank)) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => self.service != older.service && has(self) && !has(older),
        }
    }
}
