//! Tables that are too small, with real maps and real sockets: working Services continue, rows without room are named
//! everywhere, and are served as soon as there is room. Needs root.

use std::net::{IpAddr, SocketAddr};

use lb_tests::address::{BALANCERS, CLUSTER, Family, vip};
use lb_tests::agent::Agent;
use lb_tests::deadline::until_true;
use lb_tests::lab::Setup;
use lb_tests::manifest::{NODE, OTHER_NODE, Service, ingress};
use lb_tests::scene::{BALANCER, FINDING_OUT, Scene, TARGET};
use serde_json::{Value, json};

/// A Service on TCP port 80 of one IPv4 address.
fn service(name: &str, number: u8) -> Service {
    Service::new(name)
        .cluster_ips(&[CLUSTER.host(Family::V4, number)])
        .port("web", "TCP", 80, TARGET)
        .ingress(ingress(BALANCERS.host(Family::V4, number), "VIP"))
}

/// Its slice with one of the pods' ports, and so many endpoints that do not answer.
fn slice(scene: &Scene, service: &Service, pod: &str, port: u16, silent: u8) -> Value {
    let slice = service.slice(&port.to_string()).port("web", "TCP", port);
    let slice = slice.endpoint(scene.lab.pod_address(pod, Family::V4), NODE);
    (1..=silent).fold(slice, |slice, last| slice.endpoint(IpAddr::from([10, 99, 0, last]), OTHER_NODE)).object()
}

fn at(number: u8) -> SocketAddr {
    vip(Family::V4, number, 80)
}

fn is_answered_by(scene: &Scene, number: u8, who: &str) -> bool {
    scene.dial().tcp(at(number)).who() == Some(who)
}

fn warnings(agent: &Agent) -> Vec<Value> {
    agent.rows("warnings")
}

fn metric(agent: &Agent, name: &str) -> u64 {
    let (_, text) = agent.page("/metrics").expect("the agent listens");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
}

/// Each table in turn: a Service that does not fit is left out completely, and the warning names it and the flag to
/// raise.
#[test]
fn what_does_not_fit_is_named_and_everything_else_is_served() {
    for (flags, ranges, reason) in [
        (["--frontends-max", "3"], 0, "frontends, the limit is 3; raise --frontends-max"),
        (["--backends-max", "16"], 0, "backends in pools, the limit is 14; raise --backends-max"),
        (["--source-ranges-max", "2"], 3, "source ranges, the limit is 2; raise --source-ranges-max"),
    ] {
        let flags = [flags[0], flags[1], "--namespace-share", "100"];
        let scene = Scene::with_flags(Setup::new("capfit"), &flags);
        let works = service("works", 1);
        scene.manifests.write("works", &[works.object(), slice(&scene, &works, "a", TARGET, 0)]);
        until_true("the first Service to be served", || is_answered_by(&scene, 1, "a"));
        // Too many of everything: three frontends, 21 backends, and as many source ranges as needed.
        let ranges: Vec<String> = (0..ranges).map(|third| format!("10.{third}.0.0/16")).collect();
        let large = service("zz-large", 2).port("more", "TCP", 81, TARGET).port("yet-more", "TCP", 82, TARGET);
        let large = large.spec("loadBalancerSourceRanges", ranges.into());
        scene.manifests.write("large", &[large.object(), slice(&scene, &large, "b", TARGET, 20)]);
        until_true("the second one to be refused", || {
            metric(&scene.agent, "lb_agent_warnings{kind=\"capacity\"}") == 1
        });
        let found = warnings(&scene.agent);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&found[0]["kind"], &found[0]["object"]), (&"capacity".into(), &"Service default/zz-large".into()));
        let named = |text: &str| text.contains("Service default/zz-large: does not fit") && text.contains(reason);
        assert!(named(&scene.agent.log()), "{}", scene.agent.log());
        let (code, text) = scene.agent.page("/readyz").expect("the agent listens");
        assert!(code == 200 && text.starts_with("ok\n") && named(&text), "{code}: {text}");
        assert_eq!((metric(&scene.agent, "lb_agent_ready"), metric(&scene.agent, "lb_agent_pending_ops")), (1, 0));
        // Its address stays with the balancer; the working Service works, and follows its objects.
        assert!(is_answered_by(&scene, 2, BALANCER) && is_answered_by(&scene, 1, "a"));
        scene.manifests.write("works", &[works.object(), slice(&scene, &works, "b", TARGET, 0)]);
        until_true("the first Service to follow", || is_answered_by(&scene, 1, "b"));
        assert!(is_answered_by(&scene, 2, BALANCER) && warnings(&scene.agent).len() == 1);
        // It shrinks, and fits.
        let small = service("zz-large", 2);
        scene.manifests.write("large", &[small.object(), slice(&scene, &small, "b", TARGET, 0)]);
        until_true("the second one to be served", || is_answered_by(&scene, 2, "b"));
        until_true("nothing to be wrong", || scene.agent.page("/readyz") == Some((200, "ok\n".into())));
        assert!(warnings(&scene.agent).is_empty() && scene.agent.log().contains("warnings no longer apply"));
        assert_eq!(metric(&scene.agent, "lb_agent_warnings{kind=\"capacity\"}"), 0);
    }
}

