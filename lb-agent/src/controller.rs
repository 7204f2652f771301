//! The control loop without its clock: it takes in changes, and one step brings the tables to the desired state.
//!
//! The driver decides when to step. A step does nothing until the first list of every kind is complete.

mod affected;
mod inherited;
mod stale;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::apply::{self, Report};
use crate::assign::{Assigned, Assignment, Deleted};
use crate::dataplane::object::{pool_elements, scopes_max};
use crate::dataplane::{Dataplane, Error, FamilyTables, Op, Sizes, Tables};
use crate::desired::{
    Catalogue, Desired, Extent, Forwarding, HealthChecks, Incumbents, Policy, ServicePortName, TableLimits,
    deciding_key, node_ports, setting_warnings,
};
use crate::family::TableAddr;
use crate::guard::{self, Keeper};
use crate::known::{Asked, Known, known};
use crate::model::{Change, Holder, ObjectName, Warning, WarningKind, World};
use crate::plan::{Drained, Plan, needs_time, plan};
use crate::realised::Realised;
use inherited::Inherited;
use stale::Stale;

/// The part of `pools` that is kept free, as a divisor: a changed pool is written beside the one that it replaces.
const POOL_ROWS_SPARE: u32 = 8;

impl From<&Sizes> for TableLimits {
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
    /// `--forwarding`.
    forwarding: Forwarding,
    limits: TableLimits,
    world: World,
    assignment: Assignment,
    realised: Realised,
    inherited: Inherited,
    /// Whether unclaimed frontends stay while a part of the input cannot be read.
    unclaimed: Unclaimed,
    certainty: Certainty,
    /// Keeps kube-proxy away from addresses that are left to the balancer. `None` if no kube-proxy runs.
    guard: Option<Keeper>,
    /// Whose rows must be computed again.
    stale: Stale,
    /// The rows of every Service.
    catalogue: Catalogue,
    comparison: Comparison,
    /// What the last step could not do as written, in order.
    warnings: Vec<Warning>,
    /// Those of `warnings` that are not about single Services.
    other_warnings: Vec<Warning>,
    /// About the settings: a name of this node that no object has, ranges without an address of this node.
    setting_warnings: Vec<Warning>,
}

/// Whether `realised` is what the tables hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    Certain,
    /// A row whose write failed may have been written: the next step must read the tables first.
    Stale,
}

/// Which rows the next step compares with the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    /// Those of the Services whose resolved rows have changed: the tables hold all others.
    Changes,
    Everything,
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
    /// Number of Services that were computed, apart from those that were computed ahead; `None` for all.
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
    /// The first list, or that of the interfaces, is not complete: nothing was done.
    #[default]
    NotListed,
    /// The tables are as desired.
    InStep,
    /// Something failed: repeat the step.
    Behind,
}

