//! The JSON documents that every command prints with `-o json`, and their schema.
//!
//! Within `lb-agent.io/v1` fields are added, never renamed or removed: docs/reference/json.md.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

use super::pretty;
use crate::printable::printable_json;

/// The version of the fields, in each document.
pub const SCHEMA: &str = "lb-agent.io/v1";

/// Something that is printed as JSON.
pub trait Item: Serialize + JsonSchema {
    /// The `kind` of the document: a plural for a list of items.
    const KIND: &'static str;
}

#[derive(Serialize)]
struct List<'a, T> {
    schema: &'static str,
    kind: &'static str,
    items: &'a [T],
}

#[derive(Serialize)]
struct Single<'a, T> {
    schema: &'static str,
    kind: &'static str,
    item: &'a T,
}

/// The document of a list.
pub fn json<T: Item>(items: &[T]) -> String {
    pretty(&List { schema: SCHEMA, kind: T::KIND, items }) + "\n"
}

/// The document of a list, on one line.
pub fn json_line<T: Item>(items: &[T]) -> String {
    let line = serde_json::to_string(&List { schema: SCHEMA, kind: T::KIND, items });
    printable_json(line.unwrap_or_else(|error| unreachable!("what is printed as JSON: {error}"))) + "\n"
}

/// The document of a list as YAML.
pub fn yaml<T: Item>(items: &[T]) -> String {
    in_yaml(&List { schema: SCHEMA, kind: T::KIND, items })
}

/// The document of a single answer as YAML.
pub fn yaml_of_one<T: Item>(item: &T) -> String {
    in_yaml(&Single { schema: SCHEMA, kind: T::KIND, item })
}

/// The escapes of JSON are those of a double-quoted text in YAML; elsewhere they are read as they are written.
fn in_yaml<T: Serialize>(document: &T) -> String {
    let text = serde_saphyr::to_string(document);
    printable_json(text.unwrap_or_else(|error| unreachable!("what is printed as YAML: {error}")))
}

/// As [`json_of_many`], in YAML.
pub fn yaml_of_many<T: Item>(kind: &'static str, items: &[T]) -> String {
    in_yaml(&List { schema: SCHEMA, kind, items })
}

/// The document of several answers of a kind that usually comes alone.
pub fn json_of_many<T: Item>(kind: &'static str, items: &[T]) -> String {
    pretty(&List { schema: SCHEMA, kind, items }) + "\n"
}

/// The document of a single answer.
pub fn json_of_one<T: Item>(item: &T) -> String {
    pretty(&Single { schema: SCHEMA, kind: T::KIND, item }) + "\n"
}

/// An item on a line of a stream.
#[derive(Serialize)]
struct Line<'a, T> {
    schema: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    item: &'a T,
}

/// The line of an item in a stream, without its end.
pub fn stream_line<T: Item>(item: &T) -> String {
    let text = serde_json::to_string(&Line { schema: SCHEMA, kind: T::KIND, item });
    // Only plain structs of strings and numbers, which cannot fail.
    printable_json(text.unwrap_or_else(|error| unreachable!("what is printed as JSON: {error}")))
}

/// The JSON schema of documents.
pub struct Documents {
    generator: SchemaGenerator,
    documents: Vec<Value>,
}

impl Documents {
    pub fn new() -> Self {
        Self { generator: SchemaSettings::draft2020_12().for_serialize().into_generator(), documents: Vec::new() }
    }

    /// Adds the document of a list.
    #[must_use]
    pub fn list<T: Item>(self) -> Self {
        self.many::<T>(T::KIND)
    }

    /// Adds the document of several answers of a kind that usually comes alone.
    #[must_use]
    pub fn many<T: Item>(mut self, kind: &'static str) -> Self {
        let item = self.generator.subschema_for::<T>();
        self.documents.push(document(kind, "items", &json!({"type": "array", "items": item})));
        self
    }

    /// Adds the document of a single answer.
    #[must_use]
    pub fn single<T: Item>(mut self) -> Self {
        let item = self.generator.subschema_for::<T>();
        self.documents.push(document(T::KIND, "item", &json!(item)));
        self
    }

    /// Adds an item that is a document of its own, on a line of a stream.
    #[must_use]
    pub fn line<T: Item>(mut self) -> Self {
        let item = self.generator.subschema_for::<T>();
        let head = json!({
            "type": "object",
            "properties": {"schema": {"const": SCHEMA}, "kind": {"const": T::KIND}},
            "required": ["schema", "kind"],
        });
        self.documents.push(json!({"title": T::KIND, "allOf": [head, item]}));
        self
    }

    /// The schema of all of them.
    pub fn schema(mut self) -> Value {
        let mut definitions = Value::Object(self.generator.take_definitions(true));
        without_null(&mut definitions);
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "What lb-agent prints with -o json",
            "description": "Readers must accept fields that this schema does not name: later versions add fields.",
            "oneOf": self.documents,
            "$defs": definitions,
        })
    }
}

impl Default for Documents {
    fn default() -> Self {
        Self::new()
    }
}

fn document(kind: &str, field: &str, content: &Value) -> Value {
    json!({
        "title": kind,
        "type": "object",
        "properties": {"schema": {"const": SCHEMA}, "kind": {"const": kind}, field: content},
        "required": ["schema", "kind", field],
    })
}

/// A field without a value is left out, so no value is null. schemars says of an `Option` that it may be.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            let of_option = fields.get("anyOf").and_then(Value::as_array).cloned();
            if let Some([schema, null]) = of_option.as_deref()
                && *null == json!({"type": "null"})
                && let Some(referred) = schema.as_object()
            {
                fields.remove("anyOf");
                fields.extend(referred.clone());
            }
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                let only = if let [only] = types.as_slice() { Some(only.clone()) } else { None };
                fields.extend(only.map(|only| ("type".to_owned(), only)));
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(values) => values.iter_mut().for_each(without_null),
        _ => {}
    }
}
