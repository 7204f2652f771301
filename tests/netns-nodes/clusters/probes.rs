//! The dials of a random cluster, held against the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::thread;

use lb_common::addr::Proto;
use lb_tests::address::{BALANCERS, CLUSTER, EXTERNAL_IPS, FAMILIES, Family};
use lb_tests::capture::Carries;
use lb_tests::deadline;
use lb_tests::dial::{Outcome, Target, dial_many};
use lb_tests::http;
use lb_tests::netns::Netns;
use lb_tests::nodes::{Cluster, Watch, client, node_port};
use lb_tests::scene::BALANCER;
use serde_json::Value;

use super::oracle::{
    Answering, Difference, Frontend, Manner, Origin, Seen, Services, Verdict, local_endpoints, verdict,
};
use super::plan::{Kind, Service};
use crate::publish::{CHECKS, NODE_PORTS};

/// Where dials begin: an endpoint and another pod of each node, each node, and clients outside by each node.
const ORIGINS: [Origin; 12] = [
    Origin::Pod("a", 1),
    Origin::Pod("a", 2),
    Origin::Pod("a", 3),
    Origin::Pod("c", 1),
    Origin::Pod("c", 2),
    Origin::Pod("c", 3),
    Origin::Node(1),
    Origin::Node(2),
    Origin::Node(3),
    Origin::Outside(1),
    Origin::Outside(2),
    Origin::Outside(3),
];

/// How often each address is dialled by TCP: with several endpoints another one may answer.
const ROUNDS: usize = 2;

/// How many faults are printed.
const SHOWN: usize = 20;

/// Source ports: no two dials at the agents of one cluster have the same, from whichever origin. Masquerading keeps them, and
/// they are none of the ports that nodes use themselves.
const PORTS: Range<u16> = 10_000..30_000;

/// The source ports of one origin that are left.
pub struct Ports([Range<u16>; ORIGINS.len()]);

impl Ports {
    pub fn all() -> Self {
        let share = (PORTS.end - PORTS.start) / ORIGINS.len() as u16;
        let starts = PORTS.step_by(usize::from(share));
        let mut shares = starts.map(|start| start..start + share);
        Self(ORIGINS.map(|_| shares.next().expect("as many as origins")))
    }
}

/// A random cluster, and how it is served.
pub struct Drawn {
    pub seed: u64,
    pub manner: Manner,
    pub services: Vec<Service>,
}

impl Drawn {
    fn serves(&self, frontend: Frontend) -> bool {
        self.manner.services == Services::All || frontend == Frontend::Balancer
    }
}

/// The results so far.
#[derive(Default)]
pub struct Report {
    /// Dials whose outcome is kube-proxy's.
    alike: usize,
    /// Dials that are answered by the same endpoints, which see another address on purpose.
    differ: BTreeMap<Difference, usize>,
    /// Health checks whose answer is kube-proxy's.
    checks: usize,
    faults: Vec<String>,
}

impl Report {
    pub const fn faults(&self) -> usize {
        self.faults.len()
    }

    /// Prints the counts, and panics if there was a fault.
    pub fn conclude(self, manner: Manner) {
        let Self { alike, differ, checks, faults } = self;
        println!("{alike} dials and {checks} checks are as with kube-proxy; on purpose not: {differ:?}");
        // Beside kube-proxy, kube-proxy answers the checks.
        let is_checked = manner.services == Services::Balancers || checks > 0;
        assert!(alike > 1_000 && is_checked, "hardly anything was compared");
        let shown: Vec<&str> = faults.iter().take(SHOWN).map(String::as_str).collect();
        assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), shown.join("\n"));
    }
}

/// One dial and what must come of it.
struct Probe<'a> {
    service: &'a Service,
    frontend: Frontend,
    family: Family,
    target: Target,
    wanted: Verdict,
}

/// What the nodes sent to the network: by node, the source port, and the destination.
type Sent = BTreeSet<(u8, Carries, u16, SocketAddr)>;

