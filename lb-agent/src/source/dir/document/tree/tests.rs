//! YAML means the same as to kubectl, and costs no more than the limits allow.

use super::*;
use crate::source::dir::document::Document;

fn document(text: &str) -> Document<'_> {
    Document { number: 1, line: 1, text }
}

/// The tree as JSON, to be compared with kubectl's result for the same text.
fn json(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Text(text) => (**text).into(),
        Value::Sequence(items) => items.iter().map(|item| json(item)).collect(),
        Value::Mapping(entries) => {
            let entries = entries.iter().map(|(key, node)| (key.name.as_ref().to_owned(), json(node)));
            serde_json::Value::Object(entries.collect())
        }
        Value::Plain(text) => match resolve(text) {
            Plain::Null => serde_json::Value::Null,
            Plain::Bool(value) => value.into(),
            Plain::Int(value) => i64::try_from(value).expect("tests use small numbers").into(),
            Plain::Float(value) => value.into(),
            Plain::Text(text) => text.into(),
        },
    }
}

fn read(text: &str) -> Result<(String, Vec<String>), String> {
    match compose(document(text)) {
        Ok((node, notes)) => Ok((json(&node).to_string(), notes.into_iter().map(|note| note.problem).collect())),
        Err(fault) => Err(fault.warning().to_string()),
    }
}

