//! Which addresses are guarded, and how the table follows, with a table in memory.

use std::sync::Arc;

use lb_common::addr::Proto;
use lb_common::table::{HeaderVersion, Mode, Origin, Rule};

use super::fake::FakeTable;
use super::*;
use crate::desired::{Access, Algorithm, DesiredScope, PoolIndex, ServicePortIndex};
use crate::guard::Guarding;

fn key(last: u8) -> FrontendKey<[u8; 4]> {
    FrontendKey { addr: [192, 0, 2, last], port: 80, proto: Proto::TCP, pad: 0 }
}

fn desired(frontends: &[(u8, Mode, KubeProxy, PerClient<DesiredScope>)]) -> Desired {
    let mut desired = Desired::default();
    for (last, mode, kube_proxy, scopes) in frontends {
        let frontend = DesiredFrontend {
            service_port: ServicePortIndex(0),
            mode: *mode,
            decided_by: Rule::Annotation,
            origin: Origin::LoadBalancer,
            kube_proxy: *kube_proxy,
            scopes: *scopes,
            header: None,
            pool_flags: PerClient::same(0),
            algorithm: Algorithm::Random,
            access: Access::Open,
            affinity_secs: None,
        };
        desired.v4.frontends.insert(key(*last), frontend);
    }
    desired.v4.pools.push(Arc::new([]));
    desired
}

const fn scopes(workload: DesiredScope, host: DesiredScope, external: DesiredScope) -> PerClient<DesiredScope> {
    PerClient { workload, host, external }
}

const PASS: PerClient<DesiredScope> = scopes(DesiredScope::Pass, DesiredScope::Pass, DesiredScope::Pass);
const SERVED: DesiredScope = DesiredScope::Balance(PoolIndex(0));

/// Rows for Proxy mode at these addresses, for all clients.
fn guarded(lasts: &[u8]) -> GuardRows {
    rows(&desired(&lasts.iter().map(|last| (*last, Mode::Proxy, KubeProxy::Claims, PASS)).collect::<Vec<_>>()))
}

#[test]
fn what_kube_proxy_claims_and_we_leave_alone_is_guarded() {
    let rows = rows(&desired(&[
        (1, Mode::Proxy, KubeProxy::Claims, PASS),
        (2, Mode::Proxy, KubeProxy::LeavesAlone, PASS),
        (3, Mode::VIP, KubeProxy::Claims, scopes(SERVED, SERVED, DesiredScope::Pass)),
        (4, Mode::Split, KubeProxy::Claims, scopes(DesiredScope::Pass, DesiredScope::Pass, SERVED)),
        // No endpoint on this node: the stack, and with it kube-proxy, forwards to another node.
        (5, Mode::Split, KubeProxy::Claims, PASS),
        (6, Mode::Router, KubeProxy::Claims, PASS),
        (7, Mode::VIP, KubeProxy::Claims, PASS),
    ]));
    assert_eq!(rows.v4.sets.workload, [key(1), key(4), key(5)].into());
    assert_eq!(rows.v4.sets.host, [key(1), key(4), key(5)].into());
    assert_eq!(rows.v4.sets.external, [key(1)].into());
    assert_eq!((rows.v6, rows.links), (FamilyRows::default(), BTreeSet::new()));
}

#[test]
fn the_table_is_there_only_when_it_is_needed() {
    let table = FakeTable::default();
    let mut keeper = Keeper::new(Box::new(table.clone()), Guarding::On);
    keeper.follow_links([7].into());
    keeper.widen(GuardRows::default());
    keeper.settle();
    assert_eq!((table.found(), table.changes()), (Found::Absent, vec![]));

    keeper.widen(guarded(&[1]));
    keeper.settle();
    let wanted = GuardRows { links: [7].into(), ..guarded(&[1]) };
    assert_eq!(table.changes(), [Change::Replace(wanted.clone())]);
    assert_eq!((table.found(), keeper.entries()), (Found::Rows(wanted), 3));

    keeper.widen(GuardRows::default());
    assert!(matches!(table.found(), Found::Rows(_)), "the other tables still rely on it");
    keeper.settle();
    assert_eq!((table.found(), keeper.entries()), (Found::Absent, 0));
}