/// Dials every address of every Service from everywhere.
pub fn dial_all(cluster: &Cluster, watch: &Watch, drawn: &Drawn, ports: &mut Ports, report: &mut Report) {
    let dialled = thread::scope(|scope| {
        let origins: Vec<_> = ORIGINS.into_iter().zip(&mut ports.0).collect();
        let dialling = origins.into_iter().map(|(origin, ports)| {
            scope.spawn(move || {
                let probes = probes(cluster, drawn, origin, ports);
                let targets: Vec<Target> = probes.iter().map(|probe| probe.target).collect();
                let outcomes = dial_many(netns(cluster, origin), &targets);
                (origin, probes, outcomes)
            })
        });
        let dialling: Vec<_> = dialling.collect();
        dialling.into_iter().map(|thread| thread.join().expect("it reports its own panic")).collect::<Vec<_>>()
    });
    let sent = watch.sent(&cluster.outside).into_iter();
    let sent = sent.map(|(node, packet)| (node, packet.carries, packet.source.port(), packet.destination)).collect();
    for (origin, probes, outcomes) in dialled {
        for (probe, outcome) in probes.iter().zip(outcomes) {
            judge(cluster, (drawn, &sent), origin, probe, &outcome, report);
        }
    }
}

fn probes<'a>(cluster: &Cluster, drawn: &'a Drawn, origin: Origin, ports: &mut Range<u16>) -> Vec<Probe<'a>> {
    let mut probes = Vec::new();
    for service in &drawn.services {
        for family in FAMILIES {
            for (frontend, to) in frontends(service, family) {
                let source = source(cluster, origin, family);
                let wanted = verdict(drawn.manner, service, (frontend, family), (origin, source));
                let bound = matches!(origin, Origin::Outside(_)).then_some(source);
                let mut add = |proto| {
                    let target = Target { source: bound, port: ports.next().expect("ports are left"), to, proto };
                    probes.push(Probe { service, frontend, family, target, wanted: wanted.clone() });
                };
                (0..ROUNDS).for_each(|_| add(Proto::TCP));
                // A closed port of the node itself: the kernel limits how often it says so.
                if wanted != Verdict::Refused || service.families.contains(&family) && drawn.serves(frontend) {
                    add(Proto::UDP);
                }
            }
        }
    }
    probes
}

/// The addresses that a Service has in a family, served or not.
pub fn frontends(service: &Service, family: Family) -> Vec<(Frontend, SocketAddr)> {
    let number = service.number;
    let at = |address: IpAddr| SocketAddr::new(address, 80);
    let mut frontends = Vec::new();
    if service.families.contains(&family) {
        frontends.push((Frontend::Cluster, at(CLUSTER.host(family, number))));
    }
    if service.has_external_ips {
        frontends.push((Frontend::External, at(EXTERNAL_IPS.host(family, number))));
    }
    if service.kind == Kind::LoadBalancer {
        frontends.push((Frontend::Balancer, at(BALANCERS.host(family, number))));
    }
    if service.has_node_ports() {
        let port = NODE_PORTS + u16::from(number);
        frontends.extend([1, 2, 3].map(|node| (Frontend::NodePort(node), node_port(node, family, port))));
    }
    frontends
}

pub fn netns(cluster: &Cluster, origin: Origin) -> &Netns {
    match origin {
        Origin::Pod(letter, node) => &cluster.node(node).pod(letter).netns,
        Origin::Node(node) => &cluster.node(node).netns,
        Origin::Outside(_) => &cluster.outside,
    }
}

/// The client's own address.
pub fn source(cluster: &Cluster, origin: Origin, family: Family) -> IpAddr {
    match origin {
        Origin::Pod(letter, node) => cluster.node(node).pod(letter).address(family),
        Origin::Node(node) => cluster.node(node).address(family),
        Origin::Outside(node) => client(node, family),
    }
}

fn judge(
    cluster: &Cluster,
    (drawn, sent): (&Drawn, &Sent),
    origin: Origin,
    probe: &Probe<'_>,
    outcome: &Outcome,
    report: &mut Report,
) {
    match compare(cluster, sent, origin, probe, outcome) {
        Ok(None) => report.alike += 1,
        Ok(Some(difference)) => *report.differ.entry(difference).or_default() += 1,
        Err(()) => report.faults.push(format!(
            "seed {}: {origin:?} -> {:?} {}/{}: {outcome:?}, wanted {:?}; {:?}",
            drawn.seed,
            probe.frontend,
            probe.target.to,
            probe.target.proto.name(),
            probe.wanted,
            probe.service
        )),
    }
}

