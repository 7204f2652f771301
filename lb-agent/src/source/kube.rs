//! `--source=kube`: Services, EndpointSlices and the own Node from the Kubernetes API.
//!
//! Each kind is listed page by page and then watched. Objects are converted one by one and never kept: what was told is
//! remembered as hashes. Nothing is told to be complete before every kind was listed; a later list tells, in one batch,
//! only what differs, deletions that were lost included. While the API server is away, what was told stays.

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

/// The kinds that are followed.
const KINDS: [Kind; 3] = [Kind::Service, Kind::EndpointSlice, Kind::Node];
/// Slices of headless Services carry it: nobody balances over them.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What to follow, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// In-cluster configuration where there is none.
    pub kubeconfig: Option<PathBuf>,
    /// The own node: the only Node that is asked for.
    pub node_name: String,
    pub claim: Claim,
    pub pace: Pace,
}

/// The API, not asked yet.
#[derive(Debug)]
pub struct KubeSource {
    connector: Connector,
    resources: [Resource; 3],
    pace: Pace,
    shared: Shared,
    connections: Connections,
}

impl KubeSource {
    /// Fails where there is no usable configuration. The API server need not answer yet.
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

    /// Keeps these annotations of Services, and no others.
    pub fn keeping(self, annotations: AnnotationKeys) -> Self {
        Self { shared: self.shared.keeping(annotations), ..self }
    }

    /// How the connections are doing, now and later.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Sends batches until nobody receives them: first all that is there, ending in [`Change::Listed`], then changes.
    pub async fn watch(self, batches: mpsc::Sender<Vec<Change>>) {
        let follow = |resource: &Resource| {
            Follower::new(resource.clone(), self.pace, &self.connector, &self.shared, &batches).follow()
        };
        let [services, slices, nodes] = self.resources.each_ref().map(follow);
        tokio::select! {
            // Also while nothing is to be sent.
            () = batches.closed() => {}
            _ = async { tokio::join!(services, slices, nodes) } => {}
        }
    }
}

/// The filters of kube-proxy (docs/contract.md#which-objects-count), and of the nodes our own.
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
