//! Joins the rows of Services into tables, without IDs.

use std::collections::HashMap;
use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::table::{Backend, MemberSets};

use super::claim::Claim;
use super::port_rows::{FrontendRow, PortRows};
use super::scope::Treatment;
use super::selection::Selection;
use super::service_rows::{FamilyRows, ServiceRows};
use super::table::{
    Desired, DesiredFrontend, DesiredMember, DesiredScope, FamilyDesired, PoolIndex, ServicePortIndex, ServicePortName,
};
use super::usable::Usable;
use crate::family::TableAddr;
use crate::model::{ObjectName, ServicePort};

/// The rows of these Services, which are sorted by age.
pub fn tables(services: &[&ServiceRows]) -> Desired {
    let mut v4 = FamilyBuilder::with_room(services.iter().map(|rows| &rows.v4));
    let mut v6 = FamilyBuilder::with_room(services.iter().map(|rows| &rows.v6));
    let mut service_ports = ServicePorts::default();
    for rows in services {
        rows.v4.ports.iter().for_each(|port| v4.insert(rows, port, &mut service_ports));
        rows.v6.ports.iter().for_each(|port| v6.insert(rows, port, &mut service_ports));
    }
    Desired { v4: v4.rows, v6: v6.rows, service_ports: service_ports.names, warnings: Vec::new() }
}

/// Service ports in the order in which they were added.
#[derive(Default)]
struct ServicePorts {
    names: Vec<ServicePortName>,
    /// Ports of the Service that is being added: only these can repeat a name.
    current: HashMap<(Arc<str>, Proto), usize>,
    service: Option<Arc<ObjectName>>,
}

impl ServicePorts {
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
struct FamilyBuilder<A> {
    rows: FamilyDesired<A>,
    /// Pools that are balanced at random. Maglev tables are in `tables`.
    pools: Known<A>,
    tables: Known<A>,
    /// The pool that was asked for last, as the next one is usually the same.
    last: Option<Asked<A>>,
}

/// A pool with what was asked for.
type Asked<A> = (Arc<[Backend<A>]>, Selection, PoolIndex);

/// Pools by their backends.
type Known<A> = HashMap<Arc<[Backend<A>]>, PoolIndex>;

impl<A: TableAddr> FamilyBuilder<A> {
    /// With room for these rows.
    fn with_room<'a>(of: impl Iterator<Item = &'a FamilyRows<A>> + Clone) -> Self {
        let ports = of.flat_map(|rows| &rows.ports);
        let pools = ports.clone().count();
        let members = ports.map(|port| port.usable.members.len()).sum();
        let rows = FamilyDesired {
            pools: Vec::with_capacity(pools),
            members: Vec::with_capacity(members),
            ..FamilyDesired::default()
        };
        Self { rows, pools: Known::with_capacity(pools), tables: Known::new(), last: None }
    }

    fn insert(&mut self, of: &ServiceRows, rows: &PortRows<A>, service_ports: &mut ServicePorts) {
        let PortRows { port, usable, selection, frontends, .. } = rows;
        let service_port = service_ports.index(&of.name, port);
        for FrontendRow { key, claim, treatments, access } in frontends {
            let scopes = treatments.map(|treatment| self.scope(treatment, *selection, usable));
            let Claim { mode, decided_by, origin, kube_proxy, header, .. } = *claim;
            let row = DesiredFrontend {
                service_port,
                mode,
                decided_by,
                origin,
                kube_proxy,
                scopes,
                header,
                pool_flags: treatments.map(Treatment::pool_flag),
                algorithm: selection.algorithm,
                access: access.clone(),
                affinity_secs: of.affinity_secs,
            };
            self.rows.frontends.insert(*key, row);
        }
        // Two ports of one Service may share name and protocol by mistake. Their endpoints are then the same.
        let is_known = self.rows.members.last().is_some_and(|last| last.service_port >= service_port);
        if !is_known {
            let Usable { cluster, near, local, members } = usable;
            let sets = |backend: &Backend<A>| {
                let bit = |set: &[Backend<A>], bit| if set.binary_search(backend).is_ok() { bit } else { 0 };
                bit(cluster, MemberSets::CLUSTER) | bit(near, MemberSets::NEAR) | bit(local, MemberSets::LOCAL)
            };
            self.rows.members.extend(members.iter().map(|(backend, state)| {
                let sets = sets(backend);
                DesiredMember { service_port, backend: *backend, state: *state, sets }
            }));
        }
    }

    fn scope(&mut self, treatment: Treatment, selection: Selection, usable: &Usable<A>) -> DesiredScope {
        match treatment {
            Treatment::Pass => DesiredScope::Pass,
            Treatment::Reject => DesiredScope::Reject,
            Treatment::Drop => DesiredScope::Drop,
            Treatment::Cluster | Treatment::Forward => DesiredScope::Balance(self.pool(selection, &usable.cluster)),
            Treatment::Near => DesiredScope::Balance(self.pool(selection, &usable.near)),
            Treatment::Local => DesiredScope::Balance(self.pool(selection, &usable.local)),
        }
    }

    /// The pool of these backends. Adds it if it does not exist yet.
    fn pool(&mut self, selection: Selection, backends: &Arc<[Backend<A>]>) -> PoolIndex {
        match &self.last {
            Some((last, of, index)) if Arc::ptr_eq(last, backends) && *of == selection => *index,
            _ => {
                let index = self.known_or_new(selection, backends);
                self.last = Some((Arc::clone(backends), selection, index));
                index
            }
        }
    }

    fn known_or_new(&mut self, selection: Selection, backends: &Arc<[Backend<A>]>) -> PoolIndex {
        let is_table = selection.has_table(backends.len());
        let known = if is_table { &mut self.tables } else { &mut self.pools };
        if let Some(index) = known.get(backends) {
            return *index;
        }
        let index = PoolIndex(self.rows.pools.len());
        self.rows.pools.push(selection.pool(backends));
        known.insert(Arc::clone(backends), index);
        index
    }
}
