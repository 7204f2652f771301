//! Changes that a source reports about the world.

use std::fmt;

use super::{EndpointSlice, Endpoints, Node, ObjectName, Service, Warning};

/// One change of the world. Sources send changes in batches. A whole batch is taken in before anything is computed, so
/// a pod that moves between two slices is never absent (EPS-06).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The object exists in this form. `warnings` replace those of its earlier form.
    Apply { object: Object, warnings: Vec<Warning> },
    /// The object was removed.
    Remove(ObjectRef),
    /// All problems of one place of the source (a file, a watch), apart from its objects.
    Place { place: String, warnings: Vec<Warning> },
    /// The first list of every kind is complete.
    Listed,
}

impl Change {
    /// The Service that the object is or belongs to.
    pub fn service(&self) -> Option<ObjectName> {
        match self {
            Self::Apply { object: Object::Service(service), .. } => Some(service.name.clone()),
            Self::Apply { object: Object::EndpointSlice(slice), .. } => Some(slice.service_name()),
            Self::Apply { object: Object::Endpoints(_) | Object::Node(_), .. }
            | Self::Remove(_)
            | Self::Place { .. }
            | Self::Listed => None,
        }
    }
}

/// An object of a kind that we read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Endpoints(Endpoints),
    Node(Node),
}

impl Object {
    pub fn reference(&self) -> ObjectRef {
        let (kind, name) = match self {
            Self::Service(service) => (Kind::Service, service.name.clone()),
            Self::EndpointSlice(slice) => (Kind::EndpointSlice, slice.name.clone()),
            Self::Endpoints(endpoints) => (Kind::Endpoints, endpoints.name.clone()),
            Self::Node(node) => (Kind::Node, ObjectName::new("", &node.name)),
        };
        ObjectRef { kind, name }
    }
}

/// The kinds that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    EndpointSlice,
    Endpoints,
    Node,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Node => "Node",
        }
    }
}

/// Which object: kind and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    pub kind: Kind,
    pub name: ObjectName,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}
