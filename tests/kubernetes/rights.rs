//! `deploy/` on a real server: it is accepted, and its rights are exactly those that the agent needs.

use std::collections::BTreeSet;

use lb_agent::model::Kind;
use lb_tests::api::{Client, Method};
use lb_tests::apiserver::Resource;
use lb_tests::deadline;
use lb_tests::kubernetes::{Kubernetes, apply};
use lb_tests::manifest::deployed;
use serde_json::{Value, json};

use super::Test;
use crate::stage::{Stage, put, service};

pub const ALL: &[(&str, Test)] = &[
    ("rights::manifests_are_accepted", manifests_are_accepted),
    ("rights::reading_three_kinds_is_all", reading_three_kinds_is_all),
    ("rights::missing_rights_are_told_with_the_remedy", missing_rights_are_told_with_the_remedy),
    ("rights::nothing_is_touched_while_slices_may_not_be_read", nothing_is_touched_while_slices_may_not_be_read),
];

/// A binding of the role to the agent's account.
const BINDING: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/lb-agent";

fn manifests_are_accepted(server: &mut Kubernetes) {
    for name in ["rbac.yaml", "daemonset.yaml"] {
        for object in deployed(name) {
            let answer = apply(&server.admin, &object, "&dryRun=All");
            let kept = answer.good();
            assert_eq!(answer.header("warning"), None, "{name}: {}", object["kind"]);
            assert_eq!(kept["metadata"]["name"], object["metadata"]["name"], "{name}");
        }
    }
    // An unknown field is refused.
    let mut wrong = deployed("daemonset.yaml").remove(0);
    wrong["spec"]["template"]["spec"]["hostNetworks"] = json!(true);
    let answer = apply(&server.admin, &wrong, "&dryRun=All");
    assert!(!answer.is_good() && answer.body.contains("hostNetworks"), "{}: {}", answer.status, answer.body);
}

fn reading_three_kinds_is_all(server: &mut Kubernetes) {
    put(server, service("steady", 1));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    put(server, service("new", 2));
    stage.until_in_step_with(server);
    let failures = stage.connections().iter().map(|connection| connection.failures).sum::<u64>();
    assert_eq!(failures, 0, "{:#?}", stage.connections());

    let agent = server.agent();
    assert_eq!(
        rules(&agent),
        ["endpointslices", "nodes", "services"].map(|name| format!("get list watch {name}")).into()
    );
    let forbidden = |method: &Method, path: &str, body: Option<(&str, &Value)>| {
        let answer = agent.ask(method, path, body).expect("an answer");
        assert_eq!((answer.status, answer.json()["reason"].clone()), (403, json!("Forbidden")), "{method} {path}");
    };
    for path in
        ["/api/v1/pods", "/api/v1/secrets", "/api/v1/configmaps", "/api/v1/namespaces", "/apis/apps/v1/daemonsets"]
    {
        forbidden(&Method::GET, path, None);
    }
    let [object, _] = service("steady", 1);
    let json = Some(("application/json", &object));
    let merge = json!({"metadata": {"labels": {"a": "b"}}});
    let merge = Some(("application/merge-patch+json", &merge));
    let services = "/api/v1/namespaces/default/services";
    forbidden(&Method::POST, services, json);
    forbidden(&Method::PUT, &format!("{services}/steady"), json);
    forbidden(&Method::PATCH, &format!("{services}/steady"), merge);
    forbidden(&Method::PATCH, &format!("{services}/steady/status"), merge);
    forbidden(&Method::DELETE, &format!("{services}/steady"), None);
    forbidden(&Method::DELETE, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/steady-1", None);
    forbidden(&Method::PATCH, "/api/v1/nodes/node-1", merge);
}

/// The rights of this user to resources according to the server, except reviews of its own rights.
fn rules(user: &Client) -> BTreeSet<String> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"},
    });
    let review = user.send(&Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review).good();
    assert_eq!(review["status"]["incomplete"], false, "{review}");
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let rules = review["status"]["resourceRules"].as_array().expect("rules").iter();
    // Every authenticated user may ask for its own identity and rights.
    let of_everybody = ["authorization.k8s.io", "authentication.k8s.io"];
    let rules = rules.filter(|rule| !texts(&rule["apiGroups"]).iter().any(|group| of_everybody.contains(&&**group)));
    let each = rules.flat_map(|rule| {
        let verbs = texts(&rule["verbs"]).join(" ");
        texts(&rule["resources"]).into_iter().map(move |resource| format!("{verbs} {resource}"))
    });
    each.collect()
}

fn missing_rights_are_told_with_the_remedy(server: &mut Kubernetes) {
    put(server, service("steady", 1));
    let mut stage = Stage::follow(server);
    stage.until_in_step_with(server);
    stage.keep(&["192.0.2.1:80"]);
    server.admin.ask(&Method::DELETE, BINDING, None).expect("an answer").good();
    stage.restart();
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Node] {
        stage.until("it is refused", |stage| stage.connection(kind).failures > 2);
        let error = stage.connection(kind).last_error.unwrap_or_default();
        assert!(error.contains("403 Forbidden") && error.contains("grant get, list and watch"), "{error}");
        assert!(error.contains("system:serviceaccount:kube-system:lb-agent"), "{error}");
    }
    assert!(!stage.turn(), "nothing has been listed");
    server.grant();
    put(server, service("new", 2));
    stage.until_in_step_with(server);
}

/// FLT-06: two of three kinds are listed, which is not enough.
fn nothing_is_touched_while_slices_may_not_be_read(server: &mut Kubernetes) {
    let mut stage = Stage::with_two(server);
    stage.keep(&["192.0.2.2:80"]);
    let before = stage.dataplane.tables.clone();
    let mut role = deployed("rbac.yaml").into_iter().find(|object| object["kind"] == "ClusterRole").expect("a role");
    let rules = role["rules"].as_array_mut().expect("rules");
    rules.retain(|rule| !rule["resources"].as_array().is_some_and(|names| names.contains(&json!("endpointslices"))));
    apply(&server.admin, &role, "").good();
    deadline::until_true("the right is gone", || !server.agent().get(Resource::EndpointSlices.path()).is_good());
    stage.restart();
    put(server, service("new", 3));
    deadline::until_true("the rest is listed", || {
        assert!(!stage.turn(), "slices have not been listed");
        let refused = stage.connection(Kind::EndpointSlice).failures > 2;
        refused && [Kind::Service, Kind::Node].iter().all(|kind| stage.connection(*kind).is_listed)
    });
    assert_eq!(stage.dataplane.tables, before);
    server.grant();
    stage.until_in_step_with(server);
}
