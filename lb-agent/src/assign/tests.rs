//! IDs are kept, adopted, and never shared.

use lb_common::addr::Proto;
use lb_common::table::{Backend, MemberSets, MemberState, Mode, Origin, Rule};

use super::*;
use crate::desired::{Access, DesiredMember, KubeProxy, PoolIndex, ServicePortIndex};
use crate::model::ObjectName;

fn backend(last: u8) -> Backend<[u8; 4]> {
    Backend { addr: [10, 0, 0, last], port: 8080 }
}

fn key(last: u8) -> FrontendKey<[u8; 4]> {
    FrontendKey { addr: [1, 2, 3, last], port: 80, proto: Proto::TCP, pad: 0 }
}

/// One frontend for each pool content, each of its own Service.
fn desired(frontends: &[(u8, &[u8])]) -> Desired {
    let mut desired = Desired::default();
    for (index, (last, backends)) in frontends.iter().enumerate() {
        let (pool, service_port) = (DesiredScope::Balance(PoolIndex(index)), ServicePortIndex(index));
        let scopes = PerClient { workload: pool, host: DesiredScope::Pass, external: DesiredScope::Pass };
        let (mode, decided_by, origin) = (Mode::VIP, Rule::IpMode, Origin::LoadBalancer);
        let (access, affinity_secs, kube_proxy) = (Access::Open, None, KubeProxy::Claims);
        let frontend = DesiredFrontend {
            service_port,
            mode,
            decided_by,
            origin,
            kube_proxy,
            scopes,
            header: None,
            pool_flags: PerClient::same(0),
            algorithm: Algorithm::Random,
            access,
            affinity_secs,
        };
        desired.v4.frontends.insert(key(*last), frontend);
        desired.v4.pools.push(backends.iter().map(|last| backend(*last)).collect());
        let service = Arc::new(ObjectName::new("t", &last.to_string()));
        desired.service_ports.push(ServicePortName { service, port_name: "".into(), proto: Proto::TCP });
        let member = |last: &u8| DesiredMember {
            service_port,
            backend: backend(*last),
            state: MemberState::Active,
            sets: MemberSets::CLUSTER,
        };
        desired.v4.members.extend(backends.iter().map(member));
    }
    desired
}

fn adopt(tables: &Tables) -> Assignment {
    Assignment::adopt(tables, 100, 100)
}

fn new() -> Assignment {
    adopt(&Tables::default())
}

fn id(tables: &Tables, last: u8) -> u32 {
    tables.v4.frontends[&key(last)].id
}

fn workload(tables: &Tables, last: u8) -> Scope {
    tables.scopes[&id(tables, last)].workload
}

#[test]
fn what_stays_keeps_its_ids() {
    let mut assignment = new();
    let first = assignment.assign(&desired(&[(1, &[1]), (2, &[2, 3])]), &Extent::Everything, &Tables::default()).tables;
    let second = assignment.assign(&desired(&[(0, &[9]), (2, &[2, 3]), (3, &[4])]), &Extent::Everything, &first).tables;
    assert_eq!(id(&first, 2), id(&second, 2));
    assert_eq!(workload(&first, 2), workload(&second, 2));
    assert_eq!(first.scopes[&id(&first, 2)], second.scopes[&id(&second, 2)]);
    // The first frontend is still in the maps: its ID is not reused.
    assert_ne!(id(&second, 0), id(&first, 1));
    assert_ne!(id(&second, 3), id(&first, 1));
}

#[test]
fn a_restart_adopts_ids_and_hands_out_new_ones() {
    let tables = new().assign(&desired(&[(1, &[1]), (2, &[2, 3])]), &Extent::Everything, &Tables::default()).tables;
    let mut adopted = adopt(&tables);
    assert_eq!(adopted.assign(&desired(&[(1, &[1]), (2, &[2, 3])]), &Extent::Everything, &tables).tables, tables);
    let more = adopted.assign(&desired(&[(1, &[1]), (2, &[2]), (3, &[3])]), &Extent::Everything, &tables).tables;
    assert_eq!((id(&more, 1), id(&more, 2), id(&more, 3)), (1, 2, 3));
    assert_eq!(workload(&more, 1).pool, 1);
    let new = [2, 3].map(|last| PoolKey { pool: workload(&more, last).pool, slot: 0 }.element());
    // The pools begin behind the first (one row) and the second (two rows).
    assert_eq!(new, [4, 5]);
}

#[test]
fn a_restart_prefers_the_whole_pool_to_the_rest_of_another() {
    let mut tables = new().assign(&desired(&[(1, &[5])]), &Extent::Everything, &Tables::default()).tables;
    let pool = workload(&tables, 1).pool;
    let row = tables.v4.pools.remove(&PoolKey { pool, slot: 0 }).expect("the pool has a row");
    tables.v4.pools.insert(PoolKey { pool: 9, slot: 0 }, row);
    tables.scopes.get_mut(&1).expect("the frontend has scopes").workload.pool = 9;
    // Pool 2 was being deleted when the agent was killed: its slot 1 is left.
    tables.v4.pools.insert(PoolKey { pool: 2, slot: 1 }, row);
    let adopted = adopt(&tables).assign(&desired(&[(1, &[5])]), &Extent::Everything, &tables).tables;
    assert_eq!(workload(&adopted, 1).pool, 9);
}

