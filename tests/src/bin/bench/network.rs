//! Connections and bulk traffic between pods of one node, in turns: plain routing, kube-proxy's rules, kube-proxy
//! itself if it is given, and the agent.
//!
//! Each way has namespaces of its own, which differ only in the translation. Only one of them carries traffic at a
//! time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::sys::{Stats, enable_stats};
use lb_agent::dataplane::bpf::BpfDataplane;
use lb_agent::dataplane::links::{Class, Link, LinkHeader};
use lb_agent::dataplane::object::EMPTY_PROGRAM;
use lb_agent::dataplane::{Dataplane as _, Sizes, SocketLb};
use lb_common::addr::{Family, Proto};
use lb_common::table::{Backend, Counter, FrontendKey, PoolKey, Scope, Scopes};
use lb_tests::address::UPLINK;
use lb_tests::lab::{Lab, Setup};
use lb_tests::netns::Netns;

use crate::figures::{Figure, Target, Unit};
use crate::kube_proxy::{self, KubeProxy};
use crate::load::{self, Preface};
use crate::ring::{Numbered, PinFolder, frontend, write};
use crate::rules::{self, Service};

/// How long each way carries each kind of traffic in a round: short, so that the turns are close together.
pub const TURN: Duration = Duration::from_millis(250);

/// Rounds here for each requested round: real traffic is noisier than a test run.
pub const ROUNDS: u16 = 5;

/// Threads that connect, and threads of each server that answer: none waits for another.
pub const CLIENTS: usize = 2;

pub const BACKENDS: [&str; 2] = ["a", "b"];
pub const PORT: u16 = 8080;
const SERVICE_PORT: u16 = 80;

/// The translation of a way, and the number of Services among which it finds the dialled one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    /// An empty program at every hook that the agent uses: the least cost of any program there.
    Hooks,
    Nftables(Count),
    /// A real kube-proxy.
    KubeProxy(Count),
    Us(Count),
    /// The agent's programs as for [`Way::Us`], but clients dial the pods themselves.
    Direct,
    /// The agent with `--socket-lb=all`.
    Sockets,
}

impl Way {
    fn name(self) -> String {
        match self {
            Self::Plain => "plain routing".into(),
            Self::Hooks => "empty programs".into(),
            Self::Nftables(count) => format!("nftables, {}", count.text()),
            Self::KubeProxy(count) => format!("kube-proxy, {}", count.text()),
            Self::Us(count) => format!("us, {}", count.text()),
            Self::Direct => "us, dialled directly".into(),
            Self::Sockets => "us, sockets".into(),
        }
    }
}

/// How many Services there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Count {
    One,
    Many,
}

impl Count {
    const fn number(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Many => 10_000,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::One => "1 Service",
            Self::Many => "10,000 Services",
        }
    }
}

/// The ways, each with the name of its namespaces.
const WAYS: [(&str, Way); 6] = [
    ("benchplain", Way::Plain),
    ("benchhooks", Way::Hooks),
    ("benchnft1", Way::Nftables(Count::One)),
    ("benchus1", Way::Us(Count::One)),
    ("benchnft10k", Way::Nftables(Count::Many)),
    ("benchus10k", Way::Us(Count::Many)),
];

/// The ways of a kube-proxy, if one is given.
const KUBE_PROXY_WAYS: [(&str, Way); 2] =
    [("benchkp1", Way::KubeProxy(Count::One)), ("benchkp10k", Way::KubeProxy(Count::Many))];

