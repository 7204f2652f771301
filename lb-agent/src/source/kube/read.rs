//! Converts one object of an API answer to a model type. An object that does not parse affects only itself.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use kube::core::Status;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::version::Version;
use crate::model::{Kind, Object, ObjectName, ObjectRef, Warning, WarningKind};
use crate::printable::quoted;
use crate::source::convert::{Converted, Converter};

/// The longest name in the API, in bytes.
const NAME_MAX: usize = 253;

/// What the API reported about an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub name: ObjectName,
    pub version: Option<Version>,
    pub form: Form,
}

/// The form of an existing object.
#[derive(Debug, PartialEq, Eq)]
pub enum Form {
    Object(Box<Converted>),
    /// Irrelevant: a slice of no Service or without IP addresses, or a headless Service, which most servers do not even
    /// send.
    Nobodys,
    /// Unreadable. Its last good form is kept.
    Bad(Box<Warning>),
}

/// Reads an object. Returns `None` if it has no name.
pub fn read(kind: Kind, raw: &RawValue, converter: &mut Converter) -> Option<Told> {
    let metadata = head(raw)?.metadata;
    let namespace = match kind {
        Kind::Node => String::new(),
        Kind::Service | Kind::EndpointSlice | Kind::Endpoints => metadata.namespace.unwrap_or_default(),
    };
    let name = ObjectName { namespace: converter.strings.share(&namespace), name: metadata.name.into() };
    let read = match kind {
        Kind::Service => parse::<core::Service>(raw).and_then(|raw| converter.service(raw).map(Some)),
        Kind::EndpointSlice => parse::<discovery::EndpointSlice>(raw).and_then(|raw| converter.endpoint_slice(raw)),
        // Endpoints are not requested, because the API server mirrors them itself.
        Kind::Endpoints => parse::<core::Endpoints>(raw).and_then(|raw| converter.endpoints(raw)),
        Kind::Node => parse::<core::Node>(raw).and_then(|raw| converter.node(&raw).map(Some)),
    };
    let form = match read {
        Ok(Some((Object::Service(service), _))) if service.headless => Form::Nobodys,
        Ok(Some(mut converted)) => {
            if let Object::EndpointSlice(slice) = &mut converted.0 {
                // Kept as long as the slice exists, so unused capacity (a third) is released.
                slice.endpoints.shrink_to_fit();
            }
            Form::Object(converted.into())
        }
        Ok(None) => Form::Nobodys,
        Err(warning) => Form::Bad(Box::new(warning.of(ObjectRef { kind, name: name.clone() }))),
    };
    let name = match &form {
        // The same name, so that both are stored once.
        Form::Object(converted) if converted.0.reference().name == name => converted.0.reference().name,
        Form::Object(_) | Form::Nobodys | Form::Bad(_) => name,
    };
    Some(Told { name, version: Version::new(metadata.resource_version), form })
}

/// The content of a line of a watch.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// An object exists or has changed.
    There(Told),
    Gone(ObjectName, Option<Version>),
    /// A bookmark: only the version that the server has reached.
    Position(Option<Version>),
    Error(Box<Status>),
    /// An object without a name.
    Nameless,
}

/// Reads a line of a watch.
pub fn read_line(kind: Kind, line: &str, converter: &mut Converter) -> serde_json::Result<Event> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(rename = "type")]
        sort: &'a str,
        #[serde(borrow)]
        object: &'a RawValue,
    }
    let Line { sort, object } = match serde_json::from_str(line) {
        Ok(line) => line,
        // A refusal that arrived after the watch had begun.
        Err(error) => return serde_json::from_str(line).map(Event::Error).map_err(|_| error),
    };
    Ok(match sort {
        "ADDED" | "MODIFIED" => read(kind, object, converter).map_or(Event::Nameless, Event::There),
        "DELETED" => read_name(kind, object).map_or(Event::Nameless, |(name, version)| Event::Gone(name, version)),
        "BOOKMARK" => Event::Position(serde_json::from_str::<Bookmark>(object.get())?.version()),
        "ERROR" => Event::Error(serde_json::from_str(object.get())?),
        _ => return Err(serde::de::Error::custom(format!("{} is not a type of an event", quoted(sort)))),
    })
}

