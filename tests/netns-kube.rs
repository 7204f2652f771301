//! The agent itself on the API: an operator's view while the API server stops, restarts and loses its history. Needs
//! root.

use std::net::IpAddr;
use std::time::Duration;

use lb_tests::agent::Agent;
use lb_tests::apiserver::{ApiServer, Resource, WatchFault};
use lb_tests::deadline;
use lb_tests::manifest::{self, NODE, Service};
use lb_tests::netns::Netns;

/// A Service on 192.0.2.`last`, with one endpoint.
fn serve(server: &ApiServer, name: &str, last: u8) {
    let service = Service::new(name).cluster_ips(&[IpAddr::from([10, 96, 0, last])]).port("http", "TCP", 80, 8080);
    let slice = service.slice("1").port("http", "TCP", 8080).endpoint(IpAddr::from([10, 244, 0, last]), NODE);
    server.put(slice.object());
    server.put(service.ingress(manifest::ingress(IpAddr::from([192, 0, 2, last]), "VIP")).object());
}

/// Whether the kernel's tables balance this address. There are no pods: the node's own sockets dial it.
fn balances(agent: &Agent, address: &str) -> bool {
    let rows = agent.rows("frontends");
    let row = rows.iter().find(|row| row["address"] == format!("{address}:80"));
    row.is_some_and(|row| row["host"]["action"] == "Balance")
}

#[track_caller]
fn page(agent: &Agent, path: &str) -> String {
    let (code, text) = agent.page(path).expect("it listens");
    assert_eq!(code, 200, "{path}: {text}");
    text
}

/// SY-02.
#[test]
fn the_api_server_comes_and_goes() {
    let node = Netns::create("kube", "node");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut server = node.inside(ApiServer::start);
    serve(&server, "steady", 1);
    let mut agent = Agent::new(&node, folder.path(), folder.path()).following(server.kubeconfig()).started();
    assert!(balances(&agent, "192.0.2.1"), "ready means programmed");
    serve(&server, "new", 2);
    deadline::until_true("a new Service is programmed", || balances(&agent, "192.0.2.2"));
    assert_eq!(page(&agent, "/readyz"), "ok\n");
    assert!(page(&agent, "/metrics").contains("lb_agent_source_watching{kind=\"Service\"} 1"));

    // `check` tries what the agent does all the time, with the agent's own settings.
    let check = ["check"];
    let granted = agent.ask(&check).stdout;
    assert!(granted.contains("the API server answers") && granted.contains("can be listed and watched"), "{granted}");
    assert!(granted.contains("has them: source, kubeconfig, "), "{granted}");
    for verbs in [&["watch"][..], &["list", "watch"]] {
        server.misbehave(|faults| {
            let refused = |verb| verbs.contains(&verb).then_some((Resource::EndpointSlices, 403));
            faults.refused_watches = refused("watch").into_iter().collect();
            faults.refused_lists = refused("list").into_iter().collect();
        });
        let denied = agent.ask(&check);
        let told =
            verbs.iter().filter(|verb| denied.stdout.contains(&format!("{verb} endpointslices.discovery.k8s.io: ")));
        assert!(denied.code == Some(1) && denied.stdout.contains("rbac.yaml"), "{denied:?}");
        assert_eq!(told.count(), verbs.len(), "{denied:?}");
    }
    server.misbehave(|faults| {
        faults.refused_watches.clear();
        faults.refused_lists.clear();
    });

    // The server stops: the agent stays ready with its state, and reports the problem.
    let told = agent.log().lines().count();
    let lines = |agent: &Agent, words: &str| agent.log().lines().skip(told).filter(|line| line.contains(words)).count();
    server.stop();
    deadline::until_true("the trouble is told", || page(&agent, "/readyz").contains("API: Service: not watched for"));
    assert!(page(&agent, "/metrics").contains("lb_agent_source_watching{kind=\"Service\"} 0"));
    let warnings = page(&agent, "/warnings");
    assert!(warnings.contains("the objects known before are kept"), "{warnings}");
    assert!(balances(&agent, "192.0.2.1") && balances(&agent, "192.0.2.2"));
    let away = agent.ask(&check);
    assert!(away.code == Some(1) && away.stdout.contains("that the API server runs"), "{away:?}");

    // Meanwhile objects change and the history is lost.
    server.delete(Resource::Services, "default", "new");
    serve(&server, "newer", 3);
    server.compact();
    node.inside(|| server.resume());
    deadline::until_true("it is followed again", || balances(&agent, "192.0.2.3") && !balances(&agent, "192.0.2.2"));
    deadline::until_true("the trouble is over", || page(&agent, "/readyz") == "ok\n");
    // A line for each kind and change, however often it was tried.
    for words in ["WARN cannot watch the API", "INFO watching the API again", "INFO listed"] {
        assert_eq!(lines(&agent, words), 3, "{words}: {}", agent.log());
    }
    assert_eq!(lines(&agent, "WARN"), 3, "{}", agent.log());
    assert!(balances(&agent, "192.0.2.1"));

    // A crash, a deletion, and a slow list of slices: nothing is deleted before all lists are complete (FLT-06).
    agent.crash();
    server.delete(Resource::Services, "default", "newer");
    server.misbehave(|faults| faults.held_lists = [Resource::EndpointSlices].into());
    agent.spawn();
    deadline::until_true("it waits for the list", || {
        agent.page("/readyz").is_some_and(|(code, text)| code == 503 && text.contains("first list"))
    });
    assert!(balances(&agent, "192.0.2.1") && balances(&agent, "192.0.2.3"));
    server.misbehave(|faults| faults.held_lists.clear());
    server.afflict_watches(WatchFault::Ended);
    deadline::until_true("the deletion is found", || !balances(&agent, "192.0.2.3"));
    assert!(balances(&agent, "192.0.2.1"));
    agent.terminate();
    agent.unload();
}

