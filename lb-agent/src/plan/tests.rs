//! Plans built by hand: the order of steps, and the life cycle of a frontend.

use lb_common::addr::Proto;
use lb_common::table::{
    Backend, FrontendKey, Member, MemberKey, MemberSets, MemberState, Mode, Origin, PoolKey, Rule, Scope, ScopeFlags,
    SourceRange, SourceRangeKey, bpf_spin_lock,
};

use super::*;

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
    tables
}

fn names(ops: &[Op]) -> Vec<&'static str> {
    ops.iter()
        .map(|op| match op {
            Op::V4(FamilyOp::UpsertPools(_)) => "+pools",
            Op::V4(FamilyOp::UpsertMembers(_)) => "+members",
            Op::V4(FamilyOp::UpsertSourceRanges(_)) => "+ranges",
            Op::V4(FamilyOp::DeleteSourceRanges(_)) => "-ranges",
            Op::V4(FamilyOp::UpsertFrontends(_)) => "+frontends",
            Op::V4(FamilyOp::DeleteFrontends(_)) => "-frontends",
            Op::V4(FamilyOp::DeleteMembers(_)) => "-members",
            Op::V4(FamilyOp::DeletePools(_)) => "-pools",
            Op::V6(_) => "other family",
            Op::StoreScopes(_) => "scopes",
            Op::Settle => "settle",
        })
        .collect()
}

#[test]
fn equal_tables_need_nothing() {
    assert_eq!(plan(&tables(1, 1), &tables(1, 1), Drained::Unknown), []);
}

#[test]
fn what_is_referred_to_comes_first() {
    let ops = plan(&Tables::default(), &tables(1, 1), Drained::Unknown);
    assert_eq!(names(&ops), ["+pools", "scopes", "+frontends"]);
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
    assert_eq!(names(&plan(&open, &restricted, Drained::Unknown)), ["+ranges", "scopes"]);
    assert_eq!(names(&plan(&restricted, &open, Drained::Unknown)), ["scopes", "settle", "-ranges", "settle"]);
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
    let ops = plan(&with_set(1), &with_set(2), Drained::Unknown);
    assert_eq!(names(&ops), ["+ranges", "scopes", "settle", "-ranges", "settle"]);
}

#[test]
fn a_pool_is_replaced_not_changed() {
    let ops = plan(&tables(1, 1), &tables(1, 2), Drained::Unknown);
    assert_eq!(names(&ops), ["+pools", "scopes", "settle", "-pools", "settle"]);
}

/// A flow that meets a new pool checks once whether its backend is still a member, and then trusts the answer.
#[test]
fn members_come_and_go_before_the_pool_is_switched() {
    let with_member = |pool: u32| {
        let mut tables = tables(1, pool);
        let key = MemberKey { service_port: 1, addr: [10, 0, 0, pool as u8], port: 8080, pad: 0 };
        tables.v4.members.insert(key, Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] });
        tables
    };
    let ops = plan(&with_member(1), &with_member(2), Drained::Unknown);
    assert_eq!(names(&ops), ["+pools", "+members", "-members", "scopes", "settle", "-pools", "settle"]);
    // Deleted elements are quarantined even if nothing else is deleted.
    let mut without = with_member(1);
    without.v4.members.clear();
    assert_eq!(names(&plan(&with_member(1), &without, Drained::Unknown)), ["-members", "settle", "settle"]);
}

#[test]
fn a_frontend_drains_before_it_goes() {
    let realised = tables(1, 1);
    let ops = plan(&realised, &Tables::default(), Drained::Unless(&BTreeSet::new()));
    assert_eq!(names(&ops), ["scopes", "+frontends", "settle", "-pools", "settle"]);
    assert_eq!(ops[0], Op::StoreScopes(vec![(1, Scopes::PASS)]));
    assert_eq!(ops[1], Op::V4(FamilyOp::UpsertFrontends(vec![(KEY, frontend(1, FrontendState::Draining))])));
}

#[test]
fn a_draining_frontend_goes_when_no_flow_is_left() {
    let mut realised = Tables::default();
    realised.v4.frontends.insert(KEY, frontend(1, FrontendState::Draining));
    let wanted = Tables::default();
    assert_eq!(plan(&realised, &wanted, Drained::Unknown), []);
    assert_eq!(plan(&realised, &wanted, Drained::Unless(&BTreeSet::from([1]))), []);
    let ops = plan(&realised, &wanted, Drained::Unless(&BTreeSet::from([2])));
    assert_eq!(ops, [Op::Settle, Op::V4(FamilyOp::DeleteFrontends(vec![KEY])), Op::Settle]);
}

#[test]
fn a_draining_frontend_that_is_wanted_again_is_revived_in_place() {
    let mut realised = Tables::default();
    realised.v4.frontends.insert(KEY, frontend(1, FrontendState::Draining));
    let ops = plan(&realised, &tables(1, 1), Drained::Unless(&BTreeSet::new()));
    assert_eq!(names(&ops), ["+pools", "scopes", "+frontends"]);
    assert_eq!(ops[2], Op::V4(FamilyOp::UpsertFrontends(vec![(KEY, frontend(1, FrontendState::Active))])));
}
