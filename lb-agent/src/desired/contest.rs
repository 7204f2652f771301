//! Decides which Service gets an address, port and protocol that several claims name.
//!
//! First, a claim that serves any client beats one that leaves all clients to the balancer, which loses nothing
//! (IPM-53). Next, the source of the address decides: the cluster (cluster address), the balancer's controller
//! (status), the author of the Service (externalIPs), then node ports. Next, the current holder wins; last, the oldest
//! Service. So an author of a Service, however old, cannot take over an address that works for another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claim::Rank;
use super::contender::{Contender, Key};
use super::incumbent::Incumbents;
use super::port_rows::PortRows;
use super::service_rows::{FamilyRows, ServiceRows};
use super::warnings;
use crate::dense;
use crate::family::TableAddr;
use crate::model::{ObjectName, Warning};

/// A claim that another one beats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    key: Key,
    rank: Rank,
    /// May be the Service itself, with a claim of another rank.
    winner: Arc<ObjectName>,
}

/// The losses of Services that have any.
pub type Losses = BTreeMap<Arc<ObjectName>, Vec<Loss>>;

/// The claims of all Services.
#[derive(Debug)]
pub struct Contests {
    claims: BTreeSet<Contender>,
    /// Keys with more than one claim.
    contested: BTreeSet<Key>,
    /// Sorts before all names.
    no_name: Arc<ObjectName>,
}

impl Default for Contests {
    fn default() -> Self {
        Self { claims: BTreeSet::new(), contested: BTreeSet::new(), no_name: Arc::new(ObjectName::new("", "")) }
    }
}

impl Contests {
    /// Replaces the claims of a Service.
    pub fn replace(&mut self, old: &ServiceRows, new: &ServiceRows) {
        if !old.contenders().eq(new.contenders()) {
            self.remove(old);
            self.add(new);
        }
    }

    fn add(&mut self, rows: &ServiceRows) {
        for claim in rows.contenders() {
            let key = claim.key;
            if self.claims.insert(claim) && self.claims_to(key).nth(1).is_some() {
                self.contested.insert(key);
            }
        }
    }

    fn remove(&mut self, rows: &ServiceRows) {
        for claim in rows.contenders() {
            self.claims.remove(&claim);
            if self.contested.contains(&claim.key) && self.claims_to(claim.key).nth(1).is_none() {
                self.contested.remove(&claim.key);
            }
        }
    }

    pub fn condense(&mut self) {
        dense::fill_set(&mut self.claims);
    }

    /// Decides every contest.
    pub fn losses(&self, incumbents: &Incumbents<'_>) -> Losses {
        let mut losses = Losses::new();
        for key in &self.contested {
            let Some(winner) = self.winner(*key, incumbents) else { continue };
            let beaten =
                self.claims_to(*key).filter(|claim| (&claim.service, claim.rank) != (&winner.service, winner.rank));
            for Contender { key, rank, service, .. } in beaten {
                let loss = Loss { key: *key, rank: *rank, winner: Arc::clone(&winner.service) };
                losses.entry(Arc::clone(service)).or_default().push(loss);
            }
        }
        losses
    }

    fn winner(&self, key: Key, incumbents: &Incumbents<'_>) -> Option<&Contender> {
        let best = self.claims_to(key).next()?;
        let mut level = self.claims_to(key).take_while(|claim| claim.is_level_with(best));
        level.find(|claim| incumbents.has(key, &claim.service)).or(Some(best))
    }

    fn claims_to(&self, key: Key) -> impl Iterator<Item = &Contender> {
        let service = Arc::clone(&self.no_name);
        let first = Contender { key, is_left: false, rank: Rank::Cluster, created_secs: i64::MIN, service };
        self.claims.range(first..).take_while(move |claim| claim.key == key)
    }
}

/// The rows of a Service without the addresses that it has lost, and with a warning for each of these.
pub fn without(rows: &ServiceRows, losses: &[Loss]) -> ServiceRows {
    let mut warnings = Vec::new();
    let lost: BTreeMap<(Key, Rank), &ObjectName> =
        losses.iter().map(|loss| ((loss.key, loss.rank), &*loss.winner)).collect();
    let v4 = left(&rows.name, &rows.v4, &lost, &mut warnings);
    let v6 = left(&rows.name, &rows.v6, &lost, &mut warnings);
    rows.with(v4, v6, warnings)
}

fn left<A: TableAddr>(
    service: &ObjectName,
    rows: &FamilyRows<A>,
    lost: &BTreeMap<(Key, Rank), &ObjectName>,
    warnings: &mut Vec<Warning>,
) -> FamilyRows<A> {
    let left_of = |port: &PortRows<A>| {
        let mut port = port.clone();
        port.frontends.retain(|row| {
            let winner = lost.get(&(row.named(), row.claim.rank));
            // A claim that leaves all clients to the balancer has lost nothing.
            let told = winner.filter(|winner| ***winner != *service && row.claim.is_served());
            warnings.extend(told.map(|winner| warnings::duplicate(service, &row.key, &row.claim, winner)));
            winner.is_none()
        });
        (!port.frontends.is_empty()).then_some(port)
    };
    FamilyRows::of(rows.ports.iter().filter_map(left_of).collect())
}
