//! A row that fails affects only what depends on it.

use std::collections::BTreeSet;

use lb_common::addr::Proto;
use lb_common::table::{
    Backend, Frontend, FrontendKey, FrontendState, Member, MemberKey, MemberSets, MemberState, Mode, Origin, PoolKey,
    Rule, Scope, Scopes, bpf_spin_lock,
};

use super::*;
use crate::dataplane::Tables;
use crate::dataplane::fake::{ADDRESS_WORDS, FakeDataplane, Faults, STARTED_JIFFIES};
use crate::plan::{Drained, plan};

/// This many frontends, each with a pool of its own.
fn tables(count: u32) -> Tables {
    let mut tables = Tables::default();
    let (mode, decided_by, origin, state) = (Mode::VIP, Rule::IpMode, Origin::LoadBalancer, FrontendState::Active);
    for id in 1..=count {
        let key = FrontendKey { addr: id.to_be_bytes(), port: 80, proto: Proto::TCP, pad: 0 };
        tables
            .v4
            .frontends
            .insert(key, Frontend { id, mode, decided_by, origin, state, lock: bpf_spin_lock::default() });
        tables.v4.pools.insert(PoolKey { pool: id, slot: 0 }, Backend { addr: id.to_be_bytes(), port: 8080 });
        tables.scopes.insert(id, Scopes { workload: Scope::balance(id, 1), service_port: id, ..Scopes::PASS });
        tables.frontend_ages.insert(id, FrontendAge { balanced_jiffies: STARTED_JIFFIES });
    }
    tables.derived(ADDRESS_WORDS)
}

fn realised(tables: Tables) -> Realised {
    Realised::new(tables, ADDRESS_WORDS)
}

/// The steps from empty tables.
fn first_plan(wanted: &Tables) -> Plan {
    plan(&realised(Tables::default()), &Tables::default(), wanted, Drained::Unknown, STARTED_JIFFIES)
}

#[test]
fn a_row_that_is_refused_holds_back_only_its_own() {
    let wanted = tables(1_000);
    let refuses = |op: &Op| {
        let Op::V4(FamilyOp::Pools(Write::Upsert(rows))) = op else { return false };
        rows.iter().any(|(key, _)| key.pool == 500)
    };
    let mut dataplane = FakeDataplane::default();
    dataplane.refuse(refuses);
    let mut realised = realised(Tables::default());
    let report = apply(&mut dataplane, &mut realised, first_plan(&wanted));
    // Held back: the pool, its scopes and its frontend. Its age is not.
    let words = ADDRESS_WORDS as usize;
    assert_eq!((report.rows, report.failed_rows), (words + 3 * 999 + 1_000, 3));
    assert_eq!(report.errors.len(), 1);
    assert_eq!(*realised.tables(), dataplane.tables);
    assert_eq!(realised.v4.frontends.len(), 999);
    assert!(!realised.scopes.contains_key(&500));
    // Found by halving, not row by row.
    assert!(dataplane.calls() < 40, "{} calls", dataplane.calls());
}

#[test]
fn a_dead_dataplane_is_given_up_soon() {
    let wanted = tables(10_000);
    let mut dataplane = FakeDataplane::default();
    dataplane.fail(Faults::Always);
    let mut realised = realised(Tables::default());
    let report = apply(&mut dataplane, &mut realised, first_plan(&wanted));
    assert_eq!((report.rows, report.failed_rows), (0, ADDRESS_WORDS as usize + 40_000));
    assert_eq!(report.errors.len(), ERRORS_MAX);
    assert_eq!(*realised.tables(), Tables::default());
}

#[test]
fn nothing_is_deleted_without_a_grace_period() {
    let mut dataplane = FakeDataplane::holding(tables(2));
    let mut realised = realised(tables(2));
    let plan = plan(&realised, &realised, &tables(1), Drained::Unknown, STARTED_JIFFIES);
    let settle = plan.ops.iter().position(|op| *op == Op::Settle).expect("the plan deletes");
    dataplane.fail(Faults::Nth(settle));
    let report = apply(&mut dataplane, &mut realised, plan);
    assert_eq!(report.failed_rows, 2, "the grace period, and the pool that had to wait for it");
    assert_eq!(dataplane.tables.v4.pools.len(), 2);
    assert_eq!(*realised.tables(), dataplane.tables);
}

