//! The control loop without its clock: it takes in changes, and one step brings the tables to the desired state.
//!
//! The driver decides when to step. A step does nothing until the first list of every kind is complete.

mod company;
mod inherited;
mod partial;

use std::collections::BTreeSet;
use std::net::IpAddr;

use lb_common::table::FrontendState;

use crate::apply::{self, Report};
use crate::assign::Assignment;
use crate::dataplane::object::{pool_elements, scopes_max};
use crate::dataplane::{Dataplane, Error, Op, Sizes, Tables};
use crate::desired::{
    Desired, FamilyDesired, Incumbents, Limits, Policy, ServicePortName, deciding_key, desired, desired_beside,
    unknown_node,
};
use crate::family::TableAddr;
use crate::guard::{self, Keeper};
use crate::model::{Change, ObjectName, Warning, WarningKind, World};
use crate::plan::{Drained, plan};
use crate::realised::Realised;
use company::{Company, Room};
use inherited::Inherited;
use partial::{Index, Touched};

/// The part of `pools` that is kept free, as a divisor: a changed pool is written beside the one that it replaces.
const POOL_ROWS_SPARE: u32 = 8;

impl From<&Sizes> for Limits {
    fn from(sizes: &Sizes) -> Self {
        Self {
            // An ID is an index.
            frontend_ids_max: scopes_max(sizes) - 1,
            frontends_max: sizes.frontends_max,
            pool_rows_max: sizes.backends_max - sizes.backends_max / POOL_ROWS_SPARE,
            pool_rows_spare: sizes.backends_max / POOL_ROWS_SPARE,
            pool_elements: pool_elements(sizes),
            members_max: sizes.backends_max,
            source_ranges_max: sizes.source_ranges_max,
            namespace_percent: 100,
        }
    }
}

/// The world, the IDs and what the tables hold.
pub struct Controller {
    policy: Policy,
    limits: Limits,
    world: World,
    assignment: Assignment,
    realised: Realised,
    inherited: Inherited,
    /// Whether unclaimed frontends stay while a part of the input cannot be read.
    unclaimed: Unclaimed,
    certainty: Certainty,
    /// Keeps kube-proxy away from addresses that are left to the balancer. `None` if no kube-proxy runs.
    guard: Option<Keeper>,
    /// What has changed since the last step.
    touched: Touched,
    /// Index of `realised`. Present only while `realised` is as desired.
    index: Option<Index>,
    /// Whether there was room for the last change of a few Services.
    room: Room,
    /// What the last step could not do as written, in order.
    warnings: Vec<Warning>,
    /// A warning if neither a Node nor an endpoint has the name of this node.
    unknown_node: Option<Warning>,
}

/// Whether `realised` is what the tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    Certain,
    /// A row whose write failed may have been written: the next step must read the tables first.
    Stale,
}

/// What happens to frontends of an earlier run that no object claims, while some objects cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unclaimed {
    Kept,
    Dropped,
}

/// Whether a step looks for draining frontends that no flow refers to. Looking walks the whole flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaim {
    /// Keep draining frontends: the ordinary step.
    Later,
    /// Find and delete drained frontends: once in a while.
    Now,
}

/// What one step did.
#[derive(Debug, Default)]
pub struct Step {
    pub outcome: Outcome,
    /// Number of Services that were computed; `None` for all.
    pub services: Option<usize>,
    /// Operations of the plan.
    pub ops: usize,
    /// Rows that were written or deleted.
    pub rows: usize,
    /// Rows still to write. If there are any, the step must be repeated later.
    pub failed_rows: usize,
    /// The reasons, for the first few failures.
    pub errors: Vec<Error>,
    /// Frontends that wait for their flows to end. Call with [`Reclaim::Now`] once in a while until there are none.
    pub draining: usize,
}

/// How far a step came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The first list is not complete: nothing was done.
    #[default]
    NotListed,
    /// The tables are as desired.
    InStep,
    /// Something failed: repeat the step.
    Behind,
}

