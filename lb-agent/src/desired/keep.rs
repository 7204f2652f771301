//! What a Service has and still wants, which takes no more room than now.
//!
//! It keeps its served addresses and as many endpoints and source ranges as it has, preferring those that it has
//! already.

use std::collections::BTreeSet;
use std::sync::Arc;

use lb_common::table::{Backend, FrontendKey, MemberState, Scope, ScopeFlags, Scopes};

use super::access::{Access, SourcePrefix};
use super::incumbent::Incumbents;
use super::ledger::Book;
use super::port_rows::PortRows;
use super::scope::{self, Policies, Treatment};
use super::selection::{Algorithm, Selection};
use super::service_rows::{FamilyRows, ServiceRows};
use super::usable::{Usable, shared};
use crate::family::TableAddr;
use crate::model::ObjectName;

/// The part of a Service's rows that the tables hold.
pub fn kept<A: Book>(rows: &ServiceRows, incumbents: &Incumbents<'_>) -> FamilyRows<A> {
    let ports = A::rows(rows).ports.iter().cloned();
    FamilyRows::of(ports.filter_map(|port| kept_port(&rows.name, rows.policies, port, incumbents)).collect())
}

fn kept_port<A: TableAddr>(
    service: &ObjectName,
    policies: Policies,
    mut rows: PortRows<A>,
    incumbents: &Incumbents<'_>,
) -> Option<PortRows<A>> {
    let row = |key: &FrontendKey<A>| incumbents.row(key, service);
    rows.frontends.retain(|frontend| row(&frontend.key).is_some());
    let scopes = row(&rows.frontends.first()?.key)?;
    rows.usable = kept_endpoints(rows.usable, scopes, incumbents)?;
    let is_maglev =
        |scopes: &Scopes| scopes.per_client().into_array().iter().any(|scope| scope.has(ScopeFlags::MAGLEV));
    // An address that is left to the balancer has no pool, whatever the others have.
    if !rows.frontends.iter().filter_map(|frontend| row(&frontend.key)).any(is_maglev) {
        rows.selection = Selection { algorithm: Algorithm::Random, ..rows.selection };
    }
    let mut known = None;
    for frontend in &mut rows.frontends {
        if let Access::Only(wanted) = &frontend.access {
            let scopes = row(&frontend.key)?;
            let set = match &known {
                Some((of, id, set)) if Arc::ptr_eq(of, wanted) && *id == scopes.source_ranges => Arc::clone(set),
                _ => kept_ranges(wanted, scopes, incumbents)?,
            };
            known = Some((Arc::clone(wanted), scopes.source_ranges, Arc::clone(&set)));
            frontend.access = Access::Only(set);
        }
        frontend.treatments = scope::treatments(&frontend.claim, policies, rows.usable.supply());
    }
    Some(rows)
}

/// Whether the tables hold exactly these rows, including pools and source ranges.
pub fn is_held<A: TableAddr>(service: &ObjectName, rows: &PortRows<A>, incumbents: &Incumbents<'_>) -> bool {
    rows.frontends.iter().all(|frontend| {
        let Some(scopes) = incumbents.row(&frontend.key, service) else { return false };
        let has_pool = |treatment: Treatment, scope: Scope| {
            let set = match treatment {
                Treatment::Cluster | Treatment::Forward => &rows.usable.cluster,
                Treatment::Near => &rows.usable.near,
                Treatment::Local => &rows.usable.local,
                Treatment::Pass | Treatment::Reject | Treatment::Drop => return true,
            };
            let has_table = scope.has(ScopeFlags::MAGLEV) && rows.selection.has_table(set.len());
            has_table == rows.selection.has_table(set.len()) && *incumbents.backends(scope) == **set
        };
        let has_ranges = match &frontend.access {
            Access::Open => true,
            Access::Only(set) => incumbents.source_ranges::<A>(scopes).is_some_and(|known| *known == **set),
        };
        let by_client = frontend.treatments.zip(scopes.per_client()).into_array();
        has_ranges && by_client.into_iter().all(|(treatment, scope)| has_pool(treatment, scope))
    })
}

