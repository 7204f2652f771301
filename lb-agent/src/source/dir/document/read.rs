//! One document to objects: which kind it is, its items where it is a list, and what is wrong with it.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Document;
use crate::model::{Kind, ObjectName, ObjectRef, Warning, WarningKind};
use crate::source::convert::{Converted, Converter};

/// What a document holds.
#[derive(Debug, Default)]
pub struct Read {
    pub objects: Vec<Converted>,
    /// Why it, or an item of it, does not parse. Without file and document number.
    pub bad: Vec<Warning>,
}

/// What the document says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Object(Kind),
    /// Of items that name their own kind, or of one kind.
    List(Option<Kind>),
    /// Somebody else's kind.
    Other,
}

/// Reads the document. Kinds that we do not know are ignored.
pub fn read(document: Document<'_>, converter: &mut Converter) -> Read {
    let mut read = Read::default();
    let sort = match head(document).and_then(|head| head.sort()) {
        Ok(sort) => sort,
        Err(warning) => {
            read.bad.push(*warning);
            return read;
        }
    };
    match sort {
        Sort::Other => {}
        Sort::Object(kind) => {
            let object = match kind {
                Kind::Service => parse(document).and_then(|raw| converter.service(raw).map(Some)),
                Kind::EndpointSlice => parse(document).and_then(|raw| converter.endpoint_slice(raw)),
                Kind::Node => parse(document).and_then(|raw| converter.node(&raw).map(Some)),
            };
            read.take(object.map_err(|warning| name_object(*warning, kind, parse(document).ok())));
        }
        Sort::List(of) => {
            let mut number = 0u32;
            let each = |item: serde_json::Value| {
                read.take(list_item(&item, of, converter).map_err(|warning| in_item(*warning, number)));
                number += 1;
            };
            if let Err(warning) = parse_seed(document, ListSeed(each)) {
                read.bad.push(*warning);
            }
        }
    }
    read
}

impl Read {
    fn take(&mut self, object: Result<Option<Converted>, Box<Warning>>) {
        match object {
            Ok(object) => self.objects.extend(object),
            Err(warning) => self.bad.push(*warning),
        }
    }
}

/// The two fields that say what an object is.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

impl Head {
    fn sort(&self) -> Result<Sort, Box<Warning>> {
        let Some(kind) = self.kind.as_deref().filter(|kind| !kind.is_empty()) else {
            return Err(bad("is missing").at("kind").into());
        };
        let group = self.api_version.as_deref().unwrap_or_default();
        let group = group.split_once('/').map_or("", |(group, _)| group);
        // A document without any apiVersion is taken for ours; other groups have a Service too.
        let is_absent = self.api_version.is_none();
        Ok(match (group, kind) {
            ("", "Service") => Sort::Object(Kind::Service),
            ("", "Node") => Sort::Object(Kind::Node),
            ("discovery.k8s.io", "EndpointSlice") => Sort::Object(Kind::EndpointSlice),
            ("", "EndpointSlice") if is_absent => Sort::Object(Kind::EndpointSlice),
            ("", "List") => Sort::List(None),
            ("", "ServiceList") => Sort::List(Some(Kind::Service)),
            ("", "NodeList") => Sort::List(Some(Kind::Node)),
            ("discovery.k8s.io", "EndpointSliceList") => Sort::List(Some(Kind::EndpointSlice)),
            ("", "EndpointSliceList") if is_absent => Sort::List(Some(Kind::EndpointSlice)),
            _ => Sort::Other,
        })
    }
}

/// Finds apiVersion and kind. In block style they stand at the start of a line, which spares parsing the document
/// twice; anything else is parsed.
fn head(document: Document<'_>) -> Result<Head, Box<Warning>> {
    let mut head = Head::default();
    let mut kinds = 0;
    for line in document.text.lines() {
        if let Some(value) = line.strip_prefix("kind:") {
            kinds += 1;
            head.kind = plain_scalar(value);
        } else if let Some(value) = line.strip_prefix("apiVersion:") {
            head.api_version = plain_scalar(value);
        }
    }
    match kinds {
        1 if head.kind.is_some() => Ok(head),
        0 | 1 => parse(document),
        _ => Err(Warning::new(
            WarningKind::BadDocument,
            "stands more than once: two documents without --- between them; what the file held before is kept",
            "put a line --- between the documents",
        )
        .at("kind")
        .into()),
    }
}

/// The value of a `key: value` line where nothing is special about it.
fn plain_scalar(value: &str) -> Option<String> {
    let value = value.split(" #").next().unwrap_or_default().trim();
    let unquoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let value = unquoted.unwrap_or(value);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-');
    (!value.is_empty() && value.chars().all(is_plain)).then(|| value.to_owned())
}

