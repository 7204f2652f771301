//! `--source=kube`: Services, EndpointSlices and our own Node from the Kubernetes API.
//!
//! Each kind is listed page by page and then watched. Objects are converted one by one and not kept: only their hashes
//! are remembered. The source reports [`Change::Listed`] after the first list of every kind. A later list reports only
//! the differences, including deletions that were missed, in one batch. While the API server is unreachable, the
//! reported objects are kept.

mod answer;
mod backoff;
mod connect;
mod failure;
mod follow;
mod pace;
mod read;
mod resource;
mod shared;
mod tracker;
mod trial;
mod version;

use std::path::PathBuf;

use tokio::sync::mpsc;

use crate::model::{AnnotationKeys, Change, Kind};
use crate::source::claim::Claim;
use crate::source::connection::Connections;
pub use connect::Error;
use connect::{Connect as _, Connector};
use follow::Follower;
pub use pace::Pace;
use resource::Resource;
use shared::Shared;
pub use trial::{Denied, denied};

/// The kinds that are watched.
const KINDS: [Kind; 3] = [Kind::Service, Kind::EndpointSlice, Kind::Node];
/// The label of slices of headless Services, which are not balanced.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What to watch, and with which credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `None` means in-cluster configuration.
    pub kubeconfig: Option<PathBuf>,
    /// Our own node: the only Node that is requested.
    pub node_name: String,
    pub claim: Claim,
    pub pace: Pace,
}

/// The API, before the first request.
#[derive(Debug)]
pub struct KubeSource {
    connector: Connector,
    resources: [Resource; 3],
    pace: Pace,
    shared: Shared,
    connections: Connections,
}

impl KubeSource {
    /// Fails if there is no usable configuration. The API server need not answer yet.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        let connector = Connector::new(settings.kubeconfig.clone());
        connector.client().await?;
        let connections = Connections::starting(&KINDS);
        Ok(Self {
            connector,
            resources: resources(settings),
            pace: settings.pace,
            shared: Shared::new(settings.claim.clone(), connections.clone()),
            connections,
        })
    }

    /// Keeps only these annotations of Services.
    pub fn keeping(self, annotations: AnnotationKeys) -> Self {
        Self { shared: self.shared.keeping(annotations), ..self }
    }

    /// The state of the connections, shared with their observers.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Sends batches until the receiver is closed: first all objects, ending in [`Change::Listed`], then changes.
    pub async fn watch(self, batches: mpsc::Sender<Vec<Change>>) {
        let follow = |resource: &Resource| {
            Follower::new(resource.clone(), self.pace, &self.connector, &self.shared, &batches).follow()
        };
        let [services, slices, nodes] = self.resources.each_ref().map(follow);
        tokio::select! {
            // Returns even while there is nothing to send.
            () = batches.closed() => {}
            _ = async { tokio::join!(services, slices, nodes) } => {}
        }
    }
}

/// The filters of kube-proxy (docs/contract.md#which-objects-count). For nodes, our own filter.
fn resources(settings: &Settings) -> [Resource; 3] {
    [
        Resource {
            kind: Kind::Service,
            path: "/api/v1/services",
            labels: Some(settings.claim.selector()),
            fields: Some("spec.clusterIP!=None".to_owned()),
        },
        Resource {
            kind: Kind::EndpointSlice,
            path: "/apis/discovery.k8s.io/v1/endpointslices",
            labels: Some(format!("!{HEADLESS}")),
            fields: None,
        },
        Resource {
            kind: Kind::Node,
            path: "/api/v1/nodes",
            labels: None,
            fields: Some(format!("metadata.name={}", settings.node_name)),
        },
    ]
}
