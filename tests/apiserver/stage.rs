//! The stage: the source in a runtime of its own, a controller, and tables in memory that assert their invariants.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lb_agent::controller::{Controller, Outcome, Reclaim};
use lb_agent::dataplane::fake::{FakeDataplane, assert_no_dangling_pool};
use lb_agent::dataplane::{Sizes, Tables};
use lb_agent::desired::{
    ExternalIps, Forwarding, HeadersFrom, HealthCheckPorts, NodePortAddresses, Policy, Selection, Services,
    TableLimits, VendorAnnotations, annotation_keys,
};
use lb_agent::model::{Change, Kind};
use lb_agent::render;
use lb_agent::source::claim::Claim;
use lb_agent::source::connection::{Connection, Connections, Phase};
use lb_agent::source::dir::Folder;
use lb_agent::source::kube::{KubeSource, Pace, Settings};
use lb_common::table::Mode;
use lb_tests::api::Api;
use lb_tests::deadline;
use lb_tests::manifest::{self, NODE, OTHER_NODE, Service, Slice};
use lb_tests::script::normal::normal;
use serde_json::Value;
use tokio::sync::mpsc;

/// Fast enough for tests; otherwise like the agent's.
pub const PACE: Pace = Pace {
    page_size: 3,
    patience: Duration::from_secs(20),
    watch: Duration::from_mins(2),
    retry_min: Duration::from_millis(5),
    retry_max: Duration::from_millis(50),
};

/// An agent that follows the server: source and controller without the process around them.
pub struct Stage {
    pub dataplane: FakeDataplane,
    controller: Controller,
    source: Running,
    pub settings: Settings,
    /// Frontends that must not be lost (`192.0.2.1:80`).
    steady: Arc<Mutex<Vec<String>>>,
}

/// The running source; it ends with this guard.
struct Running {
    batches: mpsc::Receiver<Vec<Change>>,
    connections: Connections,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Running {
    #[track_caller]
    fn start(settings: &Settings) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let source = runtime.block_on(KubeSource::open(settings)).expect("the kubeconfig is good");
        let source = source.keeping(annotation_keys(&policy()));
        let connections = source.connections();
        let (sender, batches) = mpsc::channel(16);
        runtime.spawn(source.watch(sender));
        Self { batches, connections, runtime: Some(runtime) }
    }
}

impl Stage {
    /// An agent on empty tables.
    #[track_caller]
    pub fn follow(server: &dyn Api) -> Self {
        Self::with(settings(server))
    }

    /// An agent that has programmed two Services, `steady` and `other`. The first must never stop working.
    #[track_caller]
    pub fn with_two(server: &dyn Api) -> Self {
        put(server, service("steady", 1));
        put(server, service("other", 2));
        let mut stage = Self::follow(server);
        stage.until_in_step_with(server);
        stage.keep(&["192.0.2.1:80"]);
        stage
    }

    #[track_caller]
    pub fn with(settings: Settings) -> Self {
        let steady = Arc::<Mutex<Vec<String>>>::default();
        let watched = Arc::clone(&steady);
        let mut dataplane = FakeDataplane::default();
        dataplane.observe(move |tables| {
            assert_no_dangling_pool(tables);
            assert_steady(tables, &watched.lock().expect("no panic holds it"));
        });
        let controller = adopt(&mut dataplane);
        let source = Running::start(&settings);
        Self { dataplane, controller, source, settings, steady }
    }

    /// Kills the agent, and starts it again on its tables.
    #[track_caller]
    pub fn restart(&mut self) {
        self.controller = adopt(&mut self.dataplane);
        self.source = Running::start(&self.settings);
    }

    /// From now on it is a failure if one of these loses its backends, even between two rows.
    pub fn keep(&self, frontends: &[&str]) {
        let mut steady = self.steady.lock().expect("no panic holds it");
        steady.extend(frontends.iter().map(|text| (*text).to_owned()));
    }

    /// From now on these may be deleted.
    #[allow(dead_code, reason = "where a real server is followed")]
    pub fn forget(&self, frontends: &[&str]) {
        let mut steady = self.steady.lock().expect("no panic holds it");
        steady.retain(|name| !frontends.contains(&name.as_str()));
    }

    /// Takes the changes that have arrived, and programs them. Returns whether the first lists are complete.
    pub fn turn(&mut self) -> bool {
        while let Ok(batch) = self.source.batches.try_recv() {
            self.controller.change(batch);
        }
        // As the agent does: only the changed part if that suffices. Draining frontends are deleted at once.
        let mut step = self.controller.step(&mut self.dataplane, Reclaim::Later);
        assert!(step.errors.is_empty(), "{:?}", step.errors);
        if step.draining > 0 {
            step = self.controller.step(&mut self.dataplane, Reclaim::Now);
            assert!(step.errors.is_empty(), "{:?}", step.errors);
        }
        step.outcome != Outcome::NotListed
    }