impl Controller {
    /// Starts from what the tables hold. A restart changes no row that is still wanted.
    pub fn adopt(dataplane: &mut dyn Dataplane, policy: Policy, limits: Limits) -> Result<Self, Error> {
        // An earlier run may have been killed between a delete and its grace period.
        dataplane.perform(&Op::Settle)?;
        let realised = Realised::new(dataplane.dump()?, dataplane.address_words());
        Ok(Self {
            policy,
            limits,
            world: World::default(),
            assignment: Assignment::adopt(&realised, limits.frontend_ids_max, limits.pool_elements),
            inherited: Inherited::of(&realised),
            unclaimed: Unclaimed::Kept,
            realised,
            certainty: Certainty::Certain,
            guard: None,
            touched: Touched::Everything,
            index: None,
            room: Room::Plenty,
            warnings: Vec::new(),
            unknown_node: None,
        })
    }

    /// Adds a guard that keeps kube-proxy away from addresses that we leave to the balancer.
    #[must_use]
    pub fn guarded_by(mut self, guard: Keeper) -> Self {
        self.guard = Some(guard);
        self
    }

    /// The guard, if any.
    pub const fn guard(&self) -> Option<&Keeper> {
        self.guard.as_ref()
    }

    /// The guard, for maintenance between steps.
    pub const fn guard_mut(&mut self) -> Option<&mut Keeper> {
        self.guard.as_mut()
    }

