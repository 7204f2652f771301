//! Health checks: answered once the node serves, and whether the Node is eligible.

use super::*;
use crate::desired::HealthCheckPorts;
use crate::health::Keeper as HealthKeeper;
use crate::health::fake::FakeSockets;
use crate::model::{Node, ObjectName, TrafficPolicy};

/// A Service whose checks are answered at this port.
fn checked(name: &str, port: u16) -> Change {
    let Change::Apply { object: Object::Service(mut service), .. } = super::service(name, "192.0.2.10") else {
        panic!("a Service");
    };
    service.external_policy = TrafficPolicy::Local;
    service.health_check_node_port = Some(port);
    Change::Apply { object: Object::Service(service), warnings: Vec::new() }
}

fn answering(sockets: &FakeSockets) -> (Agent<FakeDataplane>, Instant) {
    let mut config = config();
    config.policy.health_checks = HealthCheckPorts::Served;
    let (agent, now) = agent_with(FakeDataplane::default(), &config);
    (agent.answering(HealthKeeper::new(Box::new(sockets.clone()), None, 10)), now)
}

#[test]
fn checks_are_answered_once_the_node_serves_and_as_the_tables_are() {
    let sockets = FakeSockets::default();
    let open = || sockets.open().into_iter().map(|(at, _)| at).collect::<Vec<_>>();
    let (mut agent, now) = answering(&sockets);
    agent.change(vec![checked("shop", 30_001), Change::Listed], now);
    assert!(!agent.turn(now));
    assert!(agent.status(now).in_step.is_some() && open().is_empty(), "the programs are not active yet");
    agent.link_events(everything(&[]), now);
    assert_eq!(open(), ["0.0.0.0:30001"]);
    // While writes fail, the answers stay as they were.
    agent.dataplane.fail(Faults::Always);
    agent.change(vec![checked("shop", 30_002), super::service("more", "192.0.2.11")], now);
    let mut now = now + Duration::from_millis(100);
    assert!(!agent.turn(now));
    assert!(agent.status(now).behind.is_some());
    assert_eq!(open(), ["0.0.0.0:30001"]);
    agent.dataplane.fail(Faults::Never);
    now = settle(&mut agent, now);
    assert_eq!((open(), agent.status(now).behind.is_none()), (vec!["0.0.0.0:30002".to_owned()], true));
}

#[test]
fn a_taken_port_is_a_warning_until_it_is_free() {
    let sockets = FakeSockets::default();
    sockets.take(&[30_001]);
    let (mut agent, now) = answering(&sockets);
    agent.link_events(everything(&[]), now);
    agent.change(vec![checked("shop", 30_001), Change::Listed], now);
    assert!(!agent.turn(now));
    let warnings = agent.status(now).warnings;
    assert!(warnings.len() == 1 && warnings[0].to_string().starts_with("Service default/shop: "), "{warnings:?}");
    sockets.take(&[]);
    let now = now + LOOK_INTERVAL;
    let _ = agent.turn(now);
    assert_eq!((sockets.open().len(), agent.status(now).warnings.len()), (1, 0));
}

/// ND-02 as well: a Node that is deleted without notice changes nothing.
#[test]
fn hz_02_hz_03_hz_06_the_node_is_eligible_as_its_last_form_says() {
    let (mut agent, now) = started(FakeDataplane::default());
    assert!(!agent.status(now).is_eligible, "no Node was seen");
    let mut node = |name: &str, is_leaving| {
        let node = Node { name: name.into(), zone: None, addresses: Vec::new(), is_leaving };
        agent.change(vec![Change::Apply { object: Object::Node(node), warnings: Vec::new() }], now);
        agent.status(now).is_eligible
    };
    assert!(!node("n2", false));
    assert!(node("n1", false));
    assert!(node("n2", true));
    assert!(!node("n1", true));
    assert!(node("n1", false));
    let gone = crate::model::ObjectRef { kind: Kind::Node, name: ObjectName::new("", "n1") };
    agent.change(vec![Change::Remove(gone)], now);
    assert!(agent.status(now).is_eligible);
}
