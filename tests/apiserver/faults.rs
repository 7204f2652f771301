//! Faults of an API server and of the network, in watches and lists.

use lb_agent::model::Kind;
use lb_agent::source::connection::Phase;
use lb_tests::apiserver::{ApiServer, Resource, WatchFault};
use lb_tests::deadline;
use lb_tests::manifest;

use crate::requests::{asked_for_a_second_page, asked_since};
use crate::stage::{Stage, put, service, slice, vip, web};

/// A server with two Services, and an agent that has programmed them. The first must never stop working.
fn pair() -> (ApiServer, Stage) {
    let server = ApiServer::start();
    let stage = Stage::with_two(&server);
    (server, stage)
}

/// FLT-06.
#[test]
fn nothing_is_touched_while_a_first_list_is_slow() {
    for held in [Resource::EndpointSlices, Resource::Services, Resource::Nodes] {
        let (server, mut stage) = pair();
        stage.keep(&["192.0.2.2:80"]);
        let before = stage.dataplane.tables.clone();
        server.misbehave(|faults| faults.held_lists = [held].into());
        stage.restart();
        put(&server, service("new", 3));
        deadline::until_true("the other kinds are listed", || {
            let is_turned = stage.turn();
            assert!(!is_turned, "{held:?} has not been listed");
            stage.connections().iter().filter(|connection| connection.is_listed).count() == 2
        });
        assert_eq!(stage.dataplane.tables, before, "{held:?}");
        server.misbehave(|faults| faults.held_lists.clear());
        stage.until_in_step_with(&server);
    }
}

/// T2: an incomplete list changes nothing.
#[test]
fn nothing_is_touched_between_the_pages_of_a_first_list() {
    let (server, mut stage) = pair();
    stage.keep(&["192.0.2.2:80"]);
    put(&server, (3..8).flat_map(|last| service(&format!("s{last}"), last)));
    stage.until_in_step_with(&server);
    let before = stage.dataplane.tables.clone();
    server.misbehave(|faults| faults.held_pages = [Resource::Services].into());
    let asked_before = server.asked().len();
    stage.restart();
    deadline::until_true("the second page is asked for", || {
        assert!(!stage.turn(), "the list is not complete");
        asked_for_a_second_page(&server, asked_before)
    });
    assert_eq!(stage.dataplane.tables, before);
    server.misbehave(|faults| faults.held_pages.clear());
    stage.until_in_step_with(&server);
}

/// T1, T2: a first list is so slow that its version is compacted before its last page. It is started again, and objects
/// from the first attempt that were deleted since are not kept.
#[test]
fn a_first_list_whose_pages_expire_is_begun_anew() {
    let (server, mut stage) = pair();
    put(&server, (3..8).flat_map(|last| service(&format!("s{last}"), last)));
    stage.until_in_step_with(&server);
    server.misbehave(|faults| faults.held_pages = [Resource::Services].into());
    let before = server.asked().len();
    stage.restart();
    stage.until("the second page is asked for", |_| asked_for_a_second_page(&server, before));
    // It was on the first page.
    server.delete(Resource::Services, "default", "other");
    put(&server, service("new", 9));
    server.compact();
    server.misbehave(|faults| faults.held_pages.clear());
    stage.until_in_step_with(&server);
    assert!(!stage.text().contains("192.0.2.2:"), "{}", stage.text());
    let connection = stage.connection(Kind::Service);
    assert!(connection.last_error.is_some_and(|error| error.contains("410 Expired")), "the token was refused");
    assert_eq!(connection.lists, 1);
}

/// T1: deletions without a watch are found by the list after 410.
#[test]
fn a_list_after_410_finds_lost_deletions() {
    for how in [Lost::EventExpired, Lost::PositionTooOld, Lost::AnswerGone] {
        let (mut server, mut stage) = pair();
        server.misbehave(|faults| faults.refused_watches = Resource::ALL.map(|resource| (resource, 500)).into());
        server.afflict_watches(WatchFault::Cut);
        stage.until("the watches are gone", |stage| stage.connection(Kind::Service).phase == Phase::Retrying);
        server.delete(Resource::Services, "default", "other");
        server.delete(Resource::EndpointSlices, "default", "other-1");
        put(&server, service("new", 3));
        how.happen(&mut server);
        stage.until_in_step_with(&server);
        assert!(!stage.text().contains("192.0.2.2"), "{how:?}: {}", stage.text());
        server.misbehave(|faults| faults.refused_watches.clear());
        // The watch continues from there.
        put(&server, service("newer", 4));
        stage.until_in_step_with(&server);
    }
}

