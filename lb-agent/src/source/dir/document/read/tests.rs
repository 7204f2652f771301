//! Documents of every form are read, and each fault names its place.

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

    let nested = "kind: List\nitems:\n- kind: List\n  items: [{kind: Service, metadata: {name: a}}, {kind: List, items: [{kind: Node, metadata: {name: n}}]}]\n";
    assert_eq!(read_all(nested), (vec!["Service default/a".to_owned(), "Node n".to_owned()], Vec::new()));

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

#[test]
fn kinds_that_are_almost_ours_are_told_in_every_form() {
    for (text, remedy) in [
        ("kind: Servce\nmetadata: {name: a}\n", "write apiVersion: v1 and kind: Service"),
        ("apiVersion: v1\nkind: services\n", "write apiVersion: v1 and kind: Service"),
        ("{\"apiVersion\": \"v1\", \"kind\": \"endpoints\"}", "write apiVersion: v1 and kind: Endpoints"),
        ("apiVersion: v1\nkind: Endpoint\n", "write apiVersion: v1 and kind: Endpoints"),
        ("apiVersion: v1\nkind: EndpointSlice\n", "write apiVersion: discovery.k8s.io/v1 and kind: EndpointSlice"),
        (
            "apiVersion: discovery/v1\nkind: EndpointSlices\n",
            "write apiVersion: discovery.k8s.io/v1 and kind: EndpointSlice",
        ),
        ("apiVersion: apps/v1\nkind: Service\n", "write apiVersion: v1 and kind: Service"),
        ("apiVersion: v1\nkind: Nodes\n", "write apiVersion: v1 and kind: Node"),
        ("kind: List\nitems:\n- {apiVersion: v1, kind: Sevrice}\n", "write apiVersion: v1 and kind: Service"),
        ("apiVersion: v1\nkind: serviceList\n", "write apiVersion: v1 and kind: ServiceList"),
    ] {
        let (objects, bad) = read_all(text);
        assert_eq!((objects.len(), bad.len()), (0, 1), "{text}: {bad:?}");
        assert!(bad[0].ends_with(remedy), "{text}: {bad:?}");
    }
    for text in [
        "apiVersion: v1\nkind: PodList\n",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleList\n",
        "apiVersion: serving.knative.dev/v1\nkind: Service\n",
        "apiVersion: management.cattle.io/v3\nkind: Node\n",
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n",
        "apiVersion: v1\nkind: ServiceAccount\n",
        "apiVersion: v1\nkind: Secret\n",
    ] {
        assert_eq!(read_all(text), (Vec::new(), Vec::new()), "{text}");
    }
}

#[test]
fn unknown_keys_are_warnings_of_their_object() {
    let text = "{\"kind\": \"Service\", \"metadata\": {\"name\": \"a\", \"anotations\": {}}, \"status\": {\"loadbalancer\": {}}}";
    for text in [text.to_owned(), format!("--- {text}\n"), format!("kind: List\nitems: [{text}]\n")] {
        let piece = Document { number: 1, line: 1, text: &text };
        let read = read(piece, &mut Converter::default());
        let warnings: Vec<_> = read.objects.iter().flat_map(|(_, warnings)| warnings).collect();
        let fields: Vec<_> = warnings.iter().filter_map(|warning| warning.field.as_deref()).collect();
        assert_eq!(fields, ["metadata.anotations", "status.loadbalancer"], "{text}");
        let remedies: Vec<_> = warnings.iter().map(|warning| warning.remedy.as_str()).collect();
        assert_eq!(remedies, ["write annotations", "write loadBalancer"], "{text}");
        assert!(warnings.iter().all(|warning| warning.object.as_deref() == Some("Service default/a")), "{warnings:?}");
    }
}

#[test]
fn merge_keys_reach_the_object_in_every_form() {
    for text in [
        "kind: Service\nmetadata: {name: a}\nspec: {ports: [&p {port: 53, protocol: UDP}, {<<: *p, port: 54, name: b}]}\n",
        "<<: &head {apiVersion: v1, kind: Service}\nmetadata: {name: a}\nspec:\n  ports:\n  - &p {port: 53, protocol: UDP}\n  - {<<: *p, port: 54, name: b}\n",
        "kind: List\nitems:\n- &s {kind: Service, metadata: {name: x}, spec: {ports: [&p {port: 53, protocol: UDP}, {<<: *p, port: 54, name: b}]}}\n- {<<: *s, metadata: {name: a}}\n",
    ] {
        let piece = Document { number: 1, line: 1, text };
        let read = read(piece, &mut Converter::default());
        assert!(read.bad.is_empty(), "{:?}", read.bad);
        let Some((crate::model::Object::Service(service), _)) = read.objects.last() else { panic!("{text}") };
        assert_eq!(&*service.name.name, "a");
        assert!(service.ports.len() == 2 && service.ports.iter().all(|port| port.proto == lb_common::addr::Proto::UDP));
    }
}