impl Controller {
    /// Starts from what the tables hold. A restart changes no row that is still wanted.
    pub fn adopt(dataplane: &mut dyn Dataplane, policy: Policy, limits: TableLimits) -> Result<Self, Error> {
        // An earlier run may have been killed between a delete and its grace period.
        dataplane.perform(&Op::Settle)?;
        let realised = Realised::new(dataplane.dump()?, dataplane.address_words());
        Ok(Self {
            forwarding: policy.forwarding,
            policy,
            limits,
            world: World::default(),
            assignment: Assignment::adopt(&realised, limits.frontend_ids_max, limits.pool_elements),
            inherited: Inherited::of(&realised),
            unclaimed: Unclaimed::Kept,
            realised,
            certainty: Certainty::Certain,
            guard: None,
            stale: Stale::Everything,
            catalogue: Catalogue::default(),
            comparison: Comparison::Everything,
            warnings: Vec::new(),
            other_warnings: Vec::new(),
            setting_warnings: Vec::new(),
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

    /// Takes in a whole batch of changes. While the first lists arrive, computes rows ahead.
    pub fn change(&mut self, batch: Vec<Change>) {
        let is_ahead = !self.world.is_listed() && !batch.contains(&Change::Listed);
        let services = if is_ahead { batch.iter().filter_map(Change::service).collect() } else { BTreeSet::new() };
        for change in batch {
            self.stale.add(&change, &self.world, &self.policy.node_name);
            self.world.apply(change);
        }
        if is_ahead {
            self.prepare(services);
        }
    }

    /// Computes the rows of these Services ahead of the first step, each at most once: what changes afterwards is computed
    /// again by the step.
    fn prepare(&mut self, services: BTreeSet<ObjectName>) {
        let ready = self.stale.take_ready(services, &self.world, &self.catalogue);
        self.catalogue.refresh(&ready, &self.world, &self.policy);
    }

    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Takes in the addresses on the interfaces of this node. Returns `true` if they changed, so that a step is due.
    pub fn follow_addresses(&mut self, addresses: BTreeMap<IpAddr, Holder>) -> bool {
        let before = self.world.local_addresses();
        if before == Some(&addresses) {
            return false;
        }
        let is_awaited = self.lacks_addresses();
        let has_changed = is_awaited || before.is_some_and(|before| !before.is_empty()) || !addresses.is_empty();
        self.stale.add_addresses(before.into_iter().flat_map(BTreeMap::keys), addresses.keys());
        let node_ports = node_ports(&self.world, &self.policy);
        self.world.set_local_addresses(addresses);
        if node_ports != self::node_ports(&self.world, &self.policy) {
            self.stale.add_node_ports(&self.world);
        }
        has_changed
    }

    /// Lets the network reach endpoints of other nodes through this one, as far as `--forwarding` does.
    pub fn allow_forwarding(&mut self, is_allowed: bool) {
        let wanted = if is_allowed { self.forwarding } else { Forwarding::Off };
        if self.policy.forwarding != wanted {
            self.policy.forwarding = wanted;
            self.stale = Stale::Everything;
        }
    }

    /// Whether the rows depend on addresses of interfaces that are not known yet.
    pub fn lacks_addresses(&self) -> bool {
        self.policy.reads_interfaces() && self.world.local_addresses().is_none()
    }

    /// What the tables hold, as far as known.
    pub const fn realised(&self) -> &Tables {
        self.realised.tables()
    }

    /// All problems of the input, and everything that does not fit.
    pub fn warnings(&self) -> impl Iterator<Item = &Warning> {
        let ours = self.warnings.iter().chain(&self.setting_warnings);
        self.world.warnings().chain(ours).chain(self.guard.as_ref().and_then(Keeper::warning))
    }

    /// Whether something was left out that may fit later.
    pub fn is_waiting_for_room(&self) -> bool {
        self.warnings.iter().any(|warning| warning.kind == WarningKind::Capacity)
    }

    /// The annotation or label that decided the mode, by the ID of the Service port, for ports where one did.
    pub fn deciding_keys(&self) -> impl Iterator<Item = (u32, &str)> {
        self.assignment.service_ports().filter_map(|(name, id)| {
            let service = self.world.services().get(&*name.service)?;
            Some((id, deciding_key(service, name, &self.policy)?))
        })
    }

    /// What the world says about addresses and Services.
    pub fn known(&self, asked: &Asked) -> Known {
        let warnings: Vec<&Warning> = self.world.warnings().chain(&self.warnings).collect();
        known(asked, &self.world, &self.policy, &warnings)
    }

    /// What Services have now.
    pub const fn incumbents(&self) -> Incumbents<'_> {
        self.assignment.incumbents(self.realised.tables())
    }

    /// The health checks of all Services as of the last step, if they may have changed since the last call.
    pub fn take_health_checks(&mut self) -> Option<HealthChecks> {
        self.catalogue.take_health_checks()
    }

    /// The ID of every Service port.
    pub fn service_ports(&self) -> impl Iterator<Item = (&ServicePortName, u32)> {
        self.assignment.service_ports()
    }

    /// Brings the tables to the desired state. Computes and writes only what has changed.
    pub fn step(&mut self, dataplane: &mut dyn Dataplane, reclaim: Reclaim) -> Step {
        if !self.world.is_listed() || self.lacks_addresses() {
            return Step::default();
        }
        self.setting_warnings = setting_warnings(&self.world, &self.policy);
        self.advance(dataplane, reclaim).unwrap_or_else(|error| self.behind(error))
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

    /// Frees memory that only the first full step needed.
    pub fn condense(&mut self) {
        self.catalogue.condense();
        self.assignment.condense();
        self.realised.condense();
    }

    /// Makes the next step compute and compare everything.
    pub fn recompute(&mut self) {
        self.stale = Stale::Everything;
        self.comparison = Comparison::Everything;
    }

    fn advance(&mut self, dataplane: &mut dyn Dataplane, reclaim: Reclaim) -> Result<Step, Error> {
        self.look(dataplane)?;
        let keeps_unclaimed = self.keeps_unclaimed();
        // If this step ends early, the next one compares everything.
        let comparison = match std::mem::replace(&mut self.comparison, Comparison::Everything) {
            Comparison::Changes if !keeps_unclaimed => Comparison::Changes,
            Comparison::Changes | Comparison::Everything => Comparison::Everything,
        };
        let services = self.compute(comparison);
        let extent = match comparison {
            Comparison::Changes => Extent::Services(self.catalogue.unsettled()),
            Comparison::Everything => Extent::Everything,
        };
        let Planned { plan, has_all_ids } = self.planned(&extent, keeps_unclaimed, dataplane, reclaim)?;
        let (count, deleted) = (plan.ops.len(), Deleted::of(&plan.ops));
        let report = apply::apply(dataplane, &mut self.realised, plan);
        if report.is_complete() {
            self.assignment.forget_deleted(&deleted, self.realised.referrers());
            self.catalogue.settle();
            // Inherited rows depend on more than their Services.
            if has_all_ids && !keeps_unclaimed {
                self.comparison = Comparison::Changes;
            }
        }
        Ok(Step { services, ..self.finish(count, report) })
    }

    /// Computes the stale rows and resolves all. Returns the number of Services that were computed, or `None` for all.
    fn compute(&mut self, comparison: Comparison) -> Option<usize> {
        if comparison == Comparison::Everything {
            self.catalogue.unsettle();
        }
        let stale = std::mem::replace(&mut self.stale, Stale::NOTHING).extent(&self.world);
        let services = self.catalogue.refresh(&stale, &self.world, &self.policy);
        let incumbents = self.assignment.incumbents(&self.realised);
        self.catalogue.resolve(&self.limits_now(), &incumbents);
        (stale != Extent::Everything).then_some(services)
    }

    /// Assigns IDs to the resolved rows of these Services and plans what the tables lack.
    fn planned(
        &mut self,
        extent: &Extent,
        keeps_unclaimed: bool,
        dataplane: &mut dyn Dataplane,
        reclaim: Reclaim,
    ) -> Result<Planned, Error> {
        let desired = self.catalogue.tables(extent);
        let Assigned { tables: mut wanted, warnings } = self.assignment.assign(&desired, extent, &self.realised);
        if keeps_unclaimed {
            self.inherited.keep(&self.realised, &mut wanted);
        } else {
            self.inherited = Inherited::default();
        }
        let has_all_ids = warnings.is_empty();
        self.collect_warnings(self.inherited.warnings().into_iter().chain(warnings).collect());
        let before = match extent {
            Extent::Everything => Cow::Borrowed(self.realised.tables()),
            Extent::Services(names) => {
                let settled = names.iter().filter_map(|name| self.catalogue.settled(name));
                let mut rows = affected::rows(&self.realised, settled, &wanted);
                if reclaim == Reclaim::Now {
                    affected::add_draining(&self.realised, &mut rows);
                }
                Cow::Owned(rows)
            }
        };
        if let Some(guard) = &mut self.guard {
            widen(guard, &desired, &before, extent, &self.catalogue, keeps_unclaimed);
        }
        // Each form of the tables is large, so each is freed as soon as the next one is computed.
        drop(desired);
        let in_use = match reclaim {
            Reclaim::Now if self.realised.draining() > 0 => Some(in_use(dataplane)?),
            Reclaim::Now | Reclaim::Later => None,
        };
        let drained = in_use.as_ref().map_or(Drained::Unknown, Drained::Unless);
        // Asked for only if needed: without a clock, endpoints still come and go.
        let now_jiffies = if needs_time(&before, &wanted) { dataplane.now_jiffies()? } else { 0 };
        let plan = plan(&self.realised, &before, &wanted, drained, now_jiffies);
        Ok(Planned { plan, has_all_ids })
    }

    /// Collects all warnings, if any has changed. `others` are those that are not about single Services.
    fn collect_warnings(&mut self, others: Vec<Warning>) {
        if !self.catalogue.has_other_warnings() && others == self.other_warnings {
            return;
        }
        self.warnings = self.catalogue.warnings(&self.policy).chain(others.iter().cloned()).collect();
        self.warnings.sort_unstable();
        self.other_warnings = others;
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
    fn limits_now(&self) -> TableLimits {
        let draining = self.realised.draining() as u32;
        TableLimits { frontend_ids_max: self.limits.frontend_ids_max.saturating_sub(draining), ..self.limits }
    }

    fn finish(&mut self, ops: usize, report: Report) -> Step {
        let outcome = if report.is_complete() { Outcome::InStep } else { Outcome::Behind };
        match (outcome, &mut self.guard) {
            (Outcome::InStep, Some(guard)) => guard.settle(),
            (Outcome::Behind, _) => self.certainty = Certainty::Stale,
            (Outcome::InStep | Outcome::NotListed, _) => {}
        }
        let Report { rows, failed_rows, errors } = report;
        Step { outcome, services: None, ops, rows, failed_rows, errors, draining: self.realised.draining() }
    }

    fn behind(&self, error: Error) -> Step {
        let draining = self.realised.draining();
        Step { outcome: Outcome::Behind, failed_rows: 1, errors: vec![error], draining, ..Step::default() }
    }
}

/// The plan of a step, and whether every row that it should write has an ID.
struct Planned {
    plan: Plan,
    has_all_ids: bool,
}

/// Guards the addresses that will be left to the balancer, before the tables change.
fn widen(
    guard: &mut Keeper,
    desired: &Desired,
    before: &Tables,
    extent: &Extent,
    catalogue: &Catalogue,
    keeps_unclaimed: bool,
) {
    let everything;
    let all = match extent {
        Extent::Everything => desired,
        Extent::Services(_) if guard.is_concerned_by(desired, before) => {
            everything = catalogue.tables(&Extent::Everything);
            &everything
        }
        Extent::Services(_) => return,
    };
    let mut rows = guard::rows(all);
    if keeps_unclaimed {
        // The object that asks for this guard may be among those that cannot be read.
        rows = rows.with(&guard.realised().unknown_to(all));
    }
    guard.widen(rows);
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
    // How old a frontend is follows from no other row, so an age that has changed cannot be told from the right one.
    fn count_keys<V>(a: &std::collections::BTreeMap<u32, V>, b: &std::collections::BTreeMap<u32, V>) -> usize {
        let missing = a.keys().filter(|key| !b.contains_key(key)).count();
        missing + b.keys().filter(|key| !a.contains_key(key)).count()
    }
    fn family<A: TableAddr>(believed: &FamilyTables<A>, found: &FamilyTables<A>) -> usize {
        count(&believed.frontends, &found.frontends)
            + count(&believed.pools, &found.pools)
            + count(&believed.members, &found.members)
            + count(&believed.source_ranges, &found.source_ranges)
            + count(&believed.endpoints, &found.endpoints)
            + count(&believed.addresses, &found.addresses)
    }
    family(&believed.v4, &found.v4)
        + family(&believed.v6, &found.v6)
        + count(&believed.scopes, &found.scopes)
        + count_keys(&believed.frontend_ages, &found.frontend_ages)
}

#[cfg(test)]
mod tests;
