//! The packet cases on the programs in the kernel, one test for each case and family, named `kernel::MODULE::CASE::v4`.
//! Needs root.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use lb_tests::cases::{self, Scene};
use lb_tests::machine::KernelMachine;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    // One machine for all cases, from the first that runs: loading the programs takes seconds.
    let machine: Arc<Mutex<Option<KernelMachine>>> = Arc::default();
    let shared = Arc::clone(&machine);
    let trials = cases::trials("kernel", move |case, net| {
        // If a case failed, emptying the tables restores the machine.
        let mut machine = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = machine.get_or_insert_with(|| KernelMachine::load("cases"));
        machine.reset();
        case(&mut Scene::new(net, machine));
    });
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
