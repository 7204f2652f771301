//! The rows of every Service: computed once, and shared until something changes that they depend on.
//!
//! [`refresh`](Catalogue::refresh) computes the rows of each Service by itself. [`resolve`](Catalogue::resolve) decides
//! over all of them which Service gets a contested address and which get room. A Service whose resolved rows stay the
//! same keeps the same allocation, so a difference by identity finds what must be written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lb_common::addr::Family;

use super::applicant::Applicant;
use super::build;
use super::contest::{self, Contests, Losses};
use super::demand::Bound;
use super::facts::Facts;
use super::grant::{self, Grants};
use super::health_check::HealthChecks;
use super::incumbent::Incumbents;
use super::ledger;
use super::node_port;
use super::policy::{Policy, TableLimits};
use super::service_rows::ServiceRows;
use super::table::Desired;
use crate::dense;
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
    entries: BTreeMap<Arc<ObjectName>, Entry>,
    contests: Contests,
    losses: Losses,
    /// Services whose rows, losses or grants differ from those of the last resolution.
    concerned: BTreeSet<Arc<ObjectName>>,
    /// All Services whose won or resolved rows may differ from those that the tables hold.
    changed: BTreeSet<Arc<ObjectName>>,
    /// What all Services take if every one gets the rows that it has won, by family.
    bounds: [Bound; 2],
    /// Some Services do not get all that they have won.
    is_scarce: bool,
    /// The warnings about Services that have any.
    warnings: BTreeMap<Arc<ObjectName>, Vec<Warning>>,
    /// The warnings may differ from those that were asked for last.
    has_other_warnings: bool,
    /// Number of Services with node ports for which this node has no address, by family.
    unaddressed: BTreeMap<Family, usize>,
    /// The Services with health checks.
    checked: BTreeSet<Arc<ObjectName>>,
    /// The health checks may differ from those that were taken last.
    has_other_health_checks: bool,
}

