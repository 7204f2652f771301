//! Random clusters: each address of each Service is dialled from pods, from nodes and from outside, and what happens is
//! what the oracle says kube-proxy does.
//!
//! `LB_CLUSTERS=N` tries N clusters instead of [`USUAL`], and `LB_CLUSTER_SEED=S` begins with another seed. The seeds are
//! printed.

mod oracle;
mod plan;
mod probes;
mod rows;

use std::collections::BTreeSet;
use std::env;
use std::net::IpAddr;

use lb_tests::address::{BALANCERS, CLUSTER, EXTERNAL_IPS, FAMILIES};
use lb_tests::nodes::Cluster;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use oracle::{Manner, Services};
use plan::Service;
use probes::{Drawn, Ports, Report};

/// Clusters in an ordinary run.
const USUAL: u64 = 3;
const FIRST_SEED: u64 = 1;
/// Services of a cluster.
const SERVICES: u8 = 12;
/// Clusters that the same agents serve one after the other: each Service is replaced by another one that has its name
/// and its addresses. Source ports are not used again.
const IN_TURN: usize = 4;

/// In kube-proxy's place. All dials of a cluster are half-open at the same moment, so the tables are large.
const ALL: Manner = Manner { flags: &["--services", "all", "--flows-max", "65536"], services: Services::All };

#[test]
fn random_clusters_are_served_as_kube_proxy_serves_them() {
    try_many(ALL);
}

/// Beside kube-proxy, only balancers' addresses are served, and all others are left alone.
#[test]
fn random_clusters_have_their_balancers_addresses_served_alone() {
    let flags = &["--services", "lb", "--uplink-interfaces", "auto", "--flows-max", "65536"];
    try_many(Manner { flags, services: Services::Balancers });
}

fn try_many(manner: Manner) {
    let setting = |name: &str, usual| env::var(name).map_or(usual, |value| value.parse().expect("a number"));
    let (first, count) = (setting("LB_CLUSTER_SEED", FIRST_SEED), setting("LB_CLUSTERS", USUAL));
    println!("seeds {first} to {}", first + count - 1);
    let mut report = Report::default();
    let seeds: Vec<u64> = (first..first + count).collect();
    let test = if manner.services == Services::All { "random" } else { "randomlb" };
    for turn in seeds.chunks(IN_TURN) {
        let cluster = Cluster::start(test, manner.flags);
        let mut ports = Ports::all();
        for seed in turn {
            let drawn = Drawn { seed: *seed, manner, services: draw(*seed) };
            try_one(&cluster, &drawn, &mut ports, &mut report);
        }
    }
    report.conclude(manner);
}

/// The Services of a cluster, by its seed.
fn draw(seed: u64) -> Vec<Service> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    (1..=SERVICES)
        .map(|number| plan::service(number).new_tree(&mut runner).expect("nothing is filtered").current())
        .collect()
}

fn try_one(cluster: &Cluster, drawn: &Drawn, ports: &mut Ports, report: &mut Report) {
    let objects: Vec<_> = drawn.services.iter().flat_map(|service| service.objects(cluster)).collect();
    cluster.apply("cluster", &objects);
    // Rows of the cluster before this one are deleted before another change begins.
    cluster.apply("another", &[]);
    let watch = cluster.watch();
    let before = report.faults();
    probes::dial_all(cluster, &watch, drawn, ports, report);
    probes::ask_checks(cluster, drawn, report);
    if report.faults() == before {
        watch.assert_clean(&cluster.outside, &left_alone(drawn));
    }
}

/// The addresses that are not the nodes' business: in mode Proxy, those of a family that the Service lacks, and those
/// that the agents leave to kube-proxy.
fn left_alone(drawn: &Drawn) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for service in &drawn.services {
        for family in FAMILIES {
            let is_served = service.families.contains(&family);
            if service.mode == "Proxy" || !is_served {
                addresses.insert(BALANCERS.host(family, service.number));
            }
            if !is_served || drawn.manner.services == Services::Balancers {
                addresses.extend([CLUSTER.host(family, service.number), EXTERNAL_IPS.host(family, service.number)]);
            }
        }
    }
    addresses
}
