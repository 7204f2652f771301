//! The control loop as its driver sees it.

use crate::desired::Forwarding;
use lb_common::addr::Proto;
use lb_common::table::{FrontendAge, Mode};

use super::*;
use crate::dataplane::fake::{FakeDataplane, Faults};
use crate::desired::{
    ExternalIps, HeadersFrom, HealthCheckPorts, NodePortAddresses, Selection, Services, VendorAnnotations,
};
use crate::model::{Kind, Node, Object, ObjectName, ObjectRef};
use crate::source::dir::Folder;

fn policy() -> Policy {
    Policy {
        node_name: "n1".to_owned(),
        services: Services::LoadBalancers,
        default_ip_mode: Mode::VIP,
        proxy_annotations: Vec::new(),
        vendor_annotations: VendorAnnotations::Ignored,
        headers_from: HeadersFrom::Annotation,
        external_ips: ExternalIps::Guarded,
        cluster_ranges: Vec::new(),
        selection: Selection::default(),
        health_checks: HealthCheckPorts::Left,
        node_ports: NodePortAddresses::Primary,
        forwarding: Forwarding::Snat,
    }
}

fn controller(dataplane: &mut FakeDataplane) -> Controller {
    Controller::adopt(dataplane, policy(), TableLimits::UNLIMITED).expect("the dataplane works")
}

/// The changes that a folder with these Services, each on one address, yields.
fn services(addresses: &[u8]) -> Vec<Change> {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let documents: Vec<String> = addresses
        .iter()
        .map(|last| {
            format!(
                "---\nkind: Service\nmetadata: {{name: s{last}}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: 80}}]}}\n\
                 status: {{loadBalancer: {{ingress: [{{ip: 1.2.3.{last}}}]}}}}\n\
                 ---\nkind: EndpointSlice\nmetadata: {{name: e{last}, labels: {{kubernetes.io/service-name: s{last}}}}}\n\
                 addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{{addresses: [10.1.0.{last}]}}]\n"
            )
        })
        .collect();
    std::fs::write(temp.path().join("a.yaml"), documents.concat()).expect("the test may write");
    Folder::open(temp.path()).expect("it can be listed").look(&std::collections::HashSet::new())
}

fn key(last: u8) -> lb_common::table::FrontendKey<[u8; 4]> {
    lb_common::table::FrontendKey { addr: [1, 2, 3, last], port: 80, proto: Proto::TCP, pad: 0 }
}

#[test]
fn nothing_is_done_before_the_list_is_complete() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    let mut changes = services(&[1]);
    assert_eq!(changes.pop(), Some(Change::Listed));
    controller.change(changes);
    let step = controller.step(&mut dataplane, Reclaim::Now);
    assert_eq!((step.outcome, step.rows), (Outcome::NotListed, 0));
    assert_eq!(dataplane.tables, Tables::default());
    controller.change(vec![Change::Listed]);
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).outcome, Outcome::InStep);
    assert_eq!(dataplane.tables.v4.frontends.len(), 1);
}

#[test]
fn an_empty_list_is_a_full_state() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(vec![Change::Listed]);
    let step = controller.step(&mut dataplane, Reclaim::Later);
    assert_eq!((step.outcome, step.ops), (Outcome::InStep, 0));
}

/// What is condensed is still known: a full step afterwards writes nothing, and a Service can still change.
#[test]
fn condensing_loses_nothing() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(services(&[1, 2, 3]));
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).outcome, Outcome::InStep);
    let written = dataplane.tables.clone();
    controller.condense();
    assert_eq!(*controller.realised(), written);
    controller.recompute();
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).ops, 0);
    let gone = ObjectRef { kind: Kind::Service, name: ObjectName::new("default", "s2") };
    controller.change(vec![Change::Remove(gone)]);
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, Some(1));
    assert_ne!(dataplane.tables, written);
}

#[test]
fn a_dead_dataplane_is_told_and_recovered_from() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(services(&[1, 2]));
    dataplane.fail(Faults::Always);
    for _ in 0..2 {
        let step = controller.step(&mut dataplane, Reclaim::Now);
        assert_eq!((step.outcome, step.rows), (Outcome::Behind, 0));
        assert!(!step.errors.is_empty() && step.failed_rows > 0);
    }
    dataplane.fail(Faults::Never);
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).outcome, Outcome::InStep);
    assert_eq!(dataplane.tables.v4.frontends.len(), 2);
}

