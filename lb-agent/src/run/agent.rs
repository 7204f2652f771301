//! The agent without clock and sockets: it takes changes and link events, and each turn updates the node accordingly.

mod drivers;
mod monitor;
mod tell;
mod uplinks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lb_common::table::Port;
use lb_common::table::maps::{FAMILY4, FAMILY6};

use super::attach::{Trust, reconcile};
use super::crowding::Room;
use super::drivers::{Attempt, Drivers};
use super::outlook::Outlook;
use super::programming::Programming;
use super::timetable::{Due, Timetable};
use super::troubles::{Tried, Troubles};
use crate::ask::Judgements;
use crate::config::Config;
use crate::controller::{Controller, Outcome, Reclaim, Step};
use crate::dataplane::garbage::Garbage;
use crate::dataplane::links::{Class, Link};
use crate::dataplane::{Dataplane, Error, UplinkRows, give_back_memory};
use crate::guard::Keeper;
use crate::health;
use crate::interfaces::{BridgeNetfilter, Event, InterfaceRules, Interfaces, Judgement};
use crate::ipsec::Policies;
use crate::known::{Asked, Known};
use crate::metrics::Metrics;
use crate::model::{Change, Warning};
use crate::status::{Behind, Readiness, Status};
pub use monitor::LISTEN_INTERVAL;

/// The interval of checks whether another program has changed the guard's table, the netfilter settings of bridges, the
/// programs before ours, or ours. The kernel sends no events for these, or not to us.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The state that one task owns.
pub struct Agent<D> {
    dataplane: D,
    controller: Controller,
    interfaces: Interfaces,
    /// Reads the namespace-wide setting whether frames between ports of bridges traverse netfilter.
    bridge_netfilter: fn() -> BridgeNetfilter,
    /// The ports that were last written to the tables.
    ports: Vec<Port>,
    /// The addresses on uplinks that were last written.
    uplinks: UplinkRows,
    drivers: Drivers,
    ipsec: Policies,
    /// Links removed since the last turn, with their names. Another link may already have their index.
    gone: BTreeMap<u32, String>,
    rules: InterfaceRules,
    node_name: String,
    pin_path: PathBuf,
    phase: Phase,
    timetable: Timetable,
    outlook: Outlook,
    /// When the checks without events were last made.
    looked: Instant,
    /// When to look next whether `lb-agent monitor` listens.
    listen_at: Instant,
    metrics: Metrics,
    programming: Programming,
    status: Status,
    logged: BTreeSet<Warning>,
    troubles: Troubles,
    /// Warnings about interfaces and tables that were nearly full at the last walk.
    crowding: Vec<Warning>,
    /// Answers health checks. `None` in tests of other things.
    health: Option<health::Keeper>,
    room: Room,
}

/// The progress of the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The tables are not complete yet. Programs of an earlier run stay attached as they are.
    Filling,
    /// Programs of this version use tables of this version.
    Forwarding,
}

impl<D: Dataplane> Agent<D> {
    /// Starts from the existing tables.
    pub fn adopt(mut dataplane: D, config: &Config, metrics: Metrics, now: Instant) -> Result<Self, Error> {
        let controller = Controller::adopt(&mut dataplane, config.policy.clone(), config.limits)?;
        let mut agent = Self {
            dataplane,
            controller,
            interfaces: Interfaces::default(),
            bridge_netfilter: BridgeNetfilter::of_namespace,
            ports: Vec::new(),
            uplinks: UplinkRows::new(),
            drivers: Drivers::new(config.dataplane.xdp),
            ipsec: Policies::followed(config.dataplane.snat_ports.is_some()),
            gone: BTreeMap::new(),
            rules: config.interfaces.clone(),
            node_name: config.policy.node_name.clone(),
            pin_path: config.dataplane.pin_path.clone(),
            phase: Phase::Filling,
            timetable: Timetable::new(config.times, now),
            outlook: Outlook::new(config),
            looked: now,
            listen_at: now,
            metrics,
            programming: Programming::since(SystemTime::now()),
            status: Status::starting(now),
            logged: BTreeSet::new(),
            troubles: Troubles::default(),
            crowding: Vec::new(),
            health: None,
            room: Room {
                flows_max: config.dataplane.sizes.flows_max as usize,
                snat_ports: config.dataplane.snat_ports,
            },
        };
        agent.obey_ipsec();
        Ok(agent)
    }

