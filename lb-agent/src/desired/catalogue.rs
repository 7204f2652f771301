//! The rows of every Service: computed once, and shared until something changes that they depend on.
//!
//! [`refresh`](Catalogue::refresh) computes the rows of each Service by itself. [`resolve`](Catalogue::resolve) decides
//! over all of them which Service gets a contested address and which get room. A Service whose resolved rows stay the
//! same keeps the same allocation, so a difference by identity finds what must be written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lb_common::addr::Family;

use super::build;
use super::contest::{self, Contests, Losses};
use super::demand::Bound;
use super::facts::Facts;
use super::grant::{self, Applicant, Grants};
use super::incumbent::Incumbents;
use super::ledger;
use super::node_port;
use super::policy::{Limits, Policy};
use super::service_rows::ServiceRows;
use super::table::Desired;
use crate::model::{ObjectName, Warning, World};

/// All Services or some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    Everything,
    Services(BTreeSet<ObjectName>),
}

/// All Services, by name.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: BTreeMap<ObjectName, Entry>,
    contests: Contests,
    losses: Losses,
    /// Services whose rows, losses or grants differ from those of the last resolution.
    concerned: BTreeSet<ObjectName>,
    /// The warnings about Services that have any.
    warnings: BTreeMap<ObjectName, Vec<Warning>>,
    /// Number of Services with node ports for which this node has no address, by family.
    unaddressed: BTreeMap<Family, usize>,
}

/// One Service, from what it asks for to what the tables hold. Usually all of these are the same allocation.
#[derive(Debug)]
struct Entry {
    /// The rows if there were no other Service.
    rows: Arc<ServiceRows>,
    /// The rows at addresses that no other Service has.
    won: Arc<ServiceRows>,
    /// What `won` takes, by family.
    bounds: [Bound; 2],
    /// `None`: everything.
    grants: Option<Box<Grants>>,
    /// The rows to write.
    granted: Arc<ServiceRows>,
    /// The rows that the tables hold, as far as known.
    settled: Option<Arc<ServiceRows>>,
    /// The Service was removed. The entry stays until its rows are.
    is_gone: bool,
}

impl Entry {
    fn new(rows: &Arc<ServiceRows>) -> Self {
        Self {
            rows: Arc::clone(rows),
            won: Arc::clone(rows),
            bounds: rows.bounds(),
            grants: None,
            granted: Arc::clone(rows),
            settled: None,
            is_gone: false,
        }
    }

    /// Whether the tables hold these rows.
    fn holds(&self, rows: &Arc<ServiceRows>) -> bool {
        self.settled.as_ref().is_some_and(|settled| Arc::ptr_eq(settled, rows))
    }
}

impl Catalogue {
    /// Computes the rows of these Services. Returns the number of Services.
    pub fn refresh(&mut self, stale: &Extent, world: &World, policy: &Policy) -> usize {
        let facts = Facts::of(world, policy);
        match stale {
            Extent::Services(names) => {
                for name in names {
                    self.renew(name, &facts);
                }
                names.len()
            }
            Extent::Everything => {
                let gone = self.entries.keys().filter(|name| !world.services().contains_key(*name));
                let names: Vec<ObjectName> = gone.chain(world.services().keys()).cloned().collect();
                for name in &names {
                    self.renew(name, &facts);
                }
                names.len()
            }
        }
    }

    fn renew(&mut self, name: &ObjectName, facts: &Facts<'_>) {
        let service = facts.world.services().get(name);
        if service.is_none() && !self.entries.contains_key(name) {
            return;
        }
        let nothing = || ServiceRows::nothing(Arc::new(name.clone()));
        let slices: Vec<_> = facts.world.live_slices_of(name).collect();
        let rows = Arc::new(service.map_or_else(nothing, |service| ServiceRows::of(service, &slices, facts)));
        let entry = self.entries.entry(name.clone()).or_insert_with(|| Entry::new(&Arc::new(nothing())));
        entry.is_gone = service.is_none();
        if *entry.rows == *rows {
            return;
        }
        self.contests.replace(&entry.rows, &rows);
        for family in &entry.rows.unaddressed {
            self.unaddressed.entry(*family).and_modify(|count| *count -= 1);
        }
        for family in &rows.unaddressed {
            *self.unaddressed.entry(*family).or_default() += 1;
        }
        entry.rows = rows;
        self.concerned.insert(name.clone());
    }

    /// Decides who gets contested addresses and who gets room.
    pub fn resolve(&mut self, limits: &Limits, incumbents: &Incumbents<'_>) {
        self.decide_contests(incumbents);
        if self.fits(limits, incumbents) {
            self.grant_everything();
        } else {
            self.grant_what_fits(limits, incumbents);
        }
        for name in std::mem::take(&mut self.concerned) {
            let Some(entry) = self.entries.get(&name) else { continue };
            let left_out = entry.grants.iter().flat_map(|grants| grants.warnings(&name));
            let warnings: Vec<Warning> = entry.won.all_warnings().cloned().chain(left_out).collect();
            if warnings.is_empty() {
                self.warnings.remove(&name);
            } else {
                self.warnings.insert(name, warnings);
            }
        }
    }

