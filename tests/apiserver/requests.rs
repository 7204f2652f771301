//! What is asked of the server, and how often: lists only where they are needed.

use lb_agent::model::Kind;
use lb_tests::apiserver::{ApiServer, Resource, WatchFault};
use serde_json::json;

use crate::stage::{Stage, put, service};

/// Requests for a kind since there were `before` of all kinds: whether each was a watch.
fn asked_since(server: &ApiServer, before: usize, resource: Resource) -> Vec<bool> {
    let asked = server.asked();
    asked[before..].iter().filter(|asked| asked.resource == resource).map(|asked| asked.is_watch).collect()
}

/// A server with a Service, and an agent that has listed and watches it.
fn followed() -> (ApiServer, Stage) {
    let server = ApiServer::start();
    put(&server, service("steady", 1));
    let mut stage = Stage::follow(&server);
    stage.until_in_step_with(&server);
    stage.until("all is watched", |_| server.asked().iter().filter(|asked| asked.is_watch).count() >= 3);
    (server, stage)
}

/// What others write moves our position on by bookmarks: history that is forgotten up to there costs no list.
#[test]
fn a_bookmark_spares_a_list() {
    let (server, mut stage) = followed();
    server.compact();
    // Another proxy's: we are not told.
    let [mut hidden, _] = service("hidden", 9);
    hidden["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    server.put(hidden);
    let before = server.asked().len();
    server.afflict_watches(WatchFault::Ended);
    stage.until("it is watched again", |_| asked_since(&server, before, Resource::Services).contains(&true));
    put(&server, service("new", 3));
    stage.until_in_step_with(&server);
    assert_eq!(stage.connection(Kind::Service).lists, 1, "{:?}", stage.connection(Kind::Service));
}

/// Nothing but a list helps after 410, so nothing else is tried.
#[test]
fn a_list_follows_410_at_once() {
    let (server, mut stage) = followed();
    let before = server.asked().len();
    server.afflict_watches(WatchFault::Expired);
    stage.until("it is listed again", |stage| stage.connection(Kind::Service).lists == 2);
    assert!(!asked_since(&server, before, Resource::Services)[0], "a watch came first");
}

/// A watch that always ends before it has told anything, as behind a proxy that allows no long answers.
#[test]
fn watches_that_never_tell_anything_are_replaced_by_a_list() {
    let (server, mut stage) = followed();
    server.misbehave(|faults| faults.watch_events_max = Some(0));
    server.afflict_watches(WatchFault::Cut);
    put(&server, service("new", 3));
    stage.until_in_step_with(&server);
    assert!(stage.connection(Kind::Service).lists > 1);
    assert!(stage.connection(Kind::Service).failures > 3, "each is a failure, which backs off");
}

/// A list that follows another tells nothing before its last page: half of it may be the half of a move.
#[test]
fn a_later_list_is_told_whole() {
    let (server, mut stage) = followed();
    put(&server, (3..8).flat_map(|last| service(&format!("s{last}"), last)));
    stage.until_in_step_with(&server);
    server.misbehave(|faults| {
        faults.held_lists = [Resource::Services].into();
        faults.refused_watches = [(Resource::Services, 500)].into();
    });
    let before = server.asked().len();
    server.afflict_watches(WatchFault::Cut);
    stage.until("it is listed again", |_| asked_since(&server, before, Resource::Services).contains(&false));
    // The first of the first page.
    put(&server, service("a", 9));
    server.misbehave(|faults| {
        faults.held_pages = [Resource::Services].into();
        faults.held_lists.clear();
    });
    stage.until("the second page is asked for", |_| {
        let asked = server.asked();
        let mut lists = asked[before..].iter().filter(|asked| asked.resource == Resource::Services);
        lists.any(|asked| asked.query.iter().any(|(name, _)| name == "continue"))
    });
    stage.turn();
    assert!(!stage.text().contains("192.0.2.9"), "{}", stage.text());
    server.misbehave(|faults| {
        faults.held_pages.clear();
        faults.refused_watches.clear();
    });
    stage.until_in_step_with(&server);
    assert!(stage.text().contains("192.0.2.9"), "{}", stage.text());
}