#[derive(Clone, Copy, Debug)]
enum Lost {
    /// An ERROR event with 410 on a watch.
    EventExpired,
    /// The same at the start of a watch, because its position was compacted.
    PositionTooOld,
    /// The answer to the watch request is 410 itself.
    AnswerGone,
}

impl Lost {
    fn happen(self, server: &mut ApiServer) {
        match self {
            Self::EventExpired => {
                server.misbehave(|faults| faults.refused_watches.clear());
                server.afflict_watches(WatchFault::Expired);
                server.compact();
            }
            Self::PositionTooOld => {
                server.compact();
                server.misbehave(|faults| faults.refused_watches.clear());
            }
            Self::AnswerGone => {
                server.misbehave(|faults| {
                    faults.refused_watches = Resource::ALL.map(|resource| (resource, 410)).into();
                });
            }
        }
    }
}

#[test]
fn a_cut_watch_goes_on_where_it_was() {
    let (server, mut stage) = pair();
    let lists = stage.connection(Kind::Service).lists;
    for last in 3..8 {
        server.afflict_watches(WatchFault::Cut);
        put(&server, service(&format!("s{last}"), last));
        stage.until_in_step_with(&server);
    }
    assert_eq!(stage.connection(Kind::Service).lists, lists, "no list was needed");
}

#[test]
fn a_watch_that_ends_in_time_goes_on_without_a_failure() {
    let (server, mut stage) = pair();
    for last in 3..6 {
        server.afflict_watches(WatchFault::Ended);
        put(&server, service(&format!("s{last}"), last));
        stage.until_in_step_with(&server);
    }
    assert_eq!(stage.connection(Kind::Service).lists, 1);
}

#[test]
fn a_stalled_watch_is_given_up() {
    let server = ApiServer::start();
    put(&server, service("steady", 1));
    let mut settings = crate::stage::settings(&server);
    settings.pace.watch = std::time::Duration::from_millis(500);
    let mut stage = Stage::with(settings);
    stage.until_in_step_with(&server);
    stage.keep(&["192.0.2.1:80"]);
    server.afflict_watches(WatchFault::Stalled);
    put(&server, service("new", 3));
    stage.until_in_step_with(&server);
}

#[test]
fn events_that_are_told_twice_change_nothing() {
    let (server, mut stage) = pair();
    server.misbehave(|faults| faults.duplicates = true);
    server.afflict_watches(WatchFault::Cut);
    for last in 3..6 {
        put(&server, service("churn", last));
        server.delete(Resource::Services, "default", "churn");
        put(&server, service("churn", last));
        server.afflict_watches(WatchFault::Cut);
        stage.until_in_step_with(&server);
    }
}

/// A server that lags behind the others, as one of several behind a balancer may.
#[test]
fn an_outdated_list_takes_nothing_away() {
    let (server, mut stage) = pair();
    let old = server.version();
    put(&server, service("new", 3));
    stage.until_in_step_with(&server);
    stage.keep(&["192.0.2.3:80"]);
    server.misbehave(|faults| faults.outdated = Some(old));
    server.afflict_watches(WatchFault::Expired);
    let failures = stage.connection(Kind::Service).failures;
    stage.until("it is refused", |stage| stage.connection(Kind::Service).failures >= failures + 3);
    let error = stage.connection(Kind::Service).last_error.unwrap_or_default();
    assert!(error.contains("older than"), "{error}");
    server.misbehave(|faults| faults.outdated = None);
    stage.until("it is followed again", |stage| stage.connection(Kind::Service).phase == Phase::Watching);
    stage.until_in_step_with(&server);
}