    /// Takes in a whole batch of changes.
    pub fn change(&mut self, batch: Vec<Change>) {
        for change in batch {
            self.touched.add(&change, &self.world, &self.policy.node_name);
            self.world.apply(change);
        }
    }

    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Takes in the addresses on the interfaces of this node. Returns `true` if they changed, so that a step is due.
    pub fn follow_addresses<'a>(&mut self, addresses: impl Iterator<Item = &'a IpAddr>) -> bool {
        let addresses: BTreeSet<IpAddr> = addresses.copied().collect();
        if addresses == *self.world.local_addresses() {
            return false;
        }
        self.touched.add_addresses(self.world.local_addresses(), &addresses);
        self.world.set_local_addresses(addresses);
        true
    }

    /// What the tables hold, as far as known.
    pub const fn realised(&self) -> &Tables {
        self.realised.tables()
    }

    /// All problems of the input, and everything that does not fit.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        let ours = self.warnings.iter().chain(&self.unknown_node);
        self.world.warnings().chain(ours).chain(self.guard.as_ref().and_then(Keeper::warning))
    }

    /// Whether something was left out that may fit later.
    pub fn is_waiting_for_room(&self) -> bool {
        self.warnings.iter().any(|warning| warning.kind == WarningKind::Capacity)
    }

    /// The annotation or label that decided the mode, by the ID of the Service port, for Services where one did.
    pub fn deciding_keys(&self) -> impl Iterator<Item = (u32, &str)> {
        self.assignment.service_ports().filter_map(|(name, id)| {
            let service = self.world.services().get(&*name.service)?;
            Some((id, deciding_key(service, &self.policy)?))
        })
    }

    /// What Services have now.
    pub const fn incumbents(&self) -> Incumbents<'_> {
        self.assignment.incumbents(self.realised.tables())
    }

    /// The ID of every Service port.
    pub fn service_ports(&self) -> impl Iterator<Item = (&ServicePortName, u32)> {
        self.assignment.service_ports()
    }

    /// Brings the tables to the desired state. If only a few Services changed, computes only their part.
    pub fn step(&mut self, dataplane: &mut dyn Dataplane, reclaim: Reclaim) -> Step {
        if !self.world.is_listed() {
            return Step::default();
        }
        self.unknown_node = unknown_node(&self.world, &self.policy);
        let touched = std::mem::replace(&mut self.touched, Touched::Everything);
        let index = self.index.take();
        if let (Some(services), Some(index), Reclaim::Later) = (touched.few(&self.world), index, reclaim)
            && let Some(step) = self.step_part(dataplane, &services, index)
        {
            return step;
        }
        self.step_whole(dataplane, reclaim)
    }

    /// From the next step on, unclaimed frontends are dropped. Returns whether that may make a difference.
    pub fn drop_unclaimed(&mut self) -> bool {
        self.unclaimed = Unclaimed::Dropped;
        self.recompute();
        !self.inherited.is_empty()
    }

    /// Whether an object that cannot be read may claim the unclaimed frontends.
    fn keeps_unclaimed(&self) -> bool {
        self.unclaimed == Unclaimed::Kept && !self.world.is_readable()
    }

    /// Makes the next step compute everything.
    pub fn recompute(&mut self) {
        self.touched = Touched::Everything;
    }

    fn step_whole(&mut self, dataplane: &mut dyn Dataplane, reclaim: Reclaim) -> Step {
        if let Err(error) = self.look(dataplane) {
            return self.behind(error);
        }
        let mut desired = desired(&self.world, &self.policy, &self.limits_now(), &self.incumbents());
        let mut assigned = self.assignment.assign(&desired, &self.realised);
        if self.keeps_unclaimed() {
            self.inherited.keep(&self.realised, &mut assigned.tables);
        } else {
            self.inherited = Inherited::default();
        }
        self.warnings = std::mem::take(&mut desired.warnings);
        self.warnings.extend(self.inherited.warnings());
        self.warnings.append(&mut assigned.warnings);
        self.warnings.sort_unstable();
        self.widen_guard(&desired);
        let company = Company::of(&mut desired, std::mem::replace(&mut self.room, Room::Plenty));
        // Each form of the tables is large, so each is freed as soon as the next one is computed.
        drop(desired);
        let in_use = match (reclaim, self.draining()) {
            (Reclaim::Later, _) | (Reclaim::Now, 0) => None,
            (Reclaim::Now, _) => match in_use(dataplane) {
                Ok(in_use) => Some(in_use),
                Err(error) => return self.behind(error),
            },
        };
        let drained = in_use.as_ref().map_or(Drained::Unknown, Drained::Unless);
        let ops = plan(&self.realised, &self.realised, &assigned.tables, drained);
        drop(assigned);
        let count = ops.len();
        let report = apply::apply(dataplane, &mut self.realised, ops);
        if report.is_complete() {
            self.assignment.forget(&self.realised);
            // Inherited rows depend on more than their Services.
            self.index = self.inherited.is_empty().then(|| Index::of(&self.realised, company));
            self.touched = Touched::NOTHING;
        }
        self.finish(count, report)
    }

    /// A step for these Services only. Returns `None`, without having written anything, if a full step is needed.
    fn step_part(
        &mut self,
        dataplane: &mut dyn Dataplane,
        touched: &BTreeSet<ObjectName>,
        mut index: Index,
    ) -> Option<Step> {
        if self.certainty == Certainty::Stale {
            return None;
        }
        let (services, mut desired) = self.desired_part(touched, &index)?;
        let ports = self.ports_of(&services);
        let mut old = partial::rows_of(&index, &self.realised, &ports, &desired)?;
        if self.guard.as_ref().is_some_and(|guard| guard.is_concerned_by(&desired, &old)) {
            return None;
        }
        partial::renew(&mut self.warnings, &services, std::mem::take(&mut desired.warnings))?;
        let assigned = self.assignment.assign_part(&desired, &services);
        if !assigned.warnings.is_empty() {
            return None;
        }
        let mut wanted = assigned.tables;
        let replaced = old.clone();
        let gone_sets = partial::gone_sets(&index, &replaced, &wanted);
        partial::share(&index, &self.realised, &mut old, &mut wanted);
        let ops = plan(&self.realised, &old, &wanted, Drained::Unknown);
        let count = ops.len();
        let report = apply::apply(dataplane, &mut self.realised, ops);
        if report.is_complete() {
            self.assignment.forget_gone(&partial::gone_pools(&old, &wanted), &gone_sets);
            index.replace(&replaced, &wanted);
            index.company.replace(&services, &mut desired);
            self.index = Some(index);
            self.touched = Touched::NOTHING;
        }
        Some(Step { services: Some(services.len()), ..self.finish(count, report) })
    }

    /// Computes these Services and all whose rows depend on theirs. Returns `None` if these are too many.
    fn desired_part(
        &mut self,
        touched: &BTreeSet<ObjectName>,
        index: &Index,
    ) -> Option<(BTreeSet<ObjectName>, Desired)> {
        let mut services = index.company.around(touched.iter().cloned());
        loop {
            if !partial::are_few(services.len(), &self.world) {
                return None;
            }
            let world = self.world.part(&services);
            let desired = match index.company.takes() {
                Some(takes) => {
                    let others = takes.iter().filter(|other| !services.contains(&other.name));
                    desired_beside(others, &world, &self.policy, &self.limits_now(), &self.incumbents())?
                }
                None => desired(&world, &self.policy, &Limits::UNLIMITED, &self.incumbents()),
            };
            let others = self.owners(&desired, &services)?;
            if others.is_empty() {
                if index.company.takes().is_none() && !self.has_room_for(&desired) {
                    self.room = Room::Scarce;
                    return None;
                }
                return Some((services, desired));
            }
            services.extend(index.company.around(others));
        }
    }

    fn ports_of(&self, services: &BTreeSet<ObjectName>) -> BTreeSet<u32> {
        services.iter().flat_map(|service| self.assignment.ports_of(service)).map(|(_, id)| id).collect()
    }

    /// Other Services that hold addresses which `desired` wants. Returns `None` if the name of one is unknown.
    fn owners(&self, desired: &Desired, services: &BTreeSet<ObjectName>) -> Option<BTreeSet<ObjectName>> {
        let owners = &partial::owners(&self.realised, desired) - &self.ports_of(services);
        if owners.is_empty() {
            return Some(BTreeSet::new());
        }
        let named = self.assignment.service_ports().filter(|(_, id)| owners.contains(id));
        let names: Vec<&ServicePortName> = named.map(|(name, _)| name).collect();
        (names.len() == owners.len()).then(|| names.into_iter().map(|name| (*name.service).clone()).collect())
    }

    /// Whether these rows fit beside all existing rows.
    fn has_room_for(&self, desired: &Desired) -> bool {
        fn fits<A: TableAddr>(realised: &Tables, desired: &FamilyDesired<A>, limits: &Limits) -> bool {
            let there = A::tables(realised);
            let pool_rows: usize = desired.pools.iter().map(|pool| pool.len()).sum();
            let sets: BTreeSet<_> = desired.frontends.values().map(|frontend| frontend.access.prefixes()).collect();
            let ranges: usize = sets.into_iter().map(<[_]>::len).sum();
            there.frontends.len() + desired.frontends.len() <= limits.frontends_max as usize
                && there.pools.len() + pool_rows <= limits.pool_rows_max as usize
                && there.members.len() + desired.members.len() <= limits.members_max as usize
                && there.source_ranges.len() + ranges <= limits.source_ranges_max as usize
        }
        let frontends = |tables: &Tables| tables.v4.frontends.len() + tables.v6.frontends.len();
        let wanted = desired.v4.frontends.len() + desired.v6.frontends.len();
        // Draining frontends take IDs of both families. Rows that fit within one namespace's share need no further
        // check.
        let limits = self.limits_now().of_namespace();
        // Assumes Maglev tables, because only the full computation knows whether there are any.
        let table_slots = self.policy.selection.maglev_table_size.slots();
        let limits = Limits { pool_rows_max: limits.pool_rows_beside_tables(table_slots), ..limits };
        fits(&self.realised, &desired.v4, &limits)
            && fits(&self.realised, &desired.v6, &limits)
            && frontends(&self.realised) + wanted <= limits.frontend_ids_max as usize
    }

    /// Reads the tables again and returns how many rows differ from `realised`. The next step repairs them.
    pub fn audit(&mut self, dataplane: &mut dyn Dataplane) -> Result<usize, Error> {
        let found = dataplane.dump()?;
        let differences = difference(&self.realised, &found);
        if self.certainty == Certainty::Certain {
            self.realised.renew(found);
        }
        self.recompute();
        Ok(differences)
    }

    /// Guards the addresses that will be left to the balancer, before the tables change.
    fn widen_guard(&mut self, desired: &Desired) {
        let keeps_unclaimed = self.keeps_unclaimed();
        let Some(guard) = &mut self.guard else { return };
        let mut rows = guard::rows(desired);
        if keeps_unclaimed {
            // The object that asks for this guard may be among those that cannot be read.
            rows = rows.with(&guard.realised().unknown_to(desired));
        }
        guard.widen(rows);
    }

    fn look(&mut self, dataplane: &mut dyn Dataplane) -> Result<(), Error> {
        if self.certainty == Certainty::Stale {
            // The grace period after the last deletes may be among the failed operations.
            dataplane.perform(&Op::Settle)?;
            self.realised.renew(dataplane.dump()?);
            self.assignment.forget(&self.realised);
            self.certainty = Certainty::Certain;
        }
        Ok(())
    }

    /// The limits, less the IDs that draining frontends still hold.
    fn limits_now(&self) -> Limits {
        let draining = self.draining() as u32;
        Limits { frontend_ids_max: self.limits.frontend_ids_max.saturating_sub(draining), ..self.limits }
    }

    fn draining(&self) -> usize {
        let v4 = self.realised.v4.frontends.values();
        let v6 = self.realised.v6.frontends.values();
        v4.chain(v6).filter(|frontend| frontend.state == FrontendState::Draining).count()
    }

    fn finish(&mut self, ops: usize, report: Report) -> Step {
        let outcome = if report.is_complete() { Outcome::InStep } else { Outcome::Behind };
        match (outcome, &mut self.guard) {
            (Outcome::InStep, Some(guard)) => guard.settle(),
            (Outcome::Behind, _) => self.certainty = Certainty::Stale,
            (Outcome::InStep | Outcome::NotListed, _) => {}
        }
        let Report { rows, failed_rows, errors } = report;
        Step { outcome, services: None, ops, rows, failed_rows, errors, draining: self.draining() }
    }

    fn behind(&self, error: Error) -> Step {
        let draining = self.draining();
        Step { outcome: Outcome::Behind, failed_rows: 1, errors: vec![error], draining, ..Step::default() }
    }
}

