//! A real Kubernetes API server and its etcd, on free ports of the loopback interface, with the tests' objects.
//!
//! The agent that follows it is the service account of `deploy/`, with its rights and no others. Objects are written as
//! controllers write them, with the status in a request of its own. The server's version of an object is read back.

mod assets;
mod files;
pub mod trials;
mod write;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::api::{Api, Client, Method};
use crate::apiserver::{Resource, kubeconfig};
use crate::process::Process;
use crate::{deadline, leftovers, manifest};

pub use assets::Assets;
pub use write::apply;

/// How long either program may take to start: seconds on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// Cluster addresses: the tests' addresses are within, but not the first, which the server's own Service has.
const CLUSTER_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";

/// The first port that the kernel gives to connections (the default of `ip_local_port_range`).
const EPHEMERAL_MIN: u16 = 32_768;

/// The account of `deploy/rbac.yaml`.
const ACCOUNT: &str = "/api/v1/namespaces/kube-system/serviceaccounts/lb-agent";

/// The server. It ends when this guard is dropped.
pub struct Kubernetes {
    // In the order in which they must end.
    apiserver: Option<Process>,
    etcd: Process,
    /// A user with all rights.
    pub admin: Client,
    etcd_client: Client,
    assets: Assets,
    files: files::Files,
    address: SocketAddr,
    etcd_url: String,
    /// Further flags of the API server.
    flags: Vec<String>,
    folder: tempfile::TempDir,
}

impl Kubernetes {
    /// Starts both in the network namespace of the calling thread.
    #[track_caller]
    pub fn start(assets: &Assets) -> Self {
        leftovers::sweep();
        let folder = tempfile::Builder::new().prefix(&leftovers::name("kubernetes", "")).tempdir();
        let folder = folder.expect("a temporary folder");
        let [port, client_port, peer_port] = free_ports();
        let url = |port| format!("http://127.0.0.1:{port}");
        let etcd_url = url(client_port);
        let etcd = start_etcd(assets, folder.path(), &etcd_url, &url(peer_port));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let files = files::Files::write(folder.path());
        let admin = Client::of_kubeconfig(&kubeconfig(
            &format!("https://{address}"),
            files.authority(),
            Some(files::ADMIN_TOKEN),
        ));
        let mut server = Self {
            apiserver: None,
            etcd,
            admin,
            etcd_client: Client::of_url(&etcd_url),
            assets: assets.clone(),
            files,
            address,
            etcd_url,
            flags: Vec::new(),
            folder,
        };
        server.etcd.wait_until_up_for(START_PATIENCE, || {
            server.etcd_client.ask(&Method::GET, "/version", None).is_ok_and(|answer| answer.is_good())
        });
        server.resume();
        server.grant();
        server
    }

    /// The versions of API server and etcd.
    pub fn versions(&self) -> (String, String) {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let (server, etcd) = (self.admin.get("/version").good(), self.etcd_client.get("/version").good());
        (text(&server["gitVersion"]), text(&etcd["etcdserver"]))
    }

    /// A client with the agent's rights.
    #[track_caller]
    pub fn agent(&self) -> Client {
        Client::of_kubeconfig(&std::fs::read_to_string(self.kubeconfig()).expect("it was written"))
    }

    /// Restores the state after the start: only the server's own Service, the rights of `deploy/`, no further flags.
    #[track_caller]
    pub fn clean(&mut self) {
        if !self.flags.is_empty() {
            self.stop();
            self.flags.clear();
        }
        self.resume();
        self.grant();
        for resource in Resource::ALL {
            for object in write::list(&self.admin, resource) {
                let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
                let is_its_own = resource == Resource::Services && text("name") == "kubernetes";
                if !is_its_own {
                    self.delete(resource, text("namespace"), text("name"));
                }
            }
        }
        self.free_addresses();
    }

    /// A Service that was deleted in etcd still owns its cluster addresses. They would not be free for minutes.
    #[track_caller]
    fn free_addresses(&self) {
        const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
        let list = self.admin.get(ADDRESSES).good();
        for address in list["items"].as_array().into_iter().flatten() {
            if address["spec"]["parentRef"]["name"] != "kubernetes" {
                let path = format!("{ADDRESSES}/{}", address["metadata"]["name"].as_str().unwrap_or_default());
                let answer = self.admin.ask(&Method::DELETE, &path, None).expect("an answer");
                // The server may delete it, together with its Service.
                assert!(answer.is_good() || answer.status == 404, "{path}: {}", answer.body);
            }
        }
    }

    /// Starts the API server again, with further flags.
    #[track_caller]
    pub fn resume_with(&mut self, flags: &[&str]) {
        assert!(self.apiserver.is_none(), "it runs with other flags");
        self.flags = flags.iter().map(ToString::to_string).collect();
        self.resume();
    }