/// As [`tables`], and each frontend has a member. The members of odd frontends share one endpoint.
fn with_members(count: u32) -> Tables {
    let mut tables = tables(count);
    for id in 1..=count {
        let addr = if id % 2 == 1 { [10, 0, 0, 1] } else { (0x0a01_0000 + id).to_be_bytes() };
        let key = MemberKey { service_port: id, addr, port: 8080, pad: 0 };
        tables.v4.members.insert(key, Member { state: MemberState::Active, sets: MemberSets::CLUSTER, pad: [0; 2] });
    }
    tables.derived(ADDRESS_WORDS)
}

/// Performs the plan with each of its calls failing once, and again after the tables were read. The fake panics if a
/// derived row comes too late or goes too early.
#[test]
fn derived_rows_follow_whatever_fails() {
    let (three, five) = (with_members(3), with_members(5));
    for (before, after) in [(&Tables::default(), &five), (&three, &five), (&five, &three), (&five, &tables(2))] {
        let steps = plan(&realised(before.clone()), before, after, Drained::Unknown, STARTED_JIFFIES).ops.len();
        for failed in 0..steps + 4 {
            let mut dataplane = FakeDataplane::holding(before.clone());
            let mut known = realised(before.clone());
            dataplane.fail(Faults::Nth(failed));
            let first = plan(&known, &known, after, Drained::Unknown, STARTED_JIFFIES);
            apply(&mut dataplane, &mut known, first);
            dataplane.fail(Faults::Never);
            dataplane.perform(&Op::Settle).expect("it does not fail any more");
            known.renew(dataplane.tables.clone());
            let second = plan(&known, &known, after, Drained::Unknown, STARTED_JIFFIES);
            assert!(apply(&mut dataplane, &mut known, second).is_complete());
            let third = plan(&known, &known, after, Drained::Unless(&BTreeSet::new()), STARTED_JIFFIES);
            assert!(apply(&mut dataplane, &mut known, third).is_complete());
            assert_eq!(dataplane.tables, *after, "after call {failed} failed");
            assert_eq!(*known.tables(), *after);
        }
    }
}

/// A frontend never balances with the age of an earlier time, and never loses its age while it balances.
#[test]
fn an_age_that_is_refused_holds_back_its_scopes() {
    let (none, two) = (with_members(0), with_members(2));
    let refuses = |op: &Op| match op {
        Op::FrontendAges(Write::Upsert(rows)) => rows.iter().any(|(id, _)| *id == 1),
        Op::Scopes(Write::Delete(ids)) => ids.contains(&1),
        _ => false,
    };
    for (before, after, left) in [(&none, &two, 2), (&two, &none, 1)] {
        let mut dataplane = FakeDataplane::holding(before.clone());
        dataplane.refuse(refuses);
        let mut known = realised(before.clone());
        let ops = plan(&known, &known, after, Drained::Unknown, STARTED_JIFFIES);
        assert!(!apply(&mut dataplane, &mut known, ops).is_complete());
        assert_eq!(dataplane.tables.frontend_ages.keys().collect::<Vec<_>>(), [&left]);
        assert_eq!(dataplane.tables.scopes.keys().collect::<Vec<_>>(), [&left]);
        assert_eq!(*known.tables(), dataplane.tables);
    }
}

/// An endpoint that is refused holds back its member; a word that is refused holds back the rows that need its bits.
#[test]
fn no_row_is_written_before_its_derived_rows() {
    let wanted = with_members(5);
    let ops = first_plan(&wanted).ops;
    for (refused, step) in ops.iter().enumerate().take(2) {
        let mut dataplane = FakeDataplane::default();
        let mut known = realised(Tables::default());
        assert!(matches!(step, Op::V4(FamilyOp::Endpoints(_) | FamilyOp::Addresses(_))));
        // All rows of this step are missing, as if each had been refused.
        let left = ops.iter().filter(|op| *op != step).cloned().collect();
        let mut run = Run {
            dataplane: &mut dataplane,
            realised: &mut known,
            report: Report::default(),
            held: Held { lacks_derived: true, ..Held::default() },
        };
        run.perform(left);
        assert!(dataplane.tables.v4.members.is_empty());
        assert_eq!(dataplane.tables.v4.frontends.len(), if refused == 0 { 5 } else { 0 });
    }
}