/// All of it would fit, but not the new endpoints beside the old ones: the kernel refuses, and the last good state
/// stays.
#[test]
fn what_the_kernel_has_no_room_for_waits_and_takes_nothing_from_others() {
    let scene = Scene::with_flags(Setup::new("capwait"), &["--backends-max", "16", "--namespace-share", "100"]);
    // Draining endpoints stay members, but get no new flows.
    let serve = |name: &str, number: u8, pod: &str, first: u8| {
        let service = service(name, number);
        let slice = service.slice("1").port("web", "TCP", TARGET);
        let slice = slice.endpoint(scene.lab.pod_address(pod, Family::V4), NODE);
        let drains = |last| {
            let addr = IpAddr::from([10, 99, number, last]);
            json!({"addresses": [addr], "conditions": {"ready": false, "serving": true, "terminating": true}})
        };
        let slice = (first..first + 6).fold(slice, |slice, last| slice.raw_endpoint(drains(last)));
        scene.manifests.write(name, &[service.object(), slice.object()]);
    };
    serve("waits", 1, "a", 1);
    serve("other", 2, "a", 1);
    until_true("both to be served", || is_answered_by(&scene, 1, "a") && is_answered_by(&scene, 2, "a"));
    let mut open = scene.dial().held(at(1));

    serve("waits", 1, "a", 101);
    until_true("the kernel to refuse", || metric(&scene.agent, "lb_agent_pending_ops") > 0);
    // Endpoints are written before the members that name them.
    let full = "table endpoints4 is full (16 entries): raise --backends-max";
    assert!(scene.agent.log().contains(full), "{}", scene.agent.log());
    assert!(metric(&scene.agent, "lb_agent_apply_errors_total{map=\"endpoints4\"}") > 0);
    let (code, text) = scene.agent.page("/readyz").expect("the agent listens");
    assert!(code == 200 && text.starts_with("ok\n") && text.contains(full), "{code}: {text}");
    assert!(is_answered_by(&scene, 1, "a"), "the last good state goes on");
    open.echo("still here").expect("the open connection goes on");

    scene.manifests.remove("other");
    until_true("nothing to wait", || scene.agent.page("/readyz") == Some((200, "ok\n".into())));
    assert_eq!(metric(&scene.agent, "lb_agent_pending_ops"), 0);
    assert!(is_answered_by(&scene, 1, "a"));
    open.echo("still here").expect("the open connection goes on");
}

/// A set of source ranges is replaced by another set beside it, however full the table is. A Service whose set does not
/// change follows its objects.
#[test]
fn source_ranges_are_replaced_also_where_their_table_is_full() {
    let scene = Scene::with_flags(Setup::new("caprange"), &["--source-ranges-max", "4", "--namespace-share", "100"]);
    // A range that contains the pods, and one that contains no address here.
    let from = |length: u8, last: u8| vec![format!("0.0.0.0/{length}"), format!("198.18.{last}.0/{}", 24 + length)];
    let serve = |name: &str, number: u8, pod: &str, length: u8| {
        let service = service(name, number).spec("loadBalancerSourceRanges", from(length, number).into());
        scene.manifests.write(name, &[service.object(), slice(&scene, &service, pod, TARGET, 0)]);
    };
    serve("changes", 1, "a", 1);
    serve("other", 2, "a", 1);
    until_true("both to be served", || is_answered_by(&scene, 1, "a") && is_answered_by(&scene, 2, "a"));
    let mut open = scene.dial().held(at(1));
    for (length, pod) in [(2, "b"), (3, "a"), (1, "b")] {
        serve("changes", 1, pod, length);
        until_true("it to follow", || is_answered_by(&scene, 1, pod));
        assert!(is_answered_by(&scene, 2, "a"));
        assert_eq!(scene.agent.page("/readyz"), Some((200, "ok\n".into())));
    }
    open.echo("still here").expect("the open connection goes on");
}

