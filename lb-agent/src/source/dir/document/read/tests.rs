//! Documents of every form are read, and what is wrong names its place.

use super::super::{Pieces, split_json};
use super::*;

fn read_all(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut objects, mut bad) = (Vec::new(), Vec::new());
    let mut take = |document: Document<'_>| {
        let read = read(document, &mut Converter::default());
        objects.extend(read.objects.iter().map(|(object, _)| object.reference().to_string()));
        bad.extend(read.bad.iter().map(ToString::to_string));
    };
    if text.trim_start().starts_with('{') {
        split_json(text).into_iter().for_each(take);
    } else {
        let mut pieces = Pieces::of(text.as_bytes());
        while let Some(piece) = pieces.next().expect("memory can be read") {
            take(piece.document().expect("it is text"));
        }
    }
    (objects, bad)
}

#[test]
fn kinds_are_told_apart_by_group() {
    let (objects, bad) = read_all(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\n\
         apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: b}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: c}\n---\n\
         kind: Node # ours\nmetadata: {name: d}\n---\n\
         apiVersion: \"discovery.k8s.io/v1\"\nkind: 'EndpointSlice'\naddressType: IPv4\nendpoints: []\n\
         metadata: {name: e, labels: {kubernetes.io/service-name: a}}\n",
    );
    assert_eq!(objects, ["Service default/a", "Node d", "EndpointSlice default/e"]);
    assert_eq!(bad, [] as [&str; 0]);
}

#[test]
fn flow_style_json_and_tabs_are_read() {
    let (objects, bad) = read_all(
        "--- {apiVersion: v1, kind: Service, metadata: {name: a}}\n---\n{\n\t\"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"b\"}\n}\n",
    );
    assert_eq!(objects, ["Service default/a", "Service default/b"]);
    assert_eq!(bad, [] as [&str; 0]);
}

#[test]
fn lists_are_read_item_by_item() {
    let yaml = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n\
                - {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: x}]}}\n\
                - {apiVersion: v1, kind: Secret, metadata: {name: c}}\n\
                - {apiVersion: v1, kind: Node, metadata: {name: d}}\n";
    let (objects, bad) = read_all(yaml);
    assert_eq!(objects, ["Service default/a", "Node d"]);
    assert_eq!(bad.len(), 1);
    assert!(bad[0].starts_with("Service default/b: items[1].spec.ports[0].port: invalid type"), "{bad:?}");

    let json = r#"{"kind": "ServiceList", "apiVersion": "v1", "metadata": {}, "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}"#;
    assert_eq!(read_all(json).0, ["Service default/a", "Service default/b"]);
    assert_eq!(read_all("kind: List\nitems:\n"), (Vec::new(), Vec::new()));
}

#[test]
fn what_does_not_parse_names_field_and_line() {
    let (objects, bad) = read_all(
        "kind: Service\nmetadata: {name: a}\n---\nkind: Service\nmetadata:\n  name: b\nspec:\n  ports:\n  - port: eighty\n---\n\
         kind: Service\nmetadata: {name: c}\nspec: [\n---\nkind: Service\nmetadata: {name: d}\n",
    );
    assert_eq!(objects, ["Service default/a", "Service default/d"]);
    assert_eq!(bad.len(), 2);
    assert!(
        bad[0].starts_with(
            "Service default/b: spec.ports[0].port: invalid type: string \"eighty\", expected i32 (line 9 of the file);"
        ),
        "{bad:?}"
    );
    assert!(bad[1].starts_with("Service: "), "{bad:?}");
}

#[test]
fn broken_documents_are_never_taken_for_empty_ones() {
    for text in [
        "metadata: {name: a}\n",
        "just text\n",
        "- a\n- b\n",
        "kind: Service\nmetadata: {name: a}\nkind: Service\nmetadata: {name: b}\n",
        "kind: Service\nspec: {}\n",
        "kind: Service\nmetadata:\n\tname: a\n",
        "{\"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}",
        "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\nendpoints: []\n",
        "kind: List\nitems: 3\n",
    ] {
        let (objects, bad) = read_all(text);
        assert_eq!(objects, [] as [&str; 0], "{text}");
        assert_eq!(bad.len(), 1, "{text}: {bad:?}");
    }
}