/// As many endpoints as now: as many of those that get new flows as pools hold, the known ones first, and as many others
/// as flows may still use. Returns `None` if that would empty a set: rejecting would be worse than leaving the flow to
/// the stack.
fn kept_endpoints<A: TableAddr>(usable: Usable<A>, scopes: &Scopes, incumbents: &Incumbents<'_>) -> Option<Usable<A>> {
    let is_chosen = |backend: &Backend<A>| {
        usable.cluster.binary_search(backend).is_ok() || usable.local.binary_search(backend).is_ok()
    };
    let is_known = |backend: &Backend<A>| incumbents.is_member(scopes.service_port, backend);
    let served: BTreeSet<_> =
        scopes.per_client().into_array().into_iter().flat_map(|scope| incumbents.backends::<A>(scope)).collect();
    let (chosen_max, count) = if served.is_empty() {
        let count = incumbents.members::<A>(scopes.service_port);
        (count, count)
    } else {
        // The members are no measure: a failed write may have left a member out, and a failed delete an earlier one.
        let is_idle = |backend: &Backend<A>| !is_chosen(backend) && !served.contains(backend) && is_known(backend);
        (served.len(), served.len() + usable.members.iter().filter(|(backend, _)| is_idle(backend)).count())
    };
    let (mut members, mut others): (Vec<_>, Vec<_>) =
        usable.members.iter().copied().partition(|(backend, _)| is_chosen(backend));
    if members.len() <= chosen_max && usable.members.len() <= count {
        return Some(usable);
    }
    for members in [&mut members, &mut others] {
        members.sort_by_key(|(backend, state)| (*state != MemberState::Active, !is_known(backend), *backend));
    }
    members.truncate(chosen_max);
    others.truncate(count - members.len());
    members.append(&mut others);
    members.sort_by_key(|(backend, _)| *backend);
    let Usable { cluster, near, local, .. } = &usable;
    let is_kept = |backend: &&Backend<A>| members.binary_search_by_key(*backend, |(known, _)| *known).is_ok();
    let left_of = |set: &[Backend<A>]| shared(set.iter().filter(is_kept).copied().collect());
    let left =
        Usable { cluster: left_of(cluster), near: left_of(near), local: left_of(local), members: Box::default() };
    let is_served = [(cluster, &left.cluster), (local, &left.local)];
    let is_served = is_served.into_iter().all(|(before, now)| before.is_empty() || !now.is_empty());
    (is_served && count > 0).then(|| Usable { members: members.into(), ..left })
}

/// As many source ranges as now, known ones first. No client outside the wanted ranges is allowed. Returns `None` if
/// sources were not checked until now.
fn kept_ranges<A: TableAddr>(
    wanted: &Arc<[SourcePrefix<A>]>,
    scopes: &Scopes,
    incumbents: &Incumbents<'_>,
) -> Option<Arc<[SourcePrefix<A>]>> {
    let known = incumbents.source_ranges::<A>(scopes)?;
    if wanted.len() <= known.len() {
        return Some(Arc::clone(wanted));
    }
    let mut kept = wanted.to_vec();
    kept.sort_by_key(|prefix| (known.binary_search(prefix).is_err(), *prefix));
    kept.truncate(known.len());
    kept.sort_unstable();
    Some(kept.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lb_common::table::{Member, MemberKey, PoolKey};

    use super::*;
    use crate::dataplane::Tables;

    /// The pool of a new endpoint was written, the member was refused, and the old member is gone.
    #[test]
    fn an_endpoint_whose_member_is_missing_is_kept() {
        let backend = Backend { addr: [10, 0, 0, 1], port: 80 };
        let mut tables = Tables::default();
        tables.v4.pools.insert(PoolKey { pool: 7, slot: 0 }, backend);
        let service_ports = BTreeMap::new();
        let incumbents = Incumbents::of(&tables, &service_ports);
        let serving = Scopes { workload: Scope::balance(7, 1), service_port: 1, ..Scopes::PASS };
        let usable = Usable {
            cluster: shared(vec![backend]),
            near: shared(Vec::new()),
            local: shared(Vec::new()),
            members: [(backend, MemberState::Active)].into(),
        };
        assert_eq!(kept_endpoints(usable.clone(), &serving, &incumbents), Some(usable.clone()));
        assert_eq!(kept_endpoints(usable, &Scopes { service_port: 1, ..Scopes::PASS }, &incumbents), None);
    }

    /// The delete of an earlier member was refused. It makes no room: a second backend may need a Maglev table.
    #[test]
    fn a_member_that_is_left_over_makes_no_room() {
        let [earlier, known, new] = [1, 2, 3].map(|last| Backend { addr: [10, 0, 0, last], port: 80 });
        let mut tables = Tables::default();
        tables.v4.pools.insert(PoolKey { pool: 7, slot: 0 }, known);
        for Backend { addr, port } in [earlier, known] {
            let key = MemberKey { service_port: 1, addr, port, pad: 0 };
            tables.v4.members.insert(key, Member { state: MemberState::Active, sets: 0, pad: [0; 2] });
        }
        let service_ports = BTreeMap::new();
        let incumbents = Incumbents::of(&tables, &service_ports);
        let serving = Scopes { workload: Scope::balance(7, 1), service_port: 1, ..Scopes::PASS };
        let usable = |backends: &[Backend<[u8; 4]>]| Usable {
            cluster: shared(backends.to_vec()),
            near: shared(Vec::new()),
            local: shared(Vec::new()),
            members: backends.iter().map(|backend| (*backend, MemberState::Active)).collect(),
        };
        assert_eq!(kept_endpoints(usable(&[known, new]), &serving, &incumbents), Some(usable(&[known])));
    }
}
