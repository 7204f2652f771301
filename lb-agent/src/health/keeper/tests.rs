//! Which listeners are open after changes and failures.

use super::super::fake::FakeSockets;
use super::*;
use crate::model::ObjectName;

fn check(name: &str, port: u16, local_endpoints: usize) -> HealthCheck {
    let service = Arc::new(ObjectName::new("shop", name));
    HealthCheck { service, at: ([192, 0, 2, 2], port).into(), local_endpoints }
}

fn checks(all: &[HealthCheck]) -> HealthChecks {
    HealthChecks::of(all.iter().map(|check| (0, check)))
}

fn keeper(sockets: &FakeSockets) -> Keeper {
    Keeper::new(Box::new(sockets.clone()), None, 1000)
}

fn open(sockets: &FakeSockets) -> Vec<String> {
    sockets
        .open()
        .into_iter()
        .map(|(at, count)| format!("{at} {}", count.map_or_else(|| "node".into(), |count| count.to_string())))
        .collect()
}

fn told(keeper: &Keeper) -> Vec<String> {
    keeper.warnings().map(ToString::to_string).collect()
}

#[test]
fn hc_06_listeners_follow_the_services() {
    let sockets = FakeSockets::default();
    let mut keeper = keeper(&sockets);
    keeper.follow(checks(&[check("a", 30_001, 1), check("b", 30_002, 0)]));
    assert_eq!(open(&sockets), ["192.0.2.2:30001 1", "192.0.2.2:30002 0"]);
    // Another count opens nothing again.
    assert_eq!(sockets.opened(), 2);
    keeper.follow(checks(&[check("a", 30_001, 0), check("b", 30_002, 5)]));
    assert_eq!((open(&sockets), sockets.opened()), (vec!["192.0.2.2:30001 0".into(), "192.0.2.2:30002 5".into()], 0));
    // ETP-01, ETP-02: the port of a live Service changes, goes, and comes back; another Service gets a known port.
    keeper.follow(checks(&[check("a", 30_003, 1), check("c", 30_002, 7)]));
    assert_eq!(open(&sockets), ["192.0.2.2:30002 7", "192.0.2.2:30003 1"]);
    keeper.follow(HealthChecks::default());
    assert_eq!(open(&sockets), [""; 0]);
    keeper.follow(checks(&[check("a", 30_001, 1)]));
    assert_eq!(open(&sockets), ["192.0.2.2:30001 1"]);
    assert_eq!(told(&keeper), [""; 0]);
}

#[test]
fn a_taken_port_is_told_and_tried_again_and_harms_no_other() {
    let sockets = FakeSockets::default();
    sockets.take(&[30_001]);
    let mut keeper = keeper(&sockets);
    keeper.follow(checks(&[check("a", 30_001, 1), check("b", 30_002, 1)]));
    assert_eq!(open(&sockets), ["192.0.2.2:30002 1"]);
    for _ in 0..2 {
        let warnings = told(&keeper);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        for word in ["Service shop/a: spec.healthCheckNodePort: ", "192.0.2.2:30001", "--health-check-node-ports=off"] {
            assert!(warnings[0].contains(word), "{word}: {warnings:?}");
        }
        keeper.retry();
    }
    sockets.take(&[]);
    keeper.retry();
    assert_eq!(open(&sockets), ["192.0.2.2:30001 1", "192.0.2.2:30002 1"]);
    assert_eq!(told(&keeper), [""; 0]);
    // A Service that is gone is not tried again.
    sockets.take(&[30_003]);
    keeper.follow(checks(&[check("c", 30_003, 1)]));
    assert_eq!((told(&keeper).len(), open(&sockets).len()), (1, 0));
    keeper.follow(HealthChecks::default());
    sockets.take(&[]);
    keeper.retry();
    assert_eq!((told(&keeper).len(), open(&sockets).len()), (0, 0));
}

#[test]
fn the_node_is_answered_for_before_any_service_and_tried_again() {
    let sockets = FakeSockets::default();
    sockets.take(&[10_256]);
    let at: SocketAddr = ([0, 0, 0, 0], 10_256).into();
    let mut keeper = Keeper::new(Box::new(sockets.clone()), Some(at), 1000);
    assert!(told(&keeper)[0].starts_with("lb-agent: --healthz: cannot listen at 0.0.0.0:10256"), "{:?}", told(&keeper));
    sockets.take(&[]);
    keeper.retry();
    keeper.retry();
    assert_eq!((open(&sockets), told(&keeper).len()), (vec!["0.0.0.0:10256 node".to_owned()], 0));
    keeper.follow(HealthChecks::default());
    assert_eq!(open(&sockets), ["0.0.0.0:10256 node"], "no Service closes it");
}

#[test]
fn hundreds_of_services_and_no_more_than_the_limit() {
    let sockets = FakeSockets::default();
    let mut keeper = Keeper::new(Box::new(sockets.clone()), None, 500);
    let all: Vec<_> = (0..501).map(|number| check(&format!("s{number}"), 30_000 + number, 1)).collect();
    keeper.follow(checks(&all));
    assert_eq!(sockets.open().len(), 500);
    let warnings = told(&keeper);
    assert!(warnings.len() == 1 && warnings[0].starts_with("Service shop/s500: "), "{warnings:?}");
    keeper.follow(checks(&all[1..]));
    assert_eq!((sockets.open().len(), told(&keeper).len(), sockets.opened()), (500, 0, 501));
}

#[test]
fn listeners_and_failures_are_counted() {
    let sockets = FakeSockets::default();
    sockets.take(&[30_001, 10_256]);
    let mut keeper = Keeper::new(Box::new(sockets.clone()), Some(([0, 0, 0, 0], 10_256).into()), 1000);
    assert_eq!(keeper.tally(), HealthListeners { open: 0, missing: 1, failures: 1 });
    keeper.follow(checks(&[check("a", 30_001, 1), check("b", 30_002, 1)]));
    assert_eq!(keeper.tally(), HealthListeners { open: 1, missing: 2, failures: 2 });
    keeper.retry();
    assert_eq!(keeper.tally(), HealthListeners { open: 1, missing: 2, failures: 4 });
    sockets.take(&[]);
    keeper.retry();
    assert_eq!(keeper.tally(), HealthListeners { open: 3, missing: 0, failures: 4 });
    keeper.follow(HealthChecks::default());
    assert_eq!(keeper.tally(), HealthListeners { open: 1, missing: 0, failures: 4 });
}