    /// Adds the guard, which keeps kube-proxy off addresses that are left alone by our decision.
    #[must_use]
    pub fn guarded_by(mut self, guard: Keeper) -> Self {
        self.controller = self.controller.guarded_by(guard);
        self
    }

    /// Adds the listeners of health checks.
    #[must_use]
    pub fn answering(mut self, health: health::Keeper) -> Self {
        self.health = Some(health);
        self
    }

    /// Takes changes from the source.
    pub fn change(&mut self, batch: Vec<Change>, now: Instant) {
        self.programming.changing(self.controller.world(), &batch);
        self.controller.change(batch);
        // kube-proxy keeps the last form of a Node that was deleted.
        if let Some(node) = self.controller.world().node(&self.node_name) {
            self.status.is_eligible = !node.is_leaving;
        }
        self.timetable.changed(now);
    }

    /// Takes link events and attaches at once. The interval between applies is only for the tables.
    pub fn link_events(&mut self, events: Vec<Event>, now: Instant) {
        let mut trust = Trust::Believe;
        for event in events {
            match &event {
                Event::LinkGone(ifindex) => {
                    let name = self.interfaces.links().get(ifindex).map(|link| link.name.clone());
                    self.gone.insert(*ifindex, name.unwrap_or_default());
                }
                Event::Everything { .. } => trust = Trust::Verify,
                Event::Link(_) | Event::Address { .. } | Event::AddressGone { .. } | Event::DefaultRoutes(_) => {}
            }
            self.interfaces.apply(event);
        }
        if self.interfaces.is_listed() && self.controller.follow_addresses(self.interfaces.held_addresses()) {
            self.timetable.changed(now);
        }
        let is_in_step = self.status.in_step.is_some() && self.status.behind.is_none();
        if self.phase == Phase::Filling && is_in_step {
            self.forward(now);
        } else {
            self.follow_links(trust, now);
        }
    }

    /// When the next turn is due.
    pub fn next_turn(&self) -> Instant {
        self.timetable.next()
    }

    /// Does what is due. Returns true at an audit: then the interfaces should be listed again.
    #[must_use]
    pub fn turn(&mut self, now: Instant) -> bool {
        // Checked at every turn, because changes may never pause.
        self.look_around(now);
        self.follow_monitor(now);
        match self.timetable.due(now) {
            None => false,
            Some(Due::Apply) => {
                self.step(Reclaim::Later);
                false
            }
            Some(Due::Unclaimed) => {
                if self.controller.drop_unclaimed() {
                    tracing::warn!("--keep-unclaimed-secs have passed: removing the frontends that no object claims");
                    self.timetable.changed(now);
                }
                self.timetable.unclaimed_dropped();
                false
            }
            Some(Due::Links) => {
                self.follow_links(Trust::Verify, now);
                false
            }
            Some(Due::Reclaim) => {
                self.step(Reclaim::Now);
                if self.controller.is_waiting_for_room() {
                    // The deleted rows have made room.
                    self.timetable.changed(now);
                }
                false
            }
            Some(Due::Collect) => {
                self.collect(now);
                false
            }
            Some(Due::Audit) => {
                self.audit();
                self.timetable.audited(now);
                true
            }
        }
    }

    /// A snapshot for the HTTP server.
    pub fn status(&self, now: Instant) -> Status {
        let mut status = self.status.clone();
        status.turned = now;
        status.guard = self.controller.guard().map(|guard| (guard.entries(), guard.repairs()));
        status.health = self.health.as_ref().map(health::Keeper::tally).unwrap_or_default();
        status.attached = self.dataplane.attached().into_iter().map(|(_, class, _)| class).collect();
        status.drivers = self.dataplane.drivers().into_values().collect();
        status
    }

    /// The annotation or label that decided the mode, by the ID of the Service port.
    pub fn deciding_keys(&self) -> BTreeMap<u32, String> {
        self.controller.deciding_keys().map(|(id, key)| (id, key.to_owned())).collect()
    }

    /// The names of Service ports by their ID.
    pub fn service_names(&self) -> BTreeMap<u32, String> {
        self.controller.service_ports().map(|(name, id)| (id, name.to_string())).collect()
    }

