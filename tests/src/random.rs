//! Random packets of a small world, in which packets meet frontends, flows and each other.

use lb_common::addr::Proto;
use lb_common::table::Scope;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use crate::cases::{Net, Scene};
use crate::machine::Program;
use crate::packet::{Described, End, Transport};

/// A number of cases, the same in each run; `PROPTEST_RNG_SEED` draws others.
pub fn config(cases: u32) -> Config {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    match config.rng_seed {
        RngSeed::Random => Config { rng_seed: RngSeed::Fixed(6_272), ..config },
        RngSeed::Fixed(_) => config,
    }
}

pub const PROGRAMS: [Program; 4] =
    [Program::WorkloadIngress, Program::WorkloadEgress, Program::UplinkIngress, Program::UplinkEgress];

/// Either family.
pub fn net() -> impl Strategy<Value = Net> {
    prop_oneof![Just(Net::V4), Just(Net::V6)]
}

/// Few hosts and ports, so that packets meet frontends, flows and each other.
fn end(net: Net) -> impl Strategy<Value = End> {
    (
        prop_oneof![Just(2_u8), Just(20), Just(21), Just(100), Just(101)],
        prop_oneof![Just(80_u16), Just(8080), Just(8081), Just(40_000), Just(40_001)],
    )
        .prop_map(move |(host, port)| (net.host(host), port))
}

/// Any transport, TCP with any flags.
pub fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        4 => (0_u8..32).prop_map(Transport::Tcp),
        2 => Just(Transport::Tcp(2)),
        2 => Just(Transport::Udp),
        1 => Just(Transport::UdpUnsummed),
        1 => Just(Transport::Sctp),
    ]
}

/// A packet of the small world, whole or damaged.
fn packet(net: Net) -> impl Strategy<Value = Vec<u8>> {
    let whole = (transport(), end(net), end(net), vec(any::<u8>(), 0..64), 0_usize..4).prop_map(
        move |(transport, from, to, payload, options)| {
            let options_len = match (net, options) {
                (_, 0) => 0,
                (Net::V4, words) => words * 4,
                (Net::V6, units) => units * 8 - 2,
            };
            Described { payload, options_len, ..Described::new(transport, from, to) }.bytes()
        },
    );
    let damage = prop_oneof![3 => Just(None), 1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(Some)];
    let cut = prop_oneof![5 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (whole, damage, cut).prop_map(|(mut bytes, damage, cut)| {
        if let Some((index, byte)) = damage {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            // A test run refuses a packet that is shorter than the network header that its EtherType names.
            bytes.truncate(cut.index(bytes.len()).max(14 + 40));
        }
        bytes
    })
}

/// Packets in order of arrival, with their hooks.
pub fn steps(net: Net) -> impl Strategy<Value = Vec<(Program, Vec<u8>)>> {
    vec((prop::sample::select(PROGRAMS.to_vec()), packet(net)), 1..24)
}

/// Two Services with one backend, one that rejects, one that passes. Every pool has one backend, so only source ports
/// are random.
pub fn small_world(scene: &mut Scene<'_>) {
    let net = scene.net;
    for (index, proto) in [Proto::TCP, Proto::UDP, Proto::SCTP].into_iter().enumerate() {
        let id = u32::try_from(index).expect("small") * 10;
        let balance = scene.pool(id + 1, &[net.backend()]);
        scene.frontend(id + 1, net.vip(), proto, balance);
        let itself = scene.pool(id + 2, &[(net.client().0, 8080)]);
        scene.frontend(id + 2, net.other_vip(), proto, itself);
        scene.frontend(id + 3, (net.vip().0, 8080), proto, Scope::REJECT);
        scene.frontend(id + 4, (net.vip().0, 8081), proto, Scope::PASS);
    }
}