#[test]
fn rows_come_before_the_other_tables_and_go_after_them() {
    let table = FakeTable::default();
    let mut keeper = Keeper::new(Box::new(table.clone()), Guarding::On);
    keeper.widen(guarded(&[1]));
    keeper.settle();
    table.changes();
    keeper.widen(guarded(&[2]));
    assert_eq!(table.found(), Found::Rows(guarded(&[1, 2])));
    keeper.settle();
    assert_eq!(table.found(), Found::Rows(guarded(&[2])));
    let none = GuardRows::default();
    let edits =
        [Change::Edit { add: guarded(&[2]), remove: none.clone() }, Change::Edit { add: none, remove: guarded(&[1]) }];
    assert_eq!(table.changes(), edits);
}

#[test]
fn a_restart_changes_nothing() {
    let table = FakeTable::default();
    let before = GuardRows { links: [3].into(), ..guarded(&[1]) };
    table.meddle(Found::Rows(before.clone()));
    let mut keeper = Keeper::new(Box::new(table.clone()), Guarding::On);
    // Interfaces are known later than objects: until then the earlier ones stay.
    keeper.widen(guarded(&[1]));
    keeper.settle();
    keeper.follow_links([3].into());
    assert_eq!((table.found(), table.changes()), (Found::Rows(before), vec![]));
    keeper.follow_links([4].into());
    assert_eq!(table.found(), Found::Rows(GuardRows { links: [4].into(), ..guarded(&[1]) }));
}

#[test]
fn what_others_change_is_restored_and_others_rules_cost_a_look() {
    let table = FakeTable::default();
    let mut keeper = Keeper::new(Box::new(table.clone()), Guarding::On);
    keeper.widen(guarded(&[1, 2]));
    keeper.settle();
    // The keeper's own write changes the generation too.
    keeper.verify();
    table.reads();
    for _ in 0..3 {
        keeper.verify();
    }
    assert_eq!((table.reads(), keeper.repairs()), (0, 0), "nobody has changed a rule");
    table.meddle(table.found());
    keeper.verify();
    assert_eq!((table.reads(), keeper.repairs()), (1, 0), "another rule");
    for (times, found) in [(1, Found::Absent), (2, Found::Foreign), (3, Found::Rows(guarded(&[1, 9])))] {
        table.meddle(found);
        keeper.verify();
        assert_eq!((table.found(), keeper.repairs()), (Found::Rows(guarded(&[1, 2])), times));
    }
}

#[test]
fn a_foreign_table_is_replaced_in_one_transaction() {
    let table = FakeTable::default();
    table.meddle(Found::Foreign);
    let mut keeper = Keeper::new(Box::new(table.clone()), Guarding::On);
    keeper.widen(guarded(&[1]));
    assert_eq!(table.changes(), [Change::Replace(guarded(&[1]))]);
}

#[test]
fn trouble_is_told_where_something_is_wanted_and_is_over_when_it_is() {
    let table = FakeTable::default();
    table.set_broken(true);
    let mut keeper = Keeper::new(Box::new(table.clone()), Guarding::On);
    keeper.widen(GuardRows::default());
    keeper.settle();
    assert_eq!(keeper.warning(), None, "nothing is wanted");
    keeper.widen(guarded(&[1]));
    let warning = keeper.warning().expect("it cannot be written").to_string();
    assert!(warning.contains("--guard=off") && warning.contains("nft_chain_nat"), "{warning}");
    keeper.verify();
    assert!(keeper.warning().is_some());
    table.set_broken(false);
    keeper.verify();
    assert_eq!((table.found(), keeper.warning()), (Found::Rows(guarded(&[1])), None));
}

#[test]
fn what_an_earlier_run_left_goes_when_it_is_off() {
    let table = FakeTable::default();
    table.meddle(Found::Rows(guarded(&[1])));
    let mut keeper = Keeper::new(Box::new(table.clone()), Guarding::Off);
    keeper.widen(guarded(&[1]));
    keeper.settle();
    assert_eq!(table.found(), Found::Absent);
}

#[test]
fn rows_of_objects_that_cannot_be_read_are_known() {
    let desired = desired(&[(2, Mode::VIP, KubeProxy::Claims, PASS)]);
    let rows = GuardRows { links: [1].into(), ..guarded(&[1, 2]) };
    assert_eq!(rows.unknown_to(&desired), guarded(&[1]));
}

