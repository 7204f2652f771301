//! The tests' API server answers as a real one did: with the recorded history replayed, the same requests give the same
//! status, headers and bodies.

use std::fs;

use lb_tests::api::{Answer, Client};
use lb_tests::apiserver::{ApiServer, Resource, Store, kubeconfig, recorded};
use serde_json::{Value, json};

/// The newest version when the lists were recorded.
const NEWEST: u64 = 236;

/// A recorded answer.
struct Recorded {
    request: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

fn recording(name: &str) -> Recorded {
    let meta = fs::read_to_string(recorded(&format!("{name}.meta"))).expect("it is part of the sources");
    let meta: Value = serde_json::from_str(&meta).expect("JSON");
    let headers = meta["headers"].as_object().expect("a map").iter();
    Recorded {
        request: meta["request"].as_str().and_then(|line| line.strip_prefix("GET ")).expect("a GET").to_owned(),
        status: meta["status"].as_u64().and_then(|status| u16::try_from(status).ok()).expect("a code"),
        headers: headers.map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned())).collect(),
        body: fs::read_to_string(recorded(&format!("{name}.json"))).expect("it is part of the sources"),
    }
}

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect()
}

/// A server with the recorded history: every write at its version.
fn server() -> ApiServer {
    let mut writes: Vec<(u64, Value)> = Vec::new();
    // A watch from the beginning, and one from the middle.
    for name in ["services-watch-too-old", "endpointslices-watch"] {
        writes.extend(
            lines(&recording(name).body).into_iter().filter(|event| event["type"] != "BOOKMARK").map(versioned),
        );
    }
    for name in ["endpointslices-list", "nodes-list"] {
        let list: Value = serde_json::from_str(&recording(name).body).expect("a list");
        for item in list["items"].as_array().expect("items") {
            let kind = list["kind"].as_str().and_then(|kind| kind.strip_suffix("List")).expect("a list's kind");
            let mut object = item.clone();
            object["kind"] = json!(kind);
            let (version, event) = versioned(json!({"type": "ADDED", "object": object}));
            if !writes.iter().any(|(known, _)| *known == version) {
                writes.push((version, event));
            }
        }
    }
    writes.sort_by_key(|(version, _)| *version);
    let mut store = Store::default();
    for (version, event) in writes {
        store.continue_at(version);
        let object = &event["object"];
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        if event["type"] == "DELETED" {
            assert!(store.delete(Resource::of(object), text("namespace"), text("name")), "{event}");
        } else {
            store.put(object.clone());
        }
    }
    // Writes to other resources.
    store.skip_to(NEWEST);
    ApiServer::serving(store)
}

fn versioned(event: Value) -> (u64, Value) {
    let version = event["object"]["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
    (version.expect("events have a version"), event)
}

enum Who<'a> {
    Nobody,
    Bearer(&'a str),
}

fn ask(server: &ApiServer, request: &str, who: &Who<'_>) -> Answer {
    let token = match who {
        Who::Nobody => None,
        Who::Bearer(token) => Some(*token),
    };
    Client::of_kubeconfig(&kubeconfig(&server.url(), server.authority(), token)).get(request)
}

/// Compares status and recorded headers, except the framing of the body, which HTTP may choose.
#[track_caller]
fn assert_same_head(answer: &Answer, recorded: &Recorded) {
    assert_eq!(answer.status, recorded.status);
    for (name, value) in recorded.headers.iter().filter(|(name, _)| name != "Transfer-Encoding") {
        assert_eq!(answer.header(name), Some(value.as_str()), "{name}");
    }
}

#[track_caller]
fn compare(names: &[&str]) {
    let server = server();
    let token = server.token();
    for name in names {
        let recorded = recording(name);
        // The recorded watches were long; their last event is the same after a second.
        let request = recorded.request.replace("timeoutSeconds=12", "timeoutSeconds=1");
        let answer = ask(&server, &request, &Who::Bearer(&token));
        assert_same_head(&answer, &recorded);
        assert_eq!(answer.body.ends_with('\n'), recorded.body.ends_with('\n'), "{name}");
        let (ours, theirs) = (lines(&answer.body), lines(&recorded.body));
        assert_eq!(ours.len(), theirs.len(), "{name}: {}", answer.body);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{name}");
        }
        // The type of an event comes before its object, the kind of a list before its items.
        let first_field = |body: &str| body.chars().take_while(|c| *c != ':').collect::<String>();
        assert_eq!(first_field(&answer.body), first_field(&recorded.body), "{name}");
    }
}

