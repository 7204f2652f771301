//! Properties of the control loop, over random worlds, failing dataplanes and restarts.

#[path = "model/universe.rs"]
mod universe;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use lb_agent::controller::{Controller, Outcome, Reclaim, Step};
use lb_agent::dataplane::fake::{FakeDataplane, Faults, assert_no_dangling_pool};
use lb_agent::dataplane::{Dataplane as _, FamilyTables, Tables};
use lb_agent::desired::{
    Algorithm, DesiredScope, ExternalIps, FamilyDesired, Forwarding, HeadersFrom, HealthCheckPorts, Incumbents,
    NodePortAddresses, Policy, PoolIndex, Selection, ServicePortIndex, Services, TableLimits, TableSize,
    VendorAnnotations, desired,
};
use lb_agent::family::TableAddr;
use lb_agent::model::{Change, World};
use lb_common::addr::{Addr, Proto};
use lb_common::client::PerClient;
use lb_common::table::{Action, Backend, FrontendState, Mode, PoolKey, Scope, Scopes};
use proptest::prelude::*;

use universe::{Edit, edits};

/// The number of steps after which a loop on a dataplane with faults must have converged.
const STEPS_MAX: usize = 2_000;

/// More than the addresses of the universe.
const IDS_MAX: u32 = 64;

type Address = (IpAddr, u16, Proto);
/// The behaviour of one scope of a frontend, without IDs.
type View = (u8, Vec<(IpAddr, u16)>);

fn policy() -> Policy {
    Policy {
        node_name: "n1".to_owned(),
        services: Services::All,
        default_ip_mode: Mode::VIP,
        proxy_annotations: Vec::new(),
        vendor_annotations: VendorAnnotations::Ignored,
        headers_from: HeadersFrom::Annotation,
        external_ips: ExternalIps::Guarded,
        cluster_ranges: Vec::new(),
        // As small as possible: the tables are checked after each row.
        selection: Selection { algorithm: Algorithm::Maglev, maglev_table_size: TableSize::new(7).expect("a prime") },
        health_checks: HealthCheckPorts::Left,
        node_ports: NodePortAddresses::Primary,
        forwarding: Forwarding::Snat,
    }
}

fn limits() -> TableLimits {
    TableLimits { frontend_ids_max: IDS_MAX, ..TableLimits::UNLIMITED }
}

fn controller(dataplane: &mut FakeDataplane) -> Controller {
    controller_within(limits(), dataplane)
}

fn controller_within(limits: TableLimits, dataplane: &mut FakeDataplane) -> Controller {
    dataplane.pool_elements = limits.pool_elements;
    Controller::adopt(dataplane, policy(), limits).expect("the dataplane works while it is adopted")
}

/// Limits that the universe hits, one or several at once.
fn tight_limits() -> impl Strategy<Value = TableLimits> {
    let max = |most: u32| prop_oneof![2 => 0..most, 1 => Just(u32::MAX)];
    // Beside Maglev tables the rows of three more are kept free: the second range leaves room for two tables at most.
    let pool_rows_max = prop_oneof![max(10), 21u32..40];
    let namespace_percent = prop::sample::select(vec![100u32, 100, 75, 50]);
    (max(16), pool_rows_max, max(24), max(6), namespace_percent).prop_map(
        |(frontends_max, pool_rows_max, members_max, source_ranges_max, namespace_percent)| TableLimits {
            frontends_max,
            pool_rows_max,
            pool_elements: 1024,
            members_max,
            source_ranges_max,
            namespace_percent,
            ..limits()
        },
    )
}

fn texts(controller: &Controller) -> Vec<String> {
    controller.warnings().map(ToString::to_string).collect()
}

/// The active frontends and the behaviour of each of their scopes.
fn views(tables: &Tables) -> BTreeMap<Address, [View; 3]> {
    fn family<A: Addr>(family: &FamilyTables<A>, tables: &Tables, all: &mut BTreeMap<Address, [View; 3]>) {
        for (key, frontend) in &family.frontends {
            if frontend.state == FrontendState::Active {
                let scopes = tables.scopes.get(&frontend.id).copied().unwrap_or(Scopes::PASS);
                let view = scopes.per_client().into_array().map(|scope| view(family, scope));
                all.insert((key.addr.into(), key.port, key.proto), view);
            }
        }
    }
    let mut all = BTreeMap::new();
    family(&tables.v4, tables, &mut all);
    family(&tables.v6, tables, &mut all);
    all
}