/// Only a frontend that begins to balance needs the time.
#[test]
fn services_end_without_a_clock() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(services(&[1, 2]));
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).outcome, Outcome::InStep);
    dataplane.is_clock_broken = true;
    let gone = ObjectRef { kind: Kind::Service, name: ObjectName::new("default", "s2") };
    controller.change(vec![Change::Remove(gone)]);
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).outcome, Outcome::InStep);
    assert_eq!(dataplane.tables.v4.members.len(), 1);
    controller.change(services(&[1, 3]));
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).outcome, Outcome::Behind);
}

/// The fake panics if a frontend is inserted after a delete without a grace period.
#[test]
fn a_grace_period_that_failed_is_made_up_for() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(services(&[1]));
    controller.step(&mut dataplane, Reclaim::Later);
    controller.change(vec![Change::Remove(services(&[1]).first().map(reference).expect("a Service"))]);
    controller.step(&mut dataplane, Reclaim::Later);
    // Grace period, flows, grace period, delete, grace period: the last one fails.
    dataplane.fail(Faults::Nth(4));
    assert_eq!(controller.step(&mut dataplane, Reclaim::Now).outcome, Outcome::Behind);
    assert!(dataplane.tables.v4.frontends.is_empty());
    controller.change(services(&[2]));
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).outcome, Outcome::InStep);
}

fn reference(change: &Change) -> crate::model::ObjectRef {
    match change {
        Change::Apply { object, .. } => object.reference(),
        other => panic!("not an object: {other:?}"),
    }
}

#[test]
fn a_full_table_costs_only_what_does_not_fit() {
    // Element 0 is unused.
    let limits = TableLimits { pool_elements: 3, ..TableLimits::UNLIMITED };
    let mut dataplane = FakeDataplane::default();
    dataplane.pool_elements = limits.pool_elements;
    let mut controller = Controller::adopt(&mut dataplane, policy(), limits).expect("the dataplane works");
    controller.change(services(&[1, 2, 3]));
    let step = controller.step(&mut dataplane, Reclaim::Later);
    assert_eq!(step.outcome, Outcome::Behind);
    assert!(step.errors[0].to_string().contains("raise --backends-max"), "{}", step.errors[0]);
    assert_eq!(dataplane.tables.v4.frontends.len(), 2);
    controller.change(vec![Change::Remove(services(&[1]).first().map(reference).expect("a Service"))]);
    let outcomes = [1, 2].map(|_| {
        // An audit in between does not prolong the wait.
        assert_eq!(controller.audit(&mut dataplane).expect("the dataplane works"), 0);
        controller.step(&mut dataplane, Reclaim::Later).outcome
    });
    assert_eq!(outcomes, [Outcome::Behind, Outcome::InStep], "what goes makes room for what comes");
    let pools: BTreeSet<u8> = dataplane.tables.v4.pools.values().map(|backend| backend.addr[3]).collect();
    assert_eq!(pools, [2, 3].into());
}

#[test]
fn an_audit_finds_what_somebody_else_did_and_the_next_step_repairs_it() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(services(&[1, 2]));
    controller.step(&mut dataplane, Reclaim::Later);
    let right = dataplane.tables.clone();
    assert_eq!(controller.audit(&mut dataplane).expect("the dataplane works"), 0);
    dataplane.tables.v4.frontends.remove(&key(1));
    dataplane.tables.scopes.remove(&2);
    let stray = *dataplane.tables.v4.frontends.get(&key(2)).expect("it is there");
    dataplane.tables.v4.frontends.insert(key(9), lb_common::table::Frontend { id: 77, ..stray });
    assert_eq!(controller.audit(&mut dataplane).expect("the dataplane works"), 3);
    controller.step(&mut dataplane, Reclaim::Later);
    controller.step(&mut dataplane, Reclaim::Now);
    assert_eq!(dataplane.tables, right);
}