/// A list of source ranges is stored once, however many ports and addresses use it.
#[test]
fn a_list_of_source_ranges_is_there_once() {
    let scene = Scene::with_flags(Setup::new("caponce"), &["--source-ranges-max", "2048"]);
    let ranges: Vec<String> = (0..1_000).map(|n| format!("100.{}.{}.0/24", n / 250, n % 250)).collect();
    let ranges = [vec!["10.0.0.0/8".to_owned()], ranges].concat();
    let mut service = Service::new("many").cluster_ips(&[CLUSTER.host(Family::V4, 1)]);
    service = service.ingress(ingress(BALANCERS.host(Family::V4, 1), "VIP"));
    let mut slice = service.slice("1");
    for port in 80..180 {
        service = service.port(&format!("p{port}"), "TCP", port, TARGET);
        slice = slice.port(&format!("p{port}"), "TCP", TARGET);
    }
    let service = service.spec("loadBalancerSourceRanges", ranges.into());
    let slice = slice.endpoint(scene.lab.pod_address("a", Family::V4), NODE);
    scene.manifests.write("many", &[service.object(), slice.object()]);
    until_true("all ports to be served", || {
        [80, 130, 179]
            .iter()
            .all(|port| scene.dial().unasked(FINDING_OUT).tcp(vip(Family::V4, 1, *port)).who() == Some("a"))
    });
    assert!(warnings(&scene.agent).is_empty(), "{:?}", warnings(&scene.agent));
    assert_eq!(metric(&scene.agent, "lb_agent_map_entries{map=\"source_ranges4\"}"), 1_001);
}

/// An old Service that outgrows a table takes nothing from a younger one, in each table, and the warning names the
/// Service that grew. Existing rows of both stay, also across a restart.
#[test]
fn growth_is_refused_before_what_works_is_left_out() {
    for (flags, ports, silent) in
        [(["--frontends-max", "3"], 4, 0), (["--backends-max", "16"], 1, 20), (["--source-ranges-max", "3"], 1, 0)]
    {
        let flags = [flags[0], flags[1], "--namespace-share", "100"];
        let mut scene = Scene::with_flags(Setup::new("capgrow"), &flags);
        let aged = |service: Service, year: u16| {
            service.metadata("creationTimestamp", json!(format!("{year}-01-01T00:00:00Z")))
        };
        let restricted = |service: Service, ranges: &[&str]| {
            if flags[0] != "--source-ranges-max" {
                return service;
            }
            service.spec("loadBalancerSourceRanges", json!(ranges))
        };
        // The first range contains all pods.
        let young = restricted(aged(service("young", 1), 2024), &["10.0.0.0/8", "198.18.0.0/24"]);
        scene.manifests.write("young", &[young.object(), slice(&scene, &young, "a", TARGET, 0)]);
        let old = restricted(aged(service("zz-old", 2), 2001), &["10.0.0.0/8"]);
        scene.manifests.write("old", &[old.object(), slice(&scene, &old, "b", TARGET, 0)]);
        until_true("both to be served", || is_answered_by(&scene, 1, "a") && is_answered_by(&scene, 2, "b"));
        let mut open = [1, 2].map(|number| scene.dial().held(at(number)));

        let mut grown = old.clone();
        for port in 1..ports {
            grown = grown.port(&format!("p{port}"), "TCP", 80 + port, TARGET);
        }
        let grown = restricted(grown, &["1.0.0.0/8", "10.0.0.0/8", "2.0.0.0/8", "3.0.0.0/8"]);
        scene.manifests.write("old", &[grown.object(), slice(&scene, &grown, "b", TARGET, silent)]);
        let refused = || metric(&scene.agent, "lb_agent_warnings{kind=\"capacity\"}") == 1;
        until_true("the growth to be refused", refused);
        let expect = |scene: &Scene, what: &str| {
            let found = warnings(&scene.agent);
            assert!(found.iter().all(|warning| warning["object"] == "Service default/zz-old"), "{what}: {found:?}");
            assert!(is_answered_by(scene, 1, "a") && is_answered_by(scene, 2, "b"), "{flags:?}: {what}");
        };
        expect(&scene, "grown");
        scene.agent.crash();
        scene.agent.start();
        expect(&scene, "restarted");
        for open in &mut open {
            open.echo("still here").expect("the open connections go on");
        }
        scene.manifests.write("old", &[old.object(), slice(&scene, &old, "b", TARGET, 0)]);
        until_true("nothing to be wrong", || warnings(&scene.agent).is_empty());
        expect(&scene, "shrunk");
    }
}
