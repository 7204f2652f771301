//! A lab with an agent and a server at every address: the start of most tests of the agent.
//!
//! Its pods are `client`, `a` and `b`. Pods answer on [`TARGET`] and [`OTHER_TARGET`], the balancer on its ports, all
//! with their names. Objects that [`Scene::apply`] writes are in force when it returns.

pub mod outside;
mod probe;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::address::{BALANCERS, CLUSTER, FAMILIES, FAR_LINK, Family, UPLINK, family};
use crate::agent::Agent;
use crate::api::Api;
use crate::apiserver::ApiServer;
use crate::deadline;
use crate::dial::Outcome;
use crate::kubernetes::{Assets, Kubernetes};
use crate::lab::{Lab, Setup};
use crate::leftovers;
use crate::manifest::{Folder, NODE, Service, Slice, ingress, node, suffix};
use crate::marker;
use crate::serve::Server;

pub use crate::serve::TARGET;
pub use probe::Probe;
use probe::Tally;

/// A second port that every pod serves.
pub const OTHER_TARGET: u16 = 8000;
/// The balancer's ports, TCP and UDP.
const BALANCER_PORTS: [u16; 5] = [53, 80, 443, 8080, 9999];
/// The balancer's name in answers.
pub const BALANCER: &str = "balancer";

/// Why `explain` is not asked: about the marker of a generation, for example.
pub const FINDING_OUT: &str = "the dial finds out whether a change is in force";

/// Fields are dropped in this order: programs before the namespaces in which they run.
pub struct Scene {
    pub agent: Agent,
    pub manifests: Folder,
    /// The source, if there is one; the folder is then unused.
    api: Option<Box<dyn Api>>,
    generation: AtomicU16,
    servers: Vec<Server>,
    tally: Tally,
    pub lab: Lab,
}

impl Scene {
    /// The usual pods and a running agent.
    #[track_caller]
    pub fn start(setup: Setup) -> Self {
        Self::with_flags(setup, &[])
    }

    /// As [`Scene::start`], with flags of `lb-agent run`.
    #[track_caller]
    pub fn with_flags(setup: Setup, flags: &[&str]) -> Self {
        let mut scene = Self::without_agent(setup, flags);
        scene.agent.start();
        scene
    }

    /// As [`Scene::with_flags`], with the tests' own API server on the node as the agent's source.
    #[track_caller]
    pub fn on_api(setup: Setup, flags: &[&str]) -> Self {
        Self::following(setup, flags, || Box::new(ApiServer::start()))
    }

    /// As [`Scene::with_flags`], with a real API server on the node as the agent's source, and the rights of `deploy/`.
    #[track_caller]
    pub fn on_kubernetes(setup: Setup, flags: &[&str], assets: &Assets) -> Self {
        Self::following(setup, flags, || Box::new(Kubernetes::start(assets)))
    }

    #[track_caller]
    fn following(setup: Setup, flags: &[&str], start: impl FnOnce() -> Box<dyn Api> + Send) -> Self {
        let mut scene = Self::without_agent(setup, flags);
        let server = scene.lab.node.inside(start);
        server.put(node(NODE, &node_addresses()));
        let agent = Agent::new(&scene.lab.node, scene.lab.folder(), scene.manifests.path()).flags(flags);
        scene.agent = agent.following(server.kubeconfig());
        scene.api = Some(server);
        scene.agent.start();
        scene
    }

    /// The API server of [`Scene::on_api`].
    #[track_caller]
    pub fn api(&self) -> &dyn Api {
        &**self.api.as_ref().expect("the scene has one")
    }

    /// Ends the API server as a crash would.
    #[track_caller]
    pub fn stop_api(&mut self) {
        self.api.as_mut().expect("the scene has one").stop();
    }

    /// Starts the API server again.
    #[track_caller]
    pub fn resume_api(&mut self) {
        let server = self.api.as_mut().expect("the scene has one");
        self.lab.node.inside(|| server.resume());
    }

    /// As [`Scene::with_flags`], but the agent is not started yet.
    #[track_caller]
    pub fn without_agent(setup: Setup, flags: &[&str]) -> Self {
        let lab = setup.pods(&["client", "a", "b"]).build();
        let mut servers = Vec::new();
        for pod in ["client", "a", "b"] {
            servers.extend(Server::on_ports(&lab.pod(pod).netns, pod, &[TARGET, OTHER_TARGET]));
        }
        servers.extend(Server::on_ports(&lab.external, BALANCER, &BALANCER_PORTS));
        let manifests = Folder::create(lab.folder().join("manifests"), &node_addresses());
        let agent = Agent::new(&lab.node, lab.folder(), manifests.path()).flags(flags);
        Self {
            agent,
            manifests,
            api: None,
            generation: AtomicU16::new(marker::FIRST_PORT),
            servers,
            tally: Tally::default(),
            lab,
        }
    }

    /// Adds a pod that answers as the others do.
    #[track_caller]
    pub fn add_pod(&mut self, name: &'static str) {
        self.lab.add_pod(name);
        self.servers.extend(Server::on_ports(&self.lab.pod(name).netns, name, &[TARGET, OTHER_TARGET]));
    }

