//! A row that fails affects only what depends on it.

use std::collections::BTreeSet;

use lb_common::addr::Proto;
use lb_common::table::{
    Backend, Frontend, FrontendKey, FrontendState, Mode, Origin, PoolKey, Rule, Scope, Scopes, bpf_spin_lock,
};

use super::*;
use crate::dataplane::fake::{FakeDataplane, Faults};
use crate::plan::{Drained, plan};

/// A dataplane that always refuses one pool.
struct Refusing {
    fake: FakeDataplane,
    pool: u32,
    calls: usize,
}

impl Dataplane for Refusing {
    fn dump(&mut self) -> Result<Tables, Error> {
        self.fake.dump()
    }

    fn perform(&mut self, op: &Op) -> Result<(), Error> {
        self.calls += 1;
        match op {
            Op::V4(FamilyOp::UpsertPools(rows)) if rows.iter().any(|(key, _)| key.pool == self.pool) => {
                Err(Error::Full { map: "pools4", max: 1, setting: "--backends-max" })
            }
            op => self.fake.perform(op),
        }
    }

    fn frontends_in_use(&mut self) -> Result<BTreeSet<u32>, Error> {
        self.fake.frontends_in_use()
    }
}

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
    }
    tables
}

#[test]
fn a_row_that_is_refused_holds_back_only_its_own() {
    let wanted = tables(1_000);
    let mut dataplane = Refusing { fake: FakeDataplane::default(), pool: 500, calls: 0 };
    let mut realised = Tables::default();
    let report = apply(&mut dataplane, &mut realised, plan(&Tables::default(), &wanted, Drained::Unknown));
    // Held back: the pool, its scopes and its frontend.
    assert_eq!((report.rows, report.failed_rows), (3 * 999, 3));
    assert_eq!(report.errors.len(), 1);
    assert_eq!(realised, dataplane.fake.tables);
    assert_eq!(realised.v4.frontends.len(), 999);
    assert!(!realised.scopes.contains_key(&500));
    // Found by halving, not row by row.
    assert!(dataplane.calls < 40, "{} calls", dataplane.calls);
}

#[test]
fn a_dead_dataplane_is_given_up_soon() {
    let wanted = tables(10_000);
    let mut dataplane = FakeDataplane::default();
    dataplane.fail(Faults::Always);
    let mut realised = Tables::default();
    let report = apply(&mut dataplane, &mut realised, plan(&Tables::default(), &wanted, Drained::Unknown));
    assert_eq!((report.rows, report.failed_rows), (0, 30_000));
    assert_eq!(report.errors.len(), ERRORS_MAX);
    assert_eq!(realised, Tables::default());
}

#[test]
fn nothing_is_deleted_without_a_grace_period() {
    let mut dataplane = FakeDataplane::holding(tables(2));
    let mut realised = tables(2);
    let ops = plan(&realised, &tables(1), Drained::Unknown);
    let settle = ops.iter().position(|op| *op == Op::Settle).expect("the plan deletes");
    dataplane.fail(Faults::Nth(settle));
    let report = apply(&mut dataplane, &mut realised, ops);
    assert_eq!(report.failed_rows, 2, "the grace period, and the pool that had to wait for it");
    assert_eq!(dataplane.tables.v4.pools.len(), 2);
    assert_eq!(realised, dataplane.tables);
}