/// The desired owners of the addresses.
fn wanted_owners(world: &World, incumbents: &Incumbents<'_>) -> BTreeMap<Address, u32> {
    let desired = desired(world, &policy(), &limits(), incumbents);
    let tag = |index: usize| desired.service_ports[index].service.tag();
    let v4 = desired.v4.frontends.iter().map(|(key, row)| ((key.addr.into(), key.port, key.proto), row.service_port));
    let v6 = desired.v6.frontends.iter().map(|(key, row)| ((key.addr.into(), key.port, key.proto), row.service_port));
    v4.chain(v6).map(|(address, ServicePortIndex(index))| (address, tag(index))).collect()
}

fn view<A: Addr>(family: &FamilyTables<A>, scope: Scope) -> View {
    let slots = 0..u32::from(scope.count);
    let backends = slots.filter_map(|slot| family.pools.get(&PoolKey { pool: scope.pool, slot }));
    (scope.action as u8, backends.map(|Backend { addr, port }| ((*addr).into(), *port)).collect())
}

/// The tags of the Services that own the addresses.
fn owners(tables: &Tables) -> BTreeMap<Address, u32> {
    let owner = |id: u32| tables.scopes.get(&id).map(|scopes| scopes.owner);
    ids(tables).into_iter().filter_map(|(address, id)| Some((address, owner(id)?))).collect()
}

fn ids(tables: &Tables) -> BTreeMap<Address, u32> {
    let v4 = tables.v4.frontends.iter().map(|(key, row)| ((key.addr.into(), key.port, key.proto), row.id));
    let v6 = tables.v6.frontends.iter().map(|(key, row)| ((key.addr.into(), key.port, key.proto), row.id));
    v4.chain(v6).collect()
}

/// The desired tables of a world in which Services keep the addresses that they own.
fn wanted(world: &World, incumbents: &Incumbents<'_>) -> BTreeMap<Address, [View; 3]> {
    fn family<A: TableAddr>(rows: &FamilyDesired<A>, all: &mut BTreeMap<Address, [View; 3]>) {
        for (key, frontend) in &rows.frontends {
            let PerClient { workload, host, external } = frontend.scopes;
            let view = [workload, host, external].map(|choice| match choice {
                DesiredScope::Pass => (Action::Pass as u8, Vec::new()),
                DesiredScope::Reject => (Action::Reject as u8, Vec::new()),
                DesiredScope::Drop => (Action::Drop as u8, Vec::new()),
                DesiredScope::Balance(PoolIndex(pool)) => {
                    let backends = rows.pools[pool].iter().map(|Backend { addr, port }| ((*addr).into(), *port));
                    (Action::Balance as u8, backends.collect())
                }
            });
            all.insert((key.addr.into(), key.port, key.proto), view);
        }
    }
    let desired = desired(world, &policy(), &limits(), incumbents);
    let mut all = BTreeMap::new();
    family(&desired.v4, &mut all);
    family(&desired.v6, &mut all);
    all
}

/// The behaviour that packets may see at each address while the loop moves from one world to another.
#[derive(Default)]
struct Allowed {
    views: BTreeMap<Address, [BTreeSet<View>; 3]>,
    /// Wanted before, now and in between: must exist after each row.
    kept: BTreeSet<Address>,
    /// Not wanted at some time since: may pass while it is removed.
    left: BTreeSet<Address>,
}

impl Allowed {
    fn allow(&mut self, wanted: &BTreeMap<Address, [View; 3]>) {
        self.left.extend(self.views.keys().filter(|address| !wanted.contains_key(address)));
        for (address, views) in wanted {
            let allowed = self.views.entry(*address).or_default();
            for (allowed, view) in allowed.iter_mut().zip(views) {
                allowed.insert(view.clone());
            }
        }
        self.kept.retain(|address| wanted.contains_key(address));
    }

    /// The loop has converged: earlier worlds no longer count.
    fn arrived(&mut self, wanted: &BTreeMap<Address, [View; 3]>) {
        *self = Self { kept: wanted.keys().copied().collect(), ..Self::default() };
        self.allow(wanted);
    }

    fn check(&self, tables: &Tables) {
        let found = views(tables);
        for address in &self.kept {
            assert!(found.contains_key(address), "{address:?} stays wanted and is gone");
        }
        for (address, views) in found {
            let pass = (0, Vec::new());
            for (scope, view) in views.iter().enumerate() {
                let allowed = self.views.get(&address).is_some_and(|allowed| allowed[scope].contains(view));
                // A frontend that is removed passes before it is marked as draining.
                let is_leaving = *view == pass && self.left.contains(&address);
                assert!(allowed || is_leaving, "{address:?} scope {scope}: nobody asked for {view:?}");
            }
        }
    }
}