    /// What it knows about addresses and Services.
    pub fn known(&self, asked: &Asked) -> Known {
        self.controller.known(asked)
    }

    fn step(&mut self, reclaim: Reclaim) {
        let started = Instant::now();
        let step = self.controller.step(&mut self.dataplane, reclaim);
        let ended = Instant::now();
        self.tell_warnings();
        self.tell_step(&step, started, ended);
        self.timetable.draining(step.draining, ended);
        self.status.draining = step.draining;
        self.status.rows = rows(&self.controller);
        match step.outcome {
            Outcome::NotListed => {
                if self.controller.world().is_listed() && self.controller.lacks_addresses() {
                    self.status.readiness = Readiness::NotReady("waiting for the first list of the interfaces".into());
                }
                self.timetable.succeeded(ended);
            }
            Outcome::Behind => self.fall_behind(&step, ended),
            Outcome::InStep => {
                self.status.behind = None;
                self.status.in_step = Some(SystemTime::now());
                self.forward(ended);
                // Last: the first time, only now the programs use these tables.
                self.release_sockets();
                self.forget_forwarded();
                if self.phase == Phase::Forwarding {
                    self.programming.programmed(SystemTime::now()).for_each(|took| self.metrics.programmed(took));
                }
            }
        }
    }

    /// Ends UDP sockets that are connected to a backend which has gone.
    fn release_sockets(&mut self) {
        match self.dataplane.release_sockets() {
            Ok(0) => {}
            Ok(sockets) => tracing::info!(sockets, "ended UDP sockets of the node whose backend has gone"),
            Err(error) => tracing::warn!(%error, "UDP sockets may stay connected to a backend that has gone"),
        }
    }

    fn fall_behind(&mut self, step: &Step, now: Instant) {
        self.timetable.failed(now);
        let since = self.status.behind.as_ref().map_or(now, |behind| behind.since);
        let reason = step.errors.first().map_or_else(|| "no reason is known".into(), ToString::to_string);
        if self.phase == Phase::Filling {
            self.status.readiness = Readiness::NotReady(format!("the tables could not be filled: {reason}"));
        }
        self.status.behind = Some(Behind { since, rows: step.failed_rows, reason });
    }

    /// The tables are complete: activates the programs, or follows the links.
    fn forward(&mut self, now: Instant) {
        match self.phase {
            Phase::Forwarding => {
                self.timetable.succeeded(now);
                // The Node's addresses may have changed.
                self.follow_links(Trust::Believe, now);
                self.follow_health_checks();
            }
            Phase::Filling if !self.interfaces.is_listed() => {
                self.timetable.succeeded(now);
                self.status.readiness = Readiness::NotReady("waiting for the first list of the interfaces".into());
            }
            Phase::Filling => match self.activate() {
                Ok(()) => {
                    self.troubles.over(Tried::Activate);
                    self.timetable.succeeded(now);
                    self.phase = Phase::Forwarding;
                    let problem = self.dataplane.socket_problem();
                    if self.outlook.look_at_sockets(problem) {
                        self.tell_warnings();
                    }
                    self.follow_links(Trust::Verify, now);
                    self.follow_health_checks();
                }
                Err(error) => {
                    if self.troubles.is_news(Tried::Activate, &error) {
                        tracing::error!(%error, "the programs could not be activated, trying again later");
                    }
                    let reason = format!("the programs could not be activated: {error}");
                    self.status.readiness = Readiness::NotReady(reason);
                    self.timetable.failed(now);
                }
            },
        }
    }

    /// Answers with what the tables now hold.
    fn follow_health_checks(&mut self) {
        let Some(health) = &mut self.health else { return };
        if let Some(checks) = self.controller.take_health_checks() {
            health.follow(checks);
            self.tell_warnings();
        }
    }

    /// Writes the ports, then gives the attached hooks the programs of this version.
    fn activate(&mut self) -> Result<(), Error> {
        self.interfaces.follow_netfilter((self.bridge_netfilter)());
        let ports = self.interfaces.ports();
        self.dataplane.set_ports(&ports)?;
        self.ports = ports;
        let node_addresses = self.node_addresses();
        let wanted = self.interfaces.wanted(&self.interfaces.judged(&self.rules, &node_addresses));
        self.write_uplinks(self.uplinks_of(&wanted))?;
        self.dataplane.activate()
    }

