//! `run`: connects the parts. Only this module starts tasks and lasting threads, and decides when the process
//! ends.

mod agent;
mod attach;
mod crowding;
mod descriptors;
mod drivers;
mod log;
mod outlook;
mod programming;
mod timetable;
mod troubles;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::args::{RunArgs, Settings};
use crate::ask::Services;
use crate::config::{Config, Source};
use crate::dataplane::Dataplane;
use crate::dataplane::bpf::BpfDataplane;
use crate::dataplane::mounts::host_path;
use crate::desired;
use crate::guard::{Keeper, Table};
use crate::health;
use crate::http::{self, Kept, Question, Sources};
use crate::interfaces::Event;
use crate::interfaces::watch::{Error as WatchError, Watch, list_once};
use crate::known::Known;
use crate::metrics::{self, HealthAnswers, Metrics, ServiceSeries};
use crate::model::{AnnotationKeys, Change};
use crate::print::print;
use crate::source::claim::Claim;
use crate::source::connection::{Connection, Connections};
use crate::source::dir::DirSource;
use crate::source::kube::KubeSource;
use crate::source::progress::Progress;
use crate::status::{Status, TURN_INTERVAL};
use crate::tail::Tail;
use crate::version;
use agent::Agent;

/// Batches queued for the loop. A faster source waits.
const BATCHES_MAX: usize = 64;
/// What operators who turn kube-proxy off should know; `--help` and the README say the same.
const DIFFERENCE: &str = "--services=all: endpoints on this node see their clients' own addresses, where kube-proxy shows \
    the node's (docs/kube-proxy.md)";
/// The pause before subscribing to the interfaces again after an error.
const SUBSCRIBE_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until a signal or a fatal error. The dataplane keeps forwarding.
pub fn run(mut args: RunArgs, mut settings: Settings) -> anyhow::Result<()> {
    let filter = std::mem::take(&mut args.observe.log_level);
    let (format, tail) = (args.observe.log_format, Tail::default());
    let is_printed = args.config.print_config;
    let config = Config::try_from(args).map_err(|error| {
        let place = settings.place(error.flag());
        let error = anyhow::Error::from(error);
        place.into_iter().fold(error, anyhow::Error::context)
    })?;
    config.imply(&mut settings);
    if is_printed {
        return print(&settings.yaml());
    }
    log::start(filter, format, &tail);
    for problem in &settings.unknown {
        tracing::warn!("{problem}");
    }
    // Each interface takes two descriptors.
    let descriptors = descriptors::raise_limit();
    // The worker serves netlink and the source, the main thread runs the loop, and HTTP and health checks have a thread each.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let result = runtime.block_on(serve(&config, descriptors, Kept { config: settings.yaml().into(), tail }));
    runtime.shutdown_background();
    result
}

async fn serve(config: &Config, descriptors: u64, kept: Kept) -> anyhow::Result<()> {
    let signals = Signals::new()?;
    let listeners = http::Listeners::bind(config.http, config.metrics.place)?;
    tracing::info!(
        version = version::short(),
        node = config.policy.node_name,
        http = %listeners.all.local_addr()?,
        pins = %config.dataplane.pin_path.display(),
        workloads = %config.interfaces.workload,
        uplinks = %config.interfaces.uplink,
        "started"
    );
    if config.policy.services == desired::Services::All {
        tracing::info!("{DIFFERENCE}");
    }
    let annotations = desired::annotation_keys(&config.policy);
    let Started { batches, connections, progress } = start_source(&config.source, annotations).await?;
    let dataplane = BpfDataplane::open(&config.dataplane)?;
    let (status, receiver) = watch::channel(Arc::new(Status::starting(Instant::now())));
    let mut registry = metrics::registry(config.dataplane.pin_path.clone(), config.dataplane.sizes, receiver.clone());
    let metrics = Metrics::register(&mut registry);
    let answers = HealthAnswers::register(&mut registry);
    let guard = Keeper::new(Box::new(Table::of_pins(&config.dataplane.pin_path)), config.guard);
    let guard = match config.policy.services {
        desired::Services::All => guard.succeeding(),
        desired::Services::LoadBalancers => guard,
    };
    let agent = Agent::adopt(dataplane, config, metrics, Instant::now())?.guarded_by(guard);
    let agent =
        agent.answering(start_health(config.healthz, receiver.clone(), answers, health::Limits::within(descriptors))?);
    let (question_sender, questions) = mpsc::channel(1);
    let series = config
        .metrics
        .service_ports_max
        .map(|ports_max| Arc::new(ServiceSeries { pin_path: config.dataplane.pin_path.clone(), ports_max }));
    let sources = Sources { status: receiver, registry: Arc::new(registry), series, questions: question_sender, kept };
    start_http(listeners, sources, http::ConnectionLimits::within(descriptors))?;
    let (link_sender, links) = mpsc::channel(BATCHES_MAX);
    tokio::spawn(follow_interfaces(link_sender));
    let inputs = Inputs { batches, connections, progress, links, questions, signals };
    let own = Own {
        pin_path: host_path(&config.dataplane.pin_path),
        serves_labelled: config.source.claim() != &Claim::Unlabelled,
    };
    turn_until_stopped(agent, inputs, &own, &status).await
}

/// What answers say of this agent.
#[derive(Clone)]
struct Own {
    /// As a path on the node.
    pin_path: PathBuf,
    serves_labelled: bool,
}

