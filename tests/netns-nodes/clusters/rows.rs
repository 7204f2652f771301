//! The rows of kube-proxy's truth tables, one by one: who answers is not one of the wanted endpoints but all of them, and
//! no other one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::thread;

use lb_common::addr::Proto;
use lb_tests::address::{FAMILIES, Family};
use lb_tests::dial::{Outcome, Target, dial_many};
use lb_tests::nodes::Cluster;

use super::ALL;
use super::oracle::{Frontend, Origin};
use super::plan::{Place, Policy, Service};
use super::probes::{frontends, netns, source};

/// The columns of [`ROWS`]. Node 3 has no endpoint.
const ORIGINS: [Origin; 6] = [
    Origin::Pod("c", 1),
    Origin::Pod("c", 3),
    Origin::Node(1),
    Origin::Node(3),
    Origin::Outside(1),
    Origin::Outside(3),
];
/// Two endpoints on one node, so that "the first one of this node" differs from "those of this node".
const ENDPOINTS: [Place; 3] = [Place::Pod("a", 1), Place::Pod("b", 1), Place::Pod("a", 2)];

/// Who answers: all endpoints, those of node 1, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    All,
    Here,
    None,
}
use Who::{All, Here, None as No};

/// Of a Service with iTP Cluster and eTP Local, and of one with iTP Local and eTP Cluster.
#[rustfmt::skip]
const ROWS: [(u8, Frontend, [Who; ORIGINS.len()]); 10] = [
    //                          pod 1  pod 3  node 1 node 3 out 1  out 3
    (1, Frontend::Cluster,     [All,   All,   All,   All,   All,   All]),
    (1, Frontend::External,    [All,   All,   All,   All,   Here,  No]),
    (1, Frontend::Balancer,    [All,   All,   All,   All,   Here,  No]),
    (1, Frontend::NodePort(1), [All,   Here,  All,   Here,  Here,  Here]),
    (1, Frontend::NodePort(3), [No,    All,   No,    All,   No,    No]),
    (2, Frontend::Cluster,     [Here,  No,    Here,  No,    Here,  No]),
    (2, Frontend::External,    [All,   All,   All,   All,   All,   All]),
    (2, Frontend::Balancer,    [All,   All,   All,   All,   All,   All]),
    (2, Frontend::NodePort(1), [All,   All,   All,   All,   All,   All]),
    (2, Frontend::NodePort(3), [All,   All,   All,   All,   All,   All]),
];

/// Dials of a cell at once. A cell is dialled again while an endpoint has not answered: of three, one is missed in all
/// rounds once in 10^12 cells.
const DIALS: usize = 24;
const ROUNDS: usize = 3;
/// Dials of a cell that none answers.
const UNANSWERED: usize = 2;
/// Source ports of each origin: no two dials have the same.
const PORTS: u16 = 3_000;
const FIRST_PORT: u16 = 10_000;

/// Every endpoint that may answer does, no other one, and each sees the right address.
#[test]
fn each_row_of_the_tables_has_exactly_its_endpoints() {
    let cluster = Cluster::start("rows", ALL.flags);
    let policies = [(1, (Policy::Cluster, Policy::Local)), (2, (Policy::Local, Policy::Cluster))];
    let services = policies.map(|(number, policies)| Service::plain(number, policies, ENDPOINTS));
    let objects: Vec<_> = services.iter().flat_map(|service| service.objects(&cluster)).collect();
    cluster.apply("rows", &objects);
    let mut ports = ORIGINS.iter().zip(0..).map(|(_, index)| {
        let first = FIRST_PORT + index * PORTS;
        first..first + PORTS
    });
    let mut ports: [Range<u16>; ORIGINS.len()] = ORIGINS.map(|_| ports.next().expect("as many"));
    let mut faults = Vec::new();
    for service in &services {
        let tried = thread::scope(|scope| {
            let columns = ORIGINS.into_iter().zip(0..).zip(&mut ports);
            let trying = columns.map(|((origin, column), ports)| {
                let cluster = &cluster;
                scope.spawn(move || try_column(cluster, service, (origin, column), ports))
            });
            let trying: Vec<_> = trying.collect();
            trying.into_iter().map(|thread| thread.join().expect("it reports its own panic")).collect::<Vec<_>>()
        });
        faults.extend(tried.into_iter().flatten());
    }
    assert!(faults.is_empty(), "{} cells are wrong:\n{}", faults.len(), faults.join("\n"));
}

/// A cell of the tables, in one family and protocol.
struct Cell {
    target: Target,
    frontend: Frontend,
    /// Who answers, and which client it sees; empty for silence.
    wanted: BTreeMap<String, IpAddr>,
    heard: BTreeMap<String, IpAddr>,
}

