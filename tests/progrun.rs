//! The packet cases on the programs in the kernel, one test for each case and family, named `kernel::MODULE::CASE::v4`.
//! Needs root.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use lb_tests::cases::{self, Scene};
use lb_tests::machine::KernelMachine;
use libtest_mimic::Arguments;

fn main() -> ExitCode {
    // One for all, from the first case that runs: loading the programs takes seconds.
    let machine: Arc<Mutex<Option<KernelMachine>>> = Arc::default();
    let shared = Arc::clone(&machine);
    let trials = cases::trials("kernel", move |case, net| {
        // A case that failed leaves nothing that emptying the tables does not mend.
        let mut machine = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = machine.get_or_insert_with(|| KernelMachine::load("cases"));
        machine.reset();
        case(&mut Scene::new(net, machine));
    });
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