/// The inputs of the loop.
struct Inputs {
    batches: mpsc::Receiver<Vec<Change>>,
    /// The state of the source's connections.
    connections: watch::Receiver<Vec<Connection>>,
    /// What the source is reading at the moment.
    progress: Progress,
    links: mpsc::Receiver<Vec<Event>>,
    questions: mpsc::Receiver<Question>,
    signals: Signals,
}

/// The loop. One task owns all state, and no other task writes it.
async fn turn_until_stopped<D: Dataplane>(
    mut agent: Agent<D>,
    mut inputs: Inputs,
    own: &Own,
    status: &watch::Sender<Arc<Status>>,
) -> anyhow::Result<()> {
    loop {
        let wake = agent.next_turn().min(Instant::now() + TURN_INTERVAL.min(agent::LISTEN_INTERVAL));
        tokio::select! {
            biased;
            name = inputs.signals.next() => {
                tracing::info!(signal = name, "stopped; the dataplane keeps forwarding");
                return Ok(());
            }
            Some(events) = inputs.links.recv() => agent.link_events(events, Instant::now()),
            batch = inputs.batches.recv() => {
                agent.change(batch.context("the source has ended")?, Instant::now());
                // Batches that are already queued belong to the same apply.
                while let Ok(batch) = inputs.batches.try_recv() {
                    agent.change(batch, Instant::now());
                }
            }
            Some(question) = inputs.questions.recv() => answer(&agent, question, own),
            // Published below. A source without connections never reports a change.
            Ok(()) = inputs.connections.changed() => {}
            () = tokio::time::sleep_until(wake.into()) => {}
        }
        if agent.turn(Instant::now()) {
            match list_once().await {
                Ok(everything) => agent.link_events(vec![everything], Instant::now()),
                Err(error) => tracing::warn!(%error, "audit: the interfaces could not be listed"),
            }
        }
        let connections = inputs.connections.borrow_and_update().clone();
        let now = agent.status(Instant::now()).with_connections(connections).with_progress(inputs.progress.clone());
        status.send_replace(Arc::new(now));
    }
}

/// Answers a question of the HTTP server. The asker may have disconnected.
fn answer<D: Dataplane>(agent: &Agent<D>, question: Question, own: &Own) {
    let Own { pin_path, serves_labelled } = own.clone();
    match question {
        Question::Services(way_back) => {
            let (names, deciding_keys) = (agent.service_names(), agent.deciding_keys());
            let _ = way_back.send(Services { pin_path, names, deciding_keys });
        }
        Question::Known(asked, way_back) => {
            let _ = way_back.send(Known { pin_path, serves_labelled, ..agent.known(&asked) });
        }
    }
}

/// Starts the HTTP server on a thread with a runtime of its own, so that many requests do not delay the loop.
fn start_http(listeners: http::Listeners, sources: Sources, limits: http::ConnectionLimits) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || match runtime.block_on(http::serve(listeners, sources, limits)) {
        Ok(()) => {}
        Err(error) => tracing::error!(%error, "HTTP is not served"),
    };
    std::thread::Builder::new().name("http".into()).spawn(serve)?;
    Ok(())
}

/// Starts the server of health checks on a thread of its own: balancers judge the node by these answers.
fn start_health(
    node: Option<SocketAddr>,
    status: watch::Receiver<Arc<Status>>,
    answers: HealthAnswers,
    limits: health::Limits,
) -> anyhow::Result<health::Keeper> {
    let (door, server) = health::listeners(status, answers, limits.connections);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("health".into()).spawn(move || runtime.block_on(server.serve()))?;
    Ok(health::Keeper::new(Box::new(door), node, limits.listeners_max))
}

/// A running source.
struct Started {
    batches: mpsc::Receiver<Vec<Change>>,
    connections: watch::Receiver<Vec<Connection>>,
    progress: Progress,
}

/// Starts the source. A folder has a thread of its own, because reading files blocks. The API client is a task.
async fn start_source(source: &Source, annotations: AnnotationKeys) -> anyhow::Result<Started> {
    let (sender, batches) = mpsc::channel(BATCHES_MAX);
    match source {
        Source::Directory { path, claim } => {
            let directory = DirSource::open(path).context("--source")?.claiming(claim.clone()).keeping(annotations);
            let progress = directory.progress();
            std::thread::Builder::new().name("source".into()).spawn(move || directory.run(&sender))?;
            Ok(Started { batches, connections: Connections::default().subscribe(), progress })
        }
        Source::Kube(settings) => {
            let api = KubeSource::open(settings).await.context("--source=kube")?.keeping(annotations);
            let connections = api.connections().subscribe();
            tokio::spawn(api.watch(sender));
            Ok(Started { batches, connections, progress: Progress::default() })
        }
    }
}

/// Forwards netlink events to the loop, and subscribes again after an error.
async fn follow_interfaces(sender: mpsc::Sender<Vec<Event>>) {
    while !sender.is_closed() {
        let Err(error) = follow_once(&sender).await else { return };
        tracing::warn!(%error, "interface events have stopped, subscribing again");
        tokio::time::sleep(SUBSCRIBE_INTERVAL).await;
    }
}

async fn follow_once(sender: &mpsc::Sender<Vec<Event>>) -> Result<(), WatchError> {
    let (mut watch, work) = Watch::open()?;
    let hand_on = async {
        loop {
            let events = watch.next().await?;
            if sender.send(events).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        result = hand_on => result,
        () = work => Err(WatchError::Closed),
    }
}

/// The signals that stop the agent.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
