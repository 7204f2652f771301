//! Real sockets on the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::super::Limits;
use super::super::keeper::Keeper;
use super::*;
use crate::desired::{HealthCheck, HealthChecks};
use crate::model::ObjectName;
use crate::status::{Behind, HealthListeners};

struct Scene {
    keeper: Keeper,
    status: watch::Sender<Arc<Status>>,
    registry: Registry,
    runtime: tokio::runtime::Runtime,
}

fn scene(node: Option<SocketAddr>) -> Scene {
    let (status, receiver) = watch::channel(Arc::new(Status::starting(Instant::now())));
    let mut registry = Registry::default();
    let answers = HealthAnswers::register(&mut registry);
    let (door, server) = listeners(receiver, answers, Limits::within(1 << 16).connections);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.spawn(server.serve());
    let keeper = runtime.block_on(async { Keeper::new(Box::new(door), node, 100) });
    Scene { keeper, status, registry, runtime }
}

impl Scene {
    fn follow(&mut self, checks: &[HealthCheck]) {
        let checks = HealthChecks::of(checks.iter().map(|check| (0, check)));
        self.runtime.block_on(async { self.keeper.follow(checks) });
        assert_eq!(self.keeper.warnings().count(), 0);
    }
}

/// A loopback address of this process alone, with a port that no client gets.
fn free() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    ([127, high.max(1), low, NEXT.fetch_add(1, Ordering::Relaxed)], 31_000).into()
}

fn check(at: SocketAddr, local_endpoints: usize) -> HealthCheck {
    HealthCheck { service: Arc::new(ObjectName::new("shop", "web")), at, local_endpoints }
}

/// Status and answer to a request, or `None` if nothing listens.
fn ask(at: SocketAddr, request: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is open");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    Some((text.split(' ').nth(1)?.to_owned(), text))
}

fn code(at: SocketAddr, request: &str) -> Option<String> {
    ask(at, request).map(|(code, _)| code)
}

/// The server closes a listener when its thread has its turn.
fn until_closed(at: SocketAddr) {
    let started = Instant::now();
    while TcpStream::connect(at).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(20), "{at} is still open");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn hc_01_any_path_and_any_method_is_answered() {
    let (mut scene, at) = (scene(None), free());
    scene.follow(&[check(at, 2)]);
    for request in ["GET /", "GET /anything?x=1", "POST /", "OPTIONS /", "HEAD /"] {
        let (code, text) = ask(at, request).expect(request);
        assert_eq!((code.as_str(), text.contains("x-load-balancing-endpoint-weight: 2\r\n")), ("200", true), "{text}");
        assert_eq!(text.contains("\"localEndpoints\": 2"), request != "HEAD /", "{text}");
    }
}

#[test]
fn hc_06_counts_change_and_listeners_close() {
    let (mut scene, [a, b]) = (scene(None), [free(), free()]);
    scene.follow(&[check(a, 1), check(b, 0)]);
    assert_eq!([code(a, "GET /"), code(b, "GET /")], ["200", "503"].map(|code| Some(code.into())));
    scene.follow(&[check(a, 0), check(b, 1)]);
    assert_eq!([code(a, "GET /"), code(b, "GET /")], ["503", "200"].map(|code| Some(code.into())));
    scene.follow(&[check(b, 1)]);
    until_closed(a);
    assert_eq!(code(b, "GET /").as_deref(), Some("200"));
    scene.follow(&[check(a, 1)]);
    until_closed(b);
    assert_eq!(code(a, "GET /").as_deref(), Some("200"));
}

