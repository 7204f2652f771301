//! The kernel agrees with the reference about random histories, byte for byte and flow for flow. Needs root.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use lb_common::table::Counter;
use lb_common::verdict::HookAction;
use lb_tests::cases::{Net, Scene};
use lb_tests::machine::{KernelMachine, Machine as _, Program};
use lb_tests::packet::{Described, Transport};
use lb_tests::random::{config, small_world};
use lb_tests::reference::{Clock, Compared, FEW_EMBRYOS, FEW_PORTS, NODE, Start, Step, play};
use proptest::test_runner::{TestCaseError, TestRunner};

/// More half-open flows than a history makes.
const MANY_EMBRYOS: usize = 1_024;

/// Histories of each family; `HISTORIES` changes the number.
fn histories() -> u32 {
    std::env::var("HISTORIES").map_or(400, |count| count.parse().expect("HISTORIES is a number"))
}

#[test]
fn kernel_does_what_the_reference_says() {
    play_all(histories(), |kernel| kernel);
}

#[test]
fn driver_does_what_the_reference_says() {
    let driven = play_all(histories() / 10, KernelMachine::behind_driver_of_histories);
    println!("{driven} packets by the driver");
    // Histories are about all else. tests/kernel-driver.rs plays those of established flows.
    assert!(driven > 0, "the driver dealt with no packet");
}

/// One after the other: both keep to one CPU, and fragments wait for two seconds only.
static TURN: Mutex<()> = Mutex::new(());

/// Plays so many histories of each family and start. Returns how many packets the program of a driver dealt with.
fn play_all(count: u32, equip: fn(KernelMachine) -> KernelMachine) -> u64 {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    KernelMachine::stay_on_one_cpu();
    let mut driven = 0;
    let sum = RefCell::new(Compared::default());
    for (embryos_max, forwards) in
        [(FEW_EMBRYOS, false), (MANY_EMBRYOS, false), (FEW_EMBRYOS, true), (MANY_EMBRYOS, true)]
    {
        let kernel = RefCell::new(load(embryos_max, forwards, equip));
        let start = Start { has_hairpins: true, embryos_max, clock: Clock::Runs, forwards };
        for net in [Net::V4, Net::V6] {
            mark(net, &mut kernel.borrow_mut(), forwards);
            let compare = |history: Vec<Step>| {
                let mut kernel = kernel.borrow_mut();
                kernel.reset();
                let compared = play(net, &mut *kernel, start, &history).map_err(TestCaseError::fail)?;
                sum.borrow_mut().add(&compared);
                Ok(())
            };
            let result = TestRunner::new(config(count / 2)).run(&start.history(net), compare);
            result.unwrap_or_else(|error| panic!("{net:?}, {start:?}: {error}"));
        }
        driven += kernel.borrow().driven();
    }
    let sum = sum.into_inner();
    println!("{} histories: {sum:?}", 4 * count);
    assert!(sum.changed * 4 > sum.packets, "too few packets met anything: {sum:?}");
    assert!(sum.impossible * 50 < sum.packets, "too many packets were left out: {sum:?}");
    if count >= histories() {
        assert_eq!(sum.hits.missed(), [], "rules of the reference that no history meets");
    }
    driven
}

/// A machine; if it forwards, all endpoints of other nodes are behind its uplink.
fn load(embryos_max: usize, forwards: bool, equip: fn(KernelMachine) -> KernelMachine) -> KernelMachine {
    if !forwards {
        return equip(KernelMachine::load_with_embryos("reference", embryos_max));
    }
    let mut kernel = equip(KernelMachine::load_forwarding("reference", embryos_max, FEW_PORTS));
    let [v4, v6] = [Net::V4, Net::V6].map(|net| net.host(NODE));
    kernel.lead_out([v4, v6]);
    kernel
}

/// An interface is marked for ever once its pod has reached itself, and the uplink once the node has forwarded.
fn mark(net: Net, kernel: &mut KernelMachine, forwards: bool) {
    kernel.reset();
    small_world(&mut Scene::new(net, kernel));
    let mut sends = |program, from, to| {
        let packet = Described::new(Transport::Udp, from, to).bytes();
        kernel.run(program, &packet).0
    };
    assert_eq!(sends(Program::WorkloadIngress, (net.client().0, 1), net.other_vip()), HookAction::SendBack);
    if forwards {
        let own = (net.host(NODE), FEW_PORTS.first);
        assert_eq!(sends(Program::UplinkEgress, own, net.backend()), HookAction::Next);
        assert_eq!(kernel.counters().get(&Counter::DirectNoted), Some(&1), "the node's own connection");
    }
}