    fn decide_contests(&mut self, incumbents: &Incumbents<'_>) {
        let losses = self.contests.losses(incumbents);
        let losers = losses.keys().chain(self.losses.keys());
        let differing = losers.filter(|name| losses.get(*name) != self.losses.get(*name));
        self.concerned.extend(differing.map(|name| (**name).clone()));
        for name in &self.concerned {
            let Some(entry) = self.entries.get_mut(name) else { continue };
            entry.won = match losses.get(name) {
                None => Arc::clone(&entry.rows),
                Some(losses) => same_or_new(&entry.won, contest::without(&entry.rows, losses)),
            };
            entry.bounds = entry.won.bounds();
        }
        self.losses = losses;
    }

    /// Whether everything fits for certain: even if no pools were shared, and in the share of a single namespace.
    fn fits(&self, limits: &Limits, incumbents: &Incumbents<'_>) -> bool {
        let limits = limits.of_namespace();
        let (mut all, mut unsettled) = ([Bound::default(); 2], [Bound::default(); 2]);
        for entry in self.entries.values() {
            let is_settled = entry.holds(&entry.won);
            for (family, bound) in entry.bounds.iter().enumerate() {
                all[family].add(bound);
                if !is_settled {
                    unsettled[family].add(bound);
                }
            }
        }
        let ids = all[0].frontends + all[1].frontends;
        let there = [incumbents.frontends::<[u8; 4]>(), incumbents.frontends::<[u8; 16]>()];
        let mut families = all.iter().zip(unsettled.iter().zip(there));
        families.all(|(all, (unsettled, there))| ledger::fits(all, there + unsettled.frontends, &limits, ids))
    }

    fn grant_everything(&mut self) {
        for (name, entry) in &mut self.entries {
            if entry.grants.take().is_some() {
                self.concerned.insert(name.clone());
            }
            if !Arc::ptr_eq(&entry.granted, &entry.won) {
                entry.granted = Arc::clone(&entry.won);
            }
        }
    }

    fn grant_what_fits(&mut self, limits: &Limits, incumbents: &Incumbents<'_>) {
        let mut entries: Vec<&mut Entry> = self.entries.values_mut().collect();
        // The sort is stable, and the map is sorted by name.
        entries.sort_by_key(|entry| entry.rows.created_secs);
        let applicants: Vec<Applicant<'_>> =
            entries.iter().map(|entry| Applicant { rows: &entry.won, is_settled: entry.holds(&entry.won) }).collect();
        let grants = grant::grants(&applicants, limits, incumbents);
        for (entry, grants) in entries.into_iter().zip(grants) {
            let grants = (grants != Grants::ALL).then(|| Box::new(grants));
            entry.granted = match &grants {
                None => Arc::clone(&entry.won),
                Some(grants) => same_or_new(&entry.granted, grants.of(&entry.won, incumbents)),
            };
            if entry.grants != grants {
                self.concerned.insert((*entry.rows.name).clone());
                entry.grants = grants;
            }
        }
    }

    /// The Services whose resolved rows are not those that the tables hold.
    pub fn unsettled(&self) -> BTreeSet<ObjectName> {
        let unsettled = self.entries.iter().filter(|(_, entry)| !entry.holds(&entry.granted));
        unsettled.map(|(name, _)| name.clone()).collect()
    }

    /// The rows of a Service that the tables hold, as far as known.
    pub fn settled(&self, name: &ObjectName) -> Option<&ServiceRows> {
        self.entries.get(name)?.settled.as_deref()
    }

    /// The tables now hold the resolved rows of every Service.
    pub fn settle(&mut self) {
        self.entries.retain(|_, entry| {
            if !entry.holds(&entry.granted) {
                entry.settled = Some(Arc::clone(&entry.granted));
            }
            !entry.is_gone
        });
    }

    /// It is unknown what the tables hold.
    pub fn unsettle(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.settled = None);
    }

    /// The resolved rows of these Services as tables, the oldest Service first.
    pub fn tables(&self, extent: &Extent) -> Desired {
        let mut services: Vec<&ServiceRows> = match extent {
            Extent::Everything => self.entries.values().map(|entry| &*entry.granted).collect(),
            Extent::Services(names) => {
                names.iter().filter_map(|name| self.entries.get(name)).map(|entry| &*entry.granted).collect()
            }
        };
        // The sort is stable, and the Services are sorted by name.
        services.sort_by_key(|rows| rows.created_secs);
        build::tables(services.into_iter())
    }

    /// What could not be done as written.
    pub fn warnings(&self, policy: &Policy) -> impl Iterator<Item = Warning> {
        let missed = self.unaddressed.iter().filter(|(_, count)| **count > 0);
        let node = missed.map(|(family, _)| node_port::no_address(&policy.node_name, *family));
        node.chain(self.warnings.values().flatten().cloned())
    }
}

/// The old rows if the new ones are equal.
fn same_or_new(old: &Arc<ServiceRows>, new: ServiceRows) -> Arc<ServiceRows> {
    if **old == new { Arc::clone(old) } else { Arc::new(new) }
}

#[cfg(test)]
mod tests;