/// `etcd` was restored from a backup: its versions stay older.
#[test]
fn a_history_that_went_back_is_believed_after_a_while() {
    let (server, mut stage) = pair();
    let old = server.version();
    put(&server, service("new", 3));
    stage.until_in_step_with(&server);
    server.misbehave(|faults| faults.outdated = Some(old));
    server.afflict_watches(WatchFault::Expired);
    stage.until("the old list is believed", |stage| stage.connection(Kind::Service).lists >= 2);
}

/// T2: the agent restarts while the server is stopped, and the server returns with fewer objects.
#[test]
fn a_restart_without_a_server_keeps_everything() {
    let (mut server, mut stage) = pair();
    stage.keep(&["192.0.2.2:80"]);
    server.stop();
    stage.restart();
    stage.until_away();
    let before = stage.text();
    put(&server, service("new", 3));
    server.resume();
    stage.until_in_step_with(&server);
    assert_ne!(stage.text(), before);
}

#[test]
fn renewed_credentials_are_read() {
    let (server, mut stage) = pair();
    server.renew_token();
    server.afflict_watches(WatchFault::Cut);
    put(&server, service("new", 3));
    stage.until_in_step_with(&server);
}

#[test]
fn missing_rights_are_told_with_the_remedy() {
    let server = ApiServer::start();
    put(&server, service("steady", 1));
    server.misbehave(|faults| faults.refused_lists = [(Resource::EndpointSlices, 403)].into());
    let mut stage = Stage::follow(&server);
    stage.until("it is refused", |stage| stage.connection(Kind::EndpointSlice).failures > 2);
    let error = stage.connection(Kind::EndpointSlice).last_error.unwrap_or_default();
    assert!(error.contains("403 Forbidden") && error.contains("grant get, list and watch"), "{error}");
    assert!(!stage.turn(), "slices have not been listed");
    server.misbehave(|faults| faults.refused_lists.clear());
    stage.until_in_step_with(&server);
}

/// A refusal is reported at once: no client library retries silently. HTTP clients often hide 429, 503 and 504.
#[test]
fn each_refusal_is_told() {
    for code in [429, 500, 503, 504] {
        let (server, mut stage) = pair();
        for is_watch in [true, false] {
            let before = server.asked().len();
            let failures = stage.connection(Kind::Service).failures;
            let refused = [(Resource::Services, code)];
            server.misbehave(|faults| {
                faults.refused_watches = refused.into();
                if !is_watch {
                    faults.refused_lists = refused.into();
                }
            });
            server.afflict_watches(WatchFault::Cut);
            stage.until("it is asked again", |_| {
                let asked = asked_since(&server, before, Resource::Services);
                asked.into_iter().filter(|asked_to_watch| *asked_to_watch == is_watch).count() >= 3
            });
            // The last request may still be open.
            let told = stage.connection(Kind::Service);
            assert!(told.failures >= failures + 2, "{code}: {told:?}");
            assert_eq!(told.phase, Phase::Retrying, "{code}");
            let error = told.last_error.unwrap_or_default();
            assert!(error.contains(&format!("answered {code}")), "{error}");
            let warning = stage.connection(Kind::Service).warning().map(|warning| warning.to_string());
            assert!(warning.is_some_and(|text| text.contains(&code.to_string())), "{code}");
        }
        server.misbehave(|faults| {
            faults.refused_watches.clear();
            faults.refused_lists.clear();
        });
        put(&server, service("new", 3));
        stage.until_in_step_with(&server);
    }
}

/// The pages of a list are all of one version: the watch reports a Service that was deleted and created in between.
#[test]
fn a_service_that_is_made_anew_between_two_pages() {
    let (server, mut stage) = pair();
    put(&server, (3..8).flat_map(|last| service(&format!("s{last}"), last)));
    stage.until_in_step_with(&server);
    server.misbehave(|faults| faults.held_pages = [Resource::Services].into());
    let before = server.asked().len();
    server.afflict_watches(WatchFault::Expired);
    stage.until("the second page is asked for", |_| asked_for_a_second_page(&server, before));
    for (name, last) in [("other", 2), ("s7", 7)] {
        assert!(server.delete(Resource::Services, "default", name));
        let mut anew = web(name, last).port("more", "TCP", 81, 8081).ingress(manifest::ingress(vip(last), "Proxy"));
        anew = anew.metadata("uid", serde_json::json!(format!("anew-{name}")));
        server.put(anew.object());
    }
    server.misbehave(|faults| faults.held_pages.clear());
    stage.until_in_step_with(&server);
    for address in ["192.0.2.2:81", "192.0.2.7:81"] {
        assert!(stage.text().contains(address), "{address}: {}", stage.text());
    }
}