#[test]
fn lists() {
    compare(&["services-list", "services-list-filtered", "endpointslices-list", "nodes-list"]);
}

#[test]
fn pages() {
    compare(&["services-list-page1"]);
    let first: Value = serde_json::from_str(&recording("services-list-page1").body).expect("a list");
    let token = first["metadata"]["continue"].as_str().expect("there is more");
    let recorded = recording("services-list-page2");
    let server = server();
    let answer = ask(&server, &recorded.request.replace("TOKEN", token), &Who::Bearer(&server.token()));
    assert_same_head(&answer, &recorded);
    assert_eq!(lines(&answer.body), lines(&recorded.body));
}

#[test]
fn watches() {
    compare(&["services-watch", "endpointslices-watch"]);
}

#[test]
fn a_streaming_list_is_refused_as_on_that_server() {
    compare(&["services-watch-sendinitialevents"]);
}

/// From a position that the server still has, every later write is an event; the recorded watch was cut off at its end.
#[test]
fn a_watch_from_the_beginning() {
    let server = server();
    let recorded = recording("services-watch-too-old");
    let answer = ask(&server, &format!("{}&timeoutSeconds=1", recorded.request), &Who::Bearer(&server.token()));
    assert_same_head(&answer, &recorded);
    assert_eq!(lines(&answer.body), lines(&recorded.body));
}

/// The messages name bytes of the token, which differ with the decoder.
#[test]
fn a_bad_continue_token() {
    let server = server();
    let recorded = recording("services-list-bad-continue");
    let answer = ask(&server, &recorded.request, &Who::Bearer(&server.token()));
    assert_same_head(&answer, &recorded);
    let (mut ours, mut theirs) = (lines(&answer.body).remove(0), lines(&recorded.body).remove(0));
    for status in [&mut ours, &mut theirs] {
        let message = status["message"].take();
        let message = message.as_str().expect("a message");
        assert!(message.starts_with("invalid continue token: continue key is not valid: "), "{message}");
    }
    assert_eq!(ours, theirs);
}

#[test]
fn who_may_ask() {
    let server = server();
    let recorded = recording("services-unauthorized");
    let answer = ask(&server, &recorded.request, &Who::Nobody);
    assert_same_head(&answer, &recorded);
    assert_eq!(lines(&answer.body), lines(&recorded.body));
    let refused = ask(&server, &recorded.request, &Who::Bearer("wrong"));
    assert_eq!((refused.status, lines(&refused.body)[0]["reason"].clone()), (401, json!("Unauthorized")));
}

/// Not recorded: the wording is that of `storage/errors.go` in k8s.io/apiserver.
#[test]
fn what_is_too_old() {
    let server = server();
    let token = server.token();
    let page = ask(&server, "/api/v1/services?limit=2", &Who::Bearer(&token));
    let page: Value = serde_json::from_str(&page.body).expect("a list");
    let next = page["metadata"]["continue"].as_str().expect("there is more");
    server.compact();
    let watch = ask(&server, "/api/v1/services?watch=1&resourceVersion=212", &Who::Bearer(&token));
    let event = &lines(&watch.body)[0];
    assert_eq!((watch.status, &event["type"]), (200, &json!("ERROR")));
    assert_eq!((&event["object"]["reason"], &event["object"]["code"]), (&json!("Expired"), &json!(410)));
    let page = ask(&server, &format!("/api/v1/services?limit=2&continue={next}"), &Who::Bearer(&token));
    assert_eq!((page.status, &lines(&page.body)[0]["reason"]), (410, &json!("Expired")));
}