/// One Service, from what it asks for to what the tables hold. Usually all of these are the same allocation.
#[derive(Debug)]
struct Entry {
    /// The rows if there were no other Service.
    rows: Arc<ServiceRows>,
    /// The rows at addresses that no other Service has.
    won: Arc<ServiceRows>,
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
                let gone = self.entries.keys().filter(|name| !world.services().contains_key(&***name));
                let gone: Vec<Arc<ObjectName>> = gone.cloned().collect();
                let names = gone.iter().map(|name| &**name).chain(world.services().keys());
                names.map(|name| self.renew(name, &facts)).count()
            }
        }
    }

    fn renew(&mut self, name: &ObjectName, facts: &Facts<'_>) {
        let service = facts.world.services().get(name);
        let known = self.entries.get_key_value(name).map(|(name, _)| Arc::clone(name));
        if service.is_none() && known.is_none() {
            return;
        }
        let name = known.unwrap_or_else(|| Arc::new(name.clone()));
        let slices: Vec<_> = facts.world.live_slices_of(&name).collect();
        let rows = Arc::new(match service {
            Some(service) => ServiceRows::of(Arc::clone(&name), service, &slices, facts),
            None => ServiceRows::nothing(Arc::clone(&name)),
        });
        let nothing = || Entry::new(&Arc::new(ServiceRows::nothing(Arc::clone(&name))));
        let entry = self.entries.entry(Arc::clone(&name)).or_insert_with(nothing);
        entry.is_gone = service.is_none();
        self.changed.insert(Arc::clone(&name));
        if *entry.rows == *rows {
            return;
        }
        self.contests.replace(&entry.rows, &rows);
        self.has_other_warnings |= entry.rows.unaddressed() != rows.unaddressed();
        for family in entry.rows.unaddressed() {
            self.unaddressed.entry(*family).and_modify(|count| *count -= 1);
        }
        for family in rows.unaddressed() {
            *self.unaddressed.entry(*family).or_default() += 1;
        }
        let is_checked = !rows.health_checks().is_empty();
        self.has_other_health_checks |= is_checked || !entry.rows.health_checks().is_empty();
        if is_checked {
            self.checked.insert(Arc::clone(&name));
        } else {
            self.checked.remove(&name);
        }
        entry.rows = rows;
        self.concerned.insert(name);
    }

    /// Decides who gets contested addresses and who gets room.
    pub fn resolve(&mut self, limits: &TableLimits, incumbents: &Incumbents<'_>) {
        self.decide_contests(incumbents);
        if self.fits(limits, incumbents) {
            self.grant_everything();
        } else {
            self.grant_what_fits(limits, incumbents);
        }
        let concerned = std::mem::take(&mut self.concerned);
        for_each(&mut self.entries, &concerned, |name, entry| {
            let left_out = entry.grants.iter().flat_map(|grants| grants.warnings(name));
            let warnings: Vec<Warning> = entry.won.all_warnings().cloned().chain(left_out).collect();
            if warnings.is_empty() {
                self.has_other_warnings |= self.warnings.remove(name).is_some();
            } else {
                self.has_other_warnings = true;
                self.warnings.insert(Arc::clone(name), warnings);
            }
        });
    }

    fn decide_contests(&mut self, incumbents: &Incumbents<'_>) {
        let losses = self.contests.losses(incumbents);
        let losers = losses.keys().chain(self.losses.keys());
        let differs = |name: &&Arc<ObjectName>| losses.get(*name) != self.losses.get(*name);
        for name in losers.filter(differs).filter(|name| self.entries.contains_key(*name)) {
            self.concerned.insert(Arc::clone(name));
            self.changed.insert(Arc::clone(name));
        }
        for_each(&mut self.entries, &self.concerned, |name, entry| {
            let won = match losses.get(name) {
                None => Arc::clone(&entry.rows),
                Some(losses) => same_or_new(&entry.won, contest::without(&entry.rows, losses)),
            };
            for (all, (old, new)) in self.bounds.iter_mut().zip(entry.won.bounds().iter().zip(won.bounds())) {
                all.subtract(old);
                all.add(&new);
            }
            entry.won = won;
        });
        self.losses = losses;
    }

    /// Whether everything fits for certain: even if no pools were shared, and in the share of a single namespace.
    fn fits(&mut self, limits: &TableLimits, incumbents: &Incumbents<'_>) -> bool {
        let limits = limits.of_namespace();
        let mut unsettled = [0; 2];
        for_each(&mut self.entries, &self.changed, |_, entry| {
            if !entry.holds(&entry.won) {
                unsettled[0] += entry.won.v4.keys().count();
                unsettled[1] += entry.won.v6.keys().count();
            }
        });
        let ids = self.bounds[0].frontends + self.bounds[1].frontends;
        let there = [incumbents.frontends::<[u8; 4]>(), incumbents.frontends::<[u8; 16]>()];
        let mut families = self.bounds.iter().zip(unsettled.iter().zip(there));
        families.all(|(bound, (unsettled, there))| ledger::fits(bound, there + unsettled, &limits, ids))
    }

    fn grant_everything(&mut self) {
        if std::mem::take(&mut self.is_scarce) {
            for (name, entry) in &self.entries {
                if entry.grants.is_some() {
                    self.concerned.insert(Arc::clone(name));
                }
            }
            self.changed.extend(self.concerned.iter().cloned());
        }
        for_each(&mut self.entries, &self.concerned, |_, entry| {
            entry.grants = None;
            entry.granted = Arc::clone(&entry.won);
        });
    }

    fn grant_what_fits(&mut self, limits: &TableLimits, incumbents: &Incumbents<'_>) {
        let mut entries: Vec<&mut Entry> = self.entries.values_mut().collect();
        // The sort is stable, and the map is sorted by name.
        entries.sort_by_key(|entry| entry.rows.created_secs);
        let applicants: Vec<Applicant<'_>> =
            entries.iter().map(|entry| Applicant::of(&entry.won, entry.holds(&entry.won))).collect();
        let grants = grant::grants(&applicants, limits, incumbents);
        self.is_scarce = true;
        for (entry, grants) in entries.into_iter().zip(grants) {
            let grants = (grants != Grants::ALL).then(|| Box::new(grants));
            let granted = match &grants {
                None => Arc::clone(&entry.won),
                Some(grants) => same_or_new(&entry.granted, grants.of(&entry.won, incumbents)),
            };
            if entry.grants != grants {
                self.concerned.insert(Arc::clone(&entry.rows.name));
                entry.grants = grants;
            }
            if !Arc::ptr_eq(&entry.granted, &granted) {
                self.changed.insert(Arc::clone(&entry.rows.name));
                entry.granted = granted;
            }
        }
    }

    /// The health checks of all Services, if they may have changed since the last call.
    pub fn take_health_checks(&mut self) -> Option<HealthChecks> {
        let entries = self.checked.iter().filter_map(|name| self.entries.get(name));
        let checks =
            entries.flat_map(|entry| entry.rows.health_checks().iter().map(|check| (entry.rows.created_secs, check)));
        std::mem::take(&mut self.has_other_health_checks).then(|| HealthChecks::of(checks))
    }

    /// The Services whose resolved rows are not those that the tables hold.
    pub fn unsettled(&self) -> BTreeSet<ObjectName> {
        let differs = |name: &&Arc<ObjectName>| {
            let entry = self.entries.get(*name);
            entry.is_some_and(|entry| !entry.holds(&entry.granted))
        };
        self.changed.iter().filter(differs).map(|name| (**name).clone()).collect()
    }

    /// The rows of a Service that the tables hold, as far as known.
    pub fn settled(&self, name: &ObjectName) -> Option<&ServiceRows> {
        self.entries.get(name)?.settled.as_deref()
    }

    /// The tables now hold the resolved rows of every Service.
    pub fn settle(&mut self) {
        let (mut gone, mut lacking) = (Vec::new(), BTreeSet::new());
        for_each(&mut self.entries, &self.changed, |name, entry| {
            if entry.is_gone {
                gone.push(Arc::clone(name));
                return;
            }
            entry.settled = Some(Arc::clone(&entry.granted));
            if !entry.holds(&entry.won) {
                lacking.insert(Arc::clone(name));
            }
        });
        for name in gone {
            self.entries.remove(&name);
        }
        self.changed = lacking;
    }

    /// It is unknown what the tables hold.
    pub fn unsettle(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.settled = None);
        if self.changed.len() < self.entries.len() {
            self.changed = self.entries.keys().cloned().collect();
        }
    }

    /// Frees unused room, which computing everything leaves.
    pub fn condense(&mut self) {
        dense::fill(&mut self.entries);
        self.contests.condense();
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
        build::tables(&services)
    }

    /// Whether the warnings may differ from those at the last call.
    pub const fn has_other_warnings(&mut self) -> bool {
        std::mem::replace(&mut self.has_other_warnings, false)
    }

    /// Whether the rows of this Service were computed.
    pub fn has(&self, name: &ObjectName) -> bool {
        self.entries.contains_key(name)
    }

    /// The Services whose rows were computed.
    pub fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.entries.keys().map(|name| &**name)
    }

    /// What could not be done as written.
    pub fn warnings(&self, policy: &Policy) -> impl Iterator<Item = Warning> {
        let missed = self.unaddressed.iter().filter(|(_, count)| **count > 0);
        let node = missed.filter_map(|(family, _)| node_port::no_address(policy, *family));
        node.chain(self.warnings.values().flatten().cloned())
    }
}

/// Number of entries for each name from which on a walk over all of them is faster than a look-up for each name.
const WALK_MIN: usize = 16;

/// Does something to the entries of these names, in order. Names without an entry are left out.
fn for_each(
    entries: &mut BTreeMap<Arc<ObjectName>, Entry>,
    names: &BTreeSet<Arc<ObjectName>>,
    mut act: impl FnMut(&Arc<ObjectName>, &mut Entry),
) {
    if names.len() < entries.len() / WALK_MIN {
        for name in names {
            if let Some(entry) = entries.get_mut(name) {
                act(name, entry);
            }
        }
        return;
    }
    let mut names = names.iter().peekable();
    for (name, entry) in entries {
        while names.next_if(|next| !Arc::ptr_eq(next, name) && **next < *name).is_some() {}
        if names.next_if(|next| Arc::ptr_eq(next, name) || **next == *name).is_some() {
            act(name, entry);
        }
    }
}

/// The old rows if the new ones are equal.
fn same_or_new(old: &Arc<ServiceRows>, new: ServiceRows) -> Arc<ServiceRows> {
    if **old == new { Arc::clone(old) } else { Arc::new(new) }
}

#[cfg(test)]
mod tests;
