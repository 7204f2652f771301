//! The setting of the demo: the lab, nginx in two pods, haproxy outside, the agent, and its manifests.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::Step;
use crate::address::{CLUSTER, FAR_LINK, Family, UPLINK, vip};
use crate::agent::Agent;
use crate::haproxy::{Announce, Haproxy, Listener};
use crate::lab::{Lab, Setup};
use crate::manifest::{Folder, NODE, Service, ingress};
use crate::nginx::{Nginx, PLAIN_PORT, PROXY_PORT, Request};
use crate::process::{Finished, Process, finish};

pub const FAMILY: Family = Family::V4;

/// curl's time limit.
const CURL_SECS: &str = "5";
/// A longer one, for curl that ignores its own.
pub const CURL_LIMIT: Duration = Duration::from_secs(10);

/// A Service of the demo.
#[derive(Clone, Copy)]
pub struct Shop {
    /// Its name, also of its listener at the balancer.
    pub name: &'static str,
    pub address: u8,
    pub port: u16,
    pub backend_port: u16,
}

/// Its backends require a PROXY header.
pub const SHOP: Shop = Shop { name: "shop", address: 10, port: 80, backend_port: PROXY_PORT };
/// Its backends take plain HTTP.
pub const PLAIN: Shop = Shop { name: "plain", address: 20, port: 80, backend_port: PLAIN_PORT };
/// Two Services that share an address.
pub const WEB: Shop = Shop { name: "web", address: 30, port: 80, backend_port: PLAIN_PORT };
pub const LOGIN: Shop = Shop { name: "login", address: 30, port: 8443, backend_port: PROXY_PORT };
/// Only the balancer has this listener; no such Service exists.
pub const UNSERVED: Shop = Shop { name: "unserved", address: 30, port: 9999, backend_port: PLAIN_PORT };

const ALL: [Shop; 5] = [SHOP, PLAIN, WEB, LOGIN, UNSERVED];

impl Shop {
    pub fn at(&self) -> SocketAddr {
        vip(FAMILY, self.address, self.port)
    }
}

/// All programs and the lab. Fields are dropped in this order: programs before the namespaces in which they run.
pub struct Stage {
    pub agent: Agent,
    pub haproxy: Haproxy,
    pub nginx: [Nginx; 2],
    manifests: Folder,
    lab: Lab,
}

impl Stage {
    /// Builds the lab and starts all programs. When this returns, the agent has programmed its first state.
    pub fn set(sabotage: Option<Step>) -> Self {
        let lab = Setup::new("demo").pods(&["client", "a", "b"]).build();
        let nginx = ["a", "b"].map(|name| Nginx::start(&lab.pod(name).netns, &format!("nginx-{name}"), lab.folder()));
        let backends = ["a", "b"].map(|name| lab.pod_address(name, FAMILY));
        let haproxy = Haproxy::start(&lab.external, lab.folder(), &ALL.map(|shop| listener(&shop, backends)));
        let manifests =
            Folder::create(lab.folder().join("manifests"), &[UPLINK, FAR_LINK].map(|link| link.host(FAMILY, 2)));
        let agent = Agent::new(&lab.node, lab.folder(), manifests.path());
        let mut stage = Self { agent, haproxy, nginx, manifests, lab };
        let mode = |step, mode, other| if sabotage == Some(step) { other } else { mode };
        stage.publish(&SHOP, mode(Step::A, "VIP", "Proxy"));
        stage.publish(&PLAIN, mode(Step::D, "VIP", "Proxy"));
        stage.publish(&WEB, mode(Step::E, "VIP", "Proxy"));
        stage.publish(&LOGIN, mode(Step::E, "Proxy", "VIP"));
        stage.agent.start();
        stage
    }

    /// Writes the manifest of a Service with its status, in place of the old one.
    pub fn publish(&self, shop: &Shop, mode: &str) {
        self.publish_annotated(shop, mode, &[]);
    }

    /// As [`Stage::publish`], with annotations.
    pub fn publish_annotated(&self, shop: &Shop, mode: &str, annotations: &[(&str, &str)]) {
        let cluster = CLUSTER.host(FAMILY, shop.address + u8::from(shop.port != 80));
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let service = Service::new(shop.name)
            .metadata("annotations", json!(annotations))
            .cluster_ips(&[cluster])
            .port("http", "TCP", shop.port, shop.backend_port)
            .ingress(ingress(shop.at().ip(), mode));
        let slice = self
            .backends()
            .into_iter()
            .fold(service.slice("0").port("http", "TCP", shop.backend_port), |slice, address| {
                slice.endpoint(address, NODE)
            });
        self.manifests.write(shop.name, &[service.object(), slice.object()]);
    }

    fn backends(&self) -> [IpAddr; 2] {
        ["a", "b"].map(|name| self.lab.pod_address(name, FAMILY))
    }

    /// The client pod's address.
    pub fn client(&self) -> IpAddr {
        self.lab.pod_address("client", FAMILY)
    }

    /// The balancer's own address, as its backends see it.
    pub fn balancer() -> IpAddr {
        UPLINK.host(FAMILY, 1)
    }

    /// Runs curl in the client pod to its end.
    pub fn curl(&self, shop: &Shop) -> Finished {
        finish(&self.lab.pod("client").netns, &mut curl(shop, "/"), CURL_LIMIT)
    }

    /// Starts a slow download in the client pod that sends the PROXY header itself, as a balancer would.
    pub fn download(&self, shop: &Shop) -> Download {
        let file = self.lab.folder().join("download");
        let mut command = curl(shop, "/slow");
        command.args(["--haproxy-protocol", "--max-time", "30", "--output"]).arg(&file);
        let process =
            crate::process::Process::start(&self.lab.pod("client").netns, "download", self.lab.folder(), &mut command);
        Download { process, file }
    }

    /// How many requests each nginx has logged so far.
    pub fn logged(&self) -> [usize; 2] {
        self.nginx.each_ref().map(|nginx| nginx.requests().len())
    }

    /// The requests logged since the counts of [`Stage::logged`].
    pub fn logged_since(&self, before: [usize; 2]) -> Vec<Request> {
        let both = self.nginx.iter().zip(before);
        both.flat_map(|(nginx, before)| nginx.requests().split_off(before)).collect()
    }

    /// A map of the agent, as bpftool prints it.
    pub fn dump(&self, map: &str) -> Finished {
        let mut command = Command::new("bpftool");
        command.args(["map", "dump", "pinned"]).arg(self.agent.maps().join(map));
        finish(&self.lab.node, &mut command, Duration::from_secs(10))
    }
}

/// A download under way.
pub struct Download {
    pub process: Process,
    file: PathBuf,
}

impl Download {
    /// Bytes that have arrived.
    pub fn bytes(&self) -> usize {
        fs::metadata(&self.file).map_or(0, |file| file.len() as usize)
    }
}

pub fn curl(shop: &Shop, path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", CURL_SECS]);
    command.arg(format!("http://{}{path}", shop.at()));
    command
}

fn listener(shop: &Shop, backends: [IpAddr; 2]) -> Listener {
    let announce = if shop.backend_port == PROXY_PORT { Announce::ProxyHeader } else { Announce::Nothing };
    let backends = backends.map(|address| SocketAddr::new(address, shop.backend_port)).to_vec();
    Listener { name: shop.name, address: shop.at(), backends, announce }
}