/// The results of kubectl 1.32 for these texts, by `kubectl annotate --local -o json`.
#[test]
fn merge_keys_are_resolved_as_kubectl_does() {
    let base = "b: &b {name: a, port: 1, in: {<<: &c {q: 1}, z: 2}}\n";
    for (text, wanted) in [
        ("t: {<<: *b, name: later}", r#"{"in":{"q":1,"z":2},"name":"later","port":1}"#),
        ("t: {<<: [*c, *b, {k: 3, q: 9}], q: 0}", r#"{"in":{"q":1,"z":2},"k":3,"name":"a","port":1,"q":0}"#),
        ("t: {<<: [{a: 1}, {a: 2}]}", r#"{"a":1}"#),
        ("t: {\"<<\": {a: 1}}", r#"{"<<":{"a":1}}"#),
        ("t: {!!merge \"<<\": {a: 1}}", r#"{"a":1}"#),
        ("t:\n- <<: *c\n  z: 3\n- <<: *c", r#"[{"q":1,"z":3},{"q":1}]"#),
        ("m: &m {<<: *c, y1: 5}\nt: {<<: *m}", r#"{"q":1,"y1":5}"#),
        ("t: {port: 1, <<: *b}", r#"{"in":{"q":1,"z":2},"name":"a","port":1}"#),
        ("t: {<<: {a: 1}, <<: {d: 2}}", r#"{"a":1,"d":2}"#),
        ("t: {<<: !foo {a: 1}}", r#"{"a":1}"#),
    ] {
        let (node, _) = compose(document(&format!("{base}{text}\n"))).expect(text);
        assert_eq!(json(node.get("t").expect(text)).to_string(), wanted, "{text}");
    }
}

#[test]
fn merges_that_readers_disagree_on_are_refused_with_line_and_remedy() {
    for text in ["a: 1\nt:\n  name: x\n  <<: {name: y}\n", "a: 1\nt:\n  <<: {a: 1}\n  <<: {a: 2}\n"] {
        let error = read(text).expect_err(text);
        assert!(error.contains("(line 4 of the file)"), "{error}");
        assert!(error.ends_with("write << once, as the first key of its mapping"), "{error}");
    }
    for text in ["<<: 3", "<<: [1]", "<<:", "<<: [[{a: 1}]]", "<<: null", "<<: text", "<<: [{a: 1}, 2]"] {
        let error = read(&format!("t:\n  {text}\n")).expect_err(text);
        assert!(error.contains("<< needs a mapping or a sequence of mappings, as for kubectl (line 2 of"), "{error}");
    }
}

#[test]
fn keys_tags_and_scalars_are_read_as_kubectl_does() {
    for (text, wanted) in [
        ("{1.5: c, 0x10: d, 1_0: e, on: f}", r#"{"1.5":"c","10":"e","16":"d","true":"f"}"#),
        ("[!!str yes, !!bool \"yes\", !!int \"80\", ! 80, \"80\", 0x50]", r#"["yes",true,80,"80","80",80]"#),
        ("{? a : 3}", r#"{"a":3}"#),
        ("{a: !foo x, c: !!str 3}", r#"{"a":"x","c":"3"}"#),
        ("a: !!null \"\"", r#"{"a":null}"#),
        ("a: &x b\nc: *x\n&y d: *y", r#"{"a":"b","c":"b","d":"d"}"#),
        ("%YAML 1.1\n---\na: |\n  << no\nb: '<<'\n...\n", r#"{"a":"<< no\n","b":"<<"}"#),
        ("a: 1\r\nb:\r\n- 2\r\n", r#"{"a":1,"b":[2]}"#),
    ] {
        assert_eq!(read(text).expect(text).0, wanted, "{text}");
    }
    for text in [
        "{~: d}",
        "{[a]: b}",
        "a: !!int 3.0",
        "a: !!int x",
        "a: !!null x",
        "a: !!binary aGVsbG8=",
        "a: *nope",
        "a: &x [*x]",
        "a: &x 1\n---\nb: *x",
        "a:\n\tb: 1",
        "a: b: c",
    ] {
        read(text).expect_err(text);
    }
}

#[test]
fn what_is_taken_otherwise_than_it_may_be_meant_is_noted() {
    let (tree, notes) = read("a: 1\na: 2\nb: 3\nb: 3\nc: !foo {d: !bar e}\n").expect("it is read");
    assert_eq!(tree, r#"{"a":2,"b":3,"c":{"d":"e"}}"#);
    assert_eq!(notes.len(), 3, "{notes:?}");
    let (node, notes) = read_json("{\"a\": 1, \"a\": 2}").expect("it is read");
    assert_eq!((json(&node).to_string(), notes.len()), (r#"{"a":2}"#.to_owned(), 1));
}

#[test]
fn depth_is_bounded_in_every_form() {
    let deep: [String; 9] = [
        "[".repeat(50_000),
        "{a: ".repeat(50_000),
        "[\n".repeat(50_000),
        "- ".repeat(50_000),
        "? ".repeat(50_000),
        "{? [".repeat(50_000),
        (0..2_000).map(|depth| " ".repeat(depth) + "a:\n").collect(),
        "[".repeat(50_000) + &"]".repeat(50_000),
        (1..500).fold("- &a0 []\n".to_owned(), |text, i| text + &format!("- &a{i} [*a{}]\n", i - 1)),
    ];
    for text in &deep {
        let error = read(text).expect_err("it is too deep");
        let end = "levels (line ";
        assert!(error.contains("is nested deeper than 128 levels (line "), "{end} {error}");
        assert!(error.ends_with("nest it less deeply"), "{error}");
    }
    read_json(&"[".repeat(50_000)).expect_err("it is too deep");
    read(&("[".repeat(128) + &"]".repeat(128))).expect("so deep is allowed");
}

#[test]
fn aliases_cannot_grow_without_bound() {
    let laughs = (1..12).fold("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned(), |text, i| {
        text + &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "))
    });
    let merges = (1..40).fold("m0: &m0 {k0: lol}\n".to_owned(), |text, i| {
        text + &format!("m{i}: &m{i} {{<<: *m{0}, a: *m{0}, b: *m{0}}}\n", i - 1)
    });
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 64].join(", "));
    for text in [laughs, merges, long] {
        let error = read(&text).expect_err("it is too large");
        assert!(error.contains("takes more than 32 MiB with its aliases written out"), "{error}");
    }
}

#[test]
fn a_list_is_handed_on_item_by_item() {
    let mut items = Vec::new();
    let text = "kind: List\nitems:\n- &a {a: 1}\n- {<<: *a, b: 2}\n- *a\n";
    compose_list(document(text), &mut |item, _| items.push(json(&item).to_string())).expect("it is read");
    assert_eq!(items, [r#"{"a":1}"#, r#"{"a":1,"b":2}"#, r#"{"a":1}"#]);
}