/// Frontends that flows refer to, read after a grace period: no packet can still create a flow for a draining frontend.
fn in_use(dataplane: &mut dyn Dataplane) -> Result<std::collections::BTreeSet<u32>, Error> {
    dataplane.perform(&Op::Settle)?;
    dataplane.frontends_in_use()
}

/// Number of rows that differ between two states of the tables.
fn difference(believed: &Tables, found: &Tables) -> usize {
    fn count<K: Ord, V: PartialEq>(
        a: &std::collections::BTreeMap<K, V>,
        b: &std::collections::BTreeMap<K, V>,
    ) -> usize {
        let changed = a.iter().filter(|(key, value)| b.get(key) != Some(value)).count();
        changed + b.keys().filter(|key| !a.contains_key(key)).count()
    }
    count(&believed.v4.frontends, &found.v4.frontends)
        + count(&believed.v4.pools, &found.v4.pools)
        + count(&believed.v4.members, &found.v4.members)
        + count(&believed.v4.source_ranges, &found.v4.source_ranges)
        + count(&believed.v6.source_ranges, &found.v6.source_ranges)
        + count(&believed.v6.frontends, &found.v6.frontends)
        + count(&believed.v6.pools, &found.v6.pools)
        + count(&believed.v6.members, &found.v6.members)
        + count(&believed.v4.endpoints, &found.v4.endpoints)
        + count(&believed.v6.endpoints, &found.v6.endpoints)
        + count(&believed.v4.addresses, &found.v4.addresses)
        + count(&believed.v6.addresses, &found.v6.addresses)
        + count(&believed.scopes, &found.scopes)
}

#[cfg(test)]
mod tests;
