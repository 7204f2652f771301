//! The packet cases on the packet path compiled for the host. No privilege.

use lb_tests::cases::{self, Net, Scene};
use lb_tests::machine::HostMachine;

fn run_all(machine: fn() -> HostMachine) {
    for (name, case) in cases::all() {
        for net in [Net::V4, Net::V6] {
            println!("{name} {net:?}");
            case(&mut Scene::new(net, &mut machine()));
        }
    }
}

#[test]
fn packet_cases_on_the_host() {
    run_all(HostMachine::default);
}

#[test]
fn packet_cases_with_checksum_offload() {
    run_all(HostMachine::with_checksum_offload);
}