/// Which frontends have an age follows from the scopes; how old they are does not.
#[test]
fn an_audit_looks_for_ages_and_does_not_doubt_them() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(services(&[1, 2]));
    controller.step(&mut dataplane, Reclaim::Later);
    assert_eq!(dataplane.tables.frontend_ages.len(), 2);
    let other = FrontendAge { balanced_jiffies: 7 };
    dataplane.tables.frontend_ages = [(2, other), (9, other)].into();
    assert_eq!(controller.audit(&mut dataplane).expect("the dataplane works"), 2);
    dataplane.now_jiffies += 50;
    controller.step(&mut dataplane, Reclaim::Later);
    let anew = FrontendAge { balanced_jiffies: dataplane.now_jiffies };
    assert_eq!(dataplane.tables.frontend_ages, [(1, anew), (2, other)].into());
}

#[test]
fn draining_frontends_count_against_the_limit() {
    let mut dataplane = FakeDataplane::default();
    let limits = TableLimits { frontends_max: 2, ..TableLimits::UNLIMITED };
    let mut controller = Controller::adopt(&mut dataplane, policy(), limits).expect("the dataplane works");
    controller.change(services(&[1, 2]));
    controller.step(&mut dataplane, Reclaim::Later);
    dataplane.in_use = dataplane.tables.v4.frontends.values().map(|frontend| frontend.id).collect();
    controller.change(vec![Change::Remove(services(&[1]).first().map(reference).expect("a Service"))]);
    assert_eq!(controller.step(&mut dataplane, Reclaim::Now).draining, 1);
    controller.change(services(&[3]));
    controller.step(&mut dataplane, Reclaim::Now);
    assert_eq!(controller.warnings().count(), 1);
    // The next step leaves the Service out too.
    controller.step(&mut dataplane, Reclaim::Later);
    assert_eq!(controller.warnings().count(), 1);
    assert!(!dataplane.tables.v4.frontends.contains_key(&key(3)));
    dataplane.in_use.clear();
    controller.step(&mut dataplane, Reclaim::Now);
    controller.step(&mut dataplane, Reclaim::Later);
    assert_eq!(controller.warnings().count(), 0);
    assert!(dataplane.tables.v4.frontends.contains_key(&key(3)));
}

#[test]
fn a_change_of_endpoints_is_computed_for_its_service_alone() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(services(&[1, 2, 3]));
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, None);
    controller.change(services(&[2]).drain(1..2).collect());
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, Some(1));
    // A Service wants an address that another one has: only its own rows are computed.
    let mut rival = services(&[2]);
    let Change::Apply { object: Object::Service(service), .. } = &mut rival[0] else { panic!("a Service comes first") };
    service.name = ObjectName::new("default", "rival");
    rival.truncate(1);
    controller.change(rival);
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, Some(1));
    assert_eq!(controller.warnings().count(), 1);
    // So it is while the warning lasts.
    controller.change(services(&[2]).drain(1..2).collect());
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, Some(1));
    controller.change(services(&[3]).drain(1..2).collect());
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, Some(1));
    assert_eq!(controller.warnings().count(), 1);
    // After an audit the next step computes everything.
    controller
        .change(vec![Change::Remove(ObjectRef { kind: Kind::Service, name: ObjectName::new("default", "rival") })]);
    controller.step(&mut dataplane, Reclaim::Later);
    controller.audit(&mut dataplane).expect("the dataplane works");
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, None);
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, Some(0));
}

/// ND-01: a taint changes no row.
#[test]
fn a_node_that_will_be_deleted_computes_nothing() {
    let mut dataplane = FakeDataplane::default();
    let mut controller = controller(&mut dataplane);
    controller.change(services(&[1, 2]));
    let mut step = |zone: Option<&str>, is_leaving| {
        let node = Node { name: "n1".into(), zone: zone.map(Into::into), addresses: Vec::new(), is_leaving };
        controller.change(vec![Change::Apply { object: Object::Node(node), warnings: Vec::new() }]);
        controller.step(&mut dataplane, Reclaim::Later).services
    };
    assert_eq!(step(None, false), None, "the first step computes everything");
    assert_eq!(step(None, true), Some(0));
    assert_eq!(step(Some("a"), true), None, "another zone");
}

