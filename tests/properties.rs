//! Properties of the packet path: it never panics and never reads past the end, a reply undoes its request, and the
//! kernel does with random packets, byte for byte, what the host does.

use lb_common::checksum;
use lb_common::verdict::Action;
use lb_tests::cases::{Net, Scene};
use lb_tests::machine::{HostMachine, KernelMachine, Machine, Program};
use lb_tests::packet::{Described, End, Transport};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

const PROGRAMS: [Program; 4] =
    [Program::WorkloadIngress, Program::WorkloadEgress, Program::UplinkIngress, Program::UplinkEgress];

fn net() -> impl Strategy<Value = Net> {
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

fn transport() -> impl Strategy<Value = Transport> {
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

fn steps(net: Net) -> impl Strategy<Value = Vec<(Program, Vec<u8>)>> {
    vec((prop::sample::select(PROGRAMS.to_vec()), packet(net)), 1..24)
}

/// Two Services on one backend, one that rejects, one that passes: every pool has one backend, so that chance decides
/// nothing but a source port.
fn small_world(scene: &mut Scene<'_>) {
    use lb_common::addr::Proto;
    use lb_common::table::Scope;
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

#[test]
fn random_bytes_never_panic() {
    let mut runner = TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
    let strategy = (vec(any::<u8>(), 0..200), prop::sample::select(PROGRAMS.to_vec()), any::<bool>());
    let result = runner.run(&strategy, |(mut bytes, program, is_v6)| {
        if bytes.len() > 14 {
            // Let most get past the EtherType and the version.
            bytes[12..14].copy_from_slice(if is_v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
            bytes[14] = if is_v6 { 0x60 } else { 0x40 | (bytes[14] & 0x0f) };
        }
        let mut machine = HostMachine::default();
        let net = if is_v6 { Net::V6 } else { Net::V4 };
        small_world(&mut Scene::new(net, &mut machine));
        let (action, after) = machine.run(program, &bytes);
        prop_assert_eq!((action, after), (Action::Next, bytes));
        Ok(())
    });
    result.expect("random bytes meet no frontend, pass, and stay as they are");
}

#[test]
fn reply_undoes_request() {
    let mut runner = TestRunner::new(Config { cases: 2_000, failure_persistence: None, ..Config::default() });
    let strategy = (net(), any::<u16>(), any::<u16>(), 0_u8..200, transport());
    let result = runner.run(&strategy, |(net, client_port, backend_port, host, transport)| {
        let transport = if matches!(transport, Transport::Tcp(_)) { Transport::Tcp(2) } else { transport };
        let client = (net.host(host), client_port);
        let backend = (net.host(230), backend_port);
        let mut machine = HostMachine::default();
        let mut scene = Scene::new(net, &mut machine);
        scene.service(transport, &[backend]);
        let (from, to) = scene.through(Program::WorkloadIngress, transport, client, net.vip());
        let (back_from, back_to) = scene.through(Program::WorkloadEgress, transport, to, from);
        prop_assert_eq!((back_from, back_to), (net.vip(), client));
        Ok(())
    });
    result.expect("the reply seems to come from where the request went");
}

#[test]
fn incremental_checksum_equals_full() {
    let mut runner = TestRunner::new(Config { cases: 20_000, failure_persistence: None, ..Config::default() });
    let result =
        runner.run(&(vec(any::<u16>(), 1..40), any::<prop::sample::Index>(), any::<u16>()), |(mut words, at, new)| {
            let full = |words: &[u16]| !checksum::fold(words.iter().map(|word| u32::from(*word)).sum());
            let (before, at) = (full(&words), at.index(words.len()));
            let old = std::mem::replace(&mut words[at], new);
            let incremental = checksum::adjust(before, checksum::diff(u32::from(old), u32::from(new)));
            // 0 and 0xffff are the same number in one's complement.
            prop_assert_eq!(incremental % 0xffff, full(&words) % 0xffff);
            Ok(())
        });
    result.expect("RFC 1624");
}

/// Needs root.
#[test]
fn kernel_does_what_the_host_does() {
    let mut kernel = KernelMachine::load("properties");
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mut compared = 0_u32;
    for net in [Net::V4, Net::V6] {
        kernel.reset();
        small_world(&mut Scene::new(net, &mut kernel));
        for _ in 0..1_000 {
            kernel.forget_flows();
            let mut host = HostMachine::default();
            small_world(&mut Scene::new(net, &mut host));
            let steps = steps(net).new_tree(&mut runner).expect("a sequence").current();
            for (index, (program, packet)) in steps.iter().enumerate() {
                let (on_host, in_kernel) = (host.run(*program, packet), kernel.run(*program, packet));
                if is_a_matter_of_chance(&host) {
                    break;
                }
                assert_eq!(on_host, in_kernel, "step {index} of {steps:?}");
                compared += 1;
            }
        }
    }
    println!("{compared} packets compared");
    assert!(compared > 10_000, "only {compared} packets were compared");
}

/// Whether a source port was chosen at random: from then on the two may rightly differ.
fn is_a_matter_of_chance(host: &HostMachine) -> bool {
    host.drawn_ports() > 0
}
