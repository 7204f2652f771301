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
mod read;
mod shared;
mod tracker;
mod version;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::model::{AnnotationKeys, Change, Kind};
use crate::source::claim::Claim;
use crate::source::connection::Connections;
pub use connect::Error;
use connect::{Connect as _, Connector};
use follow::Follower;
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

/// Sizes and times of the requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Objects a page: what is in memory at once.
    pub page_size: u32,
    /// Time for the answer to a list, or for the start of one to a watch.
    pub patience: Duration,
    /// Life of a watch, up to one and a half of it; a watch that is silent for longer is dead.
    pub watch: Duration,
    /// Before the first repetition of what failed; doubled each time.
    pub retry_min: Duration,
    pub retry_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            page_size: 250,
            patience: Duration::from_secs(30),
            // A dead connection is noticed within this time; each renewal is one request.
            watch: Duration::from_mins(2),
            // Those of client-go are 800 ms and 30 s.
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
        }
    }
}

/// A kind as the API serves it.
#[derive(Clone, Debug)]
struct Resource {
    kind: Kind,
    path: &'static str,
    labels: Option<String>,
    fields: Option<String>,
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