/// HC-05 as well: a Node that is not eligible changes `/healthz` only.
#[test]
fn hc_04_hz_03_late_writes_concern_all_and_the_node_only_healthz() {
    let [at, node] = [free(), free()];
    let mut scene = scene(Some(node));
    scene.follow(&[check(at, 1)]);
    let codes = || [(at, "GET /"), (node, "GET /healthz"), (node, "GET /livez")].map(|(at, page)| code(at, page));
    let wanted = |codes: [&str; 3]| codes.map(|code| Some(code.to_owned()));
    assert_eq!(codes(), wanted(["200", "503", "200"]), "no Node was seen");
    scene.status.send_modify(|status| Arc::make_mut(status).is_eligible = true);
    assert_eq!(codes(), wanted(["200", "503", "200"]), "nothing is served yet");
    scene.status.send_modify(|status| Arc::make_mut(status).readiness = Readiness::Ready);
    assert_eq!(codes(), wanted(["200", "200", "200"]));
    scene.status.send_modify(|status| Arc::make_mut(status).is_eligible = false);
    assert_eq!(codes(), wanted(["200", "503", "200"]));
    scene.status.send_modify(|status| Arc::make_mut(status).is_eligible = true);
    assert_eq!(codes(), wanted(["200", "200", "200"]));
    let since = Instant::now().checked_sub(Duration::from_secs(90)).expect("the machine has run for longer");
    let behind = Behind { since, rows: 1, reason: "full".into() };
    scene.status.send_modify(|status| Arc::make_mut(status).behind = Some(behind));
    assert_eq!(codes(), wanted(["503", "503", "503"]));
    assert_eq!(code(node, "GET /metrics").as_deref(), Some("404"));
}

#[test]
fn a_port_that_another_program_has_is_told() {
    let mut scene = scene(None);
    let [at, other] = [free(), free()];
    let taken = TcpListener::bind(at).expect("a free port");
    let checks = HealthChecks::of([(0, &check(at, 1)), (0, &check(other, 1))].into_iter());
    scene.runtime.block_on(async { scene.keeper.follow(checks) });
    let warning = scene.keeper.warnings().next().map(ToString::to_string).unwrap_or_default();
    assert!(warning.contains("Service shop/web") && warning.contains("Address already in use"), "{warning}");
    assert_eq!(code(other, "GET /").as_deref(), Some("200"));
    drop(taken);
    scene.runtime.block_on(async { scene.keeper.retry() });
    assert_eq!((code(at, "GET /").as_deref(), scene.keeper.warnings().count()), (Some("200"), 0));
}

/// An address that no interface has: the remedy is another one.
#[test]
fn an_address_of_another_machine_is_told() {
    let mut scene = scene(None);
    let check = check(([192, 0, 2, 99], 31000).into(), 1);
    scene.runtime.block_on(async { scene.keeper.follow(HealthChecks::of([(0, &check)].into_iter())) });
    let warning = scene.keeper.warnings().next().map(ToString::to_string).unwrap_or_default();
    assert!(warning.contains("status.addresses"), "{warning}");
}

/// Each listener has its own bound: silent clients of one do not starve another, nor a client that asks at once.
#[test]
fn a_flood_of_one_port_leaves_the_others_alone() {
    let (mut scene, [a, b]) = (scene(None), [free(), free()]);
    scene.follow(&[check(a, 1), check(b, 1)]);
    let silent: Vec<_> = (0..200).map(|_| TcpStream::connect(a).expect("it listens")).collect();
    assert_eq!([code(a, "GET /"), code(b, "GET /")], ["200", "200"].map(|code| Some(code.into())));
    drop(silent);
}

#[test]
fn answers_are_counted_by_page_and_status() {
    let (at, node) = (free(), free());
    let mut scene = scene(Some(node));
    scene.follow(&[check(at, 1)]);
    for (at, request, expected) in
        [(at, "GET /", "200"), (at, "GET /", "200"), (node, "GET /livez", "200"), (node, "GET /healthz", "503")]
    {
        assert_eq!(code(at, request).as_deref(), Some(expected), "{request}");
    }
    let mut text = String::new();
    encode(&mut text, &scene.registry).expect("text");
    for (page, code, count) in [("service", 200, 2), ("livez", 200, 1), ("healthz", 503, 1)] {
        let line = format!("lb_agent_health_answers_total{{page=\"{page}\",code=\"{code}\"}} {count}");
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
    assert_eq!(scene.keeper.tally(), HealthListeners { open: 2, missing: 0, failures: 0 });
}
