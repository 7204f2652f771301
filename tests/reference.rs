//! The kernel agrees with the reference about random histories, byte for byte and flow for flow. Needs root.

use std::cell::RefCell;

use lb_common::verdict::HookAction;
use lb_tests::cases::{Net, Scene};
use lb_tests::machine::{KernelMachine, Machine as _, Program};
use lb_tests::packet::{Described, Transport};
use lb_tests::random::{config, small_world};
use lb_tests::reference::{Clock, Compared, FEW_EMBRYOS, Start, history, play};
use proptest::test_runner::{TestCaseError, TestRunner};

/// More half-open flows than a history makes.
const MANY_EMBRYOS: usize = 1_024;

/// Histories of each family; `HISTORIES` changes the number.
fn histories() -> u32 {
    std::env::var("HISTORIES").map_or(400, |count| count.parse().expect("HISTORIES is a number"))
}

#[test]
fn kernel_does_what_the_reference_says() {
    KernelMachine::stay_on_one_cpu();
    let sum = RefCell::new(Compared::default());
    for embryos_max in [FEW_EMBRYOS, MANY_EMBRYOS] {
        let kernel = RefCell::new(KernelMachine::load_with_embryos("reference", embryos_max));
        let start = Start { has_hairpins: true, embryos_max, clock: Clock::Runs };
        for net in [Net::V4, Net::V6] {
            // An interface is marked for ever once its pod has reached itself.
            kernel.borrow_mut().reset();
            small_world(&mut Scene::new(net, &mut *kernel.borrow_mut()));
            let packet = Described::new(Transport::Udp, (net.client().0, 1), net.other_vip()).bytes();
            assert_eq!(kernel.borrow_mut().run(Program::WorkloadIngress, &packet).0, HookAction::SendBack);
            let result = TestRunner::new(config(histories() / 2)).run(&history(net), |history| {
                let mut kernel = kernel.borrow_mut();
                kernel.reset();
                let compared = play(net, &mut *kernel, start, &history).map_err(TestCaseError::fail)?;
                sum.borrow_mut().add(&compared);
                Ok(())
            });
            result.unwrap_or_else(|error| panic!("{net:?}, {start:?}: {error}"));
        }
    }
    let sum = sum.into_inner();
    println!("{} histories: {sum:?}", 2 * histories());
    assert!(sum.changed * 4 > sum.packets, "too few packets met anything: {sum:?}");
    assert_eq!(sum.hits.missed(), [], "rules of the reference that no history meets");
}
