//! Plans built by hand: the order of steps, and the life cycle of a frontend.

use lb_common::addr::Proto;
use lb_common::table::{
    AddressBits, Backend, Endpoint, EndpointKey, FrontendAge, FrontendKey, Member, MemberKey, MemberSets, MemberState,
    Mode, Origin, PoolKey, Rule, Scope, ScopeFlags, Scopes, SourceRange, SourceRangeKey, bpf_spin_lock,
};

use super::*;

/// The age of frontends that balance already, and the time.
const OLD: FrontendAge = FrontendAge { balanced_jiffies: 3 };
const NOW: FrontendAge = FrontendAge { balanced_jiffies: 1_000 };

const KEY: FrontendKey<[u8; 4]> = FrontendKey { addr: [1, 2, 3, 4], port: 80, proto: Proto::TCP, pad: 0 };

fn frontend(id: u32, state: FrontendState) -> Frontend {
    let (mode, decided_by, origin) = (Mode::VIP, Rule::IpMode, Origin::LoadBalancer);
    Frontend { id, mode, decided_by, origin, state, lock: bpf_spin_lock::default() }
}

/// One frontend with this ID that balances over one backend in this pool.
fn tables(id: u32, pool: u32) -> Tables {
    let mut tables = Tables::default();
    tables.v4.frontends.insert(KEY, frontend(id, FrontendState::Active));
    tables.v4.pools.insert(PoolKey { pool, slot: 0 }, Backend { addr: [10, 0, 0, pool as u8], port: 8080 });
    tables.scopes.insert(id, Scopes { workload: Scope::balance(pool, 1), service_port: 1, ..Scopes::PASS });
    tables.frontend_ages.insert(id, OLD);
    tables.derived(1)
}

/// The steps from `realised` to `wanted`.
fn steps(realised: &Tables, wanted: &Tables, drained: Drained<'_>) -> Vec<Op> {
    plan(&Realised::new(realised.clone(), 1), realised, wanted, drained, NOW.balanced_jiffies).ops
}

const fn sign<K, V>(write: &Write<K, V>, upsert: &'static str, delete: &'static str) -> &'static str {
    match write {
        Write::Upsert(_) => upsert,
        Write::Delete(_) => delete,
    }
}

fn names(ops: &[Op]) -> Vec<&'static str> {
    ops.iter()
        .map(|op| match op {
            Op::V4(FamilyOp::Pools(write)) => sign(write, "+pools", "-pools"),
            Op::V4(FamilyOp::Members(write)) => sign(write, "+members", "-members"),
            Op::V4(FamilyOp::SourceRanges(write)) => sign(write, "+ranges", "-ranges"),
            Op::V4(FamilyOp::Frontends(write)) => sign(write, "+frontends", "-frontends"),
            Op::V4(FamilyOp::Endpoints(write)) => sign(write, "+endpoints", "-endpoints"),
            Op::V4(FamilyOp::Addresses(write)) => sign(write, "addresses", "-addresses"),
            Op::V6(_) => "other family",
            Op::Scopes(_) => "scopes",
            Op::FrontendAges(write) => sign(write, "+ages", "-ages"),
            Op::Settle => "settle",
        })
        .collect()
}

#[test]
fn equal_tables_need_nothing() {
    assert_eq!(steps(&tables(1, 1), &tables(1, 1), Drained::Unknown), []);
}

#[test]
fn what_is_referred_to_comes_first() {
    let ops = steps(&Tables::default(), &tables(1, 1), Drained::Unknown);
    assert_eq!(names(&ops), ["addresses", "+pools", "+ages", "scopes", "+frontends"]);
    assert_eq!(ops[2], Op::FrontendAges(Write::Upsert(vec![(1, NOW)])));
}