/// Name and version, which suffice for a deleted object.
pub fn read_name(kind: Kind, raw: &RawValue) -> Option<(ObjectName, Option<Version>)> {
    let Metadata { name, namespace, resource_version } = head(raw)?.metadata;
    let namespace = match kind {
        Kind::Node => String::new(),
        Kind::Service | Kind::EndpointSlice | Kind::Endpoints => namespace.unwrap_or_default(),
    };
    Some((ObjectName::new(&namespace, &name), Version::new(resource_version)))
}

#[derive(serde::Deserialize)]
struct Head {
    metadata: Metadata,
}

/// The version that the server has reached.
#[derive(serde::Deserialize)]
struct Bookmark {
    metadata: Position,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Position {
    resource_version: Option<String>,
}

impl Bookmark {
    fn version(self) -> Option<Version> {
        Version::new(self.metadata.resource_version)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: Option<String>,
    resource_version: Option<String>,
}

/// `None` if the name is missing, or longer than the API allows: the name would be kept.
fn head(raw: &RawValue) -> Option<Head> {
    let head: Head = serde_json::from_str(raw.get()).ok()?;
    let Metadata { name, namespace, .. } = &head.metadata;
    let is_short = |text: &str| text.len() <= NAME_MAX;
    (is_short(name) && namespace.as_deref().is_none_or(is_short)).then_some(head)
}

fn parse<T: DeserializeOwned>(raw: &RawValue) -> Result<T, Box<Warning>> {
    serde_json::from_str(raw.get()).map_err(|error| {
        let problem = format!("the API's object cannot be read ({error}); its last good form is kept");
        Warning::new(WarningKind::BadDocument, problem, "correct the object").into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, text: &str) -> Option<Told> {
        let raw = RawValue::from_string(text.to_owned()).expect("JSON");
        read(kind, &raw, &mut Converter::default())
    }

    #[test]
    fn an_object_that_does_not_parse_is_named() {
        let told = told(Kind::Service, r#"{"metadata":{"name":"a","namespace":"b","resourceVersion":"7"},"spec":5}"#);
        let Told { name, version, form } = told.expect("it has a name");
        assert_eq!((name.to_string(), version), ("b/a".to_owned(), Version::new(Some("7".into()))));
        let Form::Bad(warning) = form else { panic!("{form:?}") };
        assert_eq!(warning.object.as_deref(), Some("Service b/a"));
    }

    #[test]
    fn a_slice_of_no_service_concerns_nobody() {
        let text = r#"{"metadata":{"name":"a","namespace":"b"},"addressType":"IPv4","endpoints":[]}"#;
        assert_eq!(told(Kind::EndpointSlice, text).map(|told| told.form), Some(Form::Nobodys));
    }

    #[test]
    fn a_headless_service_concerns_nobody() {
        let text = |cluster_ip: &str| {
            format!(r#"{{"metadata":{{"name":"a","namespace":"b"}},"spec":{{"clusterIP":"{cluster_ip}","ports":[]}}}}"#)
        };
        assert_eq!(told(Kind::Service, &text("None")).map(|told| told.form), Some(Form::Nobodys));
        let form = told(Kind::Service, &text("10.0.0.1")).map(|told| told.form);
        assert!(matches!(form, Some(Form::Object(_))), "{form:?}");
    }

    #[test]
    fn without_a_name_there_is_no_object() {
        assert_eq!(told(Kind::Node, r#"{"metadata":{}}"#), None);
        assert_eq!(told(Kind::Node, "[]"), None);
    }
}