#[test]
fn two_service_ports_never_adopt_the_same_id() {
    let tables = new().assign(&desired(&[(1, &[1]), (2, &[2])]), &Extent::Everything, &Tables::default()).tables;
    let mut torn = tables.clone();
    let copied = torn.scopes[&1].service_port;
    torn.scopes.get_mut(&2).expect("the frontend has scopes").service_port = copied;
    let adopted = adopt(&torn).assign(&desired(&[(1, &[1]), (2, &[2])]), &Extent::Everything, &torn).tables;
    assert_eq!(adopted.scopes[&1].service_port, copied);
    assert_ne!(adopted.scopes[&2].service_port, copied);
}

#[test]
fn without_a_free_id_the_frontend_is_left_out_and_told() {
    let mut assignment = Assignment::adopt(&Tables::default(), 1, 100);
    let assigned = assignment.assign(&desired(&[(1, &[1]), (2, &[2])]), &Extent::Everything, &Tables::default());
    assert_eq!(assigned.tables.v4.frontends.len(), 1);
    assert_eq!(assigned.warnings.len(), 1);
    assert!(assigned.warnings[0].to_string().contains("no frontend ID is free for 1.2.3.2 port 80/tcp"));
}

/// A pool without room still gets an ID, so that the scopes that refer to it wait. The smallest pools get the remaining
/// room.
#[test]
fn pools_without_room_stand_past_the_end_and_look_again() {
    let mut assignment = Assignment::adopt(&Tables::default(), 100, 6);
    let wanted = desired(&[(1, &[1, 2, 3, 4]), (2, &[5]), (3, &[6, 7])]);
    let first = assignment.assign(&wanted, &Extent::Everything, &Tables::default()).tables;
    let element = |tables: &Tables, last| PoolKey { pool: workload(tables, last).pool, slot: 0 }.element();
    assert_eq!([1, 2, 3].map(|last| element(&first, last)), [6, 1, 2]);
    // The other pools are deleted. Their elements are reused once the maps no longer hold them.
    let wanted = desired(&[(1, &[1, 2, 3, 4])]);
    let mut realised = first;
    realised.v4.pools.retain(|key, _| key.element() < 6);
    realised.scopes.clear();
    assignment.forget(&realised);
    assert!(element(&assignment.assign(&wanted, &Extent::Everything, &realised).tables, 1) >= 6);
    assignment.forget(&Tables::default());
    assert_eq!(element(&assignment.assign(&wanted, &Extent::Everything, &Tables::default()).tables, 1), 1);
}

/// The elements of a pool that was being deleted, or that a scope still refers to, are not reused.
#[test]
fn a_restart_writes_over_nothing_that_is_there() {
    let mut tables = Tables::default();
    tables.v4.pools.insert(PoolKey { pool: 2, slot: 1 }, backend(9));
    let workload = Scope::balance(5, 2);
    tables.scopes.insert(1, Scopes { workload, service_port: 1, ..Scopes::PASS });
    let assigned =
        adopt(&tables).assign(&desired(&[(1, &[1]), (2, &[2]), (3, &[3, 4])]), &Extent::Everything, &tables).tables;
    let element = |last| PoolKey { pool: self::workload(&assigned, last).pool, slot: 0 }.element();
    assert_eq!([1, 2, 3].map(element), [1, 4, 7]);
}

/// Frontends with equal lists of source ranges share a set; another list gets another set. A restart adopts both sets,
/// also an empty one that allows no client, and ignores a set that was being written.
#[test]
fn equal_lists_of_source_ranges_share_a_set() {
    let prefixes = |thirds: &[u8]| -> Arc<[SourcePrefix<[u8; 4]>]> {
        thirds.iter().map(|third| SourcePrefix { addr: [10, 0, *third, 0], length: 24 }).collect()
    };
    let restricted = |lists: [&[u8]; 3]| {
        let mut desired = desired(&[(1, &[1]), (2, &[2]), (3, &[3])]);
        for (frontend, list) in desired.v4.frontends.values_mut().zip(lists) {
            frontend.access = Access::Only(prefixes(list));
        }
        desired
    };
    let set = |tables: &Tables, last| tables.scopes[&id(tables, last)].source_ranges;
    let mut assignment = new();
    let first = assignment.assign(&restricted([&[1, 2], &[1, 2], &[]]), &Extent::Everything, &Tables::default()).tables;
    assert_eq!([1, 2, 3].map(|last| set(&first, last)), [1, 1, 2]);
    assert_eq!(first.v4.source_ranges.len(), 2);
    assert!(workload(&first, 3).has(ScopeFlags::SOURCE_RANGES), "a set without ranges lets nobody in");
    let second = assignment.assign(&restricted([&[1, 2], &[1, 3], &[]]), &Extent::Everything, &first).tables;
    assert_eq!([1, 2, 3].map(|last| set(&second, last)), [1, 3, 2]);
    assert_eq!(second.v4.source_ranges.len(), 4);
    // A set that was being written when the agent was killed belongs to no frontend.
    let mut torn = second.clone();
    torn.v4.source_ranges.insert(SourceRangeKey::of_prefix(9, [10, 0, 9, 0], 24), SourceRange { flags: 0 });
    let mut adopted = adopt(&torn);
    assert_eq!(adopted.assign(&restricted([&[1, 2], &[1, 3], &[]]), &Extent::Everything, &torn).tables, second);
    assert_eq!(set(&adopted.assign(&restricted([&[9], &[1, 3], &[]]), &Extent::Everything, &torn).tables, 1), 10);
}