/// The process's resident memory, in MiB.
fn resident_mib(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") >> 10
}

/// Unread annotations are not kept, and values that are read are kept only as far as they have a meaning.
#[test]
fn annotations_cost_little_memory() {
    const SERVICES: u8 = 200;
    const FLAT_MIB: u64 = 25;
    let node = Netns::create("kubenotes", "node");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = node.inside(ApiServer::start);
    serve(&server, "steady", 250);
    let mut agent = Agent::new(&node, folder.path(), folder.path()).following(server.kubeconfig()).started();
    let before = resident_mib(&agent);
    let notes = "x".repeat(125 << 10);
    for number in 0..SERVICES {
        let service = Service::new(&format!("s{number}")).cluster_ips(&[IpAddr::from([10, 96, 1, number])]);
        let service = service
            .port("http", "TCP", 80, 8080)
            .ingress(manifest::ingress(IpAddr::from([192, 0, 3, number]), "Proxy"));
        let annotations = serde_json::json!({"example.com/notes": notes, "lb-agent.io/lb-algorithm": notes});
        server.put(service.metadata("annotations", annotations).object());
    }
    let last = format!("192.0.3.{}", SERVICES - 1);
    let is_there = |agent: &Agent| agent.says(&["show", "frontends", "-o", "json"]).contains(&last);
    let known = deadline::within(Duration::from_mins(2), || is_there(&agent).then_some(()));
    assert!(known.is_some(), "in vain: all of them are known");
    let after = resident_mib(&agent);
    assert!(after < before + FLAT_MIB, "{before} MiB became {after} MiB");
    agent.terminate();
    agent.unload();
}