    fn tell_ready(&mut self) {
        self.status.readiness = Readiness::Ready;
        self.controller.condense();
        give_back_memory();
        let tables = self.controller.realised();
        tracing::info!(
            frontends = tables.v4.frontends.len() + tables.v6.frontends.len(),
            backends = tables.v4.members.len() + tables.v6.members.len(),
            interfaces = self.dataplane.attached().len(),
            warnings = self.status.warnings.len(),
            "ready"
        );
    }

    fn follow_links(&mut self, trust: Trust, now: Instant) {
        if self.phase == Phase::Filling {
            return;
        }
        for (ifindex, ..) in self.dataplane.attached() {
            if let Some(interface) = self.gone.get(&ifindex) {
                match self.dataplane.detach(ifindex) {
                    Ok(()) => tracing::info!(interface, ifindex, "detached: the interface is gone"),
                    Err(error) => tracing::warn!(ifindex, %error, "the pin of a removed interface stays"),
                }
            }
        }
        self.gone.clear();
        let judged = self.interfaces.judged(&self.rules, &self.node_addresses());
        let wanted = self.interfaces.wanted(&judged);
        let pods = self.links_of_pods(&wanted);
        if let Some(guard) = self.controller.guard_mut() {
            guard.follow_links(pods);
        }
        let mut is_complete = self.tell_ports(trust);
        let (drivers, withdrawn) = self.withdraw_drivers(&wanted, trust);
        let failures = reconcile(&mut self.dataplane, &wanted, trust);
        if self.outlook.look_at_failures(&failures) {
            self.tell_warnings();
        }
        is_complete &= failures.is_empty();
        let attempt = self.attach_drivers(&drivers, &wanted, trust).max(withdrawn);
        // Only now: answers need the programs of the uplink.
        is_complete &= self.tell_uplinks(&wanted, trust);
        self.tell_judgements(&judged);
        match (is_complete, attempt) {
            (true, Attempt::Done) => self.timetable.links_succeeded(),
            (true, Attempt::Waiting) => {}
            (false, _) | (_, Attempt::Failed) => self.timetable.links_failed(now),
        }
        self.judge_readiness();
    }

    /// Ready, once each flag with globs has had a matching interface.
    fn judge_readiness(&mut self) {
        let has_changed = self.outlook.look_at_links(self.interfaces.links());
        if self.status.readiness != Readiness::Ready {
            match self.outlook.missing() {
                Some(reason) => self.status.readiness = Readiness::NotReady(reason),
                None => self.tell_ready(),
            }
        }
        if has_changed {
            self.tell_warnings();
        }
    }

    /// Writes the ports if they changed. Returns false if the write failed and must be tried again.
    fn tell_ports(&mut self, trust: Trust) -> bool {
        let ports = self.interfaces.ports();
        if trust == Trust::Believe && ports == self.ports {
            return true;
        }
        match self.dataplane.set_ports(&ports) {
            Ok(()) => {
                self.troubles.over(Tried::Ports);
                self.ports = ports;
            }
            Err(error) => {
                if self.troubles.is_news(Tried::Ports, &error) {
                    tracing::warn!(%error, "the bridges of the interfaces could not be written, trying again later");
                }
                return false;
            }
        }
        true
    }

    fn tell_judgements(&mut self, judged: &BTreeMap<u32, Judgement>) {
        let remarks = self.ports.iter().filter_map(|port| Some((port.ifindex, self.interfaces.remark(port)?)));
        let remarks: BTreeMap<_, _> = remarks.collect();
        let why = judged.iter().map(|(ifindex, judgement)| match remarks.get(ifindex) {
            Some(remark) => (*ifindex, format!("{}; {remark}", judgement.why)),
            None => (*ifindex, judgement.why.to_string()),
        });
        let why = why.collect();
        let links = self.interfaces.links();
        let refused = judged.iter().filter(|(_, judgement)| judgement.why.is_refusal());
        let refused = refused.filter_map(|(ifindex, judgement)| {
            links.get(ifindex).map(|link| format!("{}: {}", link.name, judgement.why))
        });
        let (pin_path, left_to_tc) = (self.pin_path.clone(), self.drivers.why_not());
        let judgements = Judgements { pin_path, why, refused: refused.collect(), left_to_tc };
        let has_changed = self.outlook.look_at_judgements(judged, links);
        if self.outlook.look_at_bridges(&self.interfaces.unfiltered(judged)) || has_changed {
            self.tell_warnings();
        }
        if *self.status.judgements != judgements {
            self.status.judgements = Arc::new(judgements);
        }
    }

