//! EndpointSlices and their endpoints, before policy.

use std::net::IpAddr;
use std::sync::Arc;

use lb_common::addr::{Family, Proto};

use super::ObjectName;

/// A list of endpoints of one Service and one family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSlice {
    pub name: ObjectName,
    /// Name of the Service in the same namespace, from label `kubernetes.io/service-name`.
    pub service: Arc<str>,
    pub family: Family,
    /// Label `service.kubernetes.io/headless` is present: the slice is ignored (FLT-04).
    pub headless: bool,
    /// The API server made it of an Endpoints object. The slice counts only if that object is unknown.
    pub is_mirror: bool,
    /// When the change that the slice shows last was triggered, in milliseconds since 1970, by the annotation
    /// `endpoints.kubernetes.io/last-change-trigger-time`.
    pub triggered_ms: Option<i64>,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// The Service that this slice belongs to.
    pub fn service_name(&self) -> ObjectName {
        ObjectName { namespace: Arc::clone(&self.name.namespace), name: Arc::clone(&self.service) }
    }
}

/// A legacy Endpoints object, as the slices that the API server would make of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// Also the name of its Service.
    pub name: ObjectName,
    /// One for each subset and family.
    pub slices: Vec<EndpointSlice>,
}

/// A port that every endpoint of the slice serves. It matches a Service port by name and protocol, never by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlicePort {
    pub name: Arc<str>,
    pub proto: Proto,
    pub port: u16,
}

/// An address that may answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The first of `addresses`, in the slice's family (EPS-03).
    pub addr: IpAddr,
    pub conditions: Conditions,
    /// Name of the endpoint's node. Without one the endpoint is never local (EPS-07).
    pub node: Option<Arc<str>>,
    pub hints: Option<Arc<Hints>>,
}

/// Conditions after defaults. Absent conditions mean ready, serving and not terminating (EPS-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conditions {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Conditions {
    pub const READY: Self = Self { ready: true, serving: true, terminating: false };
}

/// The zones and nodes that should prefer an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hints {
    pub zones: Vec<Arc<str>>,
    pub nodes: Vec<Arc<str>>,
}
