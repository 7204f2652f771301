//! Kubernetes objects as YAML in a folder, the source of `--source=dir:PATH`.
//!
//! Files are written under another name and renamed, so that a reader sees either the old or the new text.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::address::{Family, family};

/// The node's name in every lab.
pub const NODE: &str = "node-1";
/// Another node of the cluster.
pub const OTHER_NODE: &str = "node-2";
/// A third one.
pub const THIRD_NODE: &str = "node-3";

/// A folder of manifests.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder, with the Node object in it.
    #[track_caller]
    pub fn create(path: PathBuf, node_addresses: &[IpAddr]) -> Self {
        fs::create_dir_all(&path).expect("the temporary folder is writable");
        let folder = Self { path };
        folder.write("node", &[node(NODE, node_addresses)]);
        folder
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes objects to the file `<name>.yaml`, in place of its old content.
    #[track_caller]
    pub fn write(&self, name: &str, objects: &[Value]) {
        self.write_text(name, &yaml(objects));
    }

    /// Writes text to the file `<name>.yaml`.
    #[track_caller]
    pub fn write_text(&self, name: &str, text: &str) {
        let hidden = self.path.join(format!(".{name}.new"));
        fs::write(&hidden, text).expect("the folder is writable");
        fs::rename(&hidden, self.path.join(format!("{name}.yaml"))).expect("the folder is writable");
    }

    /// Removes a file.
    #[track_caller]
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path.join(format!("{name}.yaml"))).expect("the file was written before");
    }
}

/// Objects as a multi-document text.
pub fn yaml(objects: &[Value]) -> String {
    let documents = objects.iter().map(|object| serde_yaml_ng::to_string(object).expect("values print"));
    documents.collect::<Vec<_>>().join("---\n")
}

/// The documents of a manifest of `deploy/`.
#[track_caller]
pub fn deployed(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    documents_of(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// The documents of a multi-document text.
#[track_caller]
pub fn documents_of(text: &str) -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents.map(|document| Value::deserialize(document).expect("YAML")).filter(|value| !value.is_null()).collect()
}

/// A Node with addresses.
pub fn node(name: &str, addresses: &[IpAddr]) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|address| json!({"type": "InternalIP", "address": address.to_string()})).collect();
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": addresses}})
}

/// An entry of `status.loadBalancer.ingress`.
pub fn ingress(address: IpAddr, mode: &str) -> Value {
    json!({"ip": address.to_string(), "ipMode": mode})
}

/// The suffix of the name of a slice of one family.
pub const fn suffix(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}

/// A Service of type `LoadBalancer`, built step by step.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    object: Value,
}

impl Service {
    /// A Service without ports. It is of both families if it gets cluster addresses of both.
    pub fn new(name: &str) -> Self {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "LoadBalancer", "ports": []},
            "status": {"loadBalancer": {"ingress": []}},
        });
        Self { name: name.into(), object }
    }

    /// Cluster addresses, which determine the families of the Service.
    #[must_use]
    pub fn cluster_ips(mut self, addresses: &[IpAddr]) -> Self {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let families: Vec<&str> = addresses.iter().map(|a| if a.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
        self.object["spec"]["clusterIP"] = json!(texts.first());
        self.object["spec"]["ipFamilies"] = json!(families);
        // Otherwise the API server takes only one of them.
        self.object["spec"]["ipFamilyPolicy"] =
            json!(if addresses.len() > 1 { "RequireDualStack" } else { "SingleStack" });
        self.object["spec"]["clusterIPs"] = json!(texts);
        self
    }

    /// A port of the Service. `target` is informative only; endpoints have their own port numbers.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: &str, port: u16, target: u16) -> Self {
        let port = json!({"name": name, "protocol": protocol, "port": port, "targetPort": target});
        self.object["spec"]["ports"].as_array_mut().expect("made as a list").push(port);
        self
    }

    /// An entry of the status.
    #[must_use]
    pub fn ingress(mut self, entry: Value) -> Self {
        self.object["status"]["loadBalancer"]["ingress"].as_array_mut().expect("made as a list").push(entry);
        self
    }

    /// Sets a field of the spec.
    #[must_use]
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.object["spec"][field] = value;
        self
    }

    /// Sets a field of the metadata.
    #[must_use]
    pub fn metadata(mut self, field: &str, value: Value) -> Self {
        self.object["metadata"][field] = value;
        self
    }

    pub fn object(&self) -> Value {
        self.object.clone()
    }

    /// An EndpointSlice of this Service.
    pub fn slice(&self, suffix: &str) -> Slice {
        Slice::new(&format!("{}-{suffix}", self.name), &self.name)
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug)]
pub struct Slice {
    object: Value,
}

impl Slice {
    fn new(name: &str, service: &str) -> Self {
        let labels = json!({"kubernetes.io/service-name": service});
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "addressType": "IPv4", "ports": [], "endpoints": [],
        });
        Self { object }
    }

    /// A port of the endpoints, matched to the Service's by name and protocol.
    #[must_use]
    pub fn port(mut self, name: &str, protocol: &str, port: u16) -> Self {
        let port = json!({"name": name, "protocol": protocol, "port": port});
        self.object["ports"].as_array_mut().expect("made as a list").push(port);
        self
    }

    /// The family of the endpoints, for a slice without endpoints.
    #[must_use]
    pub fn address_type(mut self, family: Family) -> Self {
        self.object["addressType"] = match family {
            Family::V4 => json!("IPv4"),
            Family::V6 => json!("IPv6"),
        };
        self
    }

    /// A ready endpoint on a node.
    #[must_use]
    pub fn endpoint(self, address: IpAddr, node: &str) -> Self {
        let conditions = json!({"ready": true, "serving": true, "terminating": false});
        let endpoint = json!({"addresses": [address.to_string()], "nodeName": node, "conditions": conditions});
        self.address_type(family(address)).raw_endpoint(endpoint)
    }

    /// An endpoint as given.
    #[must_use]
    pub fn raw_endpoint(mut self, endpoint: Value) -> Self {
        self.object["endpoints"].as_array_mut().expect("made as a list").push(endpoint);
        self
    }

    pub fn object(&self) -> Value {
        self.object.clone()
    }
}