/// How often following a kind has failed so far.
fn failures(agent: &Agent, kind: &str) -> u64 {
    let metrics = page(agent, "/metrics");
    let start = format!("lb_agent_source_failures_total{{kind=\"{kind}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&start)).and_then(|count| count.parse().ok()).expect("a number")
}

/// A few pages of memory, whatever the server sends. The last good state keeps forwarding.
#[test]
fn an_answer_without_end_costs_little_memory() {
    const FLAT_MIB: u64 = 160;
    const GIGABYTES_PATIENCE: Duration = Duration::from_mins(2);
    let node = Netns::create("kubeendless", "node");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = node.inside(ApiServer::start);
    serve(&server, "steady", 1);
    let mut agent = Agent::new(&node, folder.path(), folder.path()).following(server.kubeconfig()).started();
    let before = resident_mib(&agent);
    let mut most = before;
    server.misbehave(|faults| faults.endless_lists = [Resource::Services].into());
    for fault in [WatchFault::Endless, WatchFault::Expired] {
        // The event with 410, and the list after it.
        let wanted = failures(&agent, "Service") + if fault == WatchFault::Expired { 2 } else { 1 };
        server.afflict_watches(fault);
        let given_up = deadline::within(GIGABYTES_PATIENCE, || {
            most = most.max(resident_mib(&agent));
            (failures(&agent, "Service") >= wanted || most > before + FLAT_MIB).then_some(())
        });
        assert!(given_up.is_some(), "it is read for ever: {most} MiB");
        let watches = "lb_agent_source_watching{kind=\"Service\"} 1";
        // An endless list is tried repeatedly.
        if fault == WatchFault::Endless {
            deadline::until_true("it is watched again", || page(&agent, "/metrics").contains(watches));
        }
    }
    assert!(most < before + FLAT_MIB, "{before} MiB became {most} MiB");
    assert!(page(&agent, "/readyz").contains("longer than 16 MiB"), "{}", page(&agent, "/readyz"));
    assert!(balances(&agent, "192.0.2.1"));
    serve(&server, "new", 2);
    server.misbehave(|faults| faults.endless_lists.clear());
    deadline::until_true("it is followed again", || balances(&agent, "192.0.2.2"));
    agent.terminate();
    agent.unload();
}

/// A server that cannot answer is reported at once, and with the reason.
#[test]
fn a_refused_list_is_told() {
    let node = Netns::create("kube503", "node");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = node.inside(ApiServer::start);
    serve(&server, "steady", 1);
    server.misbehave(|faults| faults.refused_lists = [(Resource::EndpointSlices, 503)].into());
    let mut agent = Agent::new(&node, folder.path(), folder.path()).following(server.kubeconfig());
    agent.spawn();
    deadline::until_true("the probe tells", || {
        agent.page("/readyz").is_some_and(|(code, text)| {
            code == 503 && text.contains("first list") && text.contains("API: EndpointSlice: not watched for")
        })
    });
    let lists = || {
        let asked = server.asked();
        asked.iter().filter(|asked| asked.resource == Resource::EndpointSlices && !asked.is_watch).count()
    };
    let before = lists();
    let (_, text) = agent.page("/readyz").expect("it listens");
    assert!(text.contains("no object is known yet: the API server answered 503"), "{text}");
    let metrics = page(&agent, "/metrics");
    let line = metrics.lines().find(|line| line.contains("source_failures_total{kind=\"EndpointSlice\"}"));
    let failures = line.and_then(|line| line.rsplit(' ').next()).and_then(|count| count.parse::<usize>().ok());
    // No earlier refusal was hidden; the last request may still be open.
    assert!(failures.is_some_and(|failures| failures > 0 && failures + 1 >= before), "{before}: {line:?}");
    assert!(page(&agent, "/warnings").contains("answered 503"));
    assert!(agent.log().contains("cannot watch the API"), "{}", agent.log());
    // The log has no lines of other libraries.
    assert!(!agent.log().contains("ERROR"), "{}", agent.log());
    server.misbehave(|faults| faults.refused_lists.clear());
    deadline::until_true("it is served", || agent.page("/readyz").is_some_and(|(_, text)| text == "ok\n"));
    assert!(balances(&agent, "192.0.2.1"));
    agent.terminate();
    agent.unload();
}