/// Capacity: a change computes its Service only, and decides anew which Services get room.
#[test]
fn a_service_gets_room_as_soon_as_there_is_some() {
    let mut dataplane = FakeDataplane::default();
    let limits = TableLimits { frontends_max: 20, ..TableLimits::UNLIMITED };
    let mut controller = Controller::adopt(&mut dataplane, policy(), limits).expect("the dataplane works");
    let all: Vec<u8> = (1..=21).collect();
    controller.change(services(&all));
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, None);
    // The names sort as text: `s9` comes last.
    let left_out = |controller: &Controller| controller.warnings().map(ToString::to_string).collect::<Vec<_>>();
    assert!(matches!(&left_out(&controller)[..], [text] if text.starts_with("Service default/s9: ")));
    controller.change(services(&[3]).drain(1..2).collect());
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, Some(1));
    assert_eq!(left_out(&controller).len(), 1);
    // An older Service arrives. It waits too: no working Service is left out for it.
    let mut older = services(&[30]);
    let Change::Apply { object: Object::Service(service), .. } = &mut older[0] else { panic!("a Service comes first") };
    service.created_secs = Some(1);
    assert_eq!(older.pop(), Some(Change::Listed));
    controller.change(older);
    assert_eq!(controller.step(&mut dataplane, Reclaim::Later).services, Some(1));
    assert_eq!(left_out(&controller).len(), 2);
    assert!(left_out(&controller)[0].starts_with("Service default/s30: "));
    // A Service is removed. Its draining frontend still takes the room; once deleted, the oldest waiting Service gets
    // it.
    controller.change(vec![Change::Remove(ObjectRef { kind: Kind::Service, name: ObjectName::new("default", "s3") })]);
    for _ in 0..3 {
        controller.step(&mut dataplane, Reclaim::Now);
        assert!(controller.step(&mut dataplane, Reclaim::Later).services.is_some());
    }
    assert_eq!(left_out(&controller).len(), 1);
    assert!(
        dataplane.tables.v4.frontends.contains_key(&key(30)) && dataplane.tables.v4.frontends.contains_key(&key(8))
    );
}

/// A Service with this many ports, each with one endpoint.
fn wide(ports: u16) -> [Change; 2] {
    use crate::model::{Conditions, Endpoint, EndpointSlice, ServicePort, SlicePort};
    let name = |port: u16| -> std::sync::Arc<str> { format!("p{port}").into() };
    let service = crate::model::Service {
        ports: (1..=ports)
            .map(|port| ServicePort { name: name(port), proto: Proto::TCP, port, node_port: None })
            .collect(),
        ..crate::desired::tests::service("wide", [1, 2, 3, 4])
    };
    let endpoint =
        Endpoint { addr: IpAddr::from([10, 1, 0, 1]), conditions: Conditions::READY, node: None, hints: None };
    let slice = EndpointSlice {
        name: ObjectName::new("t", "wide"),
        service: "wide".into(),
        family: lb_common::addr::Family::V4,
        headless: false,
        is_mirror: false,
        triggered_ms: None,
        ports: (1..=ports).map(|port| SlicePort { name: name(port), proto: Proto::TCP, port }).collect(),
        endpoints: vec![endpoint],
    };
    [Object::Service(service), Object::EndpointSlice(slice)]
        .map(|object| Change::Apply { object, warnings: Vec::new() })
}

/// The cost of a change grows linearly with the ports of the Service, not with their square: eight times as many ports
/// take less than 32 times as long. Each time is the best of several tries.
#[test]
fn a_service_of_many_ports_costs_what_its_ports_cost() {
    let best = |ports: u16| {
        let mut dataplane = FakeDataplane::default();
        let mut controller = controller(&mut dataplane);
        controller.change(vec![Change::Listed]);
        let tries = (0..3).map(|_| {
            controller.change(wide(ports).to_vec());
            let started = std::time::Instant::now();
            assert_eq!(controller.step(&mut dataplane, Reclaim::Later).outcome, Outcome::InStep);
            started.elapsed()
        });
        let best = tries.min().expect("some tries");
        assert_eq!(dataplane.tables.v4.frontends.len(), usize::from(ports));
        best
    };
    let (few, many) = (best(1_000), best(8_000));
    assert!(many < few * 32, "{few:?} for 1,000 ports, {many:?} for 8,000");
}
