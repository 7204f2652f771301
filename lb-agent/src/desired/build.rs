//! Builds the rows of one family, Service by Service, for what was granted room.

use std::collections::HashMap;
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::table::{Backend, FrontendKey, MemberSets};

use super::claim::Claim;
use super::ledger::{Shortage, TABLE_SLOTS};
use super::of_service::OfService;
use super::prepare::{FrontendRow, PortRows};
use super::scope::Target;
use super::selection::Selection;
use super::table::{
    Choice, Choices, DesiredFrontend, DesiredMember, FamilyDesired, PoolIndex, ServicePortIndex, ServicePortName,
};
use super::usable::Usable;
use crate::family::TableAddr;
use crate::model::{ObjectName, Service, ServicePort, Warning, WarningKind};

/// Service ports in the order in which they were added.
#[derive(Default)]
pub struct ServicePorts {
    names: Vec<ServicePortName>,
    /// Ports of the Service that is being added: only these can repeat a name.
    current: HashMap<(Arc<str>, Proto), usize>,
    service: Option<Arc<ObjectName>>,
}

impl ServicePorts {
    pub fn into_names(self) -> Vec<ServicePortName> {
        self.names
    }

    fn index(&mut self, service: &Arc<ObjectName>, port: &ServicePort) -> ServicePortIndex {
        if self.service.as_ref().is_none_or(|current| !Arc::ptr_eq(current, service)) {
            self.current.clear();
            self.service = Some(Arc::clone(service));
        }
        let names = &mut self.names;
        let index = self.current.entry((Arc::clone(&port.name), port.proto)).or_insert_with(|| {
            let (port_name, proto) = (Arc::clone(&port.name), port.proto);
            names.push(ServicePortName { service: Arc::clone(service), port_name, proto });
            names.len() - 1
        });
        ServicePortIndex(*index)
    }
}

/// Rows of one family so far.
pub struct FamilyBuilder<A> {
    rows: FamilyDesired<A>,
    /// Pools that are balanced at random. Maglev tables are in `tables`.
    pools: Known<A>,
    tables: Known<A>,
}

/// Pools by their backends.
type Known<A> = HashMap<Arc<[Backend<A>]>, PoolIndex>;

impl<A: TableAddr> FamilyBuilder<A> {
    pub fn new() -> Self {
        Self { rows: FamilyDesired::default(), pools: Known::new(), tables: Known::new() }
    }

    pub fn finish(self) -> FamilyDesired<A> {
        self.rows
    }

    /// Adds the rows of a Service.
    pub fn add(&mut self, of: &OfService<'_>, ports: Vec<PortRows<'_, A>>, service_ports: &mut ServicePorts) {
        for rows in ports {
            self.insert(of, rows, service_ports);
        }
    }

    /// Records the frontends that found no room.
    pub fn leave_out(&mut self, keys: impl Iterator<Item = FrontendKey<A>>) {
        self.rows.left_out.extend(keys);
    }

    fn insert(&mut self, of: &OfService<'_>, rows: PortRows<'_, A>, service_ports: &mut ServicePorts) {
        let PortRows { port, usable, selection, frontends } = rows;
        let service_port = service_ports.index(&of.name, port);
        for FrontendRow { key, claim, targets, access } in frontends {
            let choices = Choices {
                workload: self.choice(targets.workload, selection, &usable),
                host: self.choice(targets.host, selection, &usable),
                external: self.choice(targets.external, selection, &usable),
            };
            let pool_flags = [targets.workload, targets.host, targets.external].map(Target::pool_flag);
            let (Claim { mode, decided_by, origin, kube_proxy, .. }, affinity_secs) = (claim, of.service.affinity_secs);
            let row = DesiredFrontend {
                service_port,
                mode,
                decided_by,
                origin,
                kube_proxy,
                choices,
                pool_flags,
                algorithm: selection.algorithm,
                access,
                affinity_secs,
            };
            self.rows.frontends.insert(key, row);
        }
        // Two ports of one Service may share name and protocol by mistake. Their endpoints are then the same.
        let is_known = self.rows.members.last().is_some_and(|last| last.service_port >= service_port);
        if !is_known {
            let Usable { cluster, near, local, members } = usable;
            let sets = |backend: &Backend<A>| {
                let bit = |set: &[Backend<A>], bit| if set.binary_search(backend).is_ok() { bit } else { 0 };
                bit(&cluster, MemberSets::CLUSTER) | bit(&near, MemberSets::NEAR) | bit(&local, MemberSets::LOCAL)
            };
            self.rows.members.extend(members.into_iter().map(|(backend, state)| {
                let sets = sets(&backend);
                DesiredMember { service_port, backend, state, sets }
            }));
        }
    }

    fn choice(&mut self, target: Target, selection: Selection, usable: &Usable<A>) -> Choice {
        match target {
            Target::Pass => Choice::Pass,
            Target::Reject => Choice::Reject,
            Target::Drop => Choice::Drop,
            Target::Cluster => Choice::Balance(self.pool(selection, &usable.cluster)),
            Target::Near => Choice::Balance(self.pool(selection, &usable.near)),
            Target::Local => Choice::Balance(self.pool(selection, &usable.local)),
        }
    }

    /// The pool of these backends. Adds it if it does not exist yet.
    fn pool(&mut self, selection: Selection, backends: &[Backend<A>]) -> PoolIndex {
        let table_slots = selection.table_slots(backends.len());
        let backends = match self.known_pools(table_slots).get_key_value(backends) {
            Some((_, index)) => return *index,
            None => Arc::<[Backend<A>]>::from(backends),
        };
        let index = PoolIndex(self.rows.pools.len());
        self.rows.pools.push(selection.pool(&backends));
        self.known_pools_mut(table_slots).insert(backends, index);
        index
    }

    /// The known pools of this kind.
    const fn known_pools(&self, table_slots: Option<u16>) -> &Known<A> {
        if table_slots.is_some() { &self.tables } else { &self.pools }
    }

    const fn known_pools_mut(&mut self, table_slots: Option<u16>) -> &mut Known<A> {
        if table_slots.is_some() { &mut self.tables } else { &mut self.pools }
    }
}

const SMALLER_TABLES: &str =
    "raise --backends-max, lower --maglev-table-size, or annotate Services with lb-agent.io/lb-algorithm: random";

/// A warning that a Service, or its growth, is left out.
pub fn no_room(service: &Service, shortage: &Shortage, is_known: bool) -> Warning {
    let Shortage { what, wanted, max, setting, namespace } = shortage;
    let what_happens = if is_known {
        "has grown by more than fits: what it had goes on, as far as it is still wanted, and the rest is left out"
    } else {
        "does not fit and is left out"
    };
    let (problem, remedy) = match namespace {
        Some(namespace) => (
            format!("{what_happens}: {wanted} {what} of namespace {namespace}, its share is {max}"),
            format!("raise --namespace-share or {setting}, or remove Services of the namespace"),
        ),
        None => (
            format!("{what_happens}: {wanted} {what}, the limit is {max}"),
            if *what == TABLE_SLOTS { SMALLER_TABLES.into() } else { format!("raise {setting}, or remove Services") },
        ),
    };
    Warning::new(WarningKind::Capacity, problem, remedy).of(format_args!("Service {}", service.name))
}
