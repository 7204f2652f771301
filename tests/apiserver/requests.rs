//! The agent's requests, and their number: it lists only if it must.

use std::time::{Duration, Instant};

use lb_agent::model::Kind;
use lb_agent::source::connection::Phase;
use lb_agent::source::kube::Pace;
use lb_tests::apiserver::{ApiServer, Resource, WatchFault};
use serde_json::json;

use crate::stage::{PACE, Stage, put, service, settings};

/// Requests for a kind, after the first `before` requests of all kinds: whether each was a watch.
pub fn asked_since(server: &ApiServer, before: usize, resource: Resource) -> Vec<bool> {
    let asked = server.asked();
    asked[before..].iter().filter(|asked| asked.resource == resource).map(|asked| asked.is_watch).collect()
}

/// Whether the second page of Services was requested since then.
pub fn asked_for_a_second_page(server: &ApiServer, before: usize) -> bool {
    let asked = server.asked();
    let mut lists = asked[before..].iter().filter(|asked| asked.resource == Resource::Services);
    lists.any(|asked| asked.query.iter().any(|(name, _)| name == "continue"))
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

/// Bookmarks advance the position past other writes: history that is compacted up to there costs no list.
#[test]
fn a_bookmark_spares_a_list() {
    let (server, mut stage) = followed();
    server.compact();
    // Another proxy's Service, which the agent's selector hides.
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

/// Only a list helps after 410, so nothing else is tried.
#[test]
fn a_list_follows_410_at_once() {
    let (server, mut stage) = followed();
    let before = server.asked().len();
    server.afflict_watches(WatchFault::Expired);
    stage.until("it is listed again", |stage| stage.connection(Kind::Service).lists == 2);
    assert!(!asked_since(&server, before, Resource::Services)[0], "a watch came first");
}

/// The list's position is new enough: the watch starts from there, without another list.
#[test]
fn one_list_is_enough_after_410() {
    let (server, mut stage) = followed();
    server.compact();
    server.afflict_watches(WatchFault::Expired);
    for last in 3..6 {
        put(&server, service(&format!("s{last}"), last));
        stage.until_in_step_with(&server);
        stage.until("it is watched", |stage| stage.connection(Kind::Service).phase == Phase::Watching);
    }
    assert_eq!(stage.connection(Kind::Service).lists, 2);
    assert_eq!(stage.connection(Kind::Service).failures, 1);
}

/// A watch that always ends before its first event, as behind a proxy that allows no long answers.
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

/// A later list takes effect only after its last page: a part of it may be half of a move.
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
    // The first on the first page.
    put(&server, service("a", 9));
    server.misbehave(|faults| {
        faults.held_pages = [Resource::Services].into();
        faults.held_lists.clear();
    });
    stage.until("the second page is asked for", |_| asked_for_a_second_page(&server, before));
    stage.turn();
    assert!(!stage.text().contains("192.0.2.9"), "{}", stage.text());
    server.misbehave(|faults| {
        faults.held_pages.clear();
        faults.refused_watches.clear();
    });
    stage.until_in_step_with(&server);
    assert!(stage.text().contains("192.0.2.9"), "{}", stage.text());
}

/// A server that refuses lists or watches gets no more requests than the retry schedule allows in the elapsed time.
#[test]
fn a_server_in_trouble_is_not_hammered() {
    const PATIENT: Pace = Pace { retry_min: Duration::from_millis(40), retry_max: Duration::from_millis(320), ..PACE };
    for refuses_lists in [true, false] {
        let server = ApiServer::start();
        server.misbehave(|faults| {
            let refused = Resource::ALL.map(|resource| (resource, 503)).into();
            if refuses_lists { faults.refused_lists = refused } else { faults.refused_watches = refused }
        });
        let begin = Instant::now();
        let mut stage = Stage::with(lb_agent::source::kube::Settings { pace: PATIENT, ..settings(&server) });
        put(&server, service("steady", 1));
        stage.until("it is asked again and again", |_| asked_since(&server, 0, Resource::Services).len() >= 8);
        let asked = asked_since(&server, 0, Resource::Services);
        let mut left = begin.elapsed();
        // A list is followed by its watch at once; each wait is at least half of the nominal one.
        let hurried = asked.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        let (mut allowed, mut nominal) = (1, PATIENT.retry_min);
        while let Some(rest) = left.checked_sub(nominal / 2) {
            (left, allowed, nominal) = (rest, allowed + 1, (nominal * 2).min(PATIENT.retry_max));
        }
        assert!(asked.len() - hurried <= allowed, "{} of at most {allowed}: {asked:?}", asked.len() - hurried);
    }
}
