//! The resources that are served, and their names in the API.

use serde_json::{Value, json};

/// One resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    Services,
    EndpointSlices,
    Nodes,
    /// Followed by kube-proxy, but not by the agent.
    ServiceCidrs,
}

impl Resource {
    /// The resources that the agent follows.
    pub const ALL: [Self; 3] = [Self::Services, Self::EndpointSlices, Self::Nodes];
    /// All resources that the server serves.
    pub const SERVED: [Self; 4] = [Self::Services, Self::EndpointSlices, Self::Nodes, Self::ServiceCidrs];

    pub const fn kind(self) -> &'static str {
        match self {
            Self::Services => "Service",
            Self::EndpointSlices => "EndpointSlice",
            Self::Nodes => "Node",
            Self::ServiceCidrs => "ServiceCIDR",
        }
    }

    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Services | Self::Nodes => "v1",
            Self::EndpointSlices => "discovery.k8s.io/v1",
            Self::ServiceCidrs => "networking.k8s.io/v1",
        }
    }

    /// Path of the collection over all namespaces.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Services => "/api/v1/services",
            Self::EndpointSlices => "/apis/discovery.k8s.io/v1/endpointslices",
            Self::Nodes => "/api/v1/nodes",
            Self::ServiceCidrs => "/apis/networking.k8s.io/v1/servicecidrs",
        }
    }

    /// The resource of an object. Panics if no resource has this kind: the test is wrong.
    #[track_caller]
    pub fn of(object: &Value) -> Self {
        let kind = object["kind"].as_str().unwrap_or_default();
        let found = Self::SERVED.into_iter().find(|resource| resource.kind() == kind);
        found.unwrap_or_else(|| panic!("nothing serves kind {kind:?}"))
    }

    /// Whether its objects are in namespaces.
    pub const fn is_namespaced(self) -> bool {
        matches!(self, Self::Services | Self::EndpointSlices)
    }

    /// The key within the resource, in the order of etcd.
    pub fn key(self, namespace: &str, name: &str) -> String {
        if self.is_namespaced() { format!("{namespace}/{name}") } else { name.to_owned() }
    }

    /// A field for field selectors; empty if the object does not have it. `None`: the server refuses the field.
    pub fn field<'a>(self, name: &str, object: &'a Value) -> Option<&'a str> {
        let value = match (self, name) {
            (_, "metadata.name") => &object["metadata"]["name"],
            (Self::Services | Self::EndpointSlices, "metadata.namespace") => &object["metadata"]["namespace"],
            (Self::Services, "spec.clusterIP") => &object["spec"]["clusterIP"],
            (Self::Services, "spec.type") => &object["spec"]["type"],
            (Self::Nodes, "spec.unschedulable") => &object["spec"]["unschedulable"],
            _ => return None,
        };
        Some(value.as_str().unwrap_or_default())
    }

    /// The object of a bookmark: a zero object with a version.
    pub fn bookmark(self, version: u64) -> Value {
        let mut object = match self {
            Self::Services => json!({"spec": {}, "status": {"loadBalancer": {}}}),
            Self::EndpointSlices => json!({"addressType": "", "endpoints": null, "ports": null}),
            Self::Nodes => {
                let texts = [
                    "architecture",
                    "bootID",
                    "containerRuntimeVersion",
                    "kernelVersion",
                    "kubeProxyVersion",
                    "kubeletVersion",
                    "machineID",
                    "operatingSystem",
                    "osImage",
                    "systemUUID",
                ];
                let empty: serde_json::Map<_, _> = texts.map(|name| (name.to_owned(), json!(""))).into_iter().collect();
                let endpoints = json!({"kubeletEndpoint": {"Port": 0}});
                json!({"spec": {}, "status": {"daemonEndpoints": endpoints, "nodeInfo": empty}})
            }
            Self::ServiceCidrs => json!({"spec": {}, "status": {}}),
        };
        object["kind"] = json!(self.kind());
        object["apiVersion"] = json!(self.api_version());
        object["metadata"] = json!({"resourceVersion": version.to_string()});
        object
    }
}
