//! The tests' server answers as the real one: the same requests about the same objects give the same answers, except
//! versions.

use lb_tests::api::{Answer, Api, Client};
use lb_tests::apiserver::{ApiServer, Resource, kubeconfig};
use lb_tests::kubernetes::Kubernetes;
use lb_tests::manifest::{self, NODE};
use serde_json::{Value, json};

use super::Test;
use crate::expectations::{PROXY_NAME, labelled};
use crate::stage::{put, service, slice};

pub const ALL: &[(&str, Test)] = &[
    ("likeness::lists_and_pages", lists_and_pages),
    ("likeness::watches", watches),
    ("likeness::what_is_too_old", what_is_too_old),
    ("likeness::refusals", refusals),
];

/// The tests' server, with the objects of the real one.
fn twin(server: &Kubernetes) -> (ApiServer, Client) {
    let ours = ApiServer::start();
    put(&ours, server.objects());
    let client = Client::of_kubeconfig(&kubeconfig(&ours.url(), ours.authority(), Some(&ours.token())));
    (ours, client)
}

fn furnish(server: &Kubernetes) {
    put(server, [manifest::node(NODE, &["172.18.0.2".parse().expect("an address")]), manifest::node("another", &[])]);
    put(server, (1..6).flat_map(|last| service(&format!("s{last}"), last)));
    let [object, _] = service("theirs", 9);
    put(server, [labelled(object, PROXY_NAME, "other"), slice("theirs", "1", &[2, 3]).object()]);
}

/// Blanks fields that always differ.
fn normal(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match name.as_str() {
                    "resourceVersion" | "continue" => *value = json!("set"),
                    _ => *value = normal(value.take()),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = normal(item.take())),
        _ => {}
    }
    value
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer.body.lines().map(|line| normal(serde_json::from_str(line).expect("JSON"))).collect()
}

/// Separates bookmarks from the rest: the real server sends one each second before the end, or none.
fn apart(lines: Vec<Value>) -> (Vec<Value>, Option<Value>) {
    let (bookmarks, rest): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line["type"] == "BOOKMARK");
    (rest, bookmarks.into_iter().next())
}

#[track_caller]
fn assert_alike(what: &str, ours: &Answer, real: &Answer) {
    assert_eq!(ours.status, real.status, "{what}: {} / {}", ours.body, real.body);
    for name in ["content-type", "cache-control"] {
        assert_eq!(ours.header(name), real.header(name), "{what}: {name}");
    }
    let ((ours, bookmark), (real, real_bookmark)) = (apart(lines(ours)), apart(lines(real)));
    if let (Some(bookmark), Some(real)) = (&bookmark, &real_bookmark) {
        assert_eq!(bookmark, real, "{what}: a bookmark");
    }
    assert_eq!(ours.len(), real.len(), "{what}:\n{ours:#?}\n{real:#?}");
    for (ours, real) in ours.iter().zip(&real) {
        assert_eq!(ours, real, "{what}");
    }
}

/// The selectors of the agent.
fn selectors() -> [(Resource, String); 3] {
    [
        (Resource::Services, format!("labelSelector=!{PROXY_NAME}&fieldSelector=spec.clusterIP!%3DNone")),
        (Resource::EndpointSlices, "labelSelector=!service.kubernetes.io/headless".to_owned()),
        (Resource::Nodes, format!("fieldSelector=metadata.name%3D{NODE}")),
    ]
}

fn lists_and_pages(server: &mut Kubernetes) {
    furnish(server);
    let (_ours, client) = twin(server);
    for (resource, selectors) in selectors() {
        for query in ["", &selectors, "limit=2", &format!("limit=2&{selectors}"), "limit=500"] {
            let (mut ours, mut real) = (String::new(), String::new());
            // Page by page, each server with its own tokens.
            loop {
                let path = |token: &str| format!("{}?{query}{token}", resource.path());
                let (page, real_page) = (client.get(&path(&ours)), server.admin.get(&path(&real)));
                assert_alike(&path(""), &page, &real_page);
                let token = |page: &Answer| {
                    page.json()["metadata"]["continue"].as_str().map(|token| format!("&continue={token}"))
                };
                match (token(&page), token(&real_page)) {
                    (Some(next), Some(real_next)) => (ours, real) = (next, real_next),
                    _ => break,
                }
            }
        }
    }
}