/// Whether the outcome is the wanted one, and which deliberate difference it shows.
fn compare(
    cluster: &Cluster,
    sent: &Sent,
    origin: Origin,
    probe: &Probe<'_>,
    outcome: &Outcome,
) -> Result<Option<Difference>, ()> {
    let holds = |it: bool| if it { Ok(None) } else { Err(()) };
    match (&probe.wanted, outcome) {
        (Verdict::Answered(by), Outcome::Answered(answer)) => {
            let is_it = |one: &&Answering| {
                one.place.name() == answer.who && seen(cluster, origin, probe, one.sees) == answer.client.ip()
            };
            by.iter().find(is_it).map(|one| one.difference).ok_or(())
        }
        (Verdict::Balancer, Outcome::Answered(answer)) => holds(answer.who == BALANCER),
        (Verdict::Refused, outcome) => holds(*outcome == Outcome::Refused),
        // The call of a process of the node fails at once where a packet would be dropped.
        (Verdict::Silence, Outcome::Denied) => holds(matches!(origin, Origin::Node(_))),
        (Verdict::Silence, outcome) => holds(*outcome == Outcome::Silence && !has_left(sent, origin, probe)),
        (Verdict::LeftAlone, outcome) => holds(*outcome == Outcome::Silence && has_left(sent, origin, probe)),
        (Verdict::Answered(_) | Verdict::Balancer, _) => Err(()),
    }
}

/// Whether the dial's first packet has left the node that decides, to the address that was dialled.
fn has_left(sent: &Sent, origin: Origin, probe: &Probe<'_>) -> bool {
    let node = match probe.frontend {
        Frontend::NodePort(node) => node,
        Frontend::Cluster | Frontend::External | Frontend::Balancer => origin.node(),
    };
    let carries = if probe.target.proto == Proto::UDP { Carries::Udp } else { Carries::Syn };
    sent.contains(&(node, carries, probe.target.port, probe.target.to))
}

fn seen(cluster: &Cluster, origin: Origin, probe: &Probe<'_>, sees: Seen) -> IpAddr {
    match sees {
        Seen::Client => source(cluster, origin, probe.family),
        Seen::Node(node) => cluster.node(node).address(probe.family),
        Seen::Frontend => probe.target.to.ip(),
    }
}

/// An answer to a health check: the status, the weight of the header, and the number in the text.
type Check = (u16, Option<usize>, Option<u64>);

/// Asks the health check node port of every Service at every node.
pub fn ask_checks(cluster: &Cluster, drawn: &Drawn, report: &mut Report) {
    for service in drawn.services.iter().filter(|service| service.kind == Kind::LoadBalancer) {
        for family in FAMILIES {
            for node in cluster.nodes() {
                let to = node_port(node.number, family, CHECKS + u16::from(service.number));
                let wanted = local_endpoints(drawn.manner, service, family, node.number)
                    .map(|count| (if count > 0 { 200 } else { 503 }, Some(count), Some(count as u64)));
                // Listeners follow the tables a moment later.
                let told = || ask_check(cluster, to);
                let holds = deadline::within(deadline::PATIENCE, || (told() == wanted).then_some(())).is_some();
                // A port where none listens is no check.
                report.checks += usize::from(holds && wanted.is_some());
                if !holds {
                    let fault =
                        format!("seed {}: check at {to}: {:?}, wanted {wanted:?}; {service:?}", drawn.seed, told());
                    report.faults.push(fault);
                }
            }
        }
    }
}

fn ask_check(cluster: &Cluster, to: SocketAddr) -> Option<Check> {
    let page = http::page(&cluster.cloud, to, "/")?;
    let weight = page.header("X-Load-Balancing-Endpoint-Weight").and_then(|weight| weight.parse().ok());
    let text: Option<Value> = serde_json::from_str(&page.body).ok();
    Some((page.status, weight, text.and_then(|text| text["localEndpoints"].as_u64())))
}