/// Processes of the node go to the balancer where pods get a PROXY header from the node.
#[test]
fn who_gets_no_header_is_kept_from_the_backend() {
    let mut desired = desired(&[(1, Mode::VIP, KubeProxy::Claims, scopes(SERVED, DesiredScope::Pass, SERVED))]);
    assert_eq!(rows(&desired), GuardRows::default());
    desired.v4.frontends.get_mut(&key(1)).expect("it was inserted").header = Some(HeaderVersion::V1);
    let guarded = rows(&desired).v4.sets.map(|keys| keys.len());
    assert_eq!(guarded, PerClient { workload: 0, host: 1, external: 0 });
}

#[test]
fn it_is_concerned_where_an_address_comes_goes_or_is_decided_anew() {
    let mut keeper = Keeper::new(Box::new(FakeTable::default()), Guarding::On);
    keeper.widen(guarded(&[1]));
    let of = |last, mode| desired(&[(last, mode, KubeProxy::Claims, PASS)]);
    let none = Tables::default();
    assert!(!keeper.is_concerned_by(&of(1, Mode::Proxy), &none));
    assert!(!keeper.is_concerned_by(&of(2, Mode::VIP), &none));
    assert!(keeper.is_concerned_by(&of(1, Mode::VIP), &none), "decided anew");
    assert!(keeper.is_concerned_by(&of(2, Mode::Proxy), &none), "it comes");
    let mut tables = Tables::default();
    let frontend = lb_common::table::Frontend {
        id: 1,
        mode: Mode::Proxy,
        decided_by: Rule::Annotation,
        origin: Origin::LoadBalancer,
        state: lb_common::table::FrontendState::Active,
        lock: lb_common::table::bpf_spin_lock::default(),
    };
    tables.v4.frontends.insert(key(1), frontend);
    assert!(keeper.is_concerned_by(&Desired::default(), &tables), "it goes");
    let mut off = Keeper::new(Box::new(FakeTable::default()), Guarding::Off);
    off.widen(guarded(&[1]));
    assert!(!off.is_concerned_by(&of(2, Mode::Proxy), &tables));
}

/// What conntrack translates for kube-proxy lives as long as some rule uses conntrack.
#[test]
fn a_successor_of_kube_proxy_keeps_the_table_without_rows() {
    let table = FakeTable::default();
    let start = || Keeper::new(Box::new(table.clone()), Guarding::On).succeeding();
    let empty = Found::Rows(GuardRows::default());
    let mut keeper = start();
    keeper.widen(GuardRows::default());
    keeper.settle();
    keeper.verify();
    assert_eq!(table.found(), Found::Absent, "there is no kube-proxy");
    table.set_kube_proxy(true);
    keeper.verify();
    assert_eq!(table.found(), empty);
    table.set_kube_proxy(false);
    keeper.widen(guarded(&[1]));
    keeper.settle();
    keeper.widen(GuardRows::default());
    keeper.settle();
    assert_eq!(table.found(), empty, "its connections may live on");
    // A restart never removes it, not even for a moment.
    table.changes();
    let mut keeper = start();
    keeper.follow_links([3].into());
    keeper.widen(GuardRows::default());
    keeper.settle();
    keeper.verify();
    assert_eq!((table.changes(), table.found()), (vec![], empty.clone()));
    table.meddle(Found::Absent);
    keeper.verify();
    assert_eq!((table.found(), keeper.repairs()), (empty, 1));
    for mut keeper in [
        Keeper::new(Box::new(table.clone()), Guarding::Off).succeeding(),
        Keeper::new(Box::new(table.clone()), Guarding::On),
    ] {
        table.set_kube_proxy(true);
        keeper.widen(GuardRows::default());
        keeper.settle();
        keeper.verify();
        assert_eq!(table.found(), Found::Absent);
    }
}

#[test]
fn a_successor_warns_if_connections_of_kube_proxy_will_end() {
    let table = FakeTable::default();
    let mut keeper = Keeper::new(Box::new(table.clone()), Guarding::On).succeeding();
    table.set_kube_proxy(true);
    keeper.verify();
    table.meddle(Found::Absent);
    table.set_broken(true);
    keeper.verify();
    let warning = keeper.warning().expect("it cannot be written").to_string();
    assert!(warning.contains("connections that it made end"), "{warning}");
    table.set_broken(false);
    keeper.verify();
    assert_eq!(keeper.warning(), None);
}