/// If the scope switched before its ranges were written, it would drop allowed clients. If the ranges were deleted
/// before the scope switched, it would drop all clients.
#[test]
fn ranges_come_before_the_scope_that_asks_and_go_after_it() {
    let open = tables(1, 1);
    let mut restricted = tables(1, 1);
    let key = SourceRangeKey::of_prefix(1, [10, 0, 0, 0], 8);
    restricted.v4.source_ranges.insert(key, SourceRange { flags: 0 });
    let scopes = restricted.scopes.get_mut(&1).expect("the frontend's");
    scopes.workload = scopes.workload.with_flags(ScopeFlags::SOURCE_RANGES);
    scopes.source_ranges = 1;
    assert_eq!(names(&steps(&open, &restricted, Drained::Unknown)), ["+ranges", "scopes"]);
    assert_eq!(names(&steps(&restricted, &open, Drained::Unknown)), ["scopes", "settle", "-ranges", "settle"]);
}

#[test]
fn a_set_of_source_ranges_is_replaced_not_changed() {
    let with_set = |set: u32| {
        let mut tables = tables(1, 1);
        let key = SourceRangeKey::of_prefix(set, [10, 0, 0, 0], 8);
        tables.v4.source_ranges.insert(key, SourceRange { flags: 0 });
        tables.scopes.get_mut(&1).expect("the frontend's").source_ranges = set;
        tables
    };
    let ops = steps(&with_set(1), &with_set(2), Drained::Unknown);
    assert_eq!(names(&ops), ["+ranges", "scopes", "settle", "-ranges", "settle"]);
}

#[test]
fn a_pool_is_replaced_not_changed() {
    let ops = steps(&tables(1, 1), &tables(1, 2), Drained::Unknown);
    assert_eq!(names(&ops), ["+pools", "scopes", "settle", "-pools", "settle"]);
}

/// A flow that meets a new pool checks once whether its backend is still a member, and then trusts the answer.
#[test]
fn members_come_and_go_before_the_pool_is_switched() {
    let with_member = |pool: u32| {
        let mut tables = tables(1, pool);
        let key = MemberKey { service_port: 1, addr: [10, 0, 0, pool as u8], port: 8080, pad: 0 };
        tables.v4.members.insert(key, Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] });
        tables.derived(1)
    };
    let ops = steps(&with_member(1), &with_member(2), Drained::Unknown);
    assert_eq!(
        names(&ops),
        [
            "+endpoints",
            "addresses",
            "+pools",
            "+members",
            "-members",
            "scopes",
            "settle",
            "-pools",
            "-endpoints",
            "addresses",
            "settle",
        ]
    );
    // Deleted elements are quarantined even if nothing else is deleted.
    let mut without = with_member(1);
    without.v4.members.clear();
    assert_eq!(
        names(&steps(&with_member(1), &without, Drained::Unknown)),
        ["-members", "settle", "-endpoints", "addresses", "settle"]
    );
}

#[test]
fn a_frontend_drains_before_it_goes() {
    let realised = tables(1, 1);
    let ops = steps(&realised, &Tables::default(), Drained::Unless(&BTreeSet::new()));
    assert_eq!(names(&ops), ["scopes", "+frontends", "settle", "-pools", "-ages", "settle"]);
    assert_eq!(ops[0], Op::Scopes(Write::Delete(vec![1])));
    assert_eq!(ops[1], Op::V4(FamilyOp::Frontends(Write::Upsert(vec![(KEY, frontend(1, FrontendState::Draining))]))));
}

#[test]
fn a_draining_frontend_goes_when_no_flow_is_left() {
    let mut realised = Tables::default();
    realised.v4.frontends.insert(KEY, frontend(1, FrontendState::Draining));
    let realised = realised.derived(1);
    let wanted = Tables::default();
    assert_eq!(steps(&realised, &wanted, Drained::Unknown), []);
    assert_eq!(steps(&realised, &wanted, Drained::Unless(&BTreeSet::from([1]))), []);
    let ops = steps(&realised, &wanted, Drained::Unless(&BTreeSet::from([2])));
    assert_eq!(
        ops,
        [
            Op::Settle,
            Op::V4(FamilyOp::Frontends(Write::Delete(vec![KEY]))),
            Op::V4(FamilyOp::Addresses(Write::Delete(vec![0]))),
            Op::Settle
        ]
    );
}