/// All figures of the network.
pub fn measure(rounds: u16, kube_proxy: Option<&Path>) -> Result<Vec<Figure>> {
    let real = if kube_proxy.is_some() { &KUBE_PROXY_WAYS[..] } else { &[] };
    let all = WAYS.iter().chain(real);
    let mut ways = all.map(|(test, way)| Node::start(test, *way, kube_proxy)).collect::<Result<Vec<_>>>()?;
    if kube_proxy.is_some() {
        compare_rules(&ways)?;
    }
    let (mut rates, mut bulks) = (vec![Vec::new(); ways.len()], vec![Vec::new(); ways.len()]);
    let rounds = usize::from(rounds * ROUNDS);
    println!("network: {rounds} rounds of {} ways", ways.len());
    for round in 0..rounds {
        if round % usize::from(ROUNDS) == 0 {
            println!("  network: round {} of {rounds}", round + 1);
        }
        // Another way begins each time, so that disturbances of the machine affect all alike.
        let turn = |step| (round + step) % ways.len();
        for index in (0..ways.len()).map(turn) {
            rates[index].push(ways[index].client(|targets| load::connection_rate(targets, CLIENTS, TURN))?);
        }
        for index in (0..ways.len()).map(turn) {
            bulks[index].push(ways[index].client(|targets| load::bulk_rate(targets[0], TURN))?);
        }
    }
    let live = ways.iter_mut().find(|node| node.way == Way::Us(Count::One)).context("one of the ways is ours")?;
    let live = live.program_time(rounds)?;
    let figures = |kind: &str, unit, rounds: Vec<Vec<f64>>| -> Vec<Figure> {
        let figure = |(node, rounds): (&Node, _)| {
            Figure::new(format!("{kind}, {}", node.way.name()), unit, Target::None, rounds)
        };
        ways.iter().zip(rounds).map(figure).collect()
    };
    let rates = figures("connections", Unit::ConnectionsPerSec, rates);
    let bulks = figures("bulk", Unit::GigabitsPerSec, bulks);
    let ways: Vec<Way> = ways.iter().map(|node| node.way).collect();
    let ratios = ratios(&ways, &rates, &bulks);
    Ok([live, rates, bulks, ratios].concat())
}

/// Connections of sockets that are translated when they dial, of a pod and of the node itself.
///
/// The programs are at the root of the cgroup tree and see the sockets of all ways. So the Service of [`Way::Sockets`] has
/// an address of its own.
pub fn sockets(rounds: u16) -> Result<Vec<Figure>> {
    const SOCKET_WAYS: [(&str, Way); 4] = [
        ("benchskplain", Way::Plain),
        ("benchskdirect", Way::Direct),
        ("benchsktc", Way::Us(Count::One)),
        ("benchsksock", Way::Sockets),
    ];
    let ways = SOCKET_WAYS.iter().map(|(test, way)| Node::start(test, *way, None)).collect::<Result<Vec<_>>>()?;
    let (mut pods, mut hosts) = (vec![Vec::new(); ways.len()], vec![Vec::new(); ways.len()]);
    let rounds = usize::from(rounds * ROUNDS);
    println!("sockets: {rounds} rounds of {} ways", ways.len());
    for round in 0..rounds {
        for index in (0..ways.len()).map(|step| (round + step) % ways.len()) {
            pods[index].push(ways[index].client(|targets| load::connection_rate(targets, CLIENTS, TURN))?);
            let node = &ways[index];
            // Without sockets, the node's own connections to the Service are not translated.
            let targets = if node.way == Way::Sockets { node.targets.clone() } else { node.endpoints.clone() };
            hosts[index].push(node.lab.node.inside(|| load::connection_rate(&targets, CLIENTS, TURN))?);
        }
    }
    let figures = |kind: &str, rates: Vec<Vec<f64>>| -> Vec<Figure> {
        let figure = |(node, rates): (&Node, _)| {
            Figure::new(format!("{kind}, {}", node.way.name()), Unit::ConnectionsPerSec, Target::None, rates)
        };
        ways.iter().zip(rates).map(figure).collect()
    };
    let (pods, hosts) = (figures("connections of a pod", pods), figures("connections of the node", hosts));
    let [plain, direct, tc, sockets] = [0, 1, 2, 3];
    let ratios = vec![
        Figure::ratio("pod: sockets / dialled directly", Target::AtLeast(0.98), &pods[sockets], &pods[direct]),
        Figure::ratio("pod: sockets / plain", Target::None, &pods[sockets], &pods[plain]),
        Figure::ratio("pod: sockets / programs at the interface", Target::None, &pods[sockets], &pods[tc]),
        Figure::ratio("node: sockets / dialled directly", Target::AtLeast(0.98), &hosts[sockets], &hosts[direct]),
    ];
    Ok([pods, hosts, ratios].concat())
}

