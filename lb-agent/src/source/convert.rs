//! Converts Kubernetes objects to model types. A nonsensical field is left out with a warning; the rest is kept.
//!
//! Defaults are those of the API server, so a hand-written file means the same here as there.

mod converter;
mod endpoint_slice;
mod endpoints;
mod fields;
mod node;
mod service;
mod strings;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::model::{Kind, Object, ObjectName, ObjectRef, Warning, WarningKind};
use crate::printable::quoted;
use crate::source::names;
pub use converter::Converter;
pub use endpoint_slice::SERVICE_NAME;
use fields::Fields;

/// An object and the warnings about it.
pub type Converted = (Object, Vec<Warning>);

impl Converter {
    /// Fails only if the object has no valid name.
    pub fn service(&mut self, raw: core::Service) -> Result<Converted, Box<Warning>> {
        let name = self.namespaced(&raw.metadata, Kind::Service)?;
        let mut fields = Fields::of(ObjectRef { kind: Kind::Service, name: name.clone() });
        let service = service::convert(self, name, raw, &mut fields);
        Ok((Object::Service(service), fields.into_warnings()))
    }

    /// Returns `None` if the slice belongs to no Service or has no IP addresses; it is then ignored. Fails only if the
    /// object has no valid name or an unknown address type.
    pub fn endpoint_slice(&mut self, raw: discovery::EndpointSlice) -> Result<Option<Converted>, Box<Warning>> {
        let name = self.namespaced(&raw.metadata, Kind::EndpointSlice)?;
        let reference = ObjectRef { kind: Kind::EndpointSlice, name: name.clone() };
        let mut fields = Fields::of(reference.clone());
        let slice = endpoint_slice::convert(self, name, raw, &mut fields).map_err(|warning| warning.of(&reference))?;
        Ok(slice.map(|slice| (Object::EndpointSlice(slice), fields.into_warnings())))
    }

    /// Returns `None` if the object must not be mirrored. Fails only if the object has no valid name.
    pub fn endpoints(&mut self, raw: core::Endpoints) -> Result<Option<Converted>, Box<Warning>> {
        let name = self.namespaced(&raw.metadata, Kind::Endpoints)?;
        let mut fields = Fields::of(ObjectRef { kind: Kind::Endpoints, name: name.clone() });
        let endpoints = endpoints::convert(self, name, raw, &mut fields);
        Ok(endpoints.map(|endpoints| (Object::Endpoints(endpoints), fields.into_warnings())))
    }

    /// Fails only if the object has no valid name.
    pub fn node(&mut self, raw: &core::Node) -> Result<Converted, Box<Warning>> {
        let name = named(&raw.metadata, Kind::Node)?;
        let mut fields = Fields::of(ObjectRef { kind: Kind::Node, name: ObjectName::new("", &name) });
        let node = node::convert(self, &name, raw, &mut fields);
        Ok((Object::Node(node), fields.into_warnings()))
    }

    fn namespaced(&mut self, metadata: &ObjectMeta, kind: Kind) -> Result<ObjectName, Box<Warning>> {
        let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
        if !names::LABEL.holds_for(namespace) {
            return Err(no_name(namespace, names::LABEL).of(kind.name()).at("metadata.namespace").into());
        }
        let name = named(metadata, kind)?;
        Ok(ObjectName { namespace: self.strings.share(namespace), name: name.into() })
    }
}

fn named(metadata: &ObjectMeta, kind: Kind) -> Result<String, Box<Warning>> {
    let rule = match kind {
        Kind::Service => names::LABEL,
        Kind::EndpointSlice | Kind::Endpoints | Kind::Node => names::SUBDOMAIN,
    };
    match metadata.name.as_deref() {
        Some(name) if rule.holds_for(name) => Ok(name.to_owned()),
        None | Some("") => {
            let warning =
                Warning::new(WarningKind::BadDocument, "is missing; the object is left out", "name the object");
            Err(warning.of(kind.name()).at("metadata.name").into())
        }
        Some(name) => Err(no_name(name, rule).of(kind.name()).at("metadata.name").into()),
    }
}

fn no_name(text: &str, rule: names::Rule) -> Warning {
    let problem = format!("{} is not a name that the API server accepts; the object is left out", quoted(text));
    Warning::new(WarningKind::BadDocument, problem, format!("write {}", rule.spelling))
}

#[cfg(test)]
mod tests;