/// From the same position on, through the same changes.
fn watches(server: &mut Kubernetes) {
    furnish(server);
    let (ours, client) = twin(server);
    let position = |client: &Client, resource: Resource| {
        let list = client.get(&format!("{}?limit=1", resource.path())).json();
        list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
    };
    let positions = Resource::ALL.map(|resource| (position(&client, resource), position(&server.admin, resource)));
    // An object that crosses the agent's selector, one that changes, one that is deleted, one that is created.
    let [object, _] = service("s1", 1);
    put(server, [labelled(object, PROXY_NAME, "other"), slice("s2", "1", &[4, 6]).object()]);
    mirror(server, &ours, &[(Resource::Services, "s1"), (Resource::EndpointSlices, "s2-1")]);
    for (resource, name) in
        [(Resource::Services, "s3"), (Resource::EndpointSlices, "s3-1"), (Resource::Nodes, "another")]
    {
        assert!(server.delete(resource, "default", name));
        assert!(ours.delete(resource, "default", name));
    }
    put(server, [slice("new", "1", &[7]).object()]);
    mirror(server, &ours, &[(Resource::EndpointSlices, "new-1")]);
    for ((resource, selectors), (from, real_from)) in selectors().into_iter().zip(positions) {
        // A real bookmark comes two seconds before the end, or not at all.
        let queries = [
            "timeoutSeconds=1".to_owned(),
            format!("timeoutSeconds=1&{selectors}"),
            "timeoutSeconds=5&allowWatchBookmarks=true".to_owned(),
        ];
        for query in queries {
            let path = |from: &str| format!("{}?watch=1&resourceVersion={from}&{query}", resource.path());
            assert_alike(&path(""), &client.get(&path(&from)), &server.admin.get(&path(&real_from)));
        }
    }
}

/// Writes to the tests' server the objects as the real one holds them.
fn mirror(server: &Kubernetes, ours: &ApiServer, names: &[(Resource, &str)]) {
    let objects = server.objects();
    for (resource, name) in names {
        let found =
            objects.iter().find(|object| object["kind"] == resource.kind() && object["metadata"]["name"] == *name);
        ours.put(found.expect("it was put in").clone());
    }
}

/// The messages name versions; only the fields that an agent uses are compared.
fn what_is_too_old(server: &mut Kubernetes) {
    server.stop();
    server.resume_with(&["--watch-cache=false"]);
    furnish(server);
    let (ours, client) = twin(server);
    let page = |client: &Client| client.get("/api/v1/services?limit=2").json()["metadata"].clone();
    let (before, real_before) = (page(&client), page(&server.admin));
    // The compacted version must be newer than the position.
    for last in [2, 4] {
        let object = slice("s1", "1", &[last]).object();
        server.put(object.clone());
        ours.put(object);
    }
    ours.compact();
    server.compact();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let watch = |client: &Client, before: &Value| {
        let version = text(&before["resourceVersion"]);
        client.get(&format!("/api/v1/services?watch=1&timeoutSeconds=1&resourceVersion={version}"))
    };
    let head = |answer: &Answer| {
        let event = answer.json();
        (answer.status, event["type"].clone(), event["object"]["reason"].clone(), event["object"]["code"].clone())
    };
    let (event, real_event) = (watch(&client, &before), watch(&server.admin, &real_before));
    assert_eq!(head(&event), head(&real_event), "{}", real_event.body);
    assert_eq!(head(&event).3, 410);
    let next = |client: &Client, before: &Value| {
        client.get(&format!("/api/v1/services?limit=2&continue={}", text(&before["continue"])))
    };
    let head = |answer: &Answer| (answer.status, answer.json()["reason"].clone(), answer.json()["message"].clone());
    let (ours, real) = (next(&client, &before), next(&server.admin, &real_before));
    assert_eq!(head(&ours), head(&real));
    assert_eq!(ours.status, 410);
}

fn refusals(server: &mut Kubernetes) {
    furnish(server);
    let (ours, client) = twin(server);
    for path in [
        "/api/v1/services?fieldSelector=spec.externalName%3Da",
        "/api/v1/nodes?fieldSelector=spec.clusterIP%3DNone",
        "/apis/discovery.k8s.io/v1/endpointslices?fieldSelector=addressType%3DIPv4",
        "/api/v1/services?watch=1&fieldSelector=spec.externalName%3Da",
    ] {
        assert_alike(path, &client.get(path), &server.admin.get(path));
    }
    for token in [None, Some("wrong")] {
        let ours = Client::of_kubeconfig(&kubeconfig(&ours.url(), ours.authority(), token));
        let text = std::fs::read_to_string(server.kubeconfig()).expect("it was written");
        let mut real: Value = serde_json::from_str(&text).expect("JSON is YAML");
        real["users"][0]["user"] = token.map_or_else(|| json!({}), |token| json!({"token": token}));
        let real = Client::of_kubeconfig(&real.to_string());
        for resource in Resource::ALL {
            assert_alike(resource.path(), &ours.get(resource.path()), &real.get(resource.path()));
        }
    }
}