    /// Deletes an object in etcd, as another API server of the cluster may while this one is stopped.
    #[track_caller]
    pub fn delete_in_etcd(&self, resource: Resource, namespace: &str, name: &str) {
        let folder = match resource {
            Resource::Services => "services/specs",
            Resource::EndpointSlices => "endpointslices",
            Resource::Nodes => "minions",
            Resource::ServiceCidrs => "servicecidrs",
        };
        let key = format!("/registry/{folder}/{}", resource.key(namespace, name));
        let done = self.etcd("deleterange", &json!({"key": base64(&key)}));
        assert_eq!(done["deleted"], "1", "{key}: {done}");
    }

    /// Compacts etcd: its history before the present state is gone.
    #[track_caller]
    pub fn compact(&self) {
        // An unrelated write: so even the position of the last real write is too old.
        let written = self.etcd("put", &json!({"key": base64("/lb-tests"), "value": base64("")}));
        self.etcd("compaction", &json!({"revision": written["header"]["revision"], "physical": true}));
    }

    #[track_caller]
    fn etcd(&self, what: &str, request: &Value) -> Value {
        self.etcd_client.send(&Method::POST, &format!("/v3/kv/{what}"), request).good()
    }

    /// Applies the rights of `deploy/`, and writes a kubeconfig of the service account.
    #[track_caller]
    pub fn grant(&self) {
        for object in manifest::deployed("rbac.yaml") {
            write::apply(&self.admin, &object, "").good();
        }
        let wish = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let token = self.admin.send(&Method::POST, &format!("{ACCOUNT}/token"), &wish).good();
        let token = token["status"]["token"].as_str().expect("a token");
        let text = kubeconfig(&format!("https://{}", self.address), self.files.authority(), Some(token));
        let hidden = self.folder.path().join(".kubeconfig.new");
        std::fs::write(&hidden, text).expect("the folder is writable");
        std::fs::rename(&hidden, self.kubeconfig()).expect("the folder is writable");
        // The server reads its own objects with a delay.
        let agent = self.agent();
        deadline::until_true("the rights are in force", || {
            Resource::ALL.iter().all(|resource| agent.get(resource.path()).is_good())
        });
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--etcd-servers={}", self.etcd_url),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--secure-port={}", self.address.port()),
            // Endpoints of its own Service cannot be loopback addresses.
            "--endpoint-reconciler-type=none".into(),
            format!("--service-cluster-ip-range={CLUSTER_RANGES}"),
            "--authorization-mode=RBAC".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
        ];
        arguments.extend(self.files.flags());
        arguments.extend_from_slice(&self.flags);
        arguments
    }
}

impl Api for Kubernetes {
    fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    #[track_caller]
    fn put(&self, object: Value) {
        write::put(&self.admin, &object);
    }

    #[track_caller]
    fn delete(&self, resource: Resource, namespace: &str, name: &str) -> bool {
        write::delete(&self.admin, resource, namespace, name)
    }

    #[track_caller]
    fn objects(&self) -> Vec<Value> {
        Resource::ALL.into_iter().flat_map(|resource| write::list(&self.admin, resource)).collect()
    }

    /// Ends the API server as a crash would.
    fn stop(&mut self) {
        if let Some(mut apiserver) = self.apiserver.take() {
            apiserver.crash();
        }
    }

    #[track_caller]
    fn resume(&mut self) {
        if self.apiserver.is_some() {
            return;
        }
        let program = self.assets.apiserver();
        let mut apiserver = Process::spawn_bound("kube-apiserver", self.folder.path(), &program, &self.arguments());
        // Only then do the rights and the namespace of the objects exist.
        apiserver.wait_until_up_for(START_PATIENCE, || {
            let is_good = |path| self.admin.ask(&Method::GET, path, None).is_ok_and(|answer| answer.is_good());
            is_good("/readyz") && is_good("/api/v1/namespaces/default")
        });
        self.apiserver = Some(apiserver);
    }
}

fn start_etcd(assets: &Assets, folder: &Path, url: &str, peer_url: &str) -> Process {
    let arguments = [
        "--name=default".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={url}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=default={peer_url}"),
    ];
    Process::spawn_bound("etcd", folder, &assets.etcd(), &arguments)
}

/// Free ports. If another program takes one before its use, the start fails. They are below the ports that the kernel
/// gives to connections: otherwise a connection attempted while the server is stopped could connect to itself, and the
/// server could not start again.
fn free_ports() -> [u16; 3] {
    // Processes that start together begin at different ports.
    let first = 10_000 + (std::process::id() % 1_000) as u16 * 20;
    let mut free = (first..EPHEMERAL_MIN).filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok());
    let listeners = [(); 3].map(|()| free.next().expect("ports are left"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}
