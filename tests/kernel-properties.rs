//! The kernel does with random packets, byte for byte, what the host does. Needs root.

use lb_common::table::Direction;
use lb_common::verdict::Action;
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

/// That a pod has reached itself is remembered for as long as the interface lives: both machines begin with it.
fn remember_hairpins(net: Net, machine: &mut dyn Machine) {
    let packet = Described::new(Transport::Udp, (net.client().0, 1), net.other_vip()).bytes();
    assert_eq!(machine.run(Program::WorkloadIngress, &packet).0, Action::SendBack);
    machine.evict(Direction::Request);
    machine.evict(Direction::Reply);
}

/// Whether a source port was chosen at random: from then on the two may rightly differ.
fn is_a_matter_of_chance(host: &HostMachine) -> bool {
    host.drawn_ports() > 0
}