#[test]
fn a_draining_frontend_that_is_wanted_again_is_revived_in_place() {
    let mut realised = Tables::default();
    realised.v4.frontends.insert(KEY, frontend(1, FrontendState::Draining));
    let realised = realised.derived(1);
    let ops = steps(&realised, &tables(1, 1), Drained::Unless(&BTreeSet::new()));
    assert_eq!(names(&ops), ["+pools", "+ages", "scopes", "+frontends"]);
    assert_eq!(ops[3], Op::V4(FamilyOp::Frontends(Write::Upsert(vec![(KEY, frontend(1, FrontendState::Active))]))));
}

/// One Service's change names an endpoint that another Service has too.
#[test]
fn an_endpoint_of_another_service_stays() {
    let with_members = |ports: &[u32]| {
        let mut tables = Tables::default();
        for service_port in ports {
            let key = MemberKey { service_port: *service_port, addr: [10, 0, 0, 9], port: 8080, pad: 0 };
            let member = Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] };
            tables.v4.members.insert(key, member);
        }
        tables
    };
    let both = Realised::new(with_members(&[1, 2]).derived(1), 1);
    let ops = plan(&both, &with_members(&[1]), &Tables::default(), Drained::Unknown, 1).ops;
    assert_eq!(names(&ops), ["-members", "settle", "settle"]);
    let ops = plan(&both, &both, &Tables::default(), Drained::Unknown, 1).ops;
    assert_eq!(names(&ops), ["-members", "settle", "-endpoints", "-addresses", "settle"]);
    // A Service that joins them needs no further rows.
    let ops = plan(&both, &Tables::default(), &with_members(&[3]), Drained::Unknown, 1).ops;
    assert_eq!(names(&ops), ["+members"]);
}

/// What an earlier agent, or anyone else, left in the derived tables.
#[test]
fn wrong_derived_rows_are_corrected() {
    let right = tables(1, 1);
    assert_eq!(steps(&right, &right, Drained::Unknown), []);
    let mut stray = right.clone();
    stray.v4.endpoints.insert(EndpointKey { addr: [10, 9, 9, 9], port: 1, pad: 0 }, Endpoint { flags: 0 });
    stray.v4.addresses.insert(0, AddressBits { bits: u64::MAX });
    let ops = steps(&stray, &right, Drained::Unknown);
    assert_eq!(names(&ops), ["settle", "-endpoints", "addresses", "settle"]);
    let needed = right.v4.addresses[&0];
    assert!(ops.contains(&Op::V4(FamilyOp::Addresses(Write::Upsert(vec![(0, needed)])))), "{ops:?}");
    let mut lost = right.clone();
    lost.v4.addresses.clear();
    assert_eq!(steps(&lost, &right, Drained::Unknown), [Op::V4(FamilyOp::Addresses(Write::Upsert(vec![(0, needed)])))]);
}

/// A restart finds ages of its own time, and may find ages that an earlier agent left at IDs that are free now.
#[test]
fn a_frontend_keeps_its_age_while_it_balances() {
    let old = tables(1, 1);
    let mut moved = tables(1, 2);
    moved.frontend_ages.clear();
    assert!(!names(&steps(&old, &moved, Drained::Unknown)).contains(&"+ages"), "another pool");
    let mut everywhere = old.clone();
    everywhere.scopes.get_mut(&1).expect("the frontend's").external = Scope::balance(1, 1);
    let young = Op::FrontendAges(Write::Upsert(vec![(1, NOW)]));
    assert_eq!(steps(&old, &everywhere, Drained::Unknown)[0], young, "another scope balances");
    let mut left = old.clone();
    left.frontend_ages.insert(7, OLD);
    assert_eq!(steps(&left, &old, Drained::Unknown), [Op::FrontendAges(Write::Delete(vec![7]))]);
    let mut lost = old.clone();
    lost.frontend_ages.clear();
    assert_eq!(steps(&lost, &old, Drained::Unknown), [young]);
}
