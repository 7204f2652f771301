//! A real kube-proxy in nftables mode on a node of the measurements. It follows an API server of the tests on that
//! node.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lb_common::addr::Family;
use lb_tests::address::UPLINK;
use lb_tests::apiserver::{ApiServer, Store};
use lb_tests::lab::Lab;
use lb_tests::manifest::{self, NODE};
use lb_tests::process::{Process, finish};
use serde_json::{Value, json};

use crate::rules::{CLUSTER_CIDR, SERVICE_CIDR, Service, TABLE};

/// How long kube-proxy may take to write its rules for many Services.
const START_PATIENCE: Duration = Duration::from_mins(3);

/// How long a listing of its rules may take.
const LIST_PATIENCE: Duration = Duration::from_mins(1);

/// kube-proxy and its API server. Both end with this guard; the rules are removed with the node's namespace.
pub struct KubeProxy {
    _process: Process,
    _server: ApiServer,
}

impl KubeProxy {
    /// Starts kube-proxy, and returns when its rules for all Services exist.
    #[track_caller]
    pub fn start(program: &Path, lab: &Lab, services: &[Service]) -> Self {
        let mut store = Store::default();
        for object in objects(services) {
            store.put(object);
        }
        let server = lab.node.inside(|| ApiServer::serving(store));
        let mut command = Command::new(program);
        command.arg("--kubeconfig").arg(server.kubeconfig());
        command.arg(format!("--hostname-override={NODE}")).arg(format!("--cluster-cidr={CLUSTER_CIDR}"));
        command.args(["--proxy-mode=nftables", "--detect-local-mode=ClusterCIDR", "--nodeport-addresses=primary"]);
        // Parameters of the whole machine stay unchanged.
        command.args(["--conntrack-max-per-core=0", "--conntrack-min=0", "--oom-score-adj=0"]);
        command.args(["--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"]);
        command.args(["--healthz-bind-address=127.0.0.1:10256", "--metrics-bind-address=127.0.0.1:10249"]);
        let mut process = Process::start(&lab.node, "kube-proxy", lab.folder(), &mut command);
        process.wait_until_up_for(START_PATIENCE, || dispatched(lab) == services.len());
        Self { _process: process, _server: server }
    }
}

/// The number of Services that have a chain in the verdict map.
fn dispatched(lab: &Lab) -> usize {
    list(lab, &["map", "ip", "kube-proxy", "service-ips"]).matches(": goto ").count()
}

/// The table as nft prints it.
pub fn listing(lab: &Lab) -> String {
    let table: Vec<&str> = ["table"].into_iter().chain(TABLE.split(' ')).collect();
    list(lab, &table)
}

/// A listing; empty if the object does not exist yet.
fn list(lab: &Lab, what: &[&str]) -> String {
    finish(&lab.node, Command::new("nft").args(["--numeric-priority", "list"]).args(what), LIST_PATIENCE).stdout
}

/// Services of type ClusterIP, the most common type.
fn objects(services: &[Service]) -> Vec<Value> {
    let mut objects = vec![
        manifest::node(NODE, &[UPLINK.host(Family::V4, 2)]),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [SERVICE_CIDR]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }),
    ];
    for (number, Service { vip, endpoints }) in services.iter().enumerate() {
        let service = manifest::Service::new(&format!("service-{number}"));
        let slice = endpoints.iter().fold(service.slice("1").port("http", "TCP", endpoints[0].port()), |slice, to| {
            slice.endpoint(IpAddr::V4(*to.ip()), NODE)
        });
        let service =
            service.cluster_ips(&[IpAddr::V4(*vip.ip())]).port("http", "TCP", vip.port(), endpoints[0].port());
        objects.extend([service.spec("type", json!("ClusterIP")).object(), slice.object()]);
    }
    objects
}