    /// Replaces the objects of one file (on an API server: creates or replaces them), and returns when new connections
    /// see them.
    ///
    /// The file also contains a marker: a Service with a port of this generation only, which pod `a` answers. Its IPv6
    /// frontend is the last that an apply adds: once the marker is answered, the objects written with it are in force.
    /// Rows that are no longer wanted are deleted a moment later.
    #[track_caller]
    pub fn apply(&self, file: &str, objects: &[Value]) {
        let port = self.generation.fetch_add(1, Ordering::SeqCst);
        let mut all = objects.to_vec();
        // An API server delivers each kind separately: a marker with a new name needs the last object of both kinds.
        let name = if self.api.is_some() { format!("{file}-{port}") } else { file.to_owned() };
        let endpoints = FAMILIES.map(|family| self.lab.pod_address("a", family));
        all.extend(marker::objects(&name, port, endpoints));
        match &self.api {
            Some(server) => all.into_iter().for_each(|object| server.put(object)),
            None => self.manifests.write(file, &all),
        }
        for family in [Family::V6, Family::V4] {
            let at = marker::at(family, port);
            let mut last = None;
            let seen = deadline::within(deadline::PATIENCE, || {
                let outcome = self.dial().unasked(FINDING_OUT).tcp(at);
                let is_seen = outcome.who() == Some("a");
                last = Some(outcome);
                is_seen.then_some(())
            });
            assert!(seen.is_some(), "{file} is not in force: {at}: {last:?}");
        }
    }

    /// A Service on port 80 (TCP and UDP) of both families, with the given entries.
    pub fn service(&self, name: &str, number: u8, entries: &[Value]) -> Service {
        let service = Service::new(name)
            .cluster_ips(&FAMILIES.map(|family| CLUSTER.host(family, number)))
            .port("web", "TCP", 80, TARGET)
            .port("dns", "UDP", 80, TARGET);
        entries.iter().cloned().fold(service, Service::ingress)
    }

    /// Slices, one per family, with pods of this node as ready endpoints of a [`Scene::service`].
    pub fn slices(&self, service: &Service, pods: &[&str]) -> Vec<Value> {
        FAMILIES.map(|family| self.slice(service, family, pods).object()).to_vec()
    }

    /// The slice of one family.
    pub fn slice(&self, service: &Service, family: Family, pods: &[&str]) -> Slice {
        let slice = empty_slice(service, family);
        pods.iter().fold(slice, |slice, pod| slice.endpoint(self.lab.pod_address(pod, family), NODE))
    }

    /// Writes a Service in one mode, in both families, with pods as endpoints.
    #[track_caller]
    pub fn publish(&self, name: &str, number: u8, mode: &str, pods: &[&str]) {
        let entries = FAMILIES.map(|family| ingress(BALANCERS.host(family, number), mode));
        let service = self.service(name, number, &entries);
        let mut objects = vec![service.object()];
        objects.extend(self.slices(&service, pods));
        self.apply(name, &objects);
    }

    /// Dials from the client pod until all of `wanted` have answered, or very often. Panics if another server answers,
    /// or one of `wanted` never does.
    #[track_caller]
    pub fn expect_all(&self, to: SocketAddr, wanted: &[&str]) {
        let mut heard = BTreeSet::new();
        for _ in 0..64 * wanted.len() {
            match self.dial().tcp(to) {
                Outcome::Answered(answer) if wanted.contains(&answer.who.as_str()) => heard.insert(answer.who),
                other => panic!("{to} is to be answered by {wanted:?}: {other:?}"),
            };
            if heard.len() == wanted.len() {
                return;
            }
        }
        panic!("{to} is to be answered by {wanted:?}, but only {heard:?} did");
    }

    /// Prints counters and captures of a failed test.
    fn tell(&self) {
        let counters = self.agent.ask(&["show", "counters"]);
        eprintln!("--- counters of the agent:\n{}{}", counters.stdout, counters.stderr);
        for netns in self.lab.namespaces() {
            eprintln!("--- {} counted:\n{}", netns.name(), netns.losses());
        }
    }

    /// The client pod's address of the same family as `like`.
    pub fn client_address(&self, like: IpAddr) -> IpAddr {
        self.lab.pod_address("client", family(like))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() && !leftovers::is_interrupted() {
            self.tell();
        }
        self.servers.iter().for_each(Server::tell_to_stop);
        if !std::thread::panicking() {
            self.tally.check();
        }
    }
}

/// A slice of a [`Scene::service`] without endpoints.
pub fn empty_slice(service: &Service, family: Family) -> Slice {
    service.slice(suffix(family)).address_type(family).port("web", "TCP", TARGET).port("dns", "UDP", TARGET)
}

/// All addresses of the node, on both uplinks.
pub fn node_addresses() -> Vec<IpAddr> {
    [UPLINK, FAR_LINK].into_iter().flat_map(|link| FAMILIES.map(|family| link.host(family, 2))).collect()
}
