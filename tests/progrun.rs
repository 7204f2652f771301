//! The packet cases on the programs in the kernel. Needs root.

use lb_tests::cases::{self, Net, Scene};
use lb_tests::machine::KernelMachine;

#[test]
fn packet_cases_in_the_kernel() {
    let mut machine = KernelMachine::load("cases");
    for (name, case) in cases::all() {
        for net in [Net::V4, Net::V6] {
            println!("{name} {net:?}");
            machine.reset();
            case(&mut Scene::new(net, &mut machine));
        }
    }
}