    /// Turns until `is_so`.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let found = deadline::within(deadline::PATIENCE, || {
            self.turn();
            is_so(self).then_some(())
        });
        assert!(found.is_some(), "in vain: {what}; {}\n{:#?}", self.text(), self.connections());
    }

    /// Turns until the tables equal those of the server's objects.
    #[track_caller]
    pub fn until_in_step_with(&mut self, server: &dyn Api) {
        let expected = of_objects(&server.objects());
        // The text shows no members: those of a Proxy frontend may be written after everything that it shows.
        let wanted = normal(&expected);
        let found = deadline::within(deadline::PATIENCE, || {
            (self.turn() && normal(&self.dataplane.tables) == wanted).then_some(())
        });
        assert!(
            found.is_some(),
            "in vain: the tables are what the objects ask for\nexpected:\n{wanted:#?}\nfound:\n{:#?}\n{:#?}",
            normal(&self.dataplane.tables),
            self.connections()
        );
    }

    /// Turns until the connection to the server has failed.
    #[track_caller]
    pub fn until_away(&mut self) {
        self.until("all kinds are tried again", |stage| {
            stage.connections().iter().all(|connection| connection.phase == Phase::Retrying)
        });
    }

    /// The tables as readable text.
    pub fn text(&self) -> String {
        text_of(&self.dataplane.tables)
    }

    pub fn warnings(&self) -> Vec<String> {
        self.controller.warnings().map(ToString::to_string).collect()
    }

    pub fn connections(&self) -> Vec<Connection> {
        self.source.connections.now()
    }

    #[track_caller]
    pub fn connection(&self, kind: Kind) -> Connection {
        self.connections().into_iter().find(|connection| connection.kind == kind).expect("all kinds are followed")
    }
}

pub fn settings(server: &dyn Api) -> Settings {
    Settings { kubeconfig: Some(server.kubeconfig()), node_name: NODE.to_owned(), claim: Claim::Unlabelled, pace: PACE }
}

fn policy() -> Policy {
    Policy {
        node_name: NODE.to_owned(),
        services: Services::All,
        default_ip_mode: Mode::VIP,
        proxy_annotations: Vec::new(),
        vendor_annotations: VendorAnnotations::Ignored,
        headers_from: HeadersFrom::Annotation,
        external_ips: ExternalIps::Guarded,
        cluster_ranges: Vec::new(),
        selection: Selection::default(),
        health_checks: HealthCheckPorts::Left,
        node_ports: NodePortAddresses::Primary,
        forwarding: Forwarding::Snat,
    }
}

fn adopt(dataplane: &mut FakeDataplane) -> Controller {
    Controller::adopt(dataplane, policy(), TableLimits::from(&Sizes::default())).expect("it does not fail")
}

/// The tables that `--source=dir` makes of these objects.
#[track_caller]
pub fn of_objects(objects: &[Value]) -> Tables {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("all.yaml"), manifest::yaml(objects)).expect("it is writable");
    let mut dataplane = FakeDataplane::default();
    let mut controller = adopt(&mut dataplane);
    let mut source = Folder::open(folder.path()).expect("it can be listed").keeping(annotation_keys(&policy()));
    controller.change(source.look(&std::collections::HashSet::new()));
    let step = controller.step(&mut dataplane, Reclaim::Later);
    assert_eq!(step.outcome, Outcome::InStep, "{step:?}");
    dataplane.tables
}

fn text_of(tables: &Tables) -> String {
    let tables = normal(tables);
    format!("{}\n{}", render::text(&render::frontends(&tables)), render::text(&render::pools(&tables)))
}

/// Panics if a frontend that must work would not.
fn assert_steady(tables: &Tables, steady: &[String]) {
    if steady.is_empty() {
        return;
    }
    let rows = render::frontends(tables);
    for name in steady {
        let row = rows.iter().find(|row| row.address.to_string() == *name);
        let works = row
            .and_then(|row| row.workload.as_ref())
            .is_some_and(|scope| scope.action == "Balance" && scope.backend_count > 0);
        assert!(works, "{name} does not work: {row:?}");
    }
}

/// A Service on a load-balancer address, in VIP mode, and its slice with one endpoint.
pub fn service(name: &str, last: u8) -> [Value; 2] {
    [web(name, last).ingress(manifest::ingress(vip(last), "VIP")).object(), slice(name, "1", &[last]).object()]
}

/// A Service without ingress entries.
pub fn web(name: &str, last: u8) -> Service {
    Service::new(name).cluster_ips(&[IpAddr::from([10, 96, 1, last])]).port("http", "TCP", 80, 8080)
}

/// A slice of a Service, with an endpoint on this node for each number.
pub fn slice(service: &str, suffix: &str, endpoints: &[u8]) -> Slice {
    let slice = Service::new(service).slice(suffix).port("http", "TCP", 8080);
    endpoints.iter().fold(slice, |slice, last| {
        let node = if last % 2 == 0 { NODE } else { OTHER_NODE };
        slice.endpoint(IpAddr::from([10, 244, 0, *last]), node)
    })
}

/// The address of a balancer.
pub fn vip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

/// Writes objects to the server.
pub fn put(server: &dyn Api, objects: impl IntoIterator<Item = Value>) {
    for object in objects {
        server.put(object);
    }
}