fn list_item(
    item: &serde_json::Value,
    of: Option<Kind>,
    converter: &mut Converter,
) -> Result<Option<Converted>, Box<Warning>> {
    let head: Head = of_value(item)?;
    let kind = match (head.kind.is_some(), of) {
        // `kubectl get --raw` leaves the kind of items out.
        (false, Some(kind)) => kind,
        _ => match head.sort()? {
            Sort::Object(kind) => kind,
            Sort::List(_) | Sort::Other => return Ok(None),
        },
    };
    let object = match kind {
        Kind::Service => of_value(item).and_then(|raw| converter.service(raw).map(Some)),
        Kind::EndpointSlice => of_value(item).and_then(|raw| converter.endpoint_slice(raw)),
        Kind::Node => of_value(item).and_then(|raw| converter.node(&raw).map(Some)),
    };
    object.map_err(|warning| name_object(*warning, kind, of_value(item).ok()))
}

fn of_value<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, Box<Warning>> {
    // The YAML parser's errors name the field, those of JSON values do not.
    serde_json::from_value(value.clone()).or_else(|_| {
        let text = value.to_string();
        serde_yaml_ng::from_str(&text).map_err(|error| bad_yaml(&error, None).into())
    })
}

fn parse<T: DeserializeOwned>(document: Document<'_>) -> Result<T, Box<Warning>> {
    // YAML contains JSON, but not quite all of it (tabs), and not as fast.
    if is_json(document.text)
        && let Ok(value) = serde_json::from_str(document.text)
    {
        return Ok(value);
    }
    serde_yaml_ng::from_str(document.text).map_err(|error| bad_yaml(&error, Some(document)).into())
}

fn parse_seed<F: FnMut(serde_json::Value)>(document: Document<'_>, seed: ListSeed<F>) -> Result<(), Box<Warning>> {
    let result = if is_json(document.text) {
        let mut json = serde_json::Deserializer::from_str(document.text);
        seed.deserialize(&mut json).map_err(|error| bad(error.to_string()))
    } else {
        let yaml = serde_yaml_ng::Deserializer::from_str(document.text);
        seed.deserialize(yaml).map_err(|error| bad_yaml(&error, Some(document)))
    };
    result.map_err(Box::new)
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Reads a list item by item, so that a large one is never in memory as a whole.
struct ListSeed<F>(F);

impl<'de, F: FnMut(serde_json::Value)> DeserializeSeed<'de> for ListSeed<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(serde_json::Value)> Visitor<'de> for ListSeed<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                map.next_value_seed(ItemsSeed(&mut self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct ItemsSeed<'a, F>(&'a mut F);

impl<'de, F: FnMut(serde_json::Value)> DeserializeSeed<'de> for ItemsSeed<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: FnMut(serde_json::Value)> Visitor<'de> for ItemsSeed<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence of objects")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<(), S::Error> {
        while let Some(item) = items.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

fn bad(problem: impl fmt::Display) -> Warning {
    let problem = format!("{problem}; the document is left out, and what the file held before is kept");
    Warning::new(WarningKind::BadDocument, problem, "correct the document")
}

/// `spec.ports[0].port: invalid type: ... at line 3 column 5` taken apart.
fn bad_yaml(error: &serde_yaml_ng::Error, document: Option<Document<'_>>) -> Warning {
    let message = without_marks(&error.to_string());
    let (field, message) = match message.split_once(": ") {
        Some((field, rest)) if is_path(field) => (Some(field), rest),
        _ => (None, message.as_str()),
    };
    let line = document.zip(error.location()).map(|(document, location)| document.line + location.line() - 1);
    let warning = bad(match line {
        Some(line) => format!("{message} (line {line} of the file)"),
        None => message.to_owned(),
    });
    match field {
        Some(field) => warning.at(field),
        None => warning,
    }
}

/// The message without its ` at line 3 column 5`, which counts from the start of the document.
fn without_marks(message: &str) -> String {
    let mut pieces = message.split(" at line ");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text += piece.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ' || "column".contains(c));
    }
    text
}

fn is_path(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-/[]".contains(c))
}

/// Of an object that does not parse, the name where at least that much does.
#[derive(Debug, Default, serde::Deserialize)]
struct Named {
    metadata: Name,
}

#[derive(Debug, Default, serde::Deserialize)]
struct Name {
    name: Option<String>,
    namespace: Option<String>,
}

fn name_object(warning: Warning, kind: Kind, named: Option<Named>) -> Box<Warning> {
    let Name { name, namespace } = named.unwrap_or_default().metadata;
    let Some(name) = name else { return Box::new(warning.of(kind.name())) };
    let namespace = match kind {
        Kind::Node => "",
        Kind::Service | Kind::EndpointSlice => namespace.as_deref().unwrap_or("default"),
    };
    Box::new(warning.of(ObjectRef { kind, name: ObjectName::new(namespace, &name) }))
}

fn in_item(mut warning: Warning, number: u32) -> Box<Warning> {
    let field = warning.field.take().map_or_else(String::new, |field| format!(".{field}"));
    warning.field = Some(format!("items[{number}]{field}"));
    Box::new(warning)
}

#[cfg(test)]
mod tests;
