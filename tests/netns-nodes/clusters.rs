//! Random clusters: each address of each Service is dialled from pods, from nodes and from outside, and what happens is
//! what the oracle says kube-proxy does.
//!
//! `LB_CLUSTERS=N` tries N clusters instead of [`USUAL`], and `LB_CLUSTER_SEED=S` begins with another seed. The seeds are
//! printed.

mod oracle;
mod plan;
mod probes;

use std::collections::BTreeSet;
use std::env;
use std::net::IpAddr;

use lb_tests::address::{BALANCERS, CLUSTER, EXTERNAL_IPS, FAMILIES};
use lb_tests::nodes::Cluster;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use plan::Service;
use probes::{Ports, Report};

/// Clusters in an ordinary run.
const USUAL: u64 = 3;
const FIRST_SEED: u64 = 1;
/// Services of a cluster.
const SERVICES: u8 = 12;
/// Clusters that the same agents serve one after the other. Neither addresses nor source ports are used again.
const IN_TURN: usize = 4;
/// All dials of a cluster are half-open at the same moment.
const FLAGS: [&str; 4] = ["--services", "all", "--flows-max", "65536"];

#[test]
fn random_clusters_are_served_as_kube_proxy_serves_them() {
    let setting = |name: &str, usual| env::var(name).map_or(usual, |value| value.parse().expect("a number"));
    let (first, count) = (setting("LB_CLUSTER_SEED", FIRST_SEED), setting("LB_CLUSTERS", USUAL));
    println!("seeds {first} to {}", first + count - 1);
    let mut report = Report::default();
    let seeds: Vec<u64> = (first..first + count).collect();
    for turn in seeds.chunks(IN_TURN) {
        let cluster = Cluster::start("random", &FLAGS);
        let (mut number, mut ports) = (1, Ports::all());
        for seed in turn {
            let services = draw(*seed, number);
            number += SERVICES;
            try_one(&cluster, *seed, &services, &mut ports, &mut report);
        }
    }
    report.conclude();
}

/// The Services of a cluster, by its seed.
fn draw(seed: u64, first: u8) -> Vec<Service> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    (first..first + SERVICES)
        .map(|number| plan::service(number).new_tree(&mut runner).expect("nothing is filtered").current())
        .collect()
}

fn try_one(cluster: &Cluster, seed: u64, services: &[Service], ports: &mut Ports, report: &mut Report) {
    let objects: Vec<_> = services.iter().flat_map(|service| service.objects(cluster)).collect();
    cluster.apply("cluster", &objects);
    let watch = cluster.watch();
    let before = report.faults();
    probes::dial_all(cluster, seed, services, ports, report);
    probes::ask_checks(cluster, seed, services, report);
    if report.faults() == before {
        watch.assert_clean(&cluster.outside, &left_alone(services));
    }
}

/// The addresses that are not the nodes' business: in mode Proxy, and those of a family that the Service lacks.
fn left_alone(services: &[Service]) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::new();
    for service in services {
        for family in FAMILIES {
            let is_served = service.families.contains(&family);
            if service.mode == "Proxy" || !is_served {
                addresses.insert(BALANCERS.host(family, service.number));
            }
            if !is_served {
                addresses.extend([CLUSTER.host(family, service.number), EXTERNAL_IPS.host(family, service.number)]);
            }
        }
    }
    addresses
}
