//! The agent itself on the API: what an operator sees while the API server comes, goes and forgets. Needs root.

use std::net::IpAddr;

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

/// Whether the kernel's tables balance this address.
fn balances(agent: &Agent, address: &str) -> bool {
    let rows: serde_json::Value =
        serde_json::from_str(&agent.says(&["show", "frontends", "-o", "json"])).expect("JSON");
    let row = rows.as_array().expect("rows").iter().find(|row| row["address"] == address);
    row.is_some_and(|row| row["workload"]["action"] == "Balance")
}

#[track_caller]
fn page(agent: &Agent, path: &str) -> String {
    let (code, text) = agent.page(path).expect("it listens");
    assert_eq!(code, 200, "{path}: {text}");
    text
}

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

    // The server goes away: the agent stays ready with what it has, and says what is wrong.
    server.stop();
    deadline::until_true("the trouble is told", || page(&agent, "/readyz").contains("API: Service: not followed for"));
    assert!(page(&agent, "/metrics").contains("lb_agent_source_watching{kind=\"Service\"} 0"));
    let warnings = page(&agent, "/warnings");
    assert!(warnings.contains("what was told before is kept"), "{warnings}");
    assert!(balances(&agent, "192.0.2.1") && balances(&agent, "192.0.2.2"));

    // While it is away, things change and the history is lost.
    server.delete(Resource::Services, "default", "new");
    serve(&server, "newer", 3);
    server.compact();
    node.inside(|| server.resume());
    deadline::until_true("it is followed again", || balances(&agent, "192.0.2.3") && !balances(&agent, "192.0.2.2"));
    deadline::until_true("the trouble is over", || page(&agent, "/readyz") == "ok\n");
    assert!(balances(&agent, "192.0.2.1"));

    // A crash, a deletion, and a list of slices that is late: nothing is lost before all is known (FLT-06).
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

/// What an operator sees of a server that cannot answer: at once, and with the reason.
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
            code == 503 && text.contains("first list") && text.contains("API: EndpointSlice: not followed for")
        })
    });
    let lists = || {
        let asked = server.asked();
        asked.iter().filter(|asked| asked.resource == Resource::EndpointSlices && !asked.is_watch).count()
    };
    let before = lists();
    let (_, text) = agent.page("/readyz").expect("it listens");
    assert!(text.contains("nothing was told yet: the API server answered 503"), "{text}");
    let metrics = page(&agent, "/metrics");
    let line = metrics.lines().find(|line| line.contains("source_failures{kind=\"EndpointSlice\"}"));
    let failures = line.and_then(|line| line.rsplit(' ').next()).and_then(|count| count.parse::<usize>().ok());
    // Of those that were asked then, none was hidden; the last may be under way.
    assert!(failures.is_some_and(|failures| failures > 0 && failures + 1 >= before), "{before}: {line:?}");
    assert!(page(&agent, "/warnings").contains("answered 503"));
    assert!(agent.log().contains("the API is not followed"), "{}", agent.log());
    server.misbehave(|faults| faults.refused_lists.clear());
    deadline::until_true("it is served", || agent.page("/readyz").is_some_and(|(_, text)| text == "ok\n"));
    assert!(balances(&agent, "192.0.2.1"));
    agent.terminate();
    agent.unload();
}
