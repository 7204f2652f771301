//! Properties of the packet path: it never panics and never reads past the end, a reply undoes its request, and
//! checksums are right. No privilege.

use std::cell::{Cell, RefCell};

use lb_common::checksum;
use lb_common::host::Stages;
use lb_common::verdict::HookAction;
use lb_tests::cases::{Net, Scene};
use lb_tests::machine::{HostMachine, Machine as _, Program};
use lb_tests::packet::Transport;
use lb_tests::random::{PROGRAMS, config, net, small_world, transport};
use lb_tests::reference::{Clock, Compared, FEW_EMBRYOS, Start, Step, play};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[test]
fn random_bytes_never_panic() {
    let mut runner = TestRunner::new(config(20_000));
    let strategy = (vec(any::<u8>(), 0..200), prop::sample::select(PROGRAMS.to_vec()), any::<bool>());
    let result = runner.run(&strategy, |(mut bytes, program, is_v6)| {
        if bytes.len() > 14 {
            // Most packets pass the checks of EtherType and version.
            bytes[12..14].copy_from_slice(if is_v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
            bytes[14] = if is_v6 { 0x60 } else { 0x40 | (bytes[14] & 0x0f) };
        }
        let mut machine = HostMachine::default();
        let net = if is_v6 { Net::V6 } else { Net::V4 };
        small_world(&mut Scene::new(net, &mut machine));
        let (action, after) = machine.run(program, &bytes);
        prop_assert_eq!((action, after), (HookAction::Next, bytes));
        Ok(())
    });
    result.expect("random bytes meet no frontend, pass, and stay as they are");
}

#[test]
fn reply_undoes_request() {
    let mut runner = TestRunner::new(config(2_000));
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
    let mut runner = TestRunner::new(config(20_000));
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

/// The second stage alone leaves the same packets, flows and counters as both stages together.
#[test]
fn the_straight_way_changes_nothing() {
    let (straight, detours) = (Cell::new(0_u64), Cell::new(0_u64));
    for (net, forwards) in [(Net::V4, false), (Net::V4, true), (Net::V6, false), (Net::V6, true)] {
        let start = Start { has_hairpins: false, embryos_max: 1_000, clock: Clock::Told, forwards };
        let result = TestRunner::new(config(histories() / 2)).run(&start.history(net), |history| {
            let (mut both, mut second) = (start.host(net), start.host(net));
            second.host.stages = Stages::Second;
            for machine in [&mut both, &mut second] {
                play(net, machine, start, &history).map_err(TestCaseError::fail)?;
            }
            prop_assert_eq!(both.host.flows::<[u8; 4]>(), second.host.flows::<[u8; 4]>());
            prop_assert_eq!(both.host.flows::<[u8; 16]>(), second.host.flows::<[u8; 16]>());
            prop_assert_eq!(both.host.counters(), second.host.counters());
            prop_assert_eq!(second.host.straight.get(), 0);
            straight.set(straight.get() + both.host.straight.get());
            detours.set(detours.get() + both.host.detours.get());
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{net:?}: {error}"));
    }
    let (straight, detours) = (straight.get(), detours.get());
    println!("{straight} packets went straight, {detours} did not");
    assert!(straight > 1_000 && detours > 1_000, "{straight} went straight, {detours} did not");
}

/// Histories of each family; `HISTORIES` changes the number.
fn histories() -> u32 {
    std::env::var("HISTORIES").map_or(400, |count| count.parse().expect("HISTORIES is a number"))
}

/// The same histories as in the kernel (`tests/reference.rs`), before any pod has reached itself.
#[test]
fn host_does_what_the_reference_says() {
    let sum = RefCell::new(Compared::default());
    let count = Cell::new(0_u32);
    for net in [Net::V4, Net::V6] {
        for (embryos_max, forwards) in [(FEW_EMBRYOS, false), (1_000, false), (FEW_EMBRYOS, true), (1_000, true)] {
            let start = Start { has_hairpins: false, embryos_max, clock: Clock::Told, forwards };
            let compare = |history: Vec<Step>| {
                count.set(count.get() + 1);
                let compared = play(net, &mut start.host(net), start, &history);
                sum.borrow_mut().add(&compared.map_err(TestCaseError::fail)?);
                Ok(())
            };
            let result = TestRunner::new(config(histories() / 2)).run(&start.history(net), compare);
            result.unwrap_or_else(|error| panic!("{net:?}, {start:?}: {error}"));
        }
    }
    let (sum, count) = (sum.into_inner(), count.get());
    println!("{count} histories: {sum:?}");
    assert!(sum.impossible * 50 < sum.packets, "too many packets were left out: {sum:?}");
    assert_eq!(sum.hits.missed(), [], "rules of the reference that no history meets");
}