/// Only the figures of the programs under live traffic.
pub fn live(rounds: u16) -> Result<Vec<Figure>> {
    Node::start("benchlive", Way::Us(Count::One), None)?.program_time(usize::from(rounds * ROUNDS))
}

/// The agent's ratios to every other way that was measured.
fn ratios(ways: &[Way], rates: &[Figure], bulks: &[Figure]) -> Vec<Figure> {
    let mut ratios = Vec::new();
    let mut push = |kind: &str, figures: &[Figure], other: fn(Count) -> Way, name: &str, least: fn(Count) -> Target| {
        for count in [Count::One, Count::Many] {
            let of = |way| ways.iter().position(|known| *known == way).map(|index| &figures[index]);
            if let (Some(us), Some(other)) = (of(Way::Us(count)), of(other(count))) {
                let what = format!("{kind}, {}: us / {name}", count.text());
                ratios.push(Figure::ratio(what, least(count), us, other));
            }
        }
    };
    let of_rules: fn(Count) -> Target = |count| match count {
        Count::One => Target::AtLeast(1.10),
        Count::Many => Target::AtLeast(1.15),
    };
    let of_routing: fn(Count) -> Target = |_| Target::AtLeast(0.95);
    push("connections", rates, Way::Nftables, "nftables", of_rules);
    push("connections", rates, Way::KubeProxy, "kube-proxy", of_rules);
    push("connections", rates, |_| Way::Plain, "plain", of_routing);
    push("connections", rates, |_| Way::Hooks, "empty programs", |_| Target::None);
    push("bulk", bulks, Way::KubeProxy, "kube-proxy", |_| Target::None);
    push("bulk", bulks, |_| Way::Plain, "plain", of_routing);
    ratios
}

/// Compares the rules that imitate kube-proxy's with those of the given one, and prints the result.
fn compare_rules(nodes: &[Node]) -> Result<()> {
    let listing = |way| nodes.iter().find(|node| node.way == way).map(|node| kube_proxy::listing(&node.lab));
    let real = listing(Way::KubeProxy(Count::One)).unwrap_or_default();
    let ours = listing(Way::Nftables(Count::One)).unwrap_or_default();
    ensure!(real.contains("vmap @service-ips"), "kube-proxy wrote no table of the nftables mode:\n{real}");
    let differences = rules::differences(&real, &ours);
    if differences.is_empty() {
        println!("network: the nftables rules are, rule by rule, those that this kube-proxy writes");
        return Ok(());
    }
    println!("network: the nftables rules are NOT those that this kube-proxy writes:");
    for difference in differences {
        println!("  {difference}");
    }
    Ok(())
}

/// A node with a client pod, two backend pods with servers, and the translation between them.
struct Node {
    way: Way,
    targets: Vec<SocketAddr>,
    endpoints: Vec<SocketAddr>,
    // In the order in which they must end.
    _servers: Vec<Server>,
    _kube_proxy: Option<KubeProxy>,
    dataplane: Option<(BpfDataplane, PinFolder)>,
    lab: Lab,
}

impl Node {
    fn start(test: &'static str, way: Way, kube_proxy: Option<&Path>) -> Result<Self> {
        let lab = Setup::new(test).pods(&["client"]).pods(&BACKENDS).build();
        let endpoints: Vec<SocketAddrV4> = BACKENDS.iter().map(|pod| endpoint(&lab, pod)).collect();
        let servers = BACKENDS.iter().map(|pod| Server::start(&lab.pod(pod).netns)).collect();
        let (mut targets, mut real, mut dataplane) = (vec![vip(0).into()], None, None);
        let pods: Vec<SocketAddr> = endpoints.iter().copied().map(Into::into).collect();
        match way {
            Way::Plain => targets.clone_from(&pods),
            Way::Nftables(count) => {
                lab.node.nft(&rules::ruleset(&service_list(count.number(), &endpoints), node_address()));
            }
            Way::Hooks => {
                targets.clone_from(&pods);
                dataplane = Some(hooked(test, &lab)?);
            }
            Way::KubeProxy(count) => {
                let program = kube_proxy.context("this way needs a kube-proxy")?;
                println!("network: kube-proxy writes rules for {}", count.text());
                real = Some(KubeProxy::start(program, &lab, &service_list(count.number(), &endpoints)));
            }
            Way::Us(count) => dataplane = Some(attached(test, &lab, 0..count.number(), &endpoints, SocketLb::Off)?),
            Way::Direct => {
                targets.clone_from(&pods);
                dataplane = Some(attached(test, &lab, 0..1, &endpoints, SocketLb::Off)?);
            }
            Way::Sockets => {
                targets = vec![vip(1).into()];
                dataplane = Some(attached(test, &lab, 1..2, &endpoints, SocketLb::All)?);
            }
        }
        Ok(Self { way, targets, endpoints: pods, _servers: servers, _kube_proxy: real, dataplane, lab })
    }

