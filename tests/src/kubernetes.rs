//! A real Kubernetes API server and its etcd, on free ports of the loopback interface, with objects in them.
//!
//! The agent that follows it is the service account of `deploy/`, with its rights and no others. Objects are written as
//! controllers write them, the status by itself; what the server makes of them is read back.

mod assets;
mod files;
mod write;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::api::{Api, Client, Method};
use crate::apiserver::{Resource, kubeconfig};
use crate::deadline;
use crate::manifest;
use crate::process::Process;

pub use assets::{Assets, announce_skips};
pub use write::apply;

/// How long either program may take to come up: seconds, on a machine that does nothing else.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// Cluster addresses: those of the tests are within, and not the first, which the server's own Service takes.
const CLUSTER_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";

/// The account of `deploy/rbac.yaml`.
const ACCOUNT: &str = "/api/v1/namespaces/kube-system/serviceaccounts/lb-agent";

/// The server. It goes away with its guard.
pub struct Kubernetes {
    // In the order in which they must end.
    apiserver: Option<Process>,
    etcd: Process,
    /// Who may do everything.
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
        let folder = tempfile::tempdir().expect("a temporary folder");
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

    /// As it was after the start: nothing but the server's own Service, the rights of `deploy/`, no further flags.
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
    }

    /// Comes back with further flags.
    #[track_caller]
    pub fn resume_with(&mut self, flags: &[&str]) {
        assert!(self.apiserver.is_none(), "it runs with other flags");
        self.flags = flags.iter().map(ToString::to_string).collect();
        self.resume();
    }

    /// Deletes an object behind the API server's back: what another server of the cluster does while this one is away.
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

    /// Makes etcd forget how it came to the present state.
    #[track_caller]
    pub fn compact(&self) {
        // A write of nothing: positions that are as new as the last real write are too old as well.
        let written = self.etcd("put", &json!({"key": base64("/lb-tests"), "value": base64("")}));
        self.etcd("compaction", &json!({"revision": written["header"]["revision"], "physical": true}));
    }

    #[track_caller]
    fn etcd(&self, what: &str, request: &Value) -> Value {
        self.etcd_client.send(&Method::POST, &format!("/v3/kv/{what}"), request).good()
    }

    /// The rights of `deploy/`, and a kubeconfig of who has them.
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

    fn command(&self) -> Command {
        let mut command = Command::new(self.assets.apiserver());
        command
            .arg(format!("--etcd-servers={}", self.etcd_url))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={}", self.address.port()))
            // Endpoints of its own Service cannot be loopback addresses.
            .arg("--endpoint-reconciler-type=none")
            .arg(format!("--service-cluster-ip-range={CLUSTER_RANGES}"))
            .args(["--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc"])
            .args(self.files.flags())
            .args(&self.flags);
        command
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

    /// By a crash.
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
        let mut apiserver = Process::spawn("kube-apiserver", self.folder.path(), &mut self.command());
        // Only then are there rights and the namespace of the objects.
        apiserver.wait_until_up_for(START_PATIENCE, || {
            let is_good = |path| self.admin.ask(&Method::GET, path, None).is_ok_and(|answer| answer.is_good());
            is_good("/readyz") && is_good("/api/v1/namespaces/default")
        });
        self.apiserver = Some(apiserver);
    }
}

fn start_etcd(assets: &Assets, folder: &Path, url: &str, peer_url: &str) -> Process {
    let mut command = Command::new(assets.etcd());
    command.args(["--name=default", "--log-level=warn", "--data-dir"]).arg(folder.join("etcd"));
    command.args(["--listen-client-urls", url, "--advertise-client-urls", url]);
    command.args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]);
    command.arg(format!("--initial-cluster=default={peer_url}"));
    Process::spawn("etcd", folder, &mut command)
}

/// Ports that nobody has; somebody may take one before it is used, and then the start fails.
fn free_ports() -> [u16; 3] {
    let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports are left");
    let listeners = [listener(), listener(), listener()];
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}
