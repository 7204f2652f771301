//! EndpointSlices and the endpoints in them, before policy has chosen any.

use std::net::IpAddr;
use std::sync::Arc;

use lb_common::addr::{Family, Proto};

use super::ObjectName;

/// A list of endpoints of one Service and one family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointSlice {
    pub name: ObjectName,
    /// Name of the Service (same namespace), from label `kubernetes.io/service-name`.
    pub service: Arc<str>,
    pub family: Family,
    /// Label `service.kubernetes.io/headless` is present: the slice is nobody's business (FLT-04).
    pub headless: bool,
    /// The API server made it of an Endpoints object: it counts only where that object is not there itself.
    pub is_mirror: bool,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

impl EndpointSlice {
    /// The Service that it belongs to.
    pub fn service_name(&self) -> ObjectName {
        ObjectName { namespace: Arc::clone(&self.name.namespace), name: Arc::clone(&self.service) }
    }
}

/// A legacy Endpoints object, as the slices that the API server would make of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// Also that of its Service, which has a selector or has these endpoints.
    pub name: ObjectName,
    /// Each of one subset and one family.
    pub slices: Vec<EndpointSlice>,
}

/// A port that every endpoint of the slice serves. Matched to a Service port by name and protocol, never by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlicePort {
    pub name: Arc<str>,
    pub proto: Proto,
    pub port: u16,
}

/// Something that may answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The first of `addresses`; of the slice's family (EPS-03).
    pub addr: IpAddr,
    pub conditions: Conditions,
    /// Name of the node it runs on; absent: never local (EPS-07).
    pub node: Option<Arc<str>>,
    pub hints: Option<Arc<Hints>>,
}

/// Conditions after the defaults: absent is ready, serving, not terminating (EPS-02).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conditions {
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
}

impl Conditions {
    pub const READY: Self = Self { ready: true, serving: true, terminating: false };
}

/// Which zones and nodes should prefer an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hints {
    pub zones: Vec<Arc<str>>,
    pub nodes: Vec<Arc<str>>,
}