/// A controller on a dataplane that checks every row.
struct Lab {
    dataplane: FakeDataplane,
    controller: Controller,
    allowed: Arc<Mutex<Allowed>>,
    world: Vec<Edit>,
}

impl Lab {
    fn new() -> Self {
        let mut dataplane = FakeDataplane::default();
        let allowed = Arc::new(Mutex::new(Allowed::default()));
        let watch = Arc::clone(&allowed);
        dataplane.observe(move |tables| {
            assert_no_dangling_pool(tables);
            watch.lock().expect("the test is over when an assertion failed").check(tables);
        });
        let mut controller = controller(&mut dataplane);
        controller.change(vec![Change::Listed]);
        Self { dataplane, controller, allowed, world: Vec::new() }
    }

    fn allowed(&self) -> std::sync::MutexGuard<'_, Allowed> {
        self.allowed.lock().expect("the test is over when an assertion failed")
    }

    fn edit(&mut self, batch: &[Edit]) {
        self.world.extend_from_slice(batch);
        self.controller.change(batch.iter().map(Edit::change).collect());
        let wanted = self.wanted();
        self.allowed().allow(&wanted);
        self.dataplane.now_jiffies += 1;
    }

    fn wanted(&self) -> BTreeMap<Address, [View; 3]> {
        wanted(self.controller.world(), &self.controller.incumbents())
    }

    fn step(&mut self, reclaim: Reclaim) -> Step {
        // A step that failed may have changed owners.
        let wanted = self.wanted();
        self.allowed().allow(&wanted);
        self.controller.step(&mut self.dataplane, reclaim)
    }

    fn converge(&mut self) {
        let in_step = (0..STEPS_MAX).any(|_| self.step(Reclaim::Later).outcome == Outcome::InStep);
        assert!(in_step, "not in step after {STEPS_MAX} steps");
        assert_eq!(*self.controller.realised(), self.dataplane.tables);
        let derived = self.dataplane.tables.clone().derived(self.dataplane.address_words());
        assert_eq!(self.dataplane.tables, derived, "exactly the endpoints and address bits that rows need");
        let balancing = self.dataplane.tables.scopes.iter().filter(|(_, scopes)| scopes.balances()).map(|(id, _)| id);
        assert!(self.dataplane.tables.frontend_ages.keys().eq(balancing), "exactly the ages of what balances");
        let wanted = self.wanted();
        assert_eq!(views(&self.dataplane.tables), wanted);
        self.allowed().arrived(&wanted);
    }

    /// Kills the agent, and starts it again with the same world.
    fn restart(&mut self, faults: Faults) {
        self.dataplane.fail(Faults::Never);
        self.controller = controller(&mut self.dataplane);
        self.controller.change(self.world.iter().map(Edit::change).collect());
        self.controller.change(vec![Change::Listed]);
        self.dataplane.fail(faults);
    }
}