    /// The time of the programs under live traffic by the kernel's clock, including one clock reading for each run.
    fn program_time(&mut self, rounds: usize) -> Result<Vec<Figure>> {
        let _clock = enable_stats(Stats::RunTime)?;
        let (mut ingress, mut egress, mut connection, mut bulk) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = self.clocked()?;
            self.client(|targets| load::bulk_rate(targets[0], TURN))?;
            let before = self.clocked()?;
            bulk.push(
                (before.programs[0].ns - start.programs[0].ns) / (before.programs[0].runs - start.programs[0].runs),
            );
            self.client(|targets| load::connection_rate(targets, CLIENTS, TURN))?;
            let after = self.clocked()?;
            let spent = |program: usize| after.programs[program].ns - before.programs[program].ns;
            let runs = |program: usize| after.programs[program].runs - before.programs[program].runs;
            ingress.push(spent(0) / runs(0));
            egress.push(spent(1) / runs(1));
            connection.push((spent(0) + spent(1)) / (after.flows - before.flows));
        }
        let figure = |what, unit, rounds| Figure::new(what, unit, Target::None, rounds);
        Ok(vec![
            figure("IPv4 live traffic, ingress program, mean", Unit::NsPerPacket, ingress),
            figure("IPv4 live traffic, egress program, mean", Unit::NsPerPacket, egress),
            figure("IPv4 live bulk, ingress program, mean", Unit::NsPerPacket, bulk),
            figure("our programs, all packets of a connection", Unit::NsPerConnection, connection),
        ])
    }

    /// The kernel's times so far.
    fn clocked(&mut self) -> Result<Clocked> {
        let (dataplane, _) = self.dataplane.as_mut().context("this way has programs")?;
        let flows = dataplane.maps().counters()?.get(&Counter::FlowCreated).map_or(0, |value| value.packets);
        let mut program = |name: &str| -> Result<Runs> {
            let program: &mut SchedClassifier = dataplane
                .ebpf()
                .program_mut(name)
                .with_context(|| format!("there is no program {name}"))?
                .try_into()?;
            let info = program.info()?;
            Ok(Runs { ns: info.run_time().as_secs_f64() * 1e9, runs: info.run_count() as f64 })
        };
        Ok(Clocked { programs: [program("workload_ingress")?, program("workload_egress")?], flows: flows as f64 })
    }

    /// Runs `work` in the client pod with the addresses to dial.
    fn client<T: Send>(&self, work: impl FnOnce(&[SocketAddr]) -> T + Send) -> T {
        let targets = &self.targets;
        self.lab.pod("client").netns.inside(|| work(targets))
    }
}

/// Time and number of a program's runs.
struct Runs {
    ns: f64,
    runs: f64,
}

/// The two programs of a pod's interface, and the number of their new flows.
struct Clocked {
    programs: [Runs; 2],
    flows: f64,
}

pub fn endpoint(lab: &Lab, pod: &str) -> SocketAddrV4 {
    match lab.pod_address(pod, Family::V4) {
        IpAddr::V4(address) => SocketAddrV4::new(address, PORT),
        IpAddr::V6(address) => unreachable!("{address} was asked for in IPv4"),
    }
}

/// The node's address, on which node ports are served.
pub fn node_address() -> Ipv4Addr {
    match UPLINK.host(Family::V4, 2) {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => unreachable!("{address} was asked for in IPv4"),
    }
}

pub fn vip(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(<[u8; 4]>::frontend(number)), SERVICE_PORT)
}