    /// The interfaces of pods and their bridges: netfilter sees the bridge where our programs see the port.
    fn links_of_pods(&self, wanted: &BTreeMap<u32, Link>) -> BTreeSet<u32> {
        let links = self.interfaces.links();
        let workloads = wanted.values().filter(|link| link.class == Class::Workload).map(|link| link.ifindex);
        workloads
            .flat_map(|ifindex| [Some(ifindex), links.get(&ifindex).and_then(|link| link.controller)])
            .flatten()
            .collect()
    }

    fn look_around(&mut self, now: Instant) {
        if now < self.looked + LOOK_INTERVAL {
            return;
        }
        self.looked = now;
        if self.interfaces.follow_netfilter((self.bridge_netfilter)()) {
            self.follow_links(Trust::Believe, now);
        }
        self.look_at_ipsec(now);
        if self.phase == Phase::Forwarding && self.dataplane.forget_lost() {
            tracing::warn!("another program had removed classifiers of lb-agent: attaching them again");
            self.follow_links(Trust::Verify, now);
        }
        let mut has_changed = self.outlook.look_at_programs(&self.dataplane.ahead(), self.interfaces.links());
        has_changed |= self.health.as_mut().is_some_and(health::Keeper::retry);
        let Some(guard) = self.controller.guard_mut() else {
            if has_changed {
                self.tell_warnings();
            }
            return;
        };
        let before = guard.repairs();
        guard.verify();
        if guard.repairs() > before {
            tracing::warn!("another program had changed the guard's nftables table: restored");
        }
        self.tell_warnings();
    }

    fn node_addresses(&self) -> BTreeSet<IpAddr> {
        let node = self.controller.world().node(&self.node_name);
        node.map(|node| node.addresses.iter().copied().collect()).unwrap_or_default()
    }

    /// Does one step of a walk over the flows.
    fn collect(&mut self, now: Instant) {
        match self.dataplane.collect() {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.troubles.over(Tried::Collect);
                let Garbage { flows4, flows6, collected, trimmed, .. } = found;
                if collected > 0 {
                    tracing::debug!(flows4, flows6, collected, "deleted expired flows");
                }
                if trimmed > 0 {
                    tracing::debug!(trimmed, "deleted flows of interfaces with too many flows");
                }
                self.crowding = self.room.warnings(&found, self.interfaces.links());
                self.tell_warnings();
                self.status.flow_entries = vec![(FAMILY4.flows.name(), 2 * flows4), (FAMILY6.flows.name(), 2 * flows6)];
                self.timetable.collected(now);
            }
            Err(error) => {
                if self.troubles.is_news(Tried::Collect, &error) {
                    tracing::warn!(%error, "expired flows could not be deleted, trying again later");
                }
                self.timetable.collected(now);
            }
        }
    }

    fn audit(&mut self) {
        match self.controller.audit(&mut self.dataplane) {
            Ok(0) => tracing::debug!("audit: the tables are as written"),
            Ok(rows) => {
                tracing::warn!(rows, "audit: the tables differ from what was written, repairing");
                self.metrics.repaired(rows);
            }
            Err(error) => tracing::warn!(%error, "audit: the tables could not be read"),
        }
        self.step(Reclaim::Later);
        give_back_memory();
    }
}

/// The number of rows in the tables that the agent writes.
fn rows(controller: &Controller) -> Vec<(&'static str, usize)> {
    let tables = controller.realised();
    vec![
        (FAMILY4.frontends.name(), tables.v4.frontends.len()),
        (FAMILY6.frontends.name(), tables.v6.frontends.len()),
        (FAMILY4.pools.name(), tables.v4.pools.len()),
        (FAMILY6.pools.name(), tables.v6.pools.len()),
        (FAMILY4.members.name(), tables.v4.members.len()),
        (FAMILY6.members.name(), tables.v6.members.len()),
        (FAMILY4.source_ranges.name(), tables.v4.source_ranges.len()),
        (FAMILY6.source_ranges.name(), tables.v6.source_ranges.len()),
    ]
}

#[cfg(test)]
mod tests;
