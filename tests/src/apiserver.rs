//! A small Kubernetes API server: lists and watches over TLS as the real one does, and misbehaves on demand.
//!
//! Calls, not requests, write its objects. `apiserver_shape` compares its answers with a real server's.

mod answer;
mod continuation;
mod fault;
mod listener;
mod resource;
mod selector;
mod store;
mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

pub use fault::{Faults, WatchFault};
pub use resource::Resource;
pub use store::Store;

pub use listener::Identity;

use crate::api::Api;
use listener::TlsListener;

/// How long the old listener may take to close when the server starts again on its address.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The server. It ends when this guard is dropped.
pub struct ApiServer {
    shared: Arc<Shared>,
    identity: Identity,
    address: SocketAddr,
    folder: tempfile::TempDir,
    runtime: Option<Runtime>,
}

/// A request that a client made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub resource: Resource,
    pub is_watch: bool,
    /// The query, decoded: names and values.
    pub query: Vec<(String, String)>,
}

/// The state that requests and calls share.
struct Shared {
    state: Mutex<State>,
    /// Notified after each change of the state.
    changed: tokio::sync::watch::Sender<u64>,
}

struct State {
    store: Store,
    faults: Faults,
    asked: Vec<Asked>,
    token: String,
    /// Number of watches started. Watches that are cut or stalled are identified by their number.
    watches: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.send_modify(|count| *count += 1);
        result
    }
}

impl ApiServer {
    /// Starts an empty server on a free port of the loopback interface.
    #[track_caller]
    pub fn start() -> Self {
        Self::serving(Store::default())
    }

    /// Starts a server that holds these objects.
    #[track_caller]
    pub fn serving(store: Store) -> Self {
        let state =
            State { store, faults: Faults::default(), asked: Vec::new(), token: "token-1".to_owned(), watches: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: tokio::sync::watch::Sender::new(0) });
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self {
            shared,
            identity: Identity::generate(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            folder,
            runtime: None,
        };
        server.resume();
        server.write_kubeconfig();
        server
    }

    /// A kubeconfig with the server's certificate and a token.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of the authority, as PEM.
    pub fn authority(&self) -> &str {
        self.identity.authority()
    }

    /// The token that is accepted.
    pub fn token(&self) -> String {
        self.shared.state().token.clone()
    }

    /// Creates the object, or replaces it.
    pub fn put(&self, object: Value) {
        self.shared.change(|state| state.store.put(object));
    }

    /// Deletes the object. Returns whether it existed.
    pub fn delete(&self, resource: Resource, namespace: &str, name: &str) -> bool {
        self.shared.change(|state| state.store.delete(resource, namespace, name))
    }

    /// All current objects, with kind and apiVersion.
    pub fn objects(&self) -> Vec<Value> {
        self.shared.state().store.objects()
    }

    /// The newest version.
    pub fn version(&self) -> u64 {
        self.shared.state().store.version()
    }

    /// Compacts the history: earlier positions and continue tokens are too old.
    pub fn compact(&self) {
        self.shared.change(|state| state.store.compact());
    }

    /// Changes how the server misbehaves.
    pub fn misbehave(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.change(|state| change(&mut state.faults));
    }

    /// Applies this fault to all watches that are open now.
    pub fn afflict_watches(&self, fault: WatchFault) {
        self.shared.change(|state| {
            let started = state.watches;
            state.faults.afflicted.push((started, fault));
        });
    }

    /// Changes the accepted token, also in the kubeconfig.
    #[track_caller]
    pub fn renew_token(&self) {
        self.shared.change(|state| state.token.push_str("-renewed"));
        self.write_kubeconfig();
    }

    /// All requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }

    /// Stops the server: connections break, new ones are refused.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(STOP_PATIENCE);
        }
    }

    /// Starts the server again on the same address, with its current objects.
    #[track_caller]
    pub fn resume(&mut self) {
        if self.runtime.is_some() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("apiserver")
            .enable_all()
            .build()
            .expect("threads can be started");
        let bound = crate::deadline::until("the address is free again", || {
            runtime.block_on(TlsListener::bind(self.address, &self.identity)).ok()
        });
        self.address = bound.address();
        let routes = answer::routes(Arc::clone(&self.shared));
        runtime.spawn(async move {
            // Serving ends with the runtime.
            let _ = axum::serve(bound, routes).await;
        });
        self.runtime = Some(runtime);
    }

    #[track_caller]
    fn write_kubeconfig(&self) {
        let text = kubeconfig(&self.url(), self.authority(), Some(&self.token()));
        let hidden = self.folder.path().join(".kubeconfig.new");
        std::fs::write(&hidden, text).expect("the folder is writable");
        std::fs::rename(&hidden, self.kubeconfig()).expect("the folder is writable");
    }
}

impl Api for ApiServer {
    fn kubeconfig(&self) -> PathBuf {
        Self::kubeconfig(self)
    }

    fn put(&self, object: Value) {
        Self::put(self, object);
    }

    fn delete(&self, resource: Resource, namespace: &str, name: &str) -> bool {
        Self::delete(self, resource, namespace, name)
    }

    fn objects(&self) -> Vec<Value> {
        Self::objects(self)
    }

    fn stop(&mut self) {
        Self::stop(self);
    }

    #[track_caller]
    fn resume(&mut self) {
        Self::resume(self);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A kubeconfig as text; without a token, its user is anonymous. JSON is YAML.
pub fn kubeconfig(url: &str, authority: &str, token: Option<&str>) -> String {
    use base64::Engine as _;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    let user = token.map_or_else(|| serde_json::json!({}), |token| serde_json::json!({"token": token}));
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority-data": authority}}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    })
    .to_string()
}

/// The path of a recorded answer of a real server.
pub fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded").join(name)
}