/// Services that all have the same endpoints. The first is the one that is dialled.
fn service_list(count: u32, endpoints: &[SocketAddrV4]) -> Vec<Service> {
    (0..count).map(|number| Service { vip: vip(number), endpoints: endpoints.to_vec() }).collect()
}

/// The pods' interfaces, on the node's side.
pub fn interfaces(lab: &Lab) -> impl Iterator<Item = String> {
    ["client"].iter().chain(&BACKENDS).map(|pod| lab.pod(pod).interface.clone())
}

/// Tables for so many Services, pinned in a folder of the measurement.
fn open(test: &str, services: u32, sockets: SocketLb) -> Result<(BpfDataplane, PinFolder)> {
    let pins = PinFolder::new(test);
    let sizes = Sizes { backends_max: services * 2 + 2, ..Sizes::default() };
    Ok((pins.open_with(sizes, sockets)?, pins))
}

/// The empty program, at both hooks of every pod's interface.
fn hooked(test: &str, lab: &Lab) -> Result<(BpfDataplane, PinFolder)> {
    lab.node.inside(|| {
        let (mut dataplane, pins) = open(test, 0, SocketLb::Off)?;
        let program: &mut SchedClassifier =
            dataplane.ebpf().program_mut(EMPTY_PROGRAM).context("there is no empty program")?.try_into()?;
        for interface in interfaces(lab) {
            // The links live as long as the program.
            program.attach(&interface, TcAttachType::Ingress)?;
            program.attach(&interface, TcAttachType::Egress)?;
        }
        Ok((dataplane, pins))
    })
}

/// The agent's programs on every pod's interface, over tables with these Services.
fn attached(
    test: &str,
    lab: &Lab,
    services: Range<u32>,
    endpoints: &[SocketAddrV4],
    sockets: SocketLb,
) -> Result<(BpfDataplane, PinFolder)> {
    lab.node.inside(|| {
        let (mut dataplane, pins) = open(test, services.end, sockets)?;
        fill(&mut dataplane, services, endpoints)?;
        dataplane.activate()?;
        for name in interfaces(lab) {
            let ifindex = nix::net::if_::if_nametoindex(name.as_str())?;
            dataplane.attach(&Link { ifindex, name, class: Class::Workload, header: LinkHeader::Ethernet })?;
        }
        Ok((dataplane, pins))
    })
}

/// Each Service with a pool of its own.
fn fill(dataplane: &mut BpfDataplane, services: Range<u32>, endpoints: &[SocketAddrV4]) -> Result<()> {
    let (mut pools, mut scopes, mut frontends) = (Vec::new(), Vec::new(), Vec::new());
    for number in services {
        let id = number + 1;
        let pool = 1 + number * endpoints.len() as u32;
        for (slot, endpoint) in (0..).zip(endpoints) {
            let backend = Backend { addr: endpoint.ip().octets(), port: endpoint.port() };
            pools.push((PoolKey { pool, slot }, backend));
        }
        let scope = Scope::balance(pool, endpoints.len() as u16);
        scopes.push((id, Scopes { workload: scope, host: scope, external: scope, service_port: id, ..Scopes::PASS }));
        let (addr, port) = (vip(number).ip().octets(), SERVICE_PORT);
        frontends.push((FrontendKey { addr, port, proto: Proto::TCP, pad: 0 }, frontend(id)));
    }
    write(dataplane, pools, scopes, frontends)
}

/// A server in a pod; dropping it ends its threads.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Server {
    pub fn start(pod: &Netns) -> Self {
        Self::start_behind(pod, None)
    }

    /// A server that requires this header.
    pub fn start_behind(pod: &Netns, preface: Option<&Preface>) -> Self {
        let listener = pod.inside(|| load::listen(PORT)).expect("nothing else listens in a new pod");
        let (listener, stop) = (Arc::new(listener), Arc::new(AtomicBool::new(false)));
        let serve = || {
            let (listener, stop, preface) = (Arc::clone(&listener), Arc::clone(&stop), preface.cloned());
            std::thread::spawn(move || load::serve(&listener, &stop, preface.as_ref()))
        };
        let threads = (0..CLIENTS).map(|_| serve()).collect();
        Self { stop, threads }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if let Ok(Err(error)) = thread.join() {
                eprintln!("warning: a server ended early: {error:#}");
            }
        }
    }
}
