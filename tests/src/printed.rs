//! Reads what commands print with `-o json`. Each document must be as docs/reference/json-schema.json says, without a
//! field that the schema does not name.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

static SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let mut schema = lb_agent::schema::schema();
    refuse_more_fields(&mut schema);
    jsonschema::validator_for(&schema).expect("a JSON schema")
});

/// The items of a list.
#[track_caller]
pub fn items(text: &str) -> Vec<Value> {
    match document(text)["items"].take() {
        Value::Array(items) => items,
        other => panic!("{other} is no list"),
    }
}

/// The single answer.
#[track_caller]
pub fn item(text: &str) -> Value {
    document(text)["item"].take()
}

/// A document.
#[track_caller]
pub fn document(text: &str) -> Value {
    let document = match serde_json::from_str(text) {
        Ok(document) => document,
        Err(error) => panic!("{error}: {text}"),
    };
    let errors: Vec<_> = SCHEMA.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:#?} in {text}");
    document
}

/// Readers accept fields that the schema does not name; the product must not print any.
fn refuse_more_fields(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("properties").is_some_and(Value::is_object) {
                fields.insert("additionalProperties".into(), json!(false));
            }
            fields.values_mut().for_each(refuse_more_fields);
        }
        Value::Array(values) => values.iter_mut().for_each(refuse_more_fields),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_with_another_field_is_refused() {
        let counter = |more: Value| {
            let mut counter = json!({"counter": "x", "packets": 1, "bytes": 2, "meaning": "y"});
            counter.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            json!({"schema": "lb-agent.io/v1", "kind": "Counters", "items": [counter]})
        };
        assert!(SCHEMA.is_valid(&counter(json!({}))));
        for wrong in [json!({"more": 1}), json!({"packets": "1"}), json!({"meaning": null})] {
            assert!(!SCHEMA.is_valid(&counter(wrong.clone())), "{wrong}");
        }
    }
}