/// EPS-06: a pod moves between slices without a watch; the list brings both slices at once.
#[test]
fn a_pod_that_moved_between_slices_is_never_absent() {
    let server = ApiServer::start();
    put(&server, [web("steady", 1).ingress(manifest::ingress(vip(1), "VIP")).object()]);
    // A page holds three slices, so that the move spans pages.
    put(&server, [slice("steady", "a", &[2]).object(), slice("steady", "z", &[]).object()]);
    put(&server, (3..9).flat_map(|last| service(&format!("s{last}"), last)));
    let mut stage = Stage::follow(&server);
    stage.until_in_step_with(&server);
    stage.keep(&["192.0.2.1:80"]);
    for round in 0..4 {
        let (from, to) = if round % 2 == 0 { ("a", "z") } else { ("z", "a") };
        server.misbehave(|faults| faults.refused_watches = Resource::ALL.map(|resource| (resource, 500)).into());
        server.afflict_watches(WatchFault::Cut);
        stage.until("nobody looks", |stage| stage.connection(Kind::EndpointSlice).phase == Phase::Retrying);
        server.put(slice("steady", from, &[]).object());
        server.put(slice("steady", to, &[2]).object());
        server.compact();
        server.misbehave(|faults| faults.refused_watches.clear());
        stage.until_in_step_with(&server);
        stage.until("it looks again", |stage| stage.connection(Kind::EndpointSlice).phase == Phase::Watching);
    }
}

/// An endless answer is given up and reported, and changes nothing; the agent does not wait for its end.
#[test]
fn an_answer_without_end_takes_nothing_away() {
    let (server, mut stage) = pair();
    stage.keep(&["192.0.2.2:80"]);
    server.afflict_watches(WatchFault::Endless);
    let is_told = |stage: &Stage, what: &str| {
        stage.connection(Kind::Service).last_error.is_some_and(|error| error.starts_with(what))
    };
    stage.until("the watch is given up", |stage| is_told(stage, "an event of a watch is longer than 16 MiB"));
    put(&server, service("new", 3));
    stage.until_in_step_with(&server);
    server.misbehave(|faults| faults.endless_lists = [Resource::Services].into());
    server.afflict_watches(WatchFault::Expired);
    stage.until("the list is given up", |stage| is_told(stage, "the answer to a list is longer than 16 MiB"));
    put(&server, service("newer", 4));
    server.misbehave(|faults| faults.endless_lists.clear());
    stage.until_in_step_with(&server);
}

/// An object that cannot be read affects only itself, and its last good version stays.
#[test]
fn an_unreadable_object_hurts_only_itself() {
    let (server, mut stage) = pair();
    stage.keep(&["192.0.2.2:80"]);
    let [mut bad, _] = service("other", 2);
    bad["spec"]["ports"] = serde_json::json!("eighty");
    server.put(bad);
    put(&server, service("new", 3));
    stage.until("the next object is programmed", |stage| stage.text().contains("192.0.2.3"));
    assert_eq!(stage.warnings().len(), 1, "{:?}", stage.warnings());
    assert!(stage.warnings()[0].contains("Service default/other"), "{:?}", stage.warnings());
    // Also when it is listed again.
    server.afflict_watches(WatchFault::Expired);
    stage.until("it is listed again", |stage| stage.connection(Kind::Service).lists == 2);
    stage.turn();
    put(&server, service("other", 2));
    stage.until("it can be read again", |stage| stage.warnings().is_empty());
    stage.until_in_step_with(&server);
}
