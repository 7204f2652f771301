//! State that a real cluster loses: the API server crashes, others continue to write, and etcd compacts its history.

use lb_agent::model::Kind;
use lb_tests::api::Api;
use lb_tests::apiserver::Resource;
use lb_tests::kubernetes::Kubernetes;

use super::Test;
use crate::stage::{Stage, put, service, slice};

pub const ALL: &[(&str, Test)] = &[
    ("loss::deletions_while_the_server_is_away_are_found", deletions_while_the_server_is_away_are_found),
    ("loss::a_position_that_was_compacted_away_is_listed_anew", a_position_that_was_compacted_away_is_listed_anew),
    ("loss::one_410_is_enough_to_list_anew", one_410_is_enough_to_list_anew),
    ("loss::a_restart_of_the_agent_without_a_server", a_restart_of_the_agent_without_a_server),
    ("loss::a_watch_that_ends_in_time_goes_on", a_watch_that_ends_in_time_goes_on),
];

/// An agent whose watches end after seconds, and a Service that must never stop working.
fn with_short_watches(server: &Kubernetes) -> Stage {
    put(server, service("steady", 1));
    let mut settings = crate::stage::settings(server);
    settings.pace.watch = std::time::Duration::from_secs(2);
    let mut stage = Stage::with(settings);
    stage.until_in_step_with(server);
    stage.keep(&["192.0.2.1:80"]);
    stage
}

/// T1. A server that starts has no earlier history: a watch from there gets 410.
fn deletions_while_the_server_is_away_are_found(server: &mut Kubernetes) {
    for flags in [&[][..], &["--watch-cache=false"]] {
        server.clean();
        let mut stage = Stage::with_two(server);
        stage.keep(&["192.0.2.2:80"]);
        server.stop();
        stage.until_away();
        let before = stage.text();
        server.delete_in_etcd(Resource::Services, "default", "other");
        server.delete_in_etcd(Resource::EndpointSlices, "default", "other-1");
        server.compact();
        stage.turn();
        assert_eq!(stage.text(), before, "nobody could tell");
        stage.forget(&["192.0.2.2:80"]);
        server.resume_with(flags);
        stage.until_in_step_with(server);
        assert!(!stage.text().contains("192.0.2.2"), "{flags:?}: {}", stage.text());
        assert_eq!(stage.connection(Kind::Service).lists, 2, "{flags:?}: 410 makes it list anew");
        // The watch continues from there.
        for last in 4..7 {
            put(server, service(&format!("newer{last}"), last));
            stage.until_in_step_with(server);
        }
        assert_eq!(stage.connection(Kind::Service).lists, 2, "{flags:?}: one list is enough");
    }
}

/// Without a cache the server forwards each watch to etcd, and returns etcd's answer.
fn a_position_that_was_compacted_away_is_listed_anew(server: &mut Kubernetes) {
    server.stop();
    server.resume_with(&["--watch-cache=false"]);
    let mut stage = Stage::with_two(server);
    server.stop();
    stage.until_away();
    server.compact();
    server.resume_with(&["--watch-cache=false"]);
    stage.until("all is listed anew", |stage| stage.connections().iter().all(|connection| connection.lists == 2));
    server.put(slice("other", "1", &[4, 6]).object());
    put(server, service("new", 3));
    stage.until_in_step_with(server);
}

/// Only a list helps after 410, so no other watch is tried before it.
fn one_410_is_enough_to_list_anew(server: &mut Kubernetes) {
    server.stop();
    server.resume_with(&["--watch-cache=false"]);
    let mut stage = with_short_watches(server);
    // Other writes, without bookmarks: positions fall behind, and the next watch starts too far back.
    stage.until("all is listed anew", |stage| {
        server.compact();
        stage.connections().iter().all(|connection| connection.lists >= 2)
    });
    for connection in stage.connections() {
        assert_eq!(connection.failures, connection.lists - 1, "{connection:?}");
    }
    put(server, service("new", 2));
    stage.until_in_step_with(server);
}

/// T2: the agent restarts while the server is stopped, and the server returns with fewer objects.
fn a_restart_of_the_agent_without_a_server(server: &mut Kubernetes) {
    let mut stage = Stage::with_two(server);
    stage.keep(&["192.0.2.2:80"]);
    server.stop();
    stage.restart();
    stage.until_away();
    assert!(!stage.turn(), "nothing was listed");
    server.delete_in_etcd(Resource::Services, "default", "other");
    stage.turn();
    assert!(stage.text().contains("192.0.2.2"), "{}", stage.text());
    stage.forget(&["192.0.2.2:80"]);
    server.resume();
    stage.until_in_step_with(server);
    assert!(!stage.text().contains("192.0.2.2"), "{}", stage.text());
}

/// A bookmark at the end of each watch advances the position: nothing is listed again.
fn a_watch_that_ends_in_time_goes_on(server: &mut Kubernetes) {
    let mut stage = with_short_watches(server);
    let watches = |server: &Kubernetes| {
        let metrics = server.admin.get("/metrics").body;
        let lines = metrics.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let watches =
            lines.filter(|line| line.contains("resource=\"endpointslices\"") && line.contains("verb=\"WATCH\""));
        watches.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    let before = watches(server);
    // The server counts a watch at its end.
    stage.until("watches ended", |_| watches(server) >= before + 2.0);
    put(server, service("new", 3));
    stage.until_in_step_with(server);
    let connection = stage.connection(Kind::EndpointSlice);
    assert_eq!((connection.lists, connection.failures), (1, 0), "{connection:?}");
}
