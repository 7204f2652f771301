//! The kernel and the host treat random packets alike, byte for byte. Needs root.

use lb_common::table::Direction;
use lb_common::verdict::HookAction;
use lb_tests::cases::{Net, Scene};
use lb_tests::machine::{HostMachine, KernelMachine, Machine, Program};
use lb_tests::packet::{Described, Transport};
use lb_tests::random::{config, small_world, steps};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

#[test]
fn kernel_does_what_the_host_does() {
    let mut kernel = KernelMachine::load("properties");
    let mut runner = TestRunner::new(config(1));
    let mut compared = 0_u32;
    for net in [Net::V4, Net::V6] {
        kernel.reset();
        small_world(&mut Scene::new(net, &mut kernel));
        remember_hairpins(net, &mut kernel);
        for _ in 0..1_000 {
            kernel.forget_flows();
            let mut host = HostMachine::default();
            small_world(&mut Scene::new(net, &mut host));
            remember_hairpins(net, &mut host);
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

/// An interface is marked for ever once its pod has reached itself: both machines begin with that mark.
fn remember_hairpins(net: Net, machine: &mut dyn Machine) {
    let packet = Described::new(Transport::Udp, (net.client().0, 1), net.other_vip()).bytes();
    assert_eq!(machine.run(Program::WorkloadIngress, &packet).0, HookAction::SendBack);
    machine.evict(Direction::Request);
    machine.evict(Direction::Reply);
}

/// Whether a source port was drawn at random: from then on the two may differ.
fn is_a_matter_of_chance(host: &HostMachine) -> bool {
    host.drawn_ports() > 0
}