proptest! {
    #![proptest_config(lb_tests::random::config(192))]

    /// Whatever fails, and whenever the agent is killed, the tables converge to those of a fresh start. On the way a
    /// packet sees only behaviour that was wanted before or is wanted now.
    #[test]
    fn plans_converge_and_no_half_applied_plan_harms(
        rounds in prop::collection::vec((prop::collection::vec(edits(), 1..4), prop::collection::vec(any::<bool>(), 0..4), prop::bool::weighted(0.2)), 1..10),
        percent in 0u8..60,
        seed in any::<u64>(),
    ) {
        let mut lab = Lab::new();
        lab.dataplane.fail(Faults::Random { percent, seed });
        for (batch, steps, is_killed) in rounds {
            lab.edit(&batch);
            for reclaims in steps {
                lab.step(if reclaims { Reclaim::Now } else { Reclaim::Later });
            }
            if is_killed {
                lab.restart(Faults::Random { percent, seed });
            }
        }
        lab.converge();
        // Then nothing is left to write.
        lab.dataplane.fail(Faults::Never);
        prop_assert_eq!(lab.step(Reclaim::Later).rows, 0);
    }

    /// Each call fails once, in turn: the next step repairs all of it.
    #[test]
    fn any_single_failure_is_repaired_by_the_next_step(
        before in prop::collection::vec(edits(), 1..8),
        after in prop::collection::vec(edits(), 1..4),
        nth in 0usize..12,
    ) {
        let mut lab = Lab::new();
        lab.edit(&before);
        lab.converge();
        lab.edit(&after);
        lab.dataplane.fail(Faults::Nth(nth));
        lab.step(Reclaim::Later);
        lab.dataplane.fail(Faults::Never);
        prop_assert_eq!(lab.step(Reclaim::Later).outcome, Outcome::InStep);
        lab.converge();
    }

    /// A step that computes and compares only what has changed gives exactly the tables and warnings of a step that
    /// computes and compares everything, IDs included, also if some calls fail and frontends drain.
    #[test]
    fn a_part_says_what_the_whole_says(
        rounds in prop::collection::vec((prop::collection::vec(edits(), 1..4), 0u8..10, prop::option::of(0usize..12)), 1..16),
    ) {
        let (mut few, mut all) = (FakeDataplane::default(), FakeDataplane::default());
        let (mut by_part, mut whole) = (controller(&mut few), controller(&mut all));
        for controller in [&mut by_part, &mut whole] {
            controller.change(vec![Change::Listed]);
        }
        let mut is_exact = true;
        for (batch, kind, fault) in rounds {
            let reclaim = if kind == 0 { Reclaim::Now } else { Reclaim::Later };
            let faults = fault.filter(|_| kind == 1).map_or(Faults::Never, Faults::Nth);
            few.fail(faults);
            by_part.change(batch.iter().map(Edit::change).collect());
            let step = by_part.step(&mut few, reclaim);
            few.fail(Faults::Never);
            if step.outcome != Outcome::InStep {
                // Rows that a failure left behind keep IDs that new rows then cannot get.
                is_exact = false;
                prop_assert_eq!(by_part.step(&mut few, Reclaim::Later).outcome, Outcome::InStep);
            }
            whole.change(batch.iter().map(Edit::change).collect());
            whole.recompute();
            prop_assert_eq!(whole.step(&mut all, reclaim).services, None);
            prop_assert_eq!(views(&few.tables), views(&all.tables));
            prop_assert_eq!(by_part.realised(), &few.tables);
            prop_assert_eq!(texts(&by_part), texts(&whole));
            if is_exact {
                prop_assert_eq!(&few.tables, &all.tables);
            }
        }
    }

    /// The same with full tables, in which the rows that are left out change.
    #[test]
    fn a_part_says_what_the_whole_says_of_full_tables(
        limits in tight_limits(),
        rounds in prop::collection::vec((prop::collection::vec(edits(), 1..4), 0u8..5), 1..24),
    ) {
        let (mut few, mut all) = (FakeDataplane::default(), FakeDataplane::default());
        let mut by_part = controller_within(limits, &mut few);
        let mut whole = controller_within(limits, &mut all);
        for controller in [&mut by_part, &mut whole] {
            controller.change(vec![Change::Listed]);
        }
        for (batch, kind) in rounds {
            let reclaim = if kind == 0 { Reclaim::Now } else { Reclaim::Later };
            by_part.change(batch.iter().map(Edit::change).collect());
            prop_assert_eq!(by_part.step(&mut few, reclaim).outcome, Outcome::InStep);
            whole.change(batch.iter().map(Edit::change).collect());
            whole.recompute();
            prop_assert_eq!(whole.step(&mut all, reclaim).services, None);
            prop_assert_eq!(texts(&by_part), texts(&whole));
            prop_assert_eq!(&few.tables, &all.tables);
        }
    }

    /// After each step, an agent that starts on its tables with the same world finds nothing to write and has the same
    /// warnings.
    #[test]
    fn a_step_says_what_a_fresh_start_says(
        rounds in prop::collection::vec((prop::collection::vec(edits(), 1..4), 0u8..5), 1..8),
    ) {
        let mut dataplane = FakeDataplane::default();
        let mut controller = controller(&mut dataplane);
        controller.change(vec![Change::Listed]);
        let mut world = Vec::new();
        for (batch, kind) in rounds {
            world.extend(batch.iter().map(Edit::change));
            controller.change(batch.iter().map(Edit::change).collect());
            let reclaim = if kind == 0 { Reclaim::Now } else { Reclaim::Later };
            prop_assert_eq!(controller.step(&mut dataplane, reclaim).outcome, Outcome::InStep);
            // A Service that has stopped serving an address is its holder until the next step.
            controller.step(&mut dataplane, Reclaim::Later);
            let mut found = FakeDataplane::default();
            found.tables.clone_from(&dataplane.tables);
            let mut fresh = self::controller(&mut found);
            fresh.change(world.clone());
            fresh.change(vec![Change::Listed]);
            prop_assert_eq!(fresh.step(&mut found, Reclaim::Later).rows, 0);
            prop_assert_eq!(texts(&controller), texts(&fresh));
        }
    }

    /// Rows that are computed ahead, while the first lists arrive, are those of lists that arrive at once.
    #[test]
    fn a_list_in_parts_says_what_the_whole_says(edits in prop::collection::vec(edits(), 1..24)) {
        let whole: Vec<Change> = edits.iter().map(Edit::change).chain([Change::Listed]).collect();
        let parts = whole.iter().map(|change| vec![change.clone()]).collect();
        let found = [vec![whole], parts].map(|batches: Vec<Vec<Change>>| {
            let mut dataplane = FakeDataplane::default();
            let mut controller = controller(&mut dataplane);
            for batch in batches {
                controller.change(batch);
            }
            let outcome = controller.step(&mut dataplane, Reclaim::Later).outcome;
            (outcome, texts(&controller), dataplane.tables)
        });
        prop_assert_eq!(&found[0], &found[1]);
    }

    /// Rows that a Service has and still wants are not left out for wishes of other Services, however old those are.
    #[test]
    fn what_works_goes_on_in_full_tables(
        limits in tight_limits(),
        rounds in prop::collection::vec((edits(), 0u8..5), 1..24),
    ) {
        let mut dataplane = FakeDataplane::default();
        let mut controller = controller_within(limits, &mut dataplane);
        controller.change(vec![Change::Listed]);
        for (edit, kind) in rounds {
            let (before, owners) = (views(&dataplane.tables), owners(&dataplane.tables));
            let Some(changed) = edit.services() else { continue };
            controller.change(vec![edit.change()]);
            // Which further rows others get is not checked here.
            let (wanted, wanted_owners) = (
                wanted(controller.world(), &controller.incumbents()),
                wanted_owners(controller.world(), &controller.incumbents()),
            );
            let reclaim = if kind == 0 { Reclaim::Now } else { Reclaim::Later };
            prop_assert_eq!(controller.step(&mut dataplane, reclaim).outcome, Outcome::InStep);
            let (after, owners_now) = (views(&dataplane.tables), self::owners(&dataplane.tables));
            for (address, view) in &before {
                let is_others = owners.get(address).is_some_and(|owner| !changed.iter().any(|name| name.tag() == *owner));
                let is_still_wanted = wanted.get(address) == Some(view) && wanted_owners.get(address) == owners.get(address);
                if is_others && is_still_wanted {
                    prop_assert_eq!(after.get(address), Some(view), "{:?} is left out", address);
                    prop_assert_eq!(owners_now.get(address), owners.get(address));
                }
            }
        }
    }

    /// A restart writes nothing, and every ID stays.
    #[test]
    fn a_restart_changes_nothing(batch in prop::collection::vec(edits(), 1..12), more in prop::collection::vec(edits(), 0..6)) {
        let mut lab = Lab::new();
        lab.edit(&batch);
        lab.converge();
        lab.edit(&more);
        lab.converge();
        let tables = lab.dataplane.tables.clone();
        lab.restart(Faults::Never);
        prop_assert_eq!(lab.step(Reclaim::Later).rows, 0);
        prop_assert_eq!(&lab.dataplane.tables, &tables);
    }

    /// An address keeps its ID while it is wanted, and also if it drains and returns. IDs are unique. A frontend with
    /// flows is never deleted.
    #[test]
    fn ids_are_stable_and_unique(
        rounds in prop::collection::vec((prop::collection::vec(edits(), 1..4), prop::collection::btree_set(1u32..IDS_MAX, 0..10)), 1..12),
    ) {
        let mut lab = Lab::new();
        for (batch, in_use) in rounds {
            let before = ids(&lab.dataplane.tables);
            lab.edit(&batch);
            lab.converge();
            lab.dataplane.in_use.clone_from(&in_use);
            let step = lab.step(Reclaim::Now);
            prop_assert_eq!(step.outcome, Outcome::InStep);
            let after = ids(&lab.dataplane.tables);
            let unique: BTreeSet<u32> = after.values().copied().collect();
            prop_assert_eq!(unique.len(), after.len());
            for (address, id) in before {
                match after.get(&address) {
                    Some(now) => prop_assert_eq!(*now, id),
                    None => prop_assert!(!in_use.contains(&id)),
                }
            }
            let draining = after.len() - views(&lab.dataplane.tables).len();
            prop_assert_eq!(step.draining, draining);
            prop_assert!(ids(&lab.dataplane.tables).values().all(|id| (1..=IDS_MAX).contains(id)));
        }
    }

    /// When all objects and flows are gone, the tables are empty.
    #[test]
    fn nothing_is_left_behind(batch in prop::collection::vec(edits(), 1..12)) {
        let mut lab = Lab::new();
        lab.edit(&batch);
        lab.converge();
        lab.edit(&universe::nothing());
        lab.converge();
        lab.step(Reclaim::Now);
        prop_assert_eq!(&lab.dataplane.tables, &Tables::default());
    }
}