impl Cell {
    fn is_complete(&self) -> bool {
        self.heard == self.wanted
    }

    fn dials(&self) -> usize {
        if self.wanted.is_empty() { UNANSWERED } else { DIALS }
    }

    /// Takes an outcome; returns what is wrong with it.
    fn take(&mut self, outcome: &Outcome, origin: Origin) -> Option<String> {
        let is_right = match outcome {
            Outcome::Answered(answer) => {
                self.heard.insert(answer.who.clone(), answer.client.ip());
                self.wanted.get(&answer.who) == Some(&answer.client.ip())
            }
            // The call of a process of the node fails at once where a packet would be dropped.
            Outcome::Denied => self.wanted.is_empty() && matches!(origin, Origin::Node(_)),
            outcome => self.wanted.is_empty() && *outcome == Outcome::Silence,
        };
        (!is_right).then(|| self.describe(origin, &format!("{outcome:?}")))
    }

    fn describe(&self, origin: Origin, fault: &str) -> String {
        let Self { target, frontend, wanted, .. } = self;
        format!("{origin:?} -> {frontend:?} {}/{}: {fault}, wanted {wanted:?}", target.to, target.proto.name())
    }
}

/// Dials a Service's cells of one column until all are complete; returns what is wrong.
fn try_column(
    cluster: &Cluster,
    service: &Service,
    (origin, column): (Origin, usize),
    ports: &mut Range<u16>,
) -> Vec<String> {
    let mut cells = cells(cluster, service, (origin, column));
    let mut faults = BTreeSet::new();
    for round in 0..ROUNDS {
        let open = cells.iter_mut().filter(|cell| round == 0 || !cell.is_complete());
        let mut dialled: Vec<(&mut Cell, Vec<Target>)> = open
            .map(|cell| {
                let ports = ports.by_ref().take(cell.dials());
                let targets = ports.map(|port| Target { port, ..cell.target }).collect();
                (cell, targets)
            })
            .collect();
        let targets: Vec<Target> = dialled.iter().flat_map(|(_, targets)| targets.iter().copied()).collect();
        let mut outcomes = dial_many(netns(cluster, origin), &targets).into_iter();
        for (cell, targets) in &mut dialled {
            faults.extend(outcomes.by_ref().take(targets.len()).filter_map(|outcome| cell.take(&outcome, origin)));
        }
    }
    let incomplete = cells.iter().filter(|cell| !cell.is_complete());
    faults.extend(incomplete.map(|cell| cell.describe(origin, &format!("only {:?} answered", cell.heard))));
    faults.into_iter().collect()
}

fn cells(cluster: &Cluster, service: &Service, (origin, column): (Origin, usize)) -> Vec<Cell> {
    let mut cells = Vec::new();
    for family in FAMILIES {
        let addresses = frontends(service, family);
        for (_, frontend, columns) in ROWS.iter().filter(|(number, ..)| *number == service.number) {
            let (_, to) = *addresses.iter().find(|(other, _)| other == frontend).expect("it has all of them");
            let answering = ENDPOINTS.iter().filter(|place| match columns[column] {
                All => true,
                Here => place.node() == 1,
                No => false,
            });
            let wanted = answering.map(|place| (place.name(), sees(cluster, (*frontend, origin), *place, family)));
            let wanted: BTreeMap<String, IpAddr> = wanted.collect();
            let bound = matches!(origin, Origin::Outside(_)).then(|| source(cluster, origin, family));
            cells.extend([Proto::TCP, Proto::UDP].map(|proto| Cell {
                target: Target { source: bound, port: 0, to, proto },
                frontend: *frontend,
                wanted: wanted.clone(),
                heard: BTreeMap::new(),
            }));
        }
    }
    cells
}

/// The client's address as an endpoint sees it: a pod keeps its own (LB-02), a client outside keeps it at endpoints of
/// the node that decides, and behind that node has this node's.
fn sees(cluster: &Cluster, (frontend, origin): (Frontend, Origin), place: Place, family: Family) -> IpAddr {
    let own = source(cluster, origin, family);
    let decides = match frontend {
        Frontend::NodePort(node) => node,
        _ => origin.node(),
    };
    let is_elsewhere = decides != origin.node();
    match origin {
        Origin::Pod(..) | Origin::Node(_) if !is_elsewhere => own,
        _ if place.node() != decides => cluster.node(decides).address(family),
        // The CNI masquerades what pods send to nodes.
        Origin::Pod(_, node) => cluster.node(node).address(family),
        _ => own,
    }
}
